"""Configurations. Each file's docstring gives its command, time and result."""
