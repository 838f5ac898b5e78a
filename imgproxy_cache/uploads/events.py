"""What is told of the images on their way to the store; the metrics count it."""

from __future__ import annotations

from typing import Protocol


class UploadEvents(Protocol):
    """
    Is told what becomes of every image that was offered, or found in the spool.

    Sizes are in bytes, ages in seconds since the image was accepted.
    """

    def accepted(self, size: int) -> None:
        """It waits for its upload."""

    def adopted(self, size: int, age: float) -> None:
        """An earlier run, or a worker that died, has left it in the spool: it waits again."""

    def spooled(self, size: int, age: float) -> None:
        """It survives a restart from now on."""

    def retried(self, size: int, kind: str) -> None:
        """An attempt failed, and there will be another: the kind of the StoreError."""

    def stored(self, size: int, age: float, seconds: float) -> None:
        """The store has it; `seconds` of the upload alone."""

    def unchanged(self, size: int) -> None:
        """The store had it, or it waits for its upload already."""

    def superseded(self, size: int) -> None:
        """A newer image of its key took its place before it was stored."""

    def failed(self, size: int, kind: str) -> None:
        """Given up: the store will not have it, and there is no spool to keep it in."""

    def quarantined(self, size: int) -> None:
        """Set aside in the spool: it is damaged, or the store will not have it."""

    def dropped(self, size: int) -> None:
        """There was no room for it."""

    def expired(self, size: int, age: float) -> None:
        """It waited for too long."""

    def left(self, items: int, size: int) -> None:
        """So many are in the spool at the end, for the next start."""

    def abandoned(self, items: int, size: int) -> None:
        """So many were lost at the end: neither stored nor in the spool."""
