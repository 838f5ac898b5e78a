"""Images to spool."""

from hashlib import md5, sha256

from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.spool_file import SpooledImage

NOW = 1_770_091_506.0


def spooled(
    number: int = 0,
    body: bytes = b"hello world",
    at: float | None = None,
    kept: KeptAnswer | None = None,
) -> tuple[SpooledImage, bytes]:
    """The image of a path of its own, accepted `number` seconds after NOW."""
    path = f"/_/rs:fit:{number}:0/plain/local:///image.jpg"
    image = SpooledImage(
        key=Key(md5(path.encode(), usedforsecurity=False).hexdigest()),
        path=path,
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        size=len(body),
        content_sha256=sha256(body).hexdigest(),
        accepted_at=NOW + number if at is None else at,
        kept=kept,
    )
    return image, body
