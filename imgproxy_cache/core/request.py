"""A request as it was read: what imgproxy is asked, and what the tiers are."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from imgproxy_cache.core.access import Resource
from imgproxy_cache.core.imgproxy_path import ImgproxyPath
from imgproxy_cache.core.request_fields import RequestFields


class Request(NamedTuple):
    """
    A request, read (made in a third of a frozen dataclass's time).

    `resource` is None where no tier may answer; `flight_key` is None for one
    that must not share its fetch.
    """

    method: str
    target: bytes
    fields: RequestFields
    path: ImgproxyPath | None
    resource: Resource | None
    flight_key: Hashable | None

    def wire(self, more_lines: bytes = b"") -> bytes:
        """As imgproxy is sent it."""
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
            self.method.encode("ascii"),
            self.target,
            self.fields.lines,
            more_lines,
        )
