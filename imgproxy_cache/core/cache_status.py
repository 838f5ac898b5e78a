"""The value of our `Cache-Status` field."""

from imgproxy_cache.core.policy import NotStored


def cache_status(why_not: NotStored | None, *, collapsed: bool) -> bytes:
    raise NotImplementedError


def cache_status_of_failure(detail: str) -> bytes:
    raise NotImplementedError
