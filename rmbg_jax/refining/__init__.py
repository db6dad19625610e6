"""Trains the refiner (`models/refiner.py`): its data, its windows, its loop."""
