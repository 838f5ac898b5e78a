"""What the environment may say, and what is said about it where it may not."""

import os
import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.location import S3Location
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.errors import SettingsError
from imgproxy_cache.settings import BindAddress, Settings, reference
from imgproxy_cache.settings.reference import SETTINGS, Setting

BUCKET = {"S3_BUCKET": "images"}
DEFAULTS = Settings(
    store=S3Location("images", "", "https://fly.storage.tigris.dev", "auto"),
    bind=BindAddress(None, 8080),
    admin_bind=BindAddress("127.0.0.1", 8082),
    health_check_timeout_seconds=30,
    upstream_url="http://127.0.0.1:8081",
    upstream_host="127.0.0.1",
    upstream_port=8081,
    upstream_connections=100,
    upstream_wait_seconds=10,
    upstream_queue_items=1000,
    upstream_connect_timeout_seconds=2,
    upstream_read_timeout_seconds=60,
    buffer_bytes=256 * 1024 * 1024,
    client_stall_seconds=60,
    trusted_proxies=(),
    max_object_bytes=50 * 1024 * 1024,
    upload_concurrency=8,
    upload_queue_items=10_000,
    upload_queue_bytes=128 * 1024 * 1024,
    spool_dir=Path(f"/tmp/imgproxy-cache-spool-{os.geteuid()}"),
    spool_is_lasting=False,
    spool_sync=True,
    spool_bytes=1024 * 1024 * 1024,
    spool_items=100_000,
    spool_max_age_seconds=7 * 24 * 3600,
    drain_seconds=4,
    imgproxy_bin=None,
    log_level="info",
    log_format=None,
    workers=1,
    path_rules=PathRules(),
    key_rules=KeyRules(),
    read_through=None,
    storage_rules=StorageRules(),
    health_path="/health",
    port_collision=None,
    warnings=(),
)


def settings(environ: dict[str, str]) -> Settings:
    return Settings.from_environ(BUCKET | environ)


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)
    return list(caught.value.problems)


def problems_with_a_bucket(environ: dict[str, str]) -> list[str]:
    return problems(BUCKET | environ)


def test_bucket_is_all_that_is_required() -> None:
    assert settings({}) == DEFAULTS


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"HEALTH_CHECK_TIMEOUT_IN_SEC": "soon"})

    assert str(caught.value) == (
        "cannot start, 2 settings to fix:\n"
        "  S3_BUCKET is not set: expected a bucket name\n"
        "  HEALTH_CHECK_TIMEOUT_IN_SEC='soon': expected seconds, more than 0"
    )


def test_one_wrong_setting_is_not_called_several() -> None:
    with pytest.raises(SettingsError, match=re.escape("cannot start, 1 setting to fix:\n  S3_BUC")):
        Settings.from_environ({})


@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        pytest.param({"HEALTH_CHECK_TIMEOUT_IN_SEC": "0.5"}, {"health_check_timeout_seconds": 0.5}),
        pytest.param({"CACHE_UPSTREAM_CONNECTIONS": "7"}, {"upstream_connections": 7}),
        pytest.param({"CACHE_UPSTREAM_WAIT_SECONDS": "0"}, {"upstream_wait_seconds": 0}),
        pytest.param(
            {"CACHE_UPSTREAM_CONNECT_TIMEOUT_SECONDS": "7"},
            {"upstream_connect_timeout_seconds": 7},
        ),
        pytest.param(
            {"CACHE_UPSTREAM_READ_TIMEOUT_SECONDS": "7"}, {"upstream_read_timeout_seconds": 7}
        ),
        pytest.param({"CACHE_BUFFER_BYTES": "70000000"}, {"buffer_bytes": 70_000_000}),
        pytest.param({"CACHE_CLIENT_STALL_SECONDS": " 7 "}, {"client_stall_seconds": 7}),
        pytest.param({"CACHE_UPLOAD_CONCURRENCY": "7"}, {"upload_concurrency": 7}),
        pytest.param({"CACHE_UPLOAD_QUEUE_ITEMS": "7"}, {"upload_queue_items": 7}),
        pytest.param({"CACHE_UPLOAD_QUEUE_BYTES": "70000000"}, {"upload_queue_bytes": 70_000_000}),
        pytest.param(
            {"CACHE_SPOOL_DIR": "/var/spool/images"},
            {"spool_dir": Path("/var/spool/images"), "spool_is_lasting": True},
        ),
        pytest.param(
            {"TMPDIR": "/scratch"},
            {"spool_dir": Path(f"/scratch/imgproxy-cache-spool-{os.geteuid()}")},
        ),
        pytest.param({"CACHE_SPOOL_SYNC": "false"}, {"spool_sync": False}),
        pytest.param({"CACHE_SPOOL_BYTES": "8"}, {"spool_bytes": 8}),
        pytest.param({"CACHE_SPOOL_ITEMS": "0"}, {"spool_items": 0}),
        pytest.param({"CACHE_SPOOL_MAX_AGE_SECONDS": "60"}, {"spool_max_age_seconds": 60}),
        pytest.param({"CACHE_DRAIN_SECONDS": "0"}, {"drain_seconds": 0}),
        pytest.param({"CACHE_IMGPROXY_BIN": "/bin/imgproxy"}, {"imgproxy_bin": "/bin/imgproxy"}),
        pytest.param({"CACHE_LOG_LEVEL": "Debug"}, {"log_level": "debug"}),
        pytest.param({"CACHE_LOG_FORMAT": "console"}, {"log_format": "console"}),
        pytest.param({"CACHE_READ_THROUGH": "false"}, {}),
        pytest.param({"WEB_CONCURRENCY": "7"}, {"workers": 7}),
        pytest.param({"WEB_CONCURRENCY": ""}, {}),
        pytest.param({"PORT": "7"}, {"bind": BindAddress(None, 7)}),
        pytest.param({"IMGPROXY_BIND": ":7"}, {"bind": BindAddress(None, 7)}),
        pytest.param(
            {"IMGPROXY_BIND": "127.0.0.1:7", "PORT": "8"}, {"bind": BindAddress("127.0.0.1", 7)}
        ),
        pytest.param({"IMGPROXY_BIND": "[::1]:0"}, {"bind": BindAddress("::1", 0)}),
        pytest.param({"CACHE_ADMIN_BIND": ""}, {"admin_bind": None}),
        pytest.param({"CACHE_ADMIN_BIND": ":7"}, {"admin_bind": BindAddress(None, 7)}),
        pytest.param(
            {"CACHE_UPSTREAM_URL": "http://[::1]:7/"},
            {"upstream_url": "http://[::1]:7", "upstream_host": "::1", "upstream_port": 7},
        ),
        pytest.param(
            {"CACHE_UPSTREAM_URL": "http://localhost"},
            {
                "upstream_url": "http://localhost:80",
                "upstream_host": "localhost",
                "upstream_port": 80,
            },
        ),
        pytest.param(
            {"CACHE_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,fd00::/8"},
            {
                "trusted_proxies": (
                    ip_network("10.0.0.0/8"),
                    ip_network("192.0.2.1/32"),
                    ip_network("fd00::/8"),
                )
            },
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if value else "",
)
def test_setting_changes_what_it_names(environ: dict[str, str], changed: dict[str, Any]) -> None:
    assert settings(environ) == replace(DEFAULTS, **changed)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HEALTH_CHECK_TIMEOUT_IN_SEC", "soon", "seconds, more than 0"),
        ("HEALTH_CHECK_TIMEOUT_IN_SEC", "0", "seconds, more than 0"),
        ("HEALTH_CHECK_TIMEOUT_IN_SEC", "-1", "seconds, more than 0"),
        ("HEALTH_CHECK_TIMEOUT_IN_SEC", "nan", "seconds, more than 0"),
        ("HEALTH_CHECK_TIMEOUT_IN_SEC", "1e3", "seconds, more than 0"),
        ("CACHE_UPSTREAM_WAIT_SECONDS", "-1", "seconds, 0 or more"),
        ("CACHE_UPSTREAM_CONNECTIONS", "0", "a whole number, 1 or more"),
        ("CACHE_UPSTREAM_CONNECTIONS", "1.5", "a whole number, 1 or more"),
        ("CACHE_UPSTREAM_CONNECTIONS", "1_000", "a whole number, 1 or more"),
        ("CACHE_UPSTREAM_CONNECTIONS", "\u0663", "a whole number, 1 or more"),
        ("CACHE_BUFFER_BYTES", "256MB", "bytes, 1 or more"),
        ("CACHE_MAX_OBJECT_BYTES", "9" * 19, "bytes, 1 or more"),
        ("CACHE_MIN_MAX_AGE_SECONDS", "-1", "whole seconds, 0 or more"),
        ("WEB_CONCURRENCY", "many", "a whole number, 1 or more"),
        ("CACHE_STORE_SVG", "yes", "true or false"),
        ("CACHE_STORE_SECRET", "TrUe", "true or false"),
        ("IMGPROXY_COOKIE_PASSTHROUGH", "on", "true or false"),
        ("IMGPROXY_ENFORCE_WEBP", "2", "true or false"),
        ("CACHE_READ_THROUGH", "on", "true or false"),
        ("CACHE_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("CACHE_LOG_FORMAT", "xml", "json or console"),
        ("PORT", "65536", "a port from 0 to 65535"),
        ("IMGPROXY_BIND", "8080", "host:port or :port"),
        ("IMGPROXY_BIND", "/run/imgproxy.sock", "host:port or :port"),
        ("IMGPROXY_BIND", "::1:8080", "host:port or :port"),
        ("IMGPROXY_BIND", "[::::]:8080", "host:port or :port"),
        ("CACHE_ADMIN_BIND", ":99999", "host:port or :port"),
        ("CACHE_UPSTREAM_URL", "imgproxy:8080", "http://host:port"),
        ("CACHE_UPSTREAM_URL", "https://imgproxy", "http://host:port"),
        ("CACHE_UPSTREAM_URL", "http://imgproxy/path", "http://host:port"),
        ("CACHE_UPSTREAM_URL", "http://imgproxy:0", "http://host:port"),
        (
            "CACHE_TRUSTED_PROXIES",
            "10.0.0.0/8,fly",
            "addresses or networks such as 10.0.0.0/8, several by commas",
        ),
        ("IMGPROXY_PATH_PREFIX", "/\u00e4", "printable ASCII without blanks"),
        ("IMGPROXY_PATH_PREFIX", "/a b", "printable ASCII without blanks"),
        (
            "CACHE_SPOOL_DIR",
            "spool",
            "a folder from the root on, such as /var/spool/imgproxy-cache",
        ),
        ("TMPDIR", "tmp", "a folder from the root on, such as /var/spool/imgproxy-cache"),
        (
            "S3_ENDPOINT",
            "https://s3.example:65536",
            "https://host or http://host, with a port if need be",
        ),
        ("IMGPROXY_SIGNATURE_SIZE", "33", "bytes from 1 to 32"),
        ("IMGPROXY_SIGNATURE_SIZE", "0", "bytes from 1 to 32"),
        ("IMGPROXY_TTL", "-1", "seconds, 0 or more"),
        ("IMGPROXY_FALLBACK_IMAGE_TTL", "long", "seconds, 0 or more"),
        ("IMGPROXY_FALLBACK_IMAGE_HTTP_CODE", "600", "a whole number from 0 to 599"),
    ],
)
def test_wrong_value_is_named_with_what_was_expected(name: str, value: str, expected: str) -> None:
    assert problems_with_a_bucket({name: value}) == [f"{name}={value!r}: expected {expected}"]


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"IMGPROXY_KEY": "s3cret"},
            "IMGPROXY_KEY (6 characters): expected hexadecimal digits in pairs,"
            " several keys by commas",
        ),
        (
            {"IMGPROXY_KEY": "61", "IMGPROXY_SALT": "6 1"},
            "IMGPROXY_SALT (3 characters): expected hexadecimal digits in pairs,"
            " several keys by commas",
        ),
        (
            {"IMGPROXY_KEY": "61"},
            "IMGPROXY_SALT is not set: expected as many salts as IMGPROXY_KEY has keys, 1",
        ),
        (
            {"IMGPROXY_KEY": "61,62", "IMGPROXY_SALT": "61"},
            "IMGPROXY_SALT (2 characters): expected as many salts as IMGPROXY_KEY has keys, 2",
        ),
        (
            {"IMGPROXY_SALT": "61"},
            "IMGPROXY_SALT (2 characters): expected as many salts as IMGPROXY_KEY has keys, 0",
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_of_a_secret_only_the_length_is_told(environ: dict[str, str], problem: str) -> None:
    assert problems_with_a_bucket(environ) == [problem]


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("http://user:pass@host:8081", "http://***@host:8081"),
        ("http://user@host", "http://***@host"),
        ("http://us@er:pa/s?s#@host", "http://***@host"),
        ("user:pa//ss@host:8081", "***@host:8081"),
        ("http://host:8081/?token=s3cret", "http://host:8081/?***"),
        ("x" * 500, "x" * 120 + "..."),
    ],
)
def test_user_part_and_query_of_a_url_are_never_told(url: str, printed: str) -> None:
    expected = f"CACHE_UPSTREAM_URL={printed!r}: expected http://host:port"
    assert problems_with_a_bucket({"CACHE_UPSTREAM_URL": url}) == [expected]


IN_WORDS = (
    "",
    "required",
    "found",
    "the standard chain",
    "a temporary folder",
    "twice imgproxy's workers",
)


@pytest.mark.parametrize(
    "setting",
    [setting for setting in SETTINGS if setting.default not in IN_WORDS],
    ids=lambda setting: setting.name,
)
def test_default_of_the_table_is_the_one_that_counts(setting: Setting) -> None:
    names, defaults = setting.name.split(", "), setting.default.split(", ")
    said = dict(zip(names, defaults, strict=True))
    unsaid = {} if "CACHE_READ_THROUGH" in said else {"CACHE_READ_THROUGH": "true"}
    # The one default that depends on where the log goes.
    assert replace(settings(unsaid | said), log_format=None) == settings(unsaid)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "CACHE_MEMORY_BYTE",
            ("CACHE_MEMORY_BYTE is none of our settings: did you mean CACHE_MEMORY_BYTES?",),
            id="a slip",
        ),
        pytest.param("CACHE_XYZ", ("CACHE_XYZ is none of our settings",), id="unlike any"),
        pytest.param("CACHED", (), id="somebody else's"),
    ],
)
def test_variable_that_nobody_reads_is_named(name: str, expected: tuple[str, ...]) -> None:
    assert settings({name: "1"}).warnings == expected


def test_name_that_belongs_to_imgproxy_pro_is_not_ours() -> None:
    assert not [setting for setting in SETTINGS if setting.name.startswith("IMGPROXY_CACHE_")]


NAMES = [
    *reference.NAMES,
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "BUCKET_NAME",
    "IMGPROXY_ARGUMENTS_SEPARATOR",
    "IMGPROXY_COOKIE_PASSTHROUGH",
    "IMGPROXY_ENFORCE_WEBP",
    "IMGPROXY_ENV_GCP_KEY",
    "IMGPROXY_FALLBACK_IMAGE_HTTP_CODE",
    "IMGPROXY_FALLBACK_IMAGE_TTL",
    "IMGPROXY_FALLBACK_IMAGE_URL",
    "IMGPROXY_PATH_PREFIX",
    "IMGPROXY_PROMETHEUS_BIND",
    "IMGPROXY_SIGNATURE_SIZE",
    "IMGPROXY_TTL",
    "PORT",
]
URLS = ["CACHE_STORE_URL", "CACHE_UPSTREAM_URL", "S3_ENDPOINT", "AWS_ENDPOINT_URL"]
SECRETS = ["IMGPROXY_KEY", "IMGPROXY_SALT", "IMGPROXY_SECRET", "IMGPROXY_TRUSTED_SIGNATURES"]
PASSWORD = "Tr0ub4dor"
TEXT = st.one_of(
    st.text(" \t\n\0aZ\u00e4\u0663\udcff", max_size=6),
    st.text(":/@#?%.,-[]0123456789abs", max_size=12),
    st.sampled_from(
        ["s3://a/", "gs://a", "file:///a", "http://[::1]:80", "61,62", "true", "9" * 30]
    ),
)
URL_WITH_USER = st.builds(
    "{}{}:{}{}@host/{}".format,
    st.sampled_from(["s3://", "http://", "https://", "://", "//", ""]),
    TEXT,
    st.just(PASSWORD),
    TEXT,
    TEXT,
)
ENVIRONS = st.builds(
    lambda *parts: parts[0] | parts[1] | parts[2],
    st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=6),
    st.dictionaries(st.sampled_from(URLS), URL_WITH_USER, max_size=2),
    st.dictionaries(st.sampled_from(SECRETS), TEXT.map(PASSWORD.__add__), max_size=2),
)


@given(environ=ENVIRONS)
def test_any_environment_is_read_or_refused_and_no_secret_is_told(environ: dict[str, str]) -> None:
    try:
        told = repr(Settings.from_environ(environ))
    except SettingsError as error:
        told = str(error)

    assert PASSWORD not in told
