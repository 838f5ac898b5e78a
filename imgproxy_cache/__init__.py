"""A caching sidecar for imgproxy."""
