"""Images to store."""

from hashlib import sha256

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key

KEY = Key("c9009a400f110797b2710ce2a5bd60a4")

PICTURE = Image(
    body=b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
    content_type="image/png",
    cache_control="max-age=31536000, public",
    content_disposition='inline; filename="chelsea.png"',
    path_sha256="5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5",
    content_sha256="65c23cac92f7e4fb581cabf51990bf6da9e19bd34d143f9ecf7472816c28e399",
    stored_at="2026-02-03T04:05:06Z",
)


def picture(body: bytes = PICTURE.body, **changed: str | None) -> Image:
    """:data:`PICTURE` with another body, or with other fields."""
    image = PICTURE._replace(body=body, content_sha256=sha256(body).hexdigest())
    return image._replace(**changed)  # type: ignore[arg-type]
