"""``python -m imgproxy_cache.engine``: the engine alone, as imgproxy's binary would run."""

import os
import sys

from imgproxy_cache.engine.app import serve

sys.exit(serve(os.environ))
