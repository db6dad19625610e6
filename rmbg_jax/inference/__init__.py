"""Cuts out one photo: from its file to its mask and its cut-out."""
