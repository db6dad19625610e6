"""Turns photo files into masks and cut-outs, for `predict.py`."""
