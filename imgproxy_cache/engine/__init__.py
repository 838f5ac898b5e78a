"""The embedded engine: a small server that answers imgproxy's URLs with libvips."""
