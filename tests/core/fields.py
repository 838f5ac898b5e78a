"""Header fields that may or may not pass, for the tests of both directions."""

from hypothesis import strategies as st

from imgproxy_cache.core.headers import Headers

NAMES = st.sampled_from(
    b"accept-encoding x-forwarded-for x-forwarded-proto x-forwarded-host host connection upgrade "
    b"te trailer expect x-a x-b accept transfer-encoding content-length keep-alive "
    b"proxy-authorization range".split()
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.lists(NAMES, max_size=4).map(b" ,".join),
    st.lists(NAMES, max_size=4).map(lambda names: b",\t".join(names).upper()),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
NEVER_PASSED_ON = {
    b"connection",
    b"keep-alive",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}


def named_by_connection(headers: Headers) -> set[bytes]:
    values = b",".join(value for name, value in headers if name.lower() == b"connection")
    return {option.strip(b" \t").lower() for option in values.split(b",")} - {b"host"}
