"""Makes batches from pairs: reads, augments, loads."""
