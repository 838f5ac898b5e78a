"""Files that stay open, beside connections."""

from __future__ import annotations

import resource


def share_of_descriptors(most: int) -> int:
    """
    How many a tier may keep open: `most`, or a quarter of what the process may open.

    There are two such tiers: half is left for connections.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(most, soft // 4)
