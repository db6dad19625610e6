"""Files, images and errors: what everything else is written with."""
