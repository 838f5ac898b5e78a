"""Header fields of answers, where the tapes have no case."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from imgproxy_cache.engine.answers import cache_control, content_disposition, validators
from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.settings import settings_from_environ
from imgproxy_cache.engine.sources import Headers

NOW = 1_700_000_000.0
SETTINGS = settings_from_environ({})
YEAR = "max-age=31536000, public"
PASSTHROUGH = {"cache_control_passthrough": True}


def source(**fields: str) -> Headers:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]


@pytest.mark.parametrize(
    ("changed", "rules", "expected"),
    [
        pytest.param({}, {}, YEAR, id="the settings'"),
        pytest.param({}, {"ttl_seconds": 0}, "no-cache", id="none"),
        pytest.param({"status": 404}, {}, None, id="errors have none"),
        pytest.param({"expires": NOW + 90}, {}, "max-age=90, public", id="the URL's"),
        pytest.param({"expires": NOW + 90}, {"ttl_seconds": 60}, "max-age=60, public", id="less"),
        pytest.param(
            {"source": source(cache_control="no-store")}, {}, YEAR, id="the source's is not asked"
        ),
        pytest.param(
            {"source": source(cache_control="private"), "expires": NOW + 9},
            PASSTHROUGH,
            "max-age=9, public",
            id="the URL's before the source's",
        ),
        pytest.param(
            {"source": source(expires=formatdate(NOW + 60, usegmt=True))},
            PASSTHROUGH,
            "max-age=60, public",
            id="the source's Expires",
        ),
        pytest.param(
            {"source": source(expires=formatdate(NOW - 60, usegmt=True))},
            PASSTHROUGH,
            YEAR,
            id="Expires in the past",
        ),
        pytest.param({"source": source(expires="0")}, PASSTHROUGH, YEAR, id="Expires of nonsense"),
        pytest.param(
            {"fallback": replace(SETTINGS.fallback, ttl_seconds=7), "status": 404},
            {},
            "max-age=7, public",
            id="the fallback image's, errors too",
        ),
        pytest.param({"fallback": SETTINGS.fallback}, {}, YEAR, id="fallback image without one"),
    ],
)
def test_how_long_an_answer_may_be_kept(
    changed: dict[str, Any], rules: dict[str, Any], expected: str | None
) -> None:
    call = {"status": 200, "expires": 0, "source": [], **changed}
    status = call.pop("status")
    fields = cache_control(status, **call, rules=replace(SETTINGS.answers, **rules), now=NOW)
    assert fields == ([(b"Cache-Control", expected.encode())] if expected else [])


@pytest.mark.parametrize(
    ("url", "options", "extra", "expected"),
    [
        pytest.param("http://e/a/cat.png", {}, {"extension": ".jpg"}, "cat.jpg", id="the URL's"),
        pytest.param("http://e/cat", {}, {"extension": ".jpg"}, "cat.jpg", id="without an ending"),
        pytest.param("http://e/", {}, {"extension": ".jpg"}, "image.jpg", id="no name"),
        pytest.param("http://e/a.b.c", {}, {"extension": ".png"}, "a.b.png", id="two dots"),
        pytest.param("x/a.jpg?b=/c.d", {}, {"extension": ".png"}, "c.png", id="of the whole URL"),
        pytest.param("a", {"filename": 'q"q'}, {"extension": ".png"}, "q%22q.png", id="quoted"),
        pytest.param("a", {"filename": "a\r\nX: y"}, {"extension": ""}, "a  X: y", id="lines"),
        pytest.param("a.txt", {}, {"content_type": "image/png"}, "a.txt", id="raw"),
        pytest.param("a", {}, {"content_type": "image/png; x=y"}, "a.png", id="raw, by its type"),
    ],
)
def test_name_of_the_file(
    url: str, options: dict[str, str], extra: dict[str, str], expected: str
) -> None:
    value = content_disposition(url, Options(**options), **extra)  # type: ignore[arg-type]
    assert value == f'inline; filename="{expected}"'.encode()


def test_validators_can_be_turned_off_and_nonsense_is_not_passed_on() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    fields = source(etag='"x"', last_modified=date)
    expected = [(b"Etag", b'"x"'), (b"Last-Modified", date.encode())]
    assert validators(fields, SETTINGS.answers) == expected
    assert validators(source(last_modified="lately"), SETTINGS.answers) == []
    off = replace(SETTINGS.answers, etag=False, last_modified=False)
    assert validators(fields, off) == []
