"""Does many photos: lists them, runs them at once, keeps a report."""
