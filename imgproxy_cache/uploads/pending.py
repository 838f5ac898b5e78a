"""One accepted image on its way to the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

from imgproxy_cache.core.image import Image, image_from_answer, time_in_words
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.core.spool_file import SpooledImage
from imgproxy_cache.uploads.spool_folder import SpoolFile

# Joining and hashing takes 1 ms a megabyte: smaller ones are done in the event loop, where they
# cost less than the way to a thread and back (0.1 ms) and stall nobody.
INLINE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole image as it came from imgproxy; `path` is the raw one, without its query."""

    key: Key
    path: bytes
    chunks: tuple[bytes, ...]
    size: int
    content_type: str
    cache_control: str | None
    content_disposition: str | None


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
    was_in_spool: bool = False
    """Found there, or released: its bytes have to be read."""
    was_read: bool = False
    """Its bytes were read from the spool, for the upload that is under way."""
    is_done: bool = False
    path: bytes = b""
    """Empty for an image that was found in the spool and not read yet."""

    @property
    def printable_path(self) -> str:
        return printable_target(self.path)

    def is_same_as(self, upload: Upload) -> bool:
        """Whether this is known to be the same image; large ones in the spool are not read."""
        if self.is_done or self.size != upload.size:
            return False
        if self.upload is not None:
            return self.upload.chunks == upload.chunks or (
                b"".join(self.upload.chunks) == b"".join(upload.chunks)
            )
        return (
            upload.size <= INLINE_BYTES
            and self.content_sha256 == sha256(b"".join(upload.chunks)).hexdigest()
        )

    def spool_form(self) -> Callable[[], tuple[SpooledImage, bytes]]:
        """
        What the spool's thread calls for the contents of its file.

        The bytes are taken hold of now: the upload may end before the thread begins.
        """
        upload = self.upload
        if upload is None:
            raise AssertionError("an image that is only in the spool is not written there")
        return partial(_spooled_image, upload, self.accepted_at)

    def image(self) -> Image:
        """Joins and hashes what is in memory: about 1 ms a megabyte."""
        upload = self.upload
        if upload is None:
            raise AssertionError("an image that is only in the spool has to be read first")
        image = image_from_answer(
            path=upload.path,
            body=b"".join(upload.chunks),
            content_type=upload.content_type,
            cache_control=upload.cache_control,
            content_disposition=upload.content_disposition,
            at=self.accepted_at,
        )
        self.content_sha256 = image.content_sha256
        return image

    def keep_joined(self, body: bytes) -> None:
        """Let the chunks go that `body` was joined from: a large image is in memory once."""
        if self.upload is not None:
            self.upload = replace(self.upload, chunks=(body,))


def _spooled_image(upload: Upload, accepted_at: float) -> tuple[SpooledImage, bytes]:
    body = b"".join(upload.chunks)
    spooled = SpooledImage(
        key=upload.key,
        path=upload.path.decode("ascii"),
        content_type=upload.content_type,
        cache_control=upload.cache_control,
        content_disposition=upload.content_disposition,
        size=upload.size,
        content_sha256=sha256(body).hexdigest(),
        accepted_at=accepted_at,
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
        stored_at=time_in_words(int(spooled.accepted_at)),
    )
