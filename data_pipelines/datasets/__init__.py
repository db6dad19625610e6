"""From a data set on disk to a list of pairs."""
