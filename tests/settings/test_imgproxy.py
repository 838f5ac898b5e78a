"""imgproxy's own settings, as far as they decide what may be stored."""

from dataclasses import replace
from typing import Any

import pytest

from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.settings import Settings

FALLBACK = {"IMGPROXY_FALLBACK_IMAGE_PATH": "/cat.png"}
HIDDEN = {"settings_may_be_hidden": True, "cookie_passthrough": True}
"""What is not said of cookies may be so."""
KEYS = {"IMGPROXY_KEY": "736563726574", "IMGPROXY_SALT": "68656c6c6f"}


def settings(environ: dict[str, str]) -> Settings:
    return Settings.from_environ({"S3_BUCKET": "images"} | environ)


@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        pytest.param({"CACHE_MAX_OBJECT_BYTES": "7"}, {"max_object_bytes": 7}),
        pytest.param({"CACHE_MIN_MAX_AGE_SECONDS": "0"}, {"min_max_age_seconds": 0}),
        pytest.param({"CACHE_STORE_SVG": "true"}, {"store_svg": True}),
        pytest.param({"CACHE_STORE_SECRET": "1"}, {"store_secret": True}),
        pytest.param({"IMGPROXY_SECRET": "s3cret"}, {"secret": b"s3cret"}),
        pytest.param({"IMGPROXY_SECRET": "\udcff\xe4"}, {"secret": b"\xff\xc3\xa4"}),
        pytest.param({"IMGPROXY_COOKIE_PASSTHROUGH": "T"}, {"cookie_passthrough": True}),
        pytest.param({"IMGPROXY_ENFORCE_WEBP": "true"}, {"formats_are_enforced": True}),
        pytest.param({"IMGPROXY_ENFORCE_AVIF": "0"}, {}),
        pytest.param({"IMGPROXY_ENFORCE_JXL": "True"}, {"formats_are_enforced": True}),
        pytest.param({"IMGPROXY_AUTO_WEBP": "true"}, {"formats_are_negotiated": True}),
        pytest.param({"IMGPROXY_AUTO_AVIF": "false"}, {}),
        pytest.param({"IMGPROXY_ENV_LOCAL_FILE_PATH": "/f"}, HIDDEN),
        pytest.param(
            {"IMGPROXY_ENV_LOCAL_FILE_PATH": "/f", "IMGPROXY_COOKIE_PASSTHROUGH": "false"},
            {"settings_may_be_hidden": True},
        ),
        pytest.param({"IMGPROXY_ENV_AWS_SECRET_ID": ""}, {}),
        pytest.param({"CACHE_UPSTREAM_URL": "http://imgproxy:8080"}, HIDDEN),
        pytest.param({"CACHE_UPSTREAM_URL": "http://192.0.2.1"}, HIDDEN),
        pytest.param(
            {"CACHE_UPSTREAM_URL": "http://192.0.2.1", "IMGPROXY_COOKIE_PASSTHROUGH": "0"},
            {"settings_may_be_hidden": True},
        ),
        pytest.param({"CACHE_UPSTREAM_URL": "http://127.9.9.9:7"}, {}),
        pytest.param(FALLBACK, {"fallback_is_unmarked": True}),
        pytest.param(
            {"IMGPROXY_FALLBACK_IMAGE_URL": "https://e/x"}, {"fallback_is_unmarked": True}
        ),
        pytest.param({"IMGPROXY_FALLBACK_IMAGE_DATA": "YQ"}, {"fallback_is_unmarked": True}),
        pytest.param(FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_TTL": "67"}, {"fallback_max_age": 67}),
        pytest.param(
            FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_TTL": "0"}, {"fallback_is_unmarked": True}
        ),
        pytest.param(
            FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_TTL": "31536000"}, {"fallback_is_unmarked": True}
        ),
        pytest.param(
            FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_TTL": "67", "IMGPROXY_TTL": "67"},
            {"fallback_is_unmarked": True},
        ),
        pytest.param(FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_HTTP_CODE": "404"}, {}),
        pytest.param(FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_HTTP_CODE": "0"}, {}),
        pytest.param(
            FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_HTTP_CODE": "200"}, {"fallback_is_unmarked": True}
        ),
        pytest.param({"IMGPROXY_FALLBACK_IMAGE_TTL": "67"}, {}),
    ],
    ids=lambda value: " ".join(f"{k}={v!a}" for k, v in value.items()) if value else "",
)
def test_setting_changes_what_may_be_stored(
    environ: dict[str, str], changed: dict[str, Any]
) -> None:
    assert settings(environ).storage_rules == replace(StorageRules(), **changed)


@pytest.mark.parametrize(
    ("environ", "rules"),
    [
        pytest.param({"IMGPROXY_PATH_PREFIX": "/img"}, PathRules(prefix="/img")),
        pytest.param({"IMGPROXY_PATH_PREFIX": "img/"}, PathRules(prefix="/img")),
        pytest.param({"IMGPROXY_PATH_PREFIX": "/a/b?c#d"}, PathRules(prefix="/a/b")),
        pytest.param({"IMGPROXY_PATH_PREFIX": "/"}, PathRules()),
        pytest.param({"IMGPROXY_ARGUMENTS_SEPARATOR": ";"}, PathRules(separator=";")),
        pytest.param(KEYS, PathRules(keys=((b"secret", b"hello"),))),
        pytest.param(
            {"IMGPROXY_KEY": "61, 62", "IMGPROXY_SALT": "63 ,64"},
            PathRules(keys=((b"a", b"c"), (b"b", b"d"))),
        ),
        pytest.param({"IMGPROXY_KEY": "61", "IMGPROXY_ENV_AWS_SECRET_ID": "x"}, PathRules()),
        pytest.param({"IMGPROXY_SIGNATURE_SIZE": "8"}, PathRules(signature_size=8)),
        pytest.param(
            {"IMGPROXY_TRUSTED_SIGNATURES": "a, b"}, PathRules(trusted_signatures=("a", "b"))
        ),
        pytest.param({"IMGPROXY_ONLY_PRESETS": "true"}, PathRules(only_presets=True)),
        pytest.param(
            {"IMGPROXY_BASE64_URL_INCLUDES_FILENAME": "true"},
            PathRules(base64_includes_filename=True),
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_setting_changes_how_paths_are_read(environ: dict[str, str], rules: PathRules) -> None:
    read = settings(environ)
    assert (read.path_rules, read.storage_rules.path_rules) == (rules, rules)
    assert read.health_path == f"{rules.prefix}/health"


@pytest.mark.parametrize(
    ("environ", "starts_with"),
    [
        (FALLBACK, "nothing is stored: a fallback image cannot be told from others"),
        ({"IMGPROXY_SECRET": "s3cret"}, "nothing is stored: IMGPROXY_SECRET is set"),
        ({"IMGPROXY_ENFORCE_WEBP": "1"}, "nothing is stored: IMGPROXY_ENFORCE_*"),
        (
            {"IMGPROXY_AUTO_WEBP": "1"},
            "what imgproxy chooses the format of by Accept is not stored",
        ),
        (
            {"IMGPROXY_ENV_GCP_SECRET_ID": "x", "IMGPROXY_COOKIE_PASSTHROUGH": "false"},
            "imgproxy reads IMGPROXY_ENV_*",
        ),
        (
            {"CACHE_UPSTREAM_URL": "http://imgproxy", "IMGPROXY_COOKIE_PASSTHROUGH": "true"},
            "imgproxy runs elsewhere",
        ),
        ({"CACHE_BUFFER_BYTES": "52428799"}, "images over 52428799 bytes are not stored"),
        ({"CACHE_UPLOAD_QUEUE_BYTES": "9"}, "images over 9 bytes are not stored"),
    ],
    ids=lambda value: next(iter(value)) if type(value) is dict else "",
)
def test_what_keeps_images_from_being_stored_is_said_at_start(
    environ: dict[str, str], starts_with: str
) -> None:
    (warning,) = settings(environ).warnings
    assert warning.startswith(starts_with)


@pytest.mark.parametrize(
    "environ",
    [
        {"IMGPROXY_SECRET": "s3cret", "CACHE_STORE_SECRET": "true"},
        FALLBACK | {"IMGPROXY_FALLBACK_IMAGE_TTL": "67"},
        {"IMGPROXY_AUTO_WEBP": "false"},
        {"CACHE_BUFFER_BYTES": "52428800", "CACHE_UPLOAD_QUEUE_BYTES": "52428800"},
    ],
    ids=str,
)
def test_nothing_is_said_about_what_works(environ: dict[str, str]) -> None:
    assert settings(environ).warnings == ()


@pytest.mark.parametrize(
    ("environ", "hidden_by"),
    [
        ({"IMGPROXY_ENV_GCP_SECRET_ID": "x"}, "reads IMGPROXY_ENV_*"),
        ({"CACHE_UPSTREAM_URL": "http://imgproxy"}, "runs elsewhere"),
    ],
    ids=lambda value: next(iter(value)) if type(value) is dict else "",
)
def test_cookies_that_imgproxy_may_pass_on_are_said_at_start(
    environ: dict[str, str], hidden_by: str
) -> None:
    _, warning = settings(environ).warnings
    assert warning == (
        f"imgproxy {hidden_by} and may pass cookies on: answers to requests with cookies are not"
        " stored; IMGPROXY_COOKIE_PASSTHROUGH=false if it does not"
    )
