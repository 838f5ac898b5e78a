"""Answers to keep."""

from hashlib import sha256

from imgproxy_cache.core.kept import KeptAnswer, Lifetimes, Selection

NOW = 1_770_091_506.25

LIFETIMES = Lifetimes(
    received_at=NOW,
    age=3.5,
    fresh_until=NOW + 3600,
    stale_while_revalidate_until=NOW + 3660.5,
    stale_if_error_until=NOW + 86_400,
)


def answer(
    number: int = 0,
    body: bytes = b"hello world",
    *,
    selection: Selection = (),
    fields: tuple[tuple[bytes, bytes], ...] = ((b"Content-Type", b"image/jpeg"),),
    lifetimes: Lifetimes = LIFETIMES,
) -> KeptAnswer:
    """An answer of a name of its own, but all with the same lifetimes."""
    return KeptAnswer(
        name=b"/rs:fit:%d:0/plain/local:///image.jpg" % number,
        selection=selection,
        status=200,
        fields=fields,
        body=body,
        content_sha256=sha256(body).hexdigest(),
        etag=b'W/"source-%d"' % number,
        lifetimes=lifetimes,
    )
