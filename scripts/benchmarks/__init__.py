"""Measures time and memory, beside other programs."""
