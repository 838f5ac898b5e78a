"""An answer's time in the tests of what is kept."""

from imgproxy_cache.core.kept import Lifetimes

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
FOR_AN_HOUR = Lifetimes(
    received_at=NOW,
    age=0,
    fresh_until=NOW + 3600,
    stale_while_revalidate_until=NOW + 3600,
    stale_if_error_until=NOW + 7200,
)
