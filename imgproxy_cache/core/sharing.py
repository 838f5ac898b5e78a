"""Which requests may share one fetch."""

from collections.abc import Hashable

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath


def flight_key(
    method: str,
    target: bytes,
    headers: Headers,
    path: ImgproxyPath | None,
    *,
    cookie_passthrough: bool,
) -> Hashable | None:
    raise NotImplementedError
