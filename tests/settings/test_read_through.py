"""Read-through: what its settings say, and where it may not be turned on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.errors import SettingsError
from imgproxy_cache.settings import ReadThrough, Settings

CORES = len(os.sched_getaffinity(0))
ON = {"S3_BUCKET": "images", "CACHE_READ_THROUGH": "true"}
TIERS = ReadThrough(
    memory_bytes=64 * 1024 * 1024,
    disk_dir=None,
    disk_bytes=10 * 1024 * 1024 * 1024,
    stale_while_revalidate_seconds=0,
    stale_if_error_seconds=24 * 3600,
    negative_seconds=0,
    fill_concurrency=4 * CORES,
    store_miss_seconds=30,
    store_miss_items=100_000,
)

KEYS = {"IMGPROXY_KEY": "736563726574", "IMGPROXY_SALT": "68656c6c6f"}
SECRET = {"IMGPROXY_SECRET": "s3cret"}
NO_SECRET = {"IMGPROXY_SECRET": ""}
UNSIGNED = {"CACHE_UNSIGNED": "true"}
ELSEWHERE = {"CACHE_UPSTREAM_URL": "http://imgproxy:8080"}
FROM_A_FILE = {"IMGPROXY_ENV_LOCAL_FILE_PATH": "/run/secrets/imgproxy"}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(ON | environ)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        pytest.param({}, {}),
        pytest.param({"CACHE_MEMORY_BYTES": "0"}, {"memory_bytes": 0}),
        pytest.param({"CACHE_DISK_DIR": "/var/cache/a b"}, {"disk_dir": Path("/var/cache/a b")}),
        pytest.param({"CACHE_DISK_DIR": ""}, {}),
        pytest.param({"CACHE_DISK_BYTES": "1"}, {"disk_bytes": 1}),
        pytest.param(
            {"CACHE_STALE_WHILE_REVALIDATE_SECONDS": "60"}, {"stale_while_revalidate_seconds": 60}
        ),
        pytest.param({"CACHE_STALE_IF_ERROR_SECONDS": "0"}, {"stale_if_error_seconds": 0}),
        pytest.param({"CACHE_NEGATIVE_SECONDS": "60"}, {"negative_seconds": 60}),
        pytest.param({"CACHE_STORE_MISS_SECONDS": "0"}, {"store_miss_seconds": 0}),
        pytest.param({"CACHE_STORE_MISS_ITEMS": "0"}, {"store_miss_items": 0}),
        pytest.param({"CACHE_FILL_CONCURRENCY": "1"}, {"fill_concurrency": 1}),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if value else "",
)
def test_setting_changes_what_it_names(environ: dict[str, str], changed: dict[str, Any]) -> None:
    assert Settings.from_environ(ON | environ).read_through == replace(TIERS, **changed)


@pytest.mark.parametrize(
    ("environ", "fills"),
    [
        pytest.param({}, 4 * CORES, id="twice the two workers for each core"),
        pytest.param({"IMGPROXY_WORKERS": "3"}, 6, id="twice its workers"),
        pytest.param({"IMGPROXY_WORKERS": "1"}, 2, id="two at least"),
        pytest.param({"IMGPROXY_CONCURRENCY": "3"}, 6, id="by the old name"),
        pytest.param(
            {"IMGPROXY_CONCURRENCY": "3", "IMGPROXY_WORKERS": "5"}, 10, id="the new name counts"
        ),
        pytest.param({"IMGPROXY_WORKERS": "3", "WEB_CONCURRENCY": "4"}, 2, id="divided, upwards"),
        pytest.param({"IMGPROXY_WORKERS": "1", "WEB_CONCURRENCY": "4"}, 1, id="one each"),
        pytest.param(
            {"CACHE_FILL_CONCURRENCY": "9", "WEB_CONCURRENCY": "2"}, 5, id="what is said, divided"
        ),
        pytest.param(ELSEWHERE | UNSIGNED, 100, id="elsewhere: connections"),
        pytest.param(
            ELSEWHERE
            | UNSIGNED
            | {
                "CACHE_UPSTREAM_CONNECTIONS": "7",
                "WEB_CONCURRENCY": "2",
                "IMGPROXY_WORKERS": "3",
            },
            7,
            id="elsewhere: connections, which are for each worker",
        ),
        pytest.param(
            ELSEWHERE | UNSIGNED | {"CACHE_FILL_CONCURRENCY": "8", "WEB_CONCURRENCY": "2"},
            4,
            id="elsewhere: what is said",
        ),
    ],
)
def test_fills_at_once_for_each_worker(environ: dict[str, str], fills: int) -> None:
    read_through = Settings.from_environ(ON | environ).read_through
    assert read_through is not None
    assert read_through.fill_concurrency == fills


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CACHE_MEMORY_BYTES", "64MB", "bytes, 0 or more"),
        ("CACHE_MEMORY_BYTES", "-1", "bytes, 0 or more"),
        (
            "CACHE_DISK_DIR",
            "cache",
            "a folder from the root on, such as /var/cache/imgproxy-cache",
        ),
        ("CACHE_DISK_BYTES", "0", "bytes, 1 or more"),
        ("CACHE_STALE_WHILE_REVALIDATE_SECONDS", "-1", "seconds, 0 or more"),
        ("CACHE_STALE_IF_ERROR_SECONDS", "1d", "seconds, 0 or more"),
        ("CACHE_NEGATIVE_SECONDS", "61", "whole seconds from 0 to 60"),
        ("CACHE_NEGATIVE_SECONDS", "0.5", "whole seconds from 0 to 60"),
        ("CACHE_FILL_CONCURRENCY", "0", "a whole number, 1 or more"),
        ("IMGPROXY_WORKERS", "0", "a whole number, 1 or more"),
        ("IMGPROXY_CONCURRENCY", "two", "a whole number, 1 or more"),
        ("CACHE_STORE_MISS_SECONDS", "nan", "seconds, 0 or more"),
        ("CACHE_STORE_MISS_ITEMS", "-1", "a whole number, 0 or more"),
        ("CACHE_UNSIGNED", "yes", "true or false"),
        ("CACHE_KEY_SIGNATURE", "none", "include or exclude"),
    ],
)
@pytest.mark.parametrize("switch", ["true", "false"])
def test_wrong_value_is_named_with_what_was_expected(
    name: str, value: str, expected: str, switch: str
) -> None:
    environ = {"CACHE_READ_THROUGH": switch, name: value}
    assert problems(environ) == [f"{name}={value!r}: expected {expected}"]


@pytest.mark.parametrize(
    ("environ", "other"),
    [
        pytest.param({"CACHE_SPOOL_DIR": "/d/x"}, "CACHE_SPOOL_DIR", id="spool"),
        pytest.param({"CACHE_STORE_URL": "file:///d/x", "S3_BUCKET": ""}, "CACHE_STORE_URL",
                     id="store"),
    ],
)  # fmt: skip
def test_disk_tier_has_a_folder_of_its_own(environ: dict[str, str], other: str) -> None:
    assert problems(environ | {"CACHE_DISK_DIR": "/d/x/"}) == [
        f"CACHE_DISK_DIR='/d/x/': expected another folder than that of {other}"
    ]


BECAUSE = "since CACHE_READ_THROUGH checks what imgproxy checks, and imgproxy"
NEEDS_KEY = (
    "IMGPROXY_KEY is not set: expected imgproxy's, and its IMGPROXY_SALT,"
    f" {BECAUSE} {{}}; or CACHE_UNSIGNED=true if it has none"
)
NEEDS_SALT = "IMGPROXY_SALT is not set: expected as many salts as IMGPROXY_KEY has keys, 1"
NEEDS_SECRET = (
    f"IMGPROXY_SECRET is not set: expected imgproxy's, {BECAUSE} {{}}; or empty if it has none"
)
TWO_ARE_ONE_TOO_MANY = (
    "CACHE_UNSIGNED='true': expected false, or no {}: it says that nothing is signed"
)
ONLY_A_KEY = {"IMGPROXY_KEY": "736563726574"}


@pytest.mark.parametrize(
    ("hidden", "hidden_by"),
    [
        pytest.param(ELSEWHERE, "runs elsewhere", id="elsewhere"),
        pytest.param(FROM_A_FILE, "reads IMGPROXY_ENV_*", id="from a file"),
        pytest.param(ELSEWHERE | FROM_A_FILE, "runs elsewhere", id="both"),
    ],
)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, [NEEDS_KEY, NEEDS_SECRET], id="nothing said"),
        pytest.param(KEYS, [NEEDS_SECRET], id="keys"),
        pytest.param(SECRET, [NEEDS_KEY], id="secret"),
        pytest.param(NO_SECRET, [NEEDS_KEY], id="no secret"),
        pytest.param({"IMGPROXY_KEY": "", "IMGPROXY_SALT": " "} | NO_SECRET, [NEEDS_KEY],
                     id="empty keys"),
        pytest.param(ONLY_A_KEY | NO_SECRET, [NEEDS_SALT], id="half of the keys"),
        pytest.param({"CACHE_UNSIGNED": "false"} | NO_SECRET, [NEEDS_KEY], id="not unsigned"),
        pytest.param(UNSIGNED | KEYS | SECRET, [TWO_ARE_ONE_TOO_MANY.format("IMGPROXY_KEY")],
                     id="unsigned, and keys"),
        pytest.param(KEYS | SECRET, [], id="keys and secret"),
        pytest.param(KEYS | NO_SECRET, [], id="keys and no secret"),
        pytest.param(UNSIGNED, [], id="unsigned"),
        pytest.param(UNSIGNED | SECRET, [], id="unsigned, and a secret"),
        pytest.param(UNSIGNED | NO_SECRET, [], id="unsigned, and no secret"),
    ],
)  # fmt: skip
def test_read_through_needs_to_know_what_imgproxy_checks(
    hidden: dict[str, str], hidden_by: str, given: dict[str, str], expected: list[str]
) -> None:
    environ = ON | hidden | given
    if expected:
        assert problems(environ) == [problem.format(hidden_by) for problem in expected]
    else:
        settings = Settings.from_environ(environ)
        assert settings.read_through is not None
        assert settings.path_rules.keys == ((b"secret", b"hello"),) * ("IMGPROXY_KEY" in given)
        assert settings.storage_rules.secret == (
            b"s3cret" if given.get("IMGPROXY_SECRET") else None
        )


@pytest.mark.parametrize(
    "given", [{}, KEYS, SECRET, KEYS | SECRET, UNSIGNED, UNSIGNED | SECRET], ids="+".join
)
def test_what_imgproxy_on_this_machine_checks_is_known(given: dict[str, str]) -> None:
    assert Settings.from_environ(ON | given).read_through == TIERS


@pytest.mark.parametrize("hidden", [{}, ELSEWHERE, FROM_A_FILE], ids=["here", "elsewhere", "file"])
def test_without_read_through_imgproxy_checks_itself(hidden: dict[str, str]) -> None:
    environ = ON | {"CACHE_READ_THROUGH": "false"} | hidden
    assert Settings.from_environ(environ).read_through is None


@pytest.mark.parametrize("switch", ["true", "false"])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param(KEYS, "IMGPROXY_KEY", id="keys"),
        pytest.param(ONLY_A_KEY | FROM_A_FILE | NO_SECRET, "IMGPROXY_KEY", id="a key"),
        pytest.param({"IMGPROXY_SALT": "61"} | FROM_A_FILE, "IMGPROXY_SALT", id="a salt"),
    ],
)
def test_unsigned_and_keys_contradict_each_other(
    given: dict[str, str], named: str, switch: str
) -> None:
    environ = UNSIGNED | given | {"CACHE_READ_THROUGH": switch}
    assert TWO_ARE_ONE_TOO_MANY.format(named) in problems(environ)


@pytest.mark.parametrize(
    ("environ", "rules"),
    [
        pytest.param({}, KeyRules(), id="as it always was"),
        pytest.param({"CACHE_KEY_SIGNATURE": "include"}, KeyRules(), id="included"),
        pytest.param(
            {"CACHE_KEY_SIGNATURE": "Exclude", **KEYS},
            KeyRules(with_signature=False),
            id="excluded",
        ),
        pytest.param(
            {"CACHE_KEY_SIGNATURE": "exclude", "IMGPROXY_PATH_PREFIX": "a/", **KEYS},
            KeyRules(with_signature=False, prefix=b"/a"),
            id="excluded behind a prefix",
        ),
    ],
)
@pytest.mark.parametrize("switch", ["true", "false"])
def test_rules_of_keys(environ: dict[str, str], rules: KeyRules, switch: str) -> None:
    read = Settings.from_environ(ON | environ | {"CACHE_READ_THROUGH": switch}).key_rules
    assert read == rules


def test_signatures_are_excluded_only_where_there_are_any() -> None:
    assert problems({"CACHE_KEY_SIGNATURE": "exclude"}) == [
        "CACHE_KEY_SIGNATURE='exclude': expected include: without IMGPROXY_KEY and IMGPROXY_SALT"
        " there is no signature to exclude"
    ]


def test_settings_without_a_use_are_named() -> None:
    idle = {"CACHE_DISK_DIR": "/var/cache/images", "CACHE_NEGATIVE_SECONDS": "9"}
    assert Settings.from_environ(ON | idle).warnings == ()
    assert Settings.from_environ(ON | idle | {"CACHE_READ_THROUGH": ""}).warnings == (
        "nothing is kept in memory or on disk: CACHE_DISK_DIR, CACHE_NEGATIVE_SECONDS"
        " without CACHE_READ_THROUGH=true",
    )
