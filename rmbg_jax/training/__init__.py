"""Trains a network: from a configuration to checkpoints and logs."""
