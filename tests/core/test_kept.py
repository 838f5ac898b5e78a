"""Keys of what is kept: whatever tells two answers apart tells their keys apart."""

from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.kept import Selection, tier_key

# What has been a request's target, its fields' names and their values: none has a line end.
TARGETS = st.text("/:ab %", min_size=1).map(str.encode)
NAMES = st.sampled_from([b"accept", b"foo", b"x-a"])
VALUES = st.text("/:ab ,%").map(str.encode)
SELECTIONS = st.lists(st.tuples(NAMES, VALUES), max_size=3).map(tuple)


def test_key_of_a_resource_is_its_name() -> None:
    assert tier_key(b"rs:fit:64:64/plain/local:///a.jpg") == b"rs:fit:64:64/plain/local:///a.jpg"


def test_key_of_a_variant_has_its_selection() -> None:
    key = tier_key(b"plain/local:///a.jpg", ((b"accept", b"3"), (b"origin", b" ")))
    assert key == b"plain/local:///a.jpg\naccept: 3\norigin:  "


@given(one=st.tuples(TARGETS, SELECTIONS), other=st.tuples(TARGETS, SELECTIONS))
def test_different_answers_have_different_keys(
    one: tuple[bytes, Selection], other: tuple[bytes, Selection]
) -> None:
    assert (tier_key(*one) == tier_key(*other)) is (one == other)
