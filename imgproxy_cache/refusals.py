"""What is no request for us, by the limits of the protocol, and the answers to it."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from imgproxy_cache.core.hit import status_line
from imgproxy_cache.core.http_date import http_date

# As nginx's large_client_header_buffers and Apache's LimitRequestFields: far above
# what browsers send, far below what hurts.
MAX_TARGET_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEAD_FIELDS: Final = 100


class Refusal(NamedTuple):
    """Why a request was not understood; `outcome` is its name in log and metrics."""

    status: int
    outcome: str
    reason: bytes

    @property
    def wire(self) -> bytes:
        """The whole answer, given now (`Date`: RFC 9110 section 6.6.1)."""
        return (
            status_line(self.status)
            + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
            + b"Content-Length: %d\r\n" % (len(self.reason) + 1)
            + b"Date: %b\r\n" % http_date(int(time.time()))
            + b"Cache-Control: no-store\r\nConnection: close\r\n\r\n%b\n" % self.reason
        )


BAD_TARGET: Final = Refusal(
    400, "bad-target", b"the request target must be a path of ASCII characters"
)
BAD_HOST: Final = Refusal(400, "bad-host", b"a request needs exactly one Host field")
BAD_REQUEST: Final = Refusal(400, "bad-request", b"not a valid HTTP/1.1 request")
SLOW_REQUEST: Final = Refusal(408, "slow-request", b"the request did not arrive in time")
TARGET_TOO_LONG: Final = Refusal(
    414, "target-too-long", b"the request target is over %d bytes" % MAX_TARGET_BYTES
)
HEAD_TOO_LARGE: Final = Refusal(
    431,
    "head-too-large",
    b"the request head is over %d bytes or %d fields" % (MAX_HEAD_BYTES, MAX_HEAD_FIELDS),
)
