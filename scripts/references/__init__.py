"""What tests and benchmarks compare with: other frameworks, made-up data."""
