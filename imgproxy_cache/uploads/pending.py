"""One accepted image on its way to the store."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from hashlib import sha256

from imgproxy_cache.core.image import Image, time_in_words
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.core.spool_file import SpooledImage
from imgproxy_cache.uploads.spool_folder import SpoolFile

# Hashing takes 1 ms a megabyte: the event loop does it for small images at most.
INLINE_BYTES = 256 * 1024
# A large image is joined by one thread at a time: until its chunks have gone, it is there twice.
_joining = threading.Lock()


@dataclass(slots=True, eq=False)
class Upload:
    """
    A whole image as it came from imgproxy; `path` is the raw one, without its query.

    Joined and hashed once, by the thread that needs it first.
    """

    key: Key
    path: bytes
    chunks: tuple[bytes, ...]
    size: int
    content_type: str
    cache_control: str | None
    content_disposition: str | None
    content_sha256: str = ""
    kept: KeptAnswer | None = None
    """With read-through: the answer as the tiers keep it, without its body."""
    replaces: bool = False
    """What the store has under the key was found to be broken, whatever it says of itself."""

    def whole(self) -> tuple[bytes, str]:
        """
        The image and its SHA-256; about 1 ms a megabyte, when it is called first.

        Two threads that are first at once do the same twice, and no harm.
        """
        if self.size > INLINE_BYTES and not (self.content_sha256 and len(self.chunks) == 1):
            with _joining:
                return self._whole()
        return self._whole()

    def _whole(self) -> tuple[bytes, str]:
        chunks = self.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks = (body,)
        del chunks
        if not self.content_sha256:
            self.content_sha256 = sha256(body).hexdigest()
        return body, self.content_sha256


@dataclass(slots=True, eq=False)
class Pending:
    """
    An image that the store does not have yet: in memory (`upload`), in the spool (`file`), or both.

    `accepted_at` is in seconds since the epoch, `due_at` on the event loop's clock.
    """

    key: Key
    accepted_at: float
    due_at: float
    size: int
    upload: Upload | None
    file: SpoolFile | None = None
    content_sha256: str = ""
    attempts: int = 0
    strikes: int = 0
    """Failures while the store took other images."""
    successes_seen: int = -1
    was_read: bool = False
    """Its bytes were read from the spool, for the upload that is under way."""
    is_probe: bool = False
    """On its way to see whether the store is back."""
    is_done: bool = False
    path: bytes = b""
    """Empty for an image that was found in the spool and not read yet."""
    kept: KeptAnswer | None = None
    """What its file says of the answer, once it was read from there."""

    @property
    def printable_path(self) -> str:
        return printable_target(self.path)

    def is_same_as(self, upload: Upload) -> bool:
        """Whether this is known to be the same image; large ones in the spool are not read."""
        if self.is_done or self.size != upload.size or self.path not in (b"", upload.path):
            return False
        if self.upload is not None:
            return self.upload.chunks == upload.chunks or (
                b"".join(self.upload.chunks) == b"".join(upload.chunks)
            )
        return (
            upload.size <= INLINE_BYTES
            and self.content_sha256 == sha256(b"".join(upload.chunks)).hexdigest()
        )


def image_from_upload(upload: Upload, accepted_at: float) -> Image:
    """The image to store."""
    body, content_sha256 = upload.whole()
    return Image(
        body=body,
        content_type=upload.content_type,
        cache_control=upload.cache_control,
        content_disposition=upload.content_disposition,
        path_sha256=sha256(upload.path).hexdigest(),
        content_sha256=content_sha256,
        stored_at=_stored_at(accepted_at, upload.kept),
    )


def spooled_from_upload(upload: Upload, accepted_at: float) -> tuple[SpooledImage, bytes]:
    """The contents of the file that keeps the image."""
    body, content_sha256 = upload.whole()
    spooled = SpooledImage(
        key=upload.key,
        path=upload.path.decode("ascii"),
        content_type=upload.content_type,
        cache_control=upload.cache_control,
        content_disposition=upload.content_disposition,
        size=upload.size,
        content_sha256=content_sha256,
        accepted_at=accepted_at,
        kept=upload.kept,
    )
    return spooled, body


def image_from_spool(spooled: SpooledImage, body: bytes) -> Image:
    """The image of a spool file, whose hash was checked when it was read."""
    return Image(
        body=body,
        content_type=spooled.content_type,
        cache_control=spooled.cache_control,
        content_disposition=spooled.content_disposition,
        path_sha256=sha256(spooled.path.encode("ascii")).hexdigest(),
        content_sha256=spooled.content_sha256,
        stored_at=_stored_at(spooled.accepted_at, spooled.kept),
    )


def _stored_at(accepted_at: float, kept: KeptAnswer | None) -> str:
    """
    The time from which those who read the image back count its age: earlier by that which it
    came with, or it would be younger in the store than in the other tiers.
    """
    age = 0.0 if kept is None else kept.lifetimes.age
    return time_in_words(int(accepted_at - age))
