"""Tools for data sets: prepare, check, download them."""
