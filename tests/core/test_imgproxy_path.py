"""
How a path is read.

Signatures were made with another tool:
``printf 'hello/rs:fit:64:64/plain/...' | openssl dgst -sha256 -hmac secret -binary | base64``
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.imgproxy_path import (
    ImgproxyPath,
    PathRules,
    decode_source,
    read_path,
    signature_is_valid,
    signature_spelling_is_canonical,
)

NO_KEYS = PathRules()
SIGNED = PathRules(keys=((b"secret", b"hello"),))

OPTIONS = "rs:fit:64:64"
REST = f"{OPTIONS}/plain/local:///chelsea.jpg"
SIGNATURE = "UlWiVzz_EWmADorIeV3zv1iXYzSPWUDwKDCWaf6_qVw"
SECOND_SIGNATURE = "Ql8XRyzMKHdVqY1pC4mfiXKdbZyLU5Y6M270JmedQ4c"
SIGNATURE_OF_PERCENT_COLON = "ljQBy-5gWRdD2NV5dKdvJUegd_S1NjCW5UtIGpj4xmE"
"""Of ``fn:a%3Ab/plain/local:///chelsea.jpg``, which imgproxy 3.30 leaves as it is."""


def read(target: str, rules: PathRules = NO_KEYS) -> ImgproxyPath:
    path = read_path(target.encode(), rules)
    assert path is not None
    return path


def test_path_is_read_into_its_parts() -> None:
    rest = "resize:fill:300:300/q:80/plain/https://example.com/image.jpg@webp"
    assert read(f"/sig/{rest}?v=1") == ImgproxyPath(
        signature="sig",
        options=(("resize", "fill", "300", "300"), ("q", "80")),
        source="plain/https://example.com/image.jpg@webp",
        extension="webp",
        is_raw=False,
        expires=False,
        format="webp",
        is_as_signed=True,
        repaired=rest,
        written=rest,
        slash_is_doubled=False,
    )


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        pytest.param("/", "", id="landing page"),
        pytest.param("", "", id="nothing"),
        pytest.param("/health", "", id="health"),
        pytest.param("/nonsense", "", id="one segment"),
        pytest.param("/_/", "", id="nothing behind the signature"),
        pytest.param("/_?/rs:fit", "", id="the rest is query"),
        pytest.param("///_/rs:fit:64:64/plain/local:///a.jpg", "", id="three slashes"),
        pytest.param("http://evil/_/plain/local:///a.jpg", "", id="absolute form"),
        pytest.param("/_/plain/local:///a.jpg", "/img", id="outside the prefix"),
        pytest.param("/imgx/_/plain/local:///a.jpg", "/img", id="the prefix is a whole segment"),
        pytest.param("/img/health", "/img", id="health under the prefix"),
    ],
)
def test_what_can_be_no_processing_path_is_none(target: str, prefix: str) -> None:
    assert read_path(target.encode(), PathRules(prefix=prefix)) is None


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/img/s/raw:1/plain/local:///a.jpg", id="plainly"),
        pytest.param("/img//s/raw:1/plain/local:///a.jpg", id="doubled slash"),
        pytest.param("/%69mg/raw:1/plain/local:///a.jpg", id="escaped, and so the signature"),
    ],
)
def test_prefix_is_cut_off(target: str) -> None:
    assert read(target, PathRules(prefix="/img")).options == (("raw", "1"),)


@pytest.mark.parametrize(
    ("written", "repaired"),
    [
        pytest.param("rs%3Afit%3A64%3A64/aGk", "rs:fit:64:64/aGk", id="%3A"),
        pytest.param("rs%3afit/aGk", "rs%3afit/aGk", id="small %3a is left"),
        pytest.param("w:1/plain/a%3Ab", "w:1/plain/a%3Ab", id="%3A of the source is left"),
        pytest.param("plain/a%3Ab", "plain/a%3Ab", id="%3A of a source without options is left"),
        pytest.param("/w:1/plain/a", "w:1/plain/a", id="doubled slash"),
        pytest.param("//w:1/plain/a", "w:1/plain/a", id="tripled slash"),
        pytest.param("///w:1/plain/a", "/w:1/plain/a", id="of four slashes one is too many"),
        pytest.param("plain/https:/e.com/a", "plain/https://e.com/a", id="scheme:/"),
        pytest.param("plain/https://e.com/a", "plain/https://e.com/a", id="scheme:// is left"),
        pytest.param("plain/local:/a.jpg", "plain/local:///a.jpg", id="local:/"),
        pytest.param("plain/local://a.jpg", "plain/local://a.jpg", id="local:// is left"),
        pytest.param(
            "plain/http:/e/x:/y", "plain/http:/e/x://y", id="only the last :/, as imgproxy does"
        ),
        pytest.param("plain/a b:/c", "plain/a b:/c", id="nothing behind white space"),
        pytest.param(
            "w:1/plain/x/plain/http:/a", "w:1/plain/x/plain/http://a", id="the first /plain/ counts"
        ),
    ],
)
def test_damage_by_proxies_is_repaired(written: str, repaired: str) -> None:
    path = read(f"/_/{written}")
    assert (path.repaired, path.is_as_signed) == (repaired, written == repaired)


@pytest.mark.parametrize(
    ("rest", "rules", "options", "source"),
    [
        pytest.param(
            "w:1/h:2/aGk", {}, (("w", "1"), ("h", "2")), "aGk", id="up to the first without one"
        ),
        pytest.param("plain/a:b", {}, (), "plain/a:b", id="no options"),
        pytest.param("w:1/h:2", {}, (("w", "1"), ("h", "2")), "", id="no source"),
        pytest.param("w:/plain/a", {}, (("w", ""),), "plain/a", id="empty argument"),
        pytest.param(
            "w,1/fn:x/aGk", {"separator": ","}, (("w", "1"),), "fn:x/aGk", id="other separator"
        ),
        pytest.param(
            "a:b/plain/x", {"only_presets": True}, (("preset", "a", "b"),), "plain/x", id="presets"
        ),
    ],
)
def test_options_end_where_the_source_begins(
    rest: str, rules: dict[str, str | bool], options: tuple[tuple[str, ...], ...], source: str
) -> None:
    path = read(f"/_/{rest}", replace(NO_KEYS, **rules))  # type: ignore[arg-type]
    assert (path.options, path.source) == (options, source)


@pytest.mark.parametrize(
    ("rest", "raw", "expires"),
    [
        pytest.param("raw:1/plain/a", True, False, id="raw"),
        pytest.param("raw%3A1/plain/a", True, False, id="raw, repaired"),
        pytest.param("/raw:1/plain/a", True, False, id="raw behind a doubled slash"),
        pytest.param("//raw:1/plain/a", True, False, id="raw behind a tripled slash"),
        pytest.param("w:1/exp:99/plain/a", False, True, id="exp"),
        pytest.param("expires:99/plain/a", False, True, id="expires"),
        pytest.param("plain/raw:1", False, False, id="only in the source"),
        pytest.param("fn:raw:exp/plain/a", False, False, id="only as arguments"),
    ],
)
def test_raw_and_expires_are_seen(rest: str, *, raw: bool, expires: bool) -> None:
    path = read(f"/_/{rest}")
    assert (path.is_raw, path.expires) == (raw, expires)


@pytest.mark.parametrize(
    ("rest", "pinned"),
    [
        pytest.param("plain/local:///a.jpg", None, id="the source's own ending pins nothing"),
        pytest.param("plain/local:///a.png@jpg", "jpeg", id="@jpg"),
        pytest.param("plain/local:///a.png@", None, id="@ and nothing"),
        pytest.param("plain/local:///a@b@jpg", None, id="two @ are an invalid URL"),
        pytest.param("bG9jYWw6Ly8vYS5qcGc.webp", "webp", id=".webp"),
        pytest.param("bG9jYWw6Ly/8vYS5qcGc.webp", "webp", id=".webp of a split one"),
        pytest.param("bG9jYWw6Ly8vYS5qcGc", None, id="base64 without an ending"),
        pytest.param("f:avif/plain/a", "avif", id="f"),
        pytest.param("format:avif/plain/a", "avif", id="format"),
        pytest.param("ext:jpeg/plain/a", "jpeg", id="ext"),
        pytest.param("f:avif/f:png/plain/a", "png", id="the last one"),
        pytest.param("f:avif/plain/a@webp", "webp", id="the ending wins"),
    ],
)
def test_format_that_the_path_pins(rest: str, pinned: str | None) -> None:
    assert read(f"/_/{rest}").format == pinned


@pytest.mark.parametrize(
    ("source", "decoded"),
    [
        pytest.param("plain/local:///a.jpg", "local:///a.jpg", id="plain"),
        pytest.param("plain/http://e/a%20b%2Fc@png", "http://e/a b/c", id="escaped"),
        pytest.param("plain/http://e/a+b", "http://e/a+b", id="plus is plus"),
        pytest.param("plain/local:///%C3%A9.jpg", "local:///é.jpg", id="UTF-8"),
        pytest.param("plain/local:///%FF", "local:///\udcff", id="not UTF-8"),
        pytest.param("plain/a%4", None, id="half an escape"),
        pytest.param("plain/a%zz", None, id="no escape"),
        pytest.param("plain/@png", None, id="empty"),
        pytest.param("plain/a@b@c", None, id="two endings"),
        pytest.param("bG9jYWw6Ly8vYS5qcGc", "local:///a.jpg", id="base64"),
        pytest.param("bG9jYWw6L/y8vYS5qcGc", "local:///a.jpg", id="base64, split"),
        pytest.param("bG9jYWw6Ly8vYS5qcGc=.png", "local:///a.jpg", id="base64, padded"),
        pytest.param("bG9jYWw6Ly8vYS5qcGd", "local:///a.jpg", id="base64, spare bits set"),
        pytest.param("bG9jYWw6Ly8vYS5qcGc.png.jpg", None, id="base64, two endings"),
        pytest.param("bG9jYWw6Ly8vYS5qcG*", None, id="not base64"),
        pytest.param("bG9jY", None, id="base64 of no length"),
        pytest.param("plain", None, id="plain and nothing"),
        pytest.param(".png", None, id="only an ending"),
    ],
)
def test_source_is_decoded(source: str, decoded: str | None) -> None:
    assert decode_source(read(f"/_/{source}"), NO_KEYS) == decoded


def test_file_name_behind_base64_is_dropped_where_the_settings_say_so() -> None:
    rules = PathRules(base64_includes_filename=True)
    path = read("/_/w:1/bG9jYWw6Ly8vYS5qcGc.webp/cat.png", rules)
    assert (decode_source(path, rules), path.format) == ("local:///a.jpg", "webp")


@pytest.mark.parametrize(
    ("target", "rules", "valid"),
    [
        pytest.param(f"/{SIGNATURE}/{REST}", {}, True, id="signed"),
        pytest.param(f"/AAAA/{REST}", {}, False, id="signed-wrong"),
        pytest.param(f"/_/{REST}", {}, False, id="unsigned"),
        pytest.param(
            f"/{SIGNATURE}/rs%3Afit%3A64%3A64/plain/local:///chelsea.jpg",
            {},
            True,
            id="signed-percent-colon",
        ),
        pytest.param(
            f"/{SIGNATURE}/{OPTIONS}/plain/local:/chelsea.jpg", {}, True, id="signed-one-slash"
        ),
        pytest.param(f"/{SIGNATURE}//{REST}", {}, True, id="signed-double-slash"),
        pytest.param(f"/{SIGNATURE}///{REST}", {}, True, id="three slashes"),
        pytest.param(f"/{SIGNATURE}////{REST}", {}, False, id="four slashes"),
        pytest.param(f"/{SIGNATURE[:11]}/{REST}", {}, False, id="signed-truncated"),
        pytest.param(f"/{SIGNATURE}=/{REST}", {}, False, id="signed-padding"),
        pytest.param(f"/{SIGNATURE[:-1]}x/{REST}", {}, True, id="spare bits set"),
        pytest.param(f"/UlWiVzz_EWk/{REST}", {"signature_size": 8}, True, id="signature-size"),
        pytest.param(f"/{SIGNATURE}/{REST}", {"signature_size": 8}, False, id="signature-too-long"),
        pytest.param(
            f"/trusted/{REST}", {"trusted_signatures": ("t", "trusted")}, True, id="trusted"
        ),
        pytest.param(f"/trust/{REST}", {"trusted_signatures": ("trusted",)}, False, id="half"),
        pytest.param(f"/{SECOND_SIGNATURE}/{REST}", {}, False, id="another key's"),
        pytest.param(
            f"/{SECOND_SIGNATURE}/{REST}",
            {"keys": ((b"secret", b"hello"), (b"key2", b"salt2"))},
            True,
            id="the second key's",
        ),
        pytest.param(f"/{SIGNATURE}/{REST}?x=1", {}, True, id="query ignored"),
        pytest.param(f"/é/{REST}", {}, False, id="not ASCII"),
        pytest.param(f"/anything/{REST}", {"keys": ()}, True, id="no keys"),
    ],
)
def test_signature_is_checked(target: str, rules: dict[str, object], *, valid: bool) -> None:
    checked = replace(SIGNED, **rules)  # type: ignore[arg-type]
    assert signature_is_valid(read(target, checked), checked) is valid


@pytest.mark.parametrize(
    ("target", "rules", "canonical"),
    [
        pytest.param(f"/{SIGNATURE}/{REST}", {}, True, id="as signed"),
        pytest.param(f"/{SIGNATURE[:-1]}x/{REST}", {}, False, id="spare bits set"),
        pytest.param(f"/{SIGNATURE}//{REST}", {}, False, id="doubled slash"),
        pytest.param(f"//{SIGNATURE}/{REST}", {}, False, id="doubled slash at the start"),
        pytest.param(
            f"/{SIGNATURE}/rs%3Afit%3A64%3A64/plain/local:///chelsea.jpg", {}, False, id="%3A"
        ),
        pytest.param(
            f"/{SIGNATURE_OF_PERCENT_COLON}/fn:a%3Ab/plain/local:///chelsea.jpg",
            {},
            True,
            id="%3A that was signed",
        ),
        pytest.param(f"/{SIGNATURE}/{OPTIONS}/plain/local:/a.jpg", {}, False, id="one slash"),
        pytest.param(f"/*/{REST}", {}, False, id="no base64"),
        pytest.param(f"/UlWiVzz_EWk/{REST}", {"signature_size": 8}, True, id="short"),
        pytest.param(f"/UlWiVzz_EWl/{REST}", {"signature_size": 8}, False, id="short, spare bits"),
        pytest.param(f"/t/{REST}", {"trusted_signatures": ("t",)}, True, id="trusted"),
        pytest.param(f"/t//{REST}", {"trusted_signatures": ("t",)}, False, id="trusted, doubled"),
        pytest.param(f"/t/{REST}", {"keys": ()}, True, id="no keys"),
        pytest.param(f"/t//{REST}", {"keys": ()}, False, id="no keys, doubled slash"),
    ],
)
def test_one_spelling_of_a_signed_path_is_canonical(
    target: str, rules: dict[str, object], *, canonical: bool
) -> None:
    checked = replace(SIGNED, **rules)  # type: ignore[arg-type]
    assert signature_spelling_is_canonical(read(target, checked), checked) is canonical


PIECES = st.sampled_from(
    [
        *"/:%@.?=_ \n\x00é",
        "//",
        "%3A",
        "plain",
        "plain/",
        "local:/",
        "raw:1",
        "exp:1",
        "f:png",
        "/img",
        "rs:fit:1:1",
        "aGk",
        "http:/",
        SIGNATURE,
    ]
)
TARGETS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=30).map(lambda pieces: ("/" + "".join(pieces)).encode()),
)
RULES = st.builds(
    PathRules,
    prefix=st.sampled_from(["", "/img", "img/", "/é"]),
    separator=st.sampled_from([":", ",", "%3A", "/", "é"]),
    keys=st.sampled_from([(), ((b"secret", b"hello"),), ((b"", b""), (b"k", b"s"))]),
    signature_size=st.integers(1, 32),
    trusted_signatures=st.sampled_from([(), ("_", "é")]),
    only_presets=st.booleans(),
    base64_includes_filename=st.booleans(),
)


@given(target=TARGETS, rules=RULES)
def test_any_bytes_are_read_without_an_exception(target: bytes, rules: PathRules) -> None:
    path = read_path(target, rules)
    if path is None:
        return
    decode_source(path, rules)
    signature_is_valid(path, rules)
    if signature_spelling_is_canonical(path, rules) and not rules.keys:
        assert path.written == path.repaired
    if not path.is_as_signed:
        return
    whole = path.repaired.encode("utf-8", "surrogateescape")
    assert target.partition(b"?")[0].endswith(b"/" + whole)


@pytest.mark.parametrize(
    "piece",
    [b"a:/", b":/", b"%3A", b"/", b"@", b"x", b"/plain/", b"%", b"."],
    ids=lambda piece: piece.decode(),
)
def test_time_is_linear_in_the_bytes(piece: bytes) -> None:
    target = b"/_/" + piece * (200_000 // len(piece))
    started = time.process_time()
    path = read_path(target, NO_KEYS)
    if path is not None:
        decode_source(path, NO_KEYS)
    assert time.process_time() - started < 1
