"""Loads trained networks and foreign weights. Start at `load.py`."""
