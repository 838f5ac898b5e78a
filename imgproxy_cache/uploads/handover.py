"""What the store has confirmed goes on to a tier on this machine, from the spool as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from imgproxy_cache.core.kept import Kept, KeptAnswer, TierKey, signpost_to, tier_key
from imgproxy_cache.uploads.pending import Pending, Upload
from imgproxy_cache.uploads.spooling import Spooling


class ConfirmedImages(Protocol):
    """
    Keeps the answers that the store has, near at hand, for as long as there is room.

    Nothing is lost by what it does not keep, and nothing here raises but for what is said.
    """

    def put(self, key: TierKey, kept: Kept) -> None:
        """Keep it, or leave it; called in the event loop, and does not stall it."""

    def take_over(self, path: Path, key: TierKey) -> None:
        """
        Move a file of the spool here, or remove it where that cannot be.

        What was received later than the file's answer keeps its place: the file may have been in
        the spool for hours.  Blocks, and is called in the spool's thread.

        Raises:
            OSError: it could not even be removed
        """


def hand_over(disk: ConfirmedImages, spool: Spooling | None, pending: Pending) -> None:
    """
    Let `disk` have an image that the store has, and no newer one of its key is known of: its
    file, where there is one, which the spool gives up.
    """
    upload = pending.upload
    kept = pending.kept if upload is None else upload.kept
    if kept is None:
        return
    if kept.selection:  # the image is found by way of this
        disk.put(tier_key(kept.name), signpost_to(kept))
    key = tier_key(kept.name, kept.selection)
    if pending.file is not None and spool is not None:
        file, pending.file = pending.file, None
        spool.forget(file, hand_over_as=key)
    elif upload is not None:
        disk.put(key, _with_body(kept, upload))


def _with_body(kept: KeptAnswer, upload: Upload) -> KeptAnswer:
    body, content_sha256 = upload.whole()  # which the attempt has made
    return replace(kept, body=body, content_sha256=content_sha256)
