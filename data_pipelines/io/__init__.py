"""Files, images and errors, which all other rooms use."""
