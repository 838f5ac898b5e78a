"""`python -m imgproxy_cache` is `imgproxy-cache`."""

import sys

from imgproxy_cache.cli import main

if __name__ == "__main__":
    sys.exit(main())
