"""Size of the low-resolution raster that dense signals are measured on, and of its thumbnail. Pixels."""

RASTER_WIDTH, RASTER_HEIGHT = 96, 54
THUMB_WIDTH, THUMB_HEIGHT = RASTER_WIDTH // 2, RASTER_HEIGHT // 2
