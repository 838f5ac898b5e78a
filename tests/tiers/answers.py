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


STORED_AT = 1_770_091_506.0  # date -u -d 2026-02-03T04:05:06Z +%s


def stored_answer(number: int = 0, body: bytes = b"hello world") -> KeptAnswer:
    """An answer as a store can give it back: what it does not keep is as imgproxy sends it."""
    return KeptAnswer(
        name=b"/rs:fit:%d:0/plain/local:///image.jpg" % number,
        selection=(),
        status=200,
        fields=(
            (b"Cache-Control", b"max-age=3600, public"),
            (
                b"Content-Security-Policy",
                b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
            ),
            (b"Content-Type", b"image/jpeg"),
            (b"Server", b"imgproxy"),
            (b"Date", b"Tue, 03 Feb 2026 04:05:06 GMT"),
        ),
        body=body,
        content_sha256=sha256(body).hexdigest(),
        etag=None,
        lifetimes=Lifetimes(
            received_at=STORED_AT,
            age=0,
            fresh_until=STORED_AT + 3600,
            stale_while_revalidate_until=STORED_AT + 3660.5,
            stale_if_error_until=STORED_AT + 90_000,
        ),
    )
