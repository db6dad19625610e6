"""Lists the endings of files' names by their content."""

JPEG = frozenset({'.jpg', '.jpeg', '.jpe', '.jfif'})
# Endings of pictures in data sets.
IMAGE = JPEG | {
  *('.png', '.webp', '.tif', '.tiff', '.bmp', '.gif', '.jp2', '.avif')
}
# Endings of photos to cut out.
PHOTO = IMAGE | {'.heic', '.heif', '.hif', '.mpo', '.apng', '.j2k', '.jpx'}
CLIP = frozenset({'.mp4', '.m4v', '.mov', '.webm', '.mkv', '.avi'})
