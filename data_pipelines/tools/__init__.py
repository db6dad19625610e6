"""What is done to data sets: making, checking, fetching them."""
