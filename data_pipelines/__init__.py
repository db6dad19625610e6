"""Makes batches of arrays from image files. Knows nothing of the network."""
