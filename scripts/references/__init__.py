"""References for tests and benchmarks: other frameworks, made-up data."""
