"""
Found by every Python that has this folder on its path: a disk that fails.

While the file named by FAILING_DISK is there, no fsync succeeds.
"""

import errno
import os
from typing import Any

_fsync = os.fsync


def fsync(descriptor: Any) -> None:
    if os.path.exists(os.environ["FAILING_DISK"]):  # noqa: PTH110 - pathlib takes long to import
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    _fsync(descriptor)


os.fsync = fsync  # type: ignore[assignment]
