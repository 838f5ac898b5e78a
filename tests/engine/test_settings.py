"""``IMGPROXY_*`` as the engine reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.engine.errors import InvalidUrl
from imgproxy_cache.engine.settings import settings_from_environ
from imgproxy_cache.engine.source_url import source_url
from imgproxy_cache.errors import SettingsError


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings_from_environ(environ)
    return caught.value.problems


def test_nothing_need_be_set() -> None:
    settings = settings_from_environ({})
    assert settings.path == PathRules()
    assert (settings.server.bind, settings.server.timeout_seconds) == (":8080", 10)
    assert settings.unknown == ()


def test_path_rules() -> None:
    assert settings_from_environ(
        {
            "IMGPROXY_PATH_PREFIX": "/img",
            "IMGPROXY_ARGUMENTS_SEPARATOR": ",",
            "IMGPROXY_KEY": "736563726574, 6b",
            "IMGPROXY_SALT": "68656c6c6f,73",
            "IMGPROXY_SIGNATURE_SIZE": "8",
            "IMGPROXY_TRUSTED_SIGNATURES": "a, b",
            "IMGPROXY_ONLY_PRESETS": "true",
            "IMGPROXY_BASE64_URL_INCLUDES_FILENAME": "1",
        }
    ).path == PathRules(
        prefix="/img",
        separator=",",
        keys=((b"secret", b"hello"), (b"k", b"s")),
        signature_size=8,
        trusted_signatures=("a", "b"),
        only_presets=True,
        base64_includes_filename=True,
    )


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = problems(
        IMGPROXY_WORKERS="0",
        IMGPROXY_TTL="soon",
        IMGPROXY_QUALITY="101",
        IMGPROXY_MAX_SRC_RESOLUTION="0",
        IMGPROXY_AUTO_WEBP="yes",
        IMGPROXY_PREFERRED_FORMATS="jpeg,doc",
        IMGPROXY_FORMAT_QUALITY="webp=0",
        IMGPROXY_LOCAL_FILESYSTEM_ROOT="/nowhere",
        IMGPROXY_FALLBACK_IMAGE_DATA="not/base64!",
        IMGPROXY_FALLBACK_IMAGE_PATH="/nowhere",
        IMGPROXY_PRESETS="thumb",
        IMGPROXY_NETWORK="udp",
        IMGPROXY_URL_REPLACEMENTS="x",
    )
    assert [problem.partition(": expected")[0] for problem in found] == [
        "IMGPROXY_NETWORK='udp'",
        "IMGPROXY_WORKERS='0'",
        "IMGPROXY_PRESETS: 'thumb'",
        "IMGPROXY_QUALITY='101'",
        "IMGPROXY_FORMAT_QUALITY='webp=0'",
        "IMGPROXY_MAX_SRC_RESOLUTION='0'",
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT='/nowhere'",
        "IMGPROXY_PREFERRED_FORMATS='jpeg,doc'",
        "IMGPROXY_AUTO_WEBP='yes'",
        "IMGPROXY_TTL='soon'",
        "IMGPROXY_FALLBACK_IMAGE_DATA",
        "IMGPROXY_FALLBACK_IMAGE_PATH='/nowhere'",
        "IMGPROXY_URL_REPLACEMENTS='x'",
    ]


def test_preferred_formats_are_those_that_the_engine_can_write() -> None:
    settings = settings_from_environ({"IMGPROXY_PREFERRED_FORMATS": "jxl,jpg,svg,webp"})
    assert settings.render.preferred_formats == ("jpeg", "webp")
    assert problems(IMGPROXY_PREFERRED_FORMATS="jxl,svg") == (
        "IMGPROXY_PREFERRED_FORMATS='jxl,svg': "
        "expected at least one of avif, gif, jpeg, png, tiff, webp",
    )


def test_keys_are_told_by_their_length_only() -> None:
    assert problems(IMGPROXY_KEY="not-hexadecimal", IMGPROXY_SALT="68") == (
        "IMGPROXY_KEY (15 characters): expected hexadecimal digits",
        "IMGPROXY_KEY, IMGPROXY_SALT: 0 keys and 1 salts: expected as many of both",
    )


def test_settings_that_mean_nothing_to_the_engine_are_listed() -> None:
    environ = {
        "IMGPROXY_PROMETHEUS_BIND": ":8081",
        "IMGPROXY_WATERMARK_PATH": "/a.png",
        "IMGPROXY_USE_S3": "",
        "IMGPROXY_TTL": "1",
        "OTHER": "1",
    }
    settings = settings_from_environ(environ)
    assert settings.unknown == ("IMGPROXY_PROMETHEUS_BIND", "IMGPROXY_WATERMARK_PATH")
    assert settings.options.has_watermark


def test_presets_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "presets"
    file.write_text("# mine\nfile=w:2\n\n")
    settings = settings_from_environ(
        {
            "IMGPROXY_PRESETS": "a=w:1|b=h:1",
            "IMGPROXY_PRESETS_SEPARATOR": "|",
            "IMGPROXY_PRESETS_PATH": str(file),
        }
    )
    assert dict(settings.options.presets) == {
        "a": (("w", "1"),),
        "b": (("h", "1"),),
        "file": (("w", "2"),),
    }


def test_presets_may_use_security_options_where_urls_may() -> None:
    environ = {"IMGPROXY_PRESETS": "big=msr:100"}
    assert problems(**environ) == (
        "IMGPROXY_PRESETS: preset 'big': option 'msr' needs IMGPROXY_ALLOW_SECURITY_OPTIONS",
    )
    settings = settings_from_environ({**environ, "IMGPROXY_ALLOW_SECURITY_OPTIONS": "1"})
    assert dict(settings.options.presets) == {"big": (("msr", "100"),)}


@pytest.mark.parametrize(
    ("environ", "source", "url"),
    [
        pytest.param({}, "plain/http://e/a%20b", "http://e/a b", id="as it is"),
        pytest.param({"IMGPROXY_BASE_URL": "http://e/"}, "plain/a", "http://e/a", id="base URL"),
        pytest.param(
            {"IMGPROXY_BASE_URL": "http://e/"}, "plain/http://e/a", "http://e/a", id="base twice"
        ),
        pytest.param(
            {"IMGPROXY_URL_REPLACEMENTS": "mys3://=s3://my_bucket/images/"},
            "plain/mys3://a.jpg",
            "s3://my_bucket/images/a.jpg",
            id="replacement",
        ),
        pytest.param(
            {"IMGPROXY_URL_REPLACEMENTS": "cdn://*/*=http://$1.e/${2}$$x;http://a=local://b"},
            "plain/cdn://a/b/c",
            "local://b.e/b$x/c",
            id="replacements with wildcards, one after the other",
        ),
        pytest.param(
            {"IMGPROXY_URL_REPLACEMENTS": "e=f"},
            "plain/http://e",
            "http://e",
            id="only at the start",
        ),
    ],
)
def test_source_url(environ: dict[str, str], source: str, url: str) -> None:
    settings = settings_from_environ(environ)
    path = read_path(f"/_/w:1/{source}".encode(), settings.path)
    assert path is not None
    assert source_url(path, settings) == url


def test_source_that_cannot_be_decoded_is_an_invalid_url() -> None:
    path = read_path(b"/_/w:1/plain/@png", PathRules())
    assert path is not None
    with pytest.raises(InvalidUrl):
        source_url(path, settings_from_environ({}))


def test_allowed_sources_are_prefixes_with_wildcards() -> None:
    allowed = "http://*.example.com/,local://"
    patterns = settings_from_environ({"IMGPROXY_ALLOWED_SOURCES": allowed}).sources.allowed_sources
    urls = ["http://a.example.com/x", "http://a/b.example.com/x", "local:///x", "xlocal:///x"]
    assert [any(pattern.match(url) for pattern in patterns) for url in urls] == [
        True,
        False,
        True,
        False,
    ]
