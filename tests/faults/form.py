"""
Short or long: `make test` asks what is lost, `make soak` asks it more often.

``FAULTS=long`` chooses the long form.
"""

import os
from typing import TypeVar

IS_LONG = os.environ.get("FAULTS") == "long"

T = TypeVar("T")


def short_or_long(short: T, long: T) -> T:
    return long if IS_LONG else short
