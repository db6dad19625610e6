"""From pairs to batches: reading, augmenting, loading."""
