"""
Which answers a request may be given.

What imgproxy makes of client hints is written down from its sources (3.30.1
`options/processing_options.go`, 4.0.12 `clientfeatures/detector.go`); what Go
reads as a number was asked of `strconv`.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.kept import Selection
from imgproxy_cache.core.variants import are_alike, named_fields, selection
from tests.tapes import Tape, all_tapes

HINTS = (b"dpr", b"sec-ch-dpr", b"sec-ch-width", b"width")
CHROME = b"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        pytest.param(b"", (), id="nothing"),
        pytest.param(b" ,\t, ", (), id="empty elements"),
        pytest.param(b"Accept", (b"accept",), id="one, in any case"),
        pytest.param(b"Width, DPR", (b"dpr", b"width"), id="sorted"),
        pytest.param(b"foo,Foo , FOO", (b"foo",), id="said thrice"),
        pytest.param(b"Accept-Encoding", (), id="what our request fixes"),
        pytest.param(b"Accept-Encoding, Origin", (b"origin",), id="and another"),
        pytest.param(b"*", None, id="anything"),
        pytest.param(b", *", None, id="anything behind nothing"),
        pytest.param(b"*, Foo", None, id="anything before a name"),
        pytest.param(b"Foo, *", None, id="anything behind a name"),
        pytest.param(b"Accept-Encoding, *", None, id="anything behind what is fixed"),
        pytest.param(b"a b", None, id="white space in a name"),
        pytest.param(b'"a"', None, id="quoted"),
        pytest.param(b"a;b", None, id="a parameter"),
        pytest.param(b"\xc3\xa4", None, id="no ASCII"),
        pytest.param(b"a,b,c,d,e,f,g,h", tuple(b"a b c d e f g h".split()), id="eight"),
        pytest.param(b"a,b,c,d,e,f,g,h,i", None, id="nine"),
        pytest.param(b"a," * 9, (b"a",), id="one, nine times"),
    ],
)
def test_names_are_those_that_vary_lists(vary: bytes, names: tuple[bytes, ...] | None) -> None:
    assert named_fields(vary) == names


@pytest.mark.parametrize("tape", [tape for tape in all_tapes() if tape.status == 200], ids=str)
def test_recorded_vary_names_accept_or_client_hints(tape: Tape) -> None:
    vary = b", ".join(value for name, value in tape.headers if name.lower() == b"vary")
    assert named_fields(vary) in ((), (b"accept",), HINTS)


def of_field(name: bytes, *values: bytes) -> bytes:
    """What a request with these lines of one field is selected by."""
    request: Headers = [(b"host", b"img.example"), *((name, value) for value in values)]
    selected = selection((name,), request)
    assert selected is not None
    ((selected_name, value),) = selected
    assert selected_name == name
    return value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([b"1"], [b" 1\t"], id="outer white space"),
        pytest.param([b"1", b"2"], [b"1, 2"], id="two lines are a list"),
        pytest.param([], [], id="neither has it"),
    ],
)
def test_requests_that_say_the_same_are_selected_alike(
    one: list[bytes], other: list[bytes]
) -> None:
    assert of_field(b"foo", *one) == of_field(b"foo", *other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([b"1"], [b"2"], id="values"),
        pytest.param([], [b""], id="absent or empty"),
        pytest.param([], [b" "], id="absent or white space"),
        pytest.param([b""], [b"", b""], id="one or two lines of nothing"),
        pytest.param([b"en, de"], [b"de, en"], id="order"),
        pytest.param([b"a"], [b"A"], id="case"),
        pytest.param([b"1 2"], [b"1  2"], id="inner white space"),
    ],
)
def test_requests_that_say_different_things_are_selected_apart(
    one: list[bytes], other: list[bytes]
) -> None:
    assert of_field(b"foo", *one) != of_field(b"foo", *other)


def test_selection_has_all_names_and_only_those() -> None:
    request = [(b"b", b"2"), (b"c", b"3"), (b"a", b"1"), (b"b", b"4")]
    # No value, its outer white space stripped, is like that of a field that is not there.
    assert selection((b"a", b"b", b"d"), request) == ((b"a", b"1"), (b"b", b"2, 4"), (b"d", b" "))
    assert selection((), request) == ()


@pytest.mark.parametrize(
    ("headers", "is_kept"),
    [
        pytest.param([(b"foo", b"x" * 512)], True, id="just short enough"),
        pytest.param([(b"foo", b"x" * 513)], False, id="just too long"),
        pytest.param([(b"foo", b"x" * 300), (b"bar", b"x" * 213)], False, id="too long together"),
        pytest.param([(b"foo", b"x" * 300), (b"foo", b"x" * 213)], False, id="in two lines"),
        pytest.param([(b"dpr", b"9" * 513)], False, id="a long number"),
        pytest.param([(b"other", b"x" * 513)], True, id="a long field that nothing depends on"),
        pytest.param([(b"accept", b"x" * 60_000)], True, id="a long Accept is three bits"),
    ],
)
def test_values_too_long_to_be_kept_select_nothing(headers: Headers, is_kept: bool) -> None:
    names = (b"accept", b"bar", b"dpr", b"foo")
    assert (selection(names, headers) is not None) is is_kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([CHROME], [b"image/webp;q=0.1, image/avif;q=0"], id="weights"),
        pytest.param([b"image/webp"], [b"text/html,image/webp2"], id="a substring"),
        pytest.param([], [b"*/*"], id="no format named"),
        pytest.param([], [b"IMAGE/WEBP"], id="imgproxy minds the case"),
        pytest.param([b"*/*", b"image/webp"], [b"*/*"], id="imgproxy reads the first"),
    ],
)
def test_accept_says_no_more_than_imgproxy_reads(one: list[bytes], other: list[bytes]) -> None:
    assert of_field(b"accept", *one) == of_field(b"accept", *other)


def test_each_set_of_formats_is_selected_apart() -> None:
    formats = [b"image/webp", b"image/avif", b"image/jxl"]
    sets = [[name for bit, name in enumerate(formats) if number >> bit & 1] for number in range(8)]
    assert len({of_field(b"accept", b",".join(named)) for named in sets}) == 8


@pytest.mark.parametrize(
    ("value", "dpr"),
    [
        (b"1", 1.0),
        (b"2", 2.0),
        (b"2.0", 2.0),
        (b"+2", 2.0),
        (b"-2", None),
        (b"0", None),
        (b"-0", None),
        (b"", None),
        (b"1.5", 1.5),
        (b".5", 0.5),
        (b"5.", 5.0),
        (b"+.5e+1", 5.0),
        (b"20e-1", 2.0),
        (b"20E-1", 2.0),
        (b"000000000000000000002", 2.0),
        (b"8", 8.0),
        (b"8.0000000000000001", 8.0),
        (b"8.000000000000002", None),
        (b"9", None),
        (b"4.9e-324", 5e-324),
        (b"1e-400", None),
        (b"1e999", None),
        (b"1" + b"0" * 400, None),
        (b"inf", None),
        (b"nan", None),
        (b"2x", None),
        (b"2,3", None),
        (b"1.5.", None),
        (b"1.5f", None),
        (b"2 3", None),
        (b".", None),
        (b"e1", None),
        (b"1e", None),
        (b"1e+", None),
        (b"\xd9\xa2", None),
        (b"1_0e-1", 1.0),
        (b"1e0_0", 1.0),
        (b"0_1.5", 1.5),
        (b"_1", None),
        (b"1__0e-1", None),
        (b"1_.5", None),
        (b"1._5", None),
        (b"1_e0", None),
        (b"1e_1", None),
        (b"0x1p1", 2.0),
        (b"0X1P+1", 2.0),
        (b"+0x1p1", 2.0),
        (b"-0x1p1", None),
        (b"0x.8p2", 2.0),
        (b"0x1.8p0", 1.5),
        (b"0x_1p1", 2.0),
        (b"0x1_0p-4", 1.0),
        (b"0x1P1023", None),
        (b"0x1p99999", None),
        (b"0x1", None),
        (b"0x1.8", None),
        (b"0x1p", None),
        (b"0xp1", None),
        (b"0X.p1", None),
        (b"0x1_p1", None),
        (b"0x1p_1", None),
        (b"0_x1p0", None),
        (b"1p1", None),
        (b"0b1", None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", [b"dpr", b"sec-ch-dpr"], ids=bytes.decode)
def test_dpr_is_read_as_go_reads_it(name: bytes, value: bytes, dpr: float | None) -> None:
    assert of_field(name, value) == (b"" if dpr is None else repr(dpr).encode())


@pytest.mark.parametrize(
    ("value", "width"),
    [
        (b"40", b"40"),
        (b"+40", b"40"),
        (b"040", b"40"),
        (b"0" * 400 + b"40", b"40"),
        (b"-40", b"-40"),  # 3.30 takes it
        (b"0", b""),
        (b"-0", b""),
        (b"", b""),
        (b"4.0", b""),
        (b"4_0", b""),
        (b"0x28", b""),
        (b"4e1", b""),
        (b"+", b""),
        (b"+-4", b""),
        (b"40 50", b""),
        (b"\xd9\xa4", b""),
        (b"9223372036854775807", b"9223372036854775807"),
        (b"9223372036854775808", b""),
        (b"-9223372036854775808", b"-9223372036854775808"),
        (b"-9223372036854775809", b""),
        (b"9" * 400, b""),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", [b"width", b"sec-ch-width", b"viewport-width"], ids=bytes.decode)
def test_width_is_read_as_go_reads_it(name: bytes, value: bytes, width: bytes) -> None:
    assert of_field(name, value) == width


@pytest.mark.parametrize("name", [*HINTS, b"viewport-width"], ids=bytes.decode)
def test_hint_without_sense_is_like_none(name: bytes) -> None:
    assert of_field(name, b"x") == of_field(name, b"0") == of_field(name)
    assert of_field(name, b"2", b"3") == of_field(name, b"2")


def by_hints(**hints: bytes) -> Selection | None:
    request = [(name.replace("_", "-").encode(), value) for name, value in hints.items()]
    return selection(HINTS, request)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            {"sec_ch_dpr": b"2", "dpr": b"3"}, {"sec_ch_dpr": b"2"}, id="DPR behind Sec-CH-DPR"
        ),
        pytest.param(
            {"sec_ch_width": b"40", "width": b"50"},
            {"sec_ch_width": b"40"},
            id="Width behind Sec-CH-Width",
        ),
        pytest.param({"sec_ch_dpr": b"2"}, {"dpr": b"2"}, id="DPR or Sec-CH-DPR"),
        pytest.param({"sec_ch_width": b"40"}, {"width": b"40"}, id="Width or Sec-CH-Width"),
        pytest.param({"sec_ch_dpr": b"", "dpr": b"3"}, {"dpr": b"3"}, id="an empty Sec-CH-DPR"),
        pytest.param({"sec_ch_dpr": b"x", "dpr": b"y"}, {}, id="no sense in either DPR"),
        pytest.param({"sec_ch_width": b"x", "width": b"0"}, {}, id="no sense in either width"),
    ],
)
def test_hints_that_imgproxy_answers_alike_are_selected_alike(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    assert by_hints(**one) == by_hints(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            {"sec_ch_dpr": b"x", "dpr": b"2"}, {"dpr": b"2"}, id="3.30 does not look behind it"
        ),
        pytest.param(
            {"sec_ch_dpr": b"x", "dpr": b"2"}, {"sec_ch_dpr": b"x"}, id="4 looks behind it"
        ),
        pytest.param(
            {"sec_ch_width": b"0", "width": b"40"}, {"width": b"40"}, id="3.30 takes a width of 0"
        ),
        pytest.param(
            {"sec_ch_width": b"-1", "width": b"40"},
            {"sec_ch_width": b"-1", "width": b"50"},
            id="4 takes no width below zero",
        ),
        pytest.param({"dpr": b"2"}, {"width": b"2"}, id="DPR or Width"),
    ],
)
def test_hints_that_some_imgproxy_answers_apart_are_selected_apart(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    assert by_hints(**one) != by_hints(**other)


NUMBERS = {b"2": 2, b"3": 3, b"02": 2, b"0": 0, b"-1": -1, b"x": None, b"": None, b"9": 9}


def read_by_3_30(hints: dict[bytes, bytes]) -> tuple[int | None, int | None]:
    """The DPR and the width that imgproxy 3.30.1 takes from a request."""
    dpr = NUMBERS[hints.get(b"sec-ch-dpr") or hints.get(b"dpr", b"")]
    width = NUMBERS[hints.get(b"sec-ch-width") or hints.get(b"width", b"")]
    return dpr if dpr is not None and 0 < dpr <= 8 else None, width or None


def read_by_4(hints: dict[bytes, bytes]) -> tuple[int | None, int | None]:
    """The DPR and the width that imgproxy 4.0.12 takes from a request."""
    dprs = [NUMBERS[hints.get(name, b"")] for name in (b"sec-ch-dpr", b"dpr")]
    widths = [NUMBERS[hints.get(name, b"")] for name in (b"sec-ch-width", b"width")]
    return (
        next((dpr for dpr in dprs if dpr is not None and 0 < dpr <= 8), None),
        next((width for width in widths if width is not None and width > 0), None),
    )


REQUESTS = st.dictionaries(st.sampled_from(HINTS), st.sampled_from(sorted(NUMBERS)))


@given(one=REQUESTS, other=REQUESTS)
def test_requests_are_selected_alike_just_where_no_imgproxy_tells_them_apart(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    told_apart = read_by_3_30(one) != read_by_3_30(other) or read_by_4(one) != read_by_4(other)
    selected_apart = selection(HINTS, list(one.items())) != selection(HINTS, list(other.items()))
    # Of widths below zero more is kept than need be.
    if b"-1" in (*one.values(), *other.values()):
        assert selected_apart or not told_apart
    else:
        assert selected_apart is told_apart


NAMES = st.lists(st.sampled_from([b"accept", b"foo", b"bar", *HINTS]), unique=True).map(sorted)


@given(
    names=NAMES,
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"accept", b"foo", b"bar", b"baz", *HINTS]),
            st.one_of(st.binary(), st.text("0x1p.-_e+ 9").map(str.encode)),
        )
    ),
)
def test_any_bytes_select_something_of_the_right_form(names: list[bytes], headers: Headers) -> None:
    selected = selection(tuple(names), headers)
    assert selected is None or [name for name, _ in selected] == names


@given(vary=st.one_of(st.binary(), st.text("*aA, \t-").map(str.encode)))
def test_any_vary_is_read(vary: bytes) -> None:
    names = named_fields(vary)
    if names is not None:
        assert named_fields(b",".join(names)) == names
    assert (names is None) or (b"*" not in [part.strip() for part in vary.split(b",")])


@pytest.mark.parametrize(
    ("vary", "one", "other", "expected"),
    [
        pytest.param(b"Origin", [(b"origin", b"a")], [(b"origin", b"a")], True, id="the same"),
        pytest.param(b"Origin", [(b"origin", b"a")], [(b"origin", b"b")], False, id="another"),
        pytest.param(b"Origin", [(b"origin", b"a")], [], False, id="not sent"),
        pytest.param(b"Origin", [(b"dpr", b"1")], [(b"dpr", b"2")], True, id="not named"),
        pytest.param(
            b"Accept",
            [(b"accept", b"image/webp")],
            [(b"accept", b"*/*, image/webp")],
            True,
            id="the same to imgproxy",
        ),
        pytest.param(b"*", [], [], False, id="everything"),
        pytest.param(
            b"A", [(b"a", b"x" * 1000)], [(b"a", b"x" * 1000)], False, id="too long to compare"
        ),
        pytest.param(b"Accept-Encoding", [(b"origin", b"a")], [], True, id="Accept-Encoding"),
    ],
)
def test_requests_are_alike_in_what_an_answer_varies_by(
    vary: bytes, one: Headers, other: Headers, expected: bool
) -> None:
    assert are_alike(vary, one, other) is expected
