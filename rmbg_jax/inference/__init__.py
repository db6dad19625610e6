"""From photo files to masks and cut-outs: what `predict.py` is made of."""
