"""The table of what may be stored: one storable answer, and one thing changed about it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import pytest

from imgproxy_cache.core.answer_fields import read_answer_fields
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath, PathRules, read_path
from imgproxy_cache.core.policy import (
    NotStored,
    StorageRules,
    accept_is_ignored,
    why_not_by_credentials,
    why_not_kept,
    why_not_stored,
    why_not_stored_whole,
)
from imgproxy_cache.settings import Settings
from tests.tapes import Tape, all_tapes

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
RULES = StorageRules()
ANSWER = {
    "Content-Type": "image/jpeg",
    "Content-Length": "1358",
    "Cache-Control": "max-age=31536000, public",
    "Content-Disposition": 'inline; filename="chelsea.jpg"',
    "ETag": '"ytUVyVZ4s"',
}
STORABLE: dict[str, Any] = {
    "rules": RULES,
    "method": "GET",
    "target": b"/_/rs:fit:64:64/plain/local:///chelsea.jpg",
    "request_headers": [(b"host", b"img.example"), (b"accept", b"image/webp,*/*")],
    "status": 200,
    "headers": ANSWER,
}
SECRET = [(b"authorization", b"Bearer s3cret")]
SIGNED = PathRules(keys=((b"secret", b"hello"),))
# printf %s 'hello/rs:fit:64:64/plain/local:///chelsea.jpg' | openssl dgst -sha256 -hmac secret
SIGNATURE = b"UlWiVzz_EWmADorIeV3zv1iXYzSPWUDwKDCWaf6_qVw"


class Judge(Protocol):
    """`why_not_stored` or `why_not_kept`."""

    def __call__(
        self,
        rules: StorageRules,
        *,
        method: str,
        path: ImgproxyPath | None,
        credentials: NotStored | None,
        status: int,
        fields: Mapping[bytes, bytes],
        now: float,
    ) -> NotStored | None: ...


def why_not(changed: dict[str, Any], judge: Judge = why_not_stored) -> NotStored | None:
    given = STORABLE | changed
    rules: StorageRules = given["rules"]
    fields = given["headers"].items() if isinstance(given["headers"], dict) else given["headers"]
    headers: Headers = [(name.encode(), value.encode()) for name, value in fields]
    return judge(
        rules,
        method=given["method"],
        path=read_path(given["target"], rules.path_rules),
        credentials=credentials(given["request_headers"], rules),
        status=given["status"],
        fields=read_answer_fields(given["status"], headers).by_name,
        now=NOW,
    )


def credentials(request_headers: Headers, rules: StorageRules) -> NotStored | None:
    return why_not_by_credentials(
        request_headers, secret=rules.secret, cookie_passthrough=rules.cookie_passthrough
    )


def headers(**fields: str | None) -> dict[str, Any]:
    """The storable answer with some fields changed, or, where None, left out."""
    changed = {name.replace("_", "-").title(): value for name, value in fields.items()}
    return {"headers": {k: v for k, v in (ANSWER | changed).items() if v is not None}}


def rules(**fields: Any) -> dict[str, Any]:
    return {"rules": replace(RULES, **fields)}


def target(path: bytes) -> dict[str, Any]:
    return {"target": path}


def signed(path: bytes) -> dict[str, Any]:
    return target(path) | rules(path_rules=SIGNED)


PINNED = target(b"/_/rs:fit:64:64/plain/local:///chelsea.jpg@jpg")
FALLBACK_67 = rules(fallback_max_age=67, min_max_age_seconds=0)


TABLE = [
    pytest.param({}, None, id="plain image"),
    # method
    pytest.param({"method": "HEAD"}, NotStored.METHOD, id="HEAD has no body"),
    pytest.param({"method": "POST"}, NotStored.METHOD, id="POST"),
    pytest.param({"method": "get"}, NotStored.METHOD, id="methods are case-sensitive"),
    # secret
    pytest.param(rules(secret=b"s3cret"), NotStored.SECRET, id="imgproxy has a secret"),
    pytest.param(
        rules(secret=b"s3cret") | {"request_headers": SECRET},
        NotStored.SECRET,
        id="imgproxy has a secret and was told it",
    ),
    pytest.param(
        rules(secret=b"s3cret", store_secret=True) | {"request_headers": SECRET},
        None,
        id="behind a secret, where that is stored",
    ),
    # authorization
    pytest.param(
        {"request_headers": SECRET}, NotStored.AUTHORIZATION, id="authorized for something"
    ),
    pytest.param(
        rules(secret=b"other", store_secret=True) | {"request_headers": SECRET},
        NotStored.AUTHORIZATION,
        id="authorized, but not with the secret",
    ),
    pytest.param(
        rules(store_secret=True) | {"request_headers": [(b"authorization", b"Bearer ")]},
        NotStored.AUTHORIZATION,
        id="authorized with nothing, where there is no secret",
    ),
    pytest.param(
        rules(secret=b"s3cret", store_secret=True)
        | {"request_headers": [*SECRET, (b"authorization", b"Basic eDp5")]},
        NotStored.AUTHORIZATION,
        id="authorized with the secret and more",
    ),
    # cookie
    pytest.param({"request_headers": [(b"cookie", b"a=b")]}, None, id="cookies that go nowhere"),
    pytest.param(
        rules(cookie_passthrough=True) | {"request_headers": [(b"cookie", b"a=b")]},
        NotStored.COOKIE,
        id="cookies that the source gets",
    ),
    pytest.param(rules(cookie_passthrough=True), None, id="no cookies for the source"),
    # raw, expires
    pytest.param(target(b"/_/raw:1/plain/local:///a.jpg"), NotStored.RAW, id="raw"),
    pytest.param(target(b"/_/raw:0/plain/local:///a.jpg"), NotStored.RAW, id="raw, any"),
    pytest.param(target(b"/_/raw%3A1/plain/local:///a.jpg"), NotStored.RAW, id="raw, escaped"),
    pytest.param(target(b"//_/raw:1/plain/local:///a.jpg"), NotStored.RAW, id="raw, // first"),
    pytest.param(target(b"/_//raw:1/plain/local:///a.jpg"), NotStored.RAW, id="raw, // later"),
    pytest.param(target(b"/_/cb:raw/plain/local:///raw:1"), None, id="raw is no option here"),
    pytest.param(
        target(b"/_/raw;1/plain/local:///a.jpg") | rules(path_rules=PathRules(separator=";")),
        NotStored.RAW,
        id="raw, another separator",
    ),
    pytest.param(
        target(b"/img/_/raw:1/plain/local:///a.jpg") | rules(path_rules=PathRules(prefix="/img")),
        NotStored.RAW,
        id="raw behind a prefix",
    ),
    pytest.param(target(b"/_/exp:4102444800/plain/local:///a.jpg"), NotStored.EXPIRES, id="exp"),
    pytest.param(
        target(b"/_/expires:4102444800/plain/local:///a.jpg"), NotStored.EXPIRES, id="expires"
    ),
    # spelling
    pytest.param(
        signed(b"/" + SIGNATURE + b"/rs:fit:64:64/plain/local:///chelsea.jpg"),
        None,
        id="as it was signed",
    ),
    pytest.param(
        signed(b"/" + SIGNATURE[:-1] + b"x/rs:fit:64:64/plain/local:///chelsea.jpg"),
        NotStored.SPELLING,
        id="spare bits of the signature set",
    ),
    pytest.param(
        signed(b"/" + SIGNATURE + b"/rs%3Afit:64:64/plain/local:///chelsea.jpg"),
        NotStored.SPELLING,
        id="signed, then a colon escaped",
    ),
    pytest.param(
        signed(b"/" + SIGNATURE + b"//rs:fit:64:64/plain/local:///chelsea.jpg"),
        NotStored.SPELLING,
        id="signed, then a slash doubled",
    ),
    pytest.param(
        signed(b"/" + SIGNATURE + b"/rs:fit:64:64/plain/local:/chelsea.jpg"),
        NotStored.SPELLING,
        id="signed, then slashes lost",
    ),
    pytest.param(
        target(b"/_/rs:fit:64:64/plain/local:/chelsea.jpg"),
        None,
        id="without keys any spelling is one's own",
    ),
    # status
    pytest.param({"status": 206}, NotStored.STATUS, id="part of an image"),
    pytest.param({"status": 304}, NotStored.STATUS, id="nothing new"),
    pytest.param({"status": 203}, NotStored.STATUS, id="some other 2xx"),
    pytest.param({"status": 404}, NotStored.STATUS, id="no image"),
    pytest.param(headers(content_range="bytes 0-9/100"), NotStored.STATUS, id="part, called whole"),
    # set-cookie
    pytest.param(headers(set_cookie="a=b"), NotStored.SET_COOKIE, id="somebody's cookie"),
    # content-type
    pytest.param(headers(content_type=None), NotStored.CONTENT_TYPE, id="no type"),
    pytest.param(headers(content_type=""), NotStored.CONTENT_TYPE, id="empty type"),
    pytest.param(headers(content_type="text/html"), NotStored.CONTENT_TYPE, id="HTML"),
    pytest.param(headers(content_type="image/jpg"), NotStored.CONTENT_TYPE, id="no such type"),
    pytest.param(headers(content_type="image/xyz"), NotStored.CONTENT_TYPE, id="some image"),
    pytest.param(headers(content_type="IMAGE/JPEG ;q=1"), None, id="case and parameters"),
    pytest.param(
        {"headers": [*ANSWER.items(), ("content-type", "text/html")]},
        NotStored.CONTENT_TYPE,
        id="two types",
    ),
    *[
        pytest.param(headers(content_type=f"image/{name}"), None, id=name)
        for name in ("jpeg", "png", "webp", "avif", "gif", "jxl", "heic", "heif", "tiff")
    ],
    *[
        pytest.param(headers(content_type=f"image/{name}"), None, id=name)
        for name in ("bmp", "x-icon", "vnd.microsoft.icon")
    ],
    pytest.param(PINNED, None, id="the format that the path pins"),
    pytest.param(
        PINNED | headers(content_type="image/webp"),
        NotStored.CONTENT_TYPE,
        id="another format than the path pins",
    ),
    pytest.param(
        target(b"/_/f:heic/plain/local:///a.jpg") | headers(content_type="image/heif"),
        None,
        id="imgproxy calls HEIC image/heif",
    ),
    pytest.param(
        target(b"/_/f:ico/plain/local:///a.jpg") | headers(content_type="image/x-icon"),
        None,
        id="icon",
    ),
    pytest.param(
        target(b"/_/f:mp4/plain/local:///a.gif"), NotStored.CONTENT_TYPE, id="pinned no image"
    ),
    # svg
    pytest.param(headers(content_type="image/svg+xml"), NotStored.SVG, id="SVG"),
    pytest.param(
        headers(content_type="image/svg+xml") | rules(store_svg=True), None, id="SVG, on demand"
    ),
    # content-encoding
    pytest.param(headers(content_encoding="gzip"), NotStored.CONTENT_ENCODING, id="coded"),
    # cache-control
    *[
        pytest.param(headers(cache_control=value), NotStored.CACHE_CONTROL, id=f"{value!r}")
        for value in (
            None,
            "",
            "public",
            "no-cache",
            "max-age=9000, No-Store",
            "private, max-age=9000",
            "max-age=9000, no-cache",
            "max-age=0",
            "max-age=9000, s-maxage=0",
        )
    ],
    pytest.param(
        headers(cache_control=None, expires="Tue, 14 Nov 2023 21:13:20 GMT"),
        NotStored.CACHE_CONTROL,
        id="expired an hour ago",
    ),
    pytest.param(headers(age="31536000"), NotStored.CACHE_CONTROL, id="as old as it may become"),
    pytest.param(
        headers(cache_control=None, expires="Tue, 14 Nov 2023 23:13:20 GMT"),
        None,
        id="expires in an hour",
    ),
    # short-lived
    pytest.param(headers(cache_control="max-age=3600"), None, id="just long enough"),
    pytest.param(headers(cache_control="max-age=3599"), NotStored.SHORT_LIVED, id="just too short"),
    pytest.param(
        headers(cache_control="max-age=3600", age="1"), NotStored.SHORT_LIVED, id="just too old"
    ),
    pytest.param(
        headers(cache_control="max-age=9000, s-maxage=60"),
        NotStored.SHORT_LIVED,
        id="short for us",
    ),
    pytest.param(
        headers(cache_control="max-age=1") | rules(min_max_age_seconds=0),
        None,
        id="short, where that is long enough",
    ),
    # fallback
    pytest.param(
        rules(fallback_is_unmarked=True), NotStored.FALLBACK, id="any may be a fallback image"
    ),
    pytest.param(
        FALLBACK_67 | headers(cache_control="max-age=67, public"),
        NotStored.FALLBACK,
        id="lifetime of a fallback image",
    ),
    pytest.param(
        FALLBACK_67 | headers(cache_control="max-age=68, public"),
        None,
        id="any other lifetime",
    ),
    # vary
    pytest.param(headers(vary=""), None, id="varies by nothing"),
    pytest.param(headers(vary="Accept"), NotStored.VARY, id="format chosen by Accept"),
    pytest.param(PINNED | headers(vary="Accept"), None, id="the path chose the format"),
    pytest.param(PINNED | headers(vary="accept, ,ACCEPT"), None, id="Accept, said oddly"),
    pytest.param(
        PINNED | headers(vary="Accept") | rules(formats_are_enforced=True),
        NotStored.VARY,
        id="the path is not the last word",
    ),
    pytest.param(
        PINNED | headers(vary="Accept") | rules(settings_may_be_hidden=True),
        NotStored.VARY,
        id="the path may not be the last word",
    ),
    pytest.param(PINNED | headers(vary="*"), NotStored.VARY, id="varies by anything"),
    pytest.param(PINNED | headers(vary="Accept, DPR"), NotStored.VARY, id="client hints"),
    pytest.param(PINNED | headers(vary="Accept-Encoding"), NotStored.VARY, id="some other"),
    pytest.param(
        PINNED | {"headers": [*ANSWER.items(), ("Vary", "Accept"), ("vary", "Cookie")]},
        NotStored.VARY,
        id="said in two fields",
    ),
    pytest.param(rules(settings_may_be_hidden=True), None, id="hidden settings, no Vary"),
    # size
    pytest.param(headers(content_length="0"), NotStored.EMPTY, id="nothing"),
    pytest.param(headers(content_length="52428800"), None, id="just small enough"),
    pytest.param(headers(content_length="52428801"), NotStored.TOO_LARGE, id="just too large"),
    pytest.param(headers(content_length="9" * 5000), NotStored.TOO_LARGE, id="no end of digits"),
    pytest.param(headers(content_length=None), None, id="length not known yet"),
    # what cannot be read as a path
    pytest.param(target(b"/picture.jpg"), NotStored.SPELLING, id="image where none should be"),
    pytest.param(
        target(b"/") | headers(content_type="text/html"),
        NotStored.CONTENT_TYPE,
        id="landing page",
    ),
]


@pytest.mark.parametrize(("changed", "expected"), TABLE)
def test_why_not_stored(changed: dict[str, Any], expected: NotStored | None) -> None:
    assert why_not(changed) is expected


FOR_THE_BUCKET_ALONE = {
    NotStored.SECRET,
    NotStored.SPELLING,
    NotStored.SVG,
    NotStored.SHORT_LIVED,
    NotStored.VARY,
}


@pytest.mark.parametrize(
    ("changed", "expected"), [row for row in TABLE if row.values[1] not in FOR_THE_BUCKET_ALONE]
)
def test_local_tiers_keep_what_the_bucket_stores_and_refuse_for_its_reasons(
    changed: dict[str, Any], expected: NotStored | None
) -> None:
    assert why_not(changed, why_not_kept) is expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        # secret: it is asked for before the tiers are
        pytest.param(
            rules(secret=b"s3cret") | {"request_headers": SECRET}, None, id="behind the secret"
        ),
        pytest.param(
            rules(secret=b"s3cret")
            | {"request_headers": [*SECRET, (b"authorization", b"Basic eDp5")]},
            NotStored.AUTHORIZATION,
            id="behind the secret and more",
        ),
        pytest.param(
            rules(secret=b"other") | {"request_headers": SECRET},
            NotStored.AUTHORIZATION,
            id="behind another secret",
        ),
        # spelling: all of them have one name
        pytest.param(
            signed(b"/" + SIGNATURE + b"/rs%3Afit:64:64/plain/local:///chelsea.jpg"),
            None,
            id="signed, then a colon escaped",
        ),
        pytest.param(
            signed(b"/" + SIGNATURE[:-1] + b"x/rs:fit:64:64/plain/local:///chelsea.jpg"),
            None,
            id="spare bits of the signature set",
        ),
        pytest.param(target(b"/picture.jpg"), NotStored.SPELLING, id="image where none should be"),
        # svg: its Content-Security-Policy is kept
        pytest.param(headers(content_type="image/svg+xml"), None, id="SVG"),
        pytest.param(
            PINNED | headers(content_type="image/svg+xml"),
            NotStored.CONTENT_TYPE,
            id="SVG where the path pins JPEG",
        ),
        # short-lived
        pytest.param(headers(cache_control="max-age=1"), None, id="for a second"),
        pytest.param(headers(cache_control="max-age=0"), NotStored.CACHE_CONTROL, id="for none"),
        pytest.param(
            headers(cache_control="max-age=60", age="60"), NotStored.CACHE_CONTROL, id="no longer"
        ),
        pytest.param(
            rules(fallback_max_age=67) | headers(cache_control="max-age=67"),
            NotStored.FALLBACK,
            id="lifetime of a fallback image",
        ),
        # vary
        pytest.param(headers(vary="Accept"), None, id="format chosen by Accept"),
        pytest.param(
            headers(vary="Accept") | rules(formats_are_enforced=True, settings_may_be_hidden=True),
            None,
            id="format chosen by settings and Accept",
        ),
        pytest.param(headers(vary="Sec-CH-DPR, DPR, Sec-CH-Width, Width"), None, id="client hints"),
        pytest.param(headers(vary="Origin"), None, id="any other field"),
        pytest.param(headers(vary="*"), NotStored.VARY, id="varies by anything"),
        pytest.param(PINNED | headers(vary="Accept, *"), NotStored.VARY, id="and by anything"),
        pytest.param(headers(vary="a b"), NotStored.VARY, id="varies by what cannot be read"),
        pytest.param(headers(vary="a,b,c,d,e,f,g,h,i"), NotStored.VARY, id="varies by too much"),
    ],
)
def test_local_tiers_keep_what_only_a_bucket_must_not(
    changed: dict[str, Any], expected: NotStored | None
) -> None:
    assert why_not(changed, why_not_kept) is expected


REFUSED: list[tuple[NotStored, dict[str, Any]]] = [
    (NotStored.METHOD, {"method": "HEAD"}),
    (NotStored.STATUS, {"status": 500}),
    (NotStored.SET_COOKIE, {"Set-Cookie": "a=b"}),
    (NotStored.CONTENT_TYPE, {"Content-Type": "text/html"}),
    (NotStored.CONTENT_ENCODING, {"Content-Encoding": "gzip"}),
    (NotStored.CACHE_CONTROL, {"Cache-Control": "no-store"}),
    (NotStored.VARY, {"Vary": "*"}),
    (NotStored.EMPTY, {"Content-Length": "0"}),
]


@pytest.mark.parametrize("first", range(len(REFUSED)), ids=lambda first: REFUSED[first][0])
def test_first_reason_of_the_table_names_the_refusal(first: int) -> None:
    changed: dict[str, Any] = {"headers": dict(ANSWER)}
    for _, change in REFUSED[first:]:
        for name, value in change.items():
            if name in STORABLE:
                changed[name] = value
            else:
                changed["headers"][name] = value

    assert why_not(changed) is REFUSED[first][0]


def test_reasons_are_declared_in_the_order_in_which_they_are_looked_for() -> None:
    assert list(NotStored) == [
        "method",
        "secret",
        "authorization",
        "cookie",
        "raw",
        "expires",
        "spelling",
        "status",
        "set-cookie",
        "content-type",
        "svg",
        "content-encoding",
        "cache-control",
        "short-lived",
        "fallback",
        "vary",
        "empty",
        "too-large",
        "incomplete",
    ]


@pytest.mark.parametrize(
    ("size", "complete", "expected"),
    [
        pytest.param(1, True, None, id="smallest"),
        pytest.param(52_428_800, True, None, id="largest"),
        pytest.param(0, True, NotStored.EMPTY, id="nothing"),
        pytest.param(0, False, NotStored.EMPTY, id="nothing, and cut"),
        pytest.param(52_428_801, True, NotStored.TOO_LARGE, id="too large"),
        pytest.param(52_428_801, False, NotStored.TOO_LARGE, id="too large, and cut"),
        pytest.param(1000, False, NotStored.INCOMPLETE, id="cut"),
    ],
)
def test_why_not_stored_whole(size: int, complete: bool, expected: NotStored | None) -> None:
    assert why_not_stored_whole(RULES, size=size, complete=complete) is expected


def test_rules_are_printed_without_their_secrets() -> None:
    rules = replace(RULES, secret=b"s3cret", path_rules=PathRules(keys=((b"k3y", b"s4lt"),)))
    assert not any(secret in repr(rules) for secret in ("s3cret", "k3y", "s4lt"))


@pytest.mark.parametrize("tape", all_tapes(), ids=str)
def test_recorded_answer_gets_the_verdict_that_was_written_by_hand(tape: Tape) -> None:
    assert verdict(tape, why_not_stored) == tape.expected


# What differs from the bucket's verdict, for both versions where no version is named.
KEPT_LOCALLY = {
    "auto-avif": "stored",
    "auto-none": "stored",
    "auto-webp": "stored",
    "enforce-none": "stored",
    "fallback-ttl": "fallback",
    "hints-dpr": "stored",
    "hints-none": "stored",
    "hints-width": "stored",
    "passthrough-cc60": "stored",
    "secret-health": "content-type",
    "secret-none": "status",
    "secret-right": "stored",
    "secret-wrong": "authorization",
    "signed-double-slash-3.30.1": "status",
    "signed-double-slash-4.0.12": "stored",
    "signed-one-slash": "stored",
    "signed-padding": "status",
    "signed-percent-colon-3.30.1": "status",
    "signed-percent-colon-4.0.12": "stored",
    "svg": "stored",
    "unsigned": "status",
}


@pytest.mark.parametrize("tape", all_tapes(), ids=str)
def test_recorded_answer_is_kept_locally_as_was_written_by_hand(tape: Tape) -> None:
    expected = KEPT_LOCALLY.get(str(tape), KEPT_LOCALLY.get(tape.name, tape.expected))
    assert verdict(tape, why_not_kept) == expected


def verdict(tape: Tape, judge: Judge) -> str:
    settings = Settings.from_environ({"S3_BUCKET": "images"} | tape.env)
    rules = settings.storage_rules
    why_not = judge(
        rules,
        method=tape.method,
        path=read_path(tape.target, rules.path_rules),
        credentials=credentials(tape.request_headers, rules),
        status=tape.status,
        fields=read_answer_fields(tape.status, tape.headers).by_name,
        now=NOW,
    ) or why_not_stored_whole(rules, size=len(tape.body), complete=True)
    return why_not or "stored"


@pytest.mark.parametrize(
    ("target", "rules", "is_ignored"),
    [
        pytest.param(b"/_/plain/local:///a.jpg@webp", RULES, True, id="format behind the source"),
        pytest.param(b"/_/f:webp/plain/local:///a.jpg", RULES, True, id="format among the options"),
        pytest.param(b"/_/plain/local:///a.jpg", RULES, False, id="no format"),
        pytest.param(b"/health", RULES, False, id="no image"),
        *(
            pytest.param(b"/_/plain/local:///a.jpg@webp", rules, False, id=what)
            for what, rules in {
                "enforced": replace(RULES, formats_are_enforced=True),
                "negotiated": replace(RULES, formats_are_negotiated=True),
                "hidden settings": replace(RULES, settings_may_be_hidden=True),
            }.items()
        ),
    ],
)
def test_accept_is_ignored_only_where_path_and_settings_leave_it_no_say(
    target: bytes, rules: StorageRules, is_ignored: bool
) -> None:
    assert accept_is_ignored(rules, read_path(target, PathRules())) is is_ignored
