"""Which header fields pass, in both directions, and which stay with a stored image."""

from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]
"""Field lines in the order of the wire, repeated fields apart."""


def request_headers_for_upstream(
    headers: Headers,
    *,
    client_ip: bytes,
    scheme: bytes,
    peer_is_trusted: bool,
    keep_accept_encoding: bool,
) -> Headers:
    raise NotImplementedError


def answer_headers(
    headers: Headers, *, status: int, cache_status: bytes, request_id: bytes | None
) -> Headers:
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class StoredFields:
    """The header fields that are kept with an image."""

    content_type: str
    cache_control: str | None
    content_disposition: str | None


def stored_fields(headers: Headers) -> StoredFields:
    raise NotImplementedError
