"""Measures time and memory, beside what each figure is compared with."""
