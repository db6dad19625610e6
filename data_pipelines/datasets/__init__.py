"""Reads data sets on disk as lists of pairs."""
