"""From image files to batches of arrays. Knows nothing of the network."""
