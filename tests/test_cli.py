"""The command line: `key`, and what every command's `--help` teaches."""

import tomllib
from pathlib import Path

import pytest

from imgproxy_cache.settings.reference import SETTINGS
from tests.commands import Finished, imgproxy_cache
from tests.servers.process import free_port

ROOT = Path(__file__).parents[1]
KITTEN = (
    "/_/rs:fill:1160:532:1/g:ce/wm:0.5:soea:10:10:0.2/aHR0cHM6Ly93d3cuem9vcGx1cy5jby51ay9tYWdh"
    "emluZS93cC1jb250ZW50L3VwbG9hZHMvMjAyMS8wMS9zdHJpcGVkLWdyZXkta2l0dGVuLTc2OHg1MTIuanBn"
)
EXAMPLE = "/resize:fill:300:300/plain/https://example.com/image.jpg"


# printf %s PATH | md5sum
@pytest.mark.parametrize(
    ("environ", "path", "name"),
    [
        pytest.param({}, KITTEN, "f245f88252712c73d1d62b78a427869f", id="base64 source"),
        pytest.param({}, EXAMPLE, "c9009a400f110797b2710ce2a5bd60a4", id="plain source"),
        pytest.param({}, f"{EXAMPLE}?v=2", "c9009a400f110797b2710ce2a5bd60a4", id="query cut off"),
        pytest.param(
            {"S3_FOLDER": "processed"},
            EXAMPLE,
            "processed/c9009a400f110797b2710ce2a5bd60a4",
            id="folder",
        ),
        pytest.param(
            {"S3_FOLDER": "processed/"},
            EXAMPLE,
            "processed/c9009a400f110797b2710ce2a5bd60a4",
            id="folder with its slash",
        ),
        pytest.param(
            {"CACHE_STORE_URL": "s3://images/a/b"},
            EXAMPLE,
            "a/b/c9009a400f110797b2710ce2a5bd60a4",
            id="folder of a store's URL",
        ),
        pytest.param(
            {"CACHE_STORE_URL": "file:///var/images"},
            EXAMPLE,
            "c9009a400f110797b2710ce2a5bd60a4",
            id="folder of this machine",
        ),
        pytest.param(
            {"CACHE_KEY_SIGNATURE": "exclude", "S3_FOLDER": "processed"},
            "/S/rs:fill:300:300/aHR0.webp?v=2",
            "processed/9a21aec5dfd95b48bb5399ca66db20d1",
            id="signature left out",
        ),
        pytest.param(
            {"CACHE_KEY_SIGNATURE": "exclude", "IMGPROXY_PATH_PREFIX": "img/"},
            "/img/S/plain/local:///a.jpg",
            "09d30436fbaf518bc29eaf8fe8a1c258",
            id="signature left out behind a prefix",
        ),
    ],
)
def test_key_is_the_name_of_the_object(environ: dict[str, str], path: str, name: str) -> None:
    assert imgproxy_cache("key", path, environ=environ) == Finished(0, f"{name}\n", "")


@pytest.mark.parametrize(
    ("path", "name", "quoted"),
    [
        pytest.param(
            "/\udcff", "eb48085e1ed9e58e309f8f427b6f749b", r"'/\udcff'", id="bytes as they are"
        ),
        pytest.param("/caf\xe9", "fa9b2c1834eec27fa9d0fc1cd8723abf", r"'/caf\xe9'", id="a letter"),
        pytest.param("/a b", "937f8c49ed3952555dd678270ae03c89", "'/a b'", id="a blank"),
    ],
)
def test_key_of_what_no_request_can_ask_for_says_so(path: str, name: str, quoted: str) -> None:
    done = imgproxy_cache("key", path)
    assert (done.status, done.out) == (0, f"{name}\n")
    hint = "expected blanks and what is beyond ASCII escaped, as browsers send them"
    assert done.err == f"{quoted} is the path of no request: {hint}\n"


def test_several_keys_come_in_the_order_of_their_paths() -> None:
    done = imgproxy_cache("key", EXAMPLE, KITTEN)
    names = ["c9009a400f110797b2710ce2a5bd60a4", "f245f88252712c73d1d62b78a427869f"]
    assert done.out.split() == names


def test_key_of_a_whole_url_is_refused_for_it_would_be_another() -> None:
    done = imgproxy_cache("key", "https://img.example/x")
    assert (done.status, done.out) == (2, "")
    assert "does not start with a slash: expected what follows the host in the URL" in done.err


def test_key_is_not_guessed_where_the_settings_are_wrong() -> None:
    environ = {"CACHE_KEY_SIGNATURE": "maybe", "S3_ENDPOINT": "not of this command"}
    done = imgproxy_cache("key", EXAMPLE, environ=environ)
    assert (done.status, done.out) == (2, "")
    assert "CACHE_KEY_SIGNATURE='maybe': expected include or exclude" in done.err


def test_no_command_is_an_error_and_help_names_them_all() -> None:
    assert imgproxy_cache().status == 2
    done = imgproxy_cache("--help")
    assert (done.status, done.err) == (0, "")
    commands = ("run", "serve", "imgproxy", "check", "key")
    assert all(f"\n    {command} " in done.out for command in commands)


@pytest.mark.parametrize("command", ["run", "serve", "check"])
def test_help_of_what_reads_all_settings_explains_them_all(command: str) -> None:
    done = imgproxy_cache(command, "--help")
    assert (done.status, done.err) == (0, "")
    missing = [each.name for each in SETTINGS if f"\n  {each.name}" not in done.out]
    assert missing == []


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("imgproxy", {"CACHE_UPSTREAM_URL", "CACHE_IMGPROXY_BIN"}),
        ("key", {"S3_FOLDER", "CACHE_STORE_URL", "CACHE_KEY_SIGNATURE"}),
    ],
)
def test_help_of_what_reads_a_few_settings_explains_those(command: str, names: set[str]) -> None:
    done = imgproxy_cache(command, "--help")
    explained = {each.name for each in SETTINGS if f"\n  {each.name}" in done.out}
    assert (done.status, explained) == (0, names)


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    imgproxy = tmp_path / "imgproxy"
    imgproxy.write_text("#!/bin/sh\nexit 3\n")
    imgproxy.chmod(0o755)
    settings = {
        "CACHE_STORE_URL": (tmp_path / "store").as_uri(),
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
        "CACHE_IMGPROXY_BIN": str(imgproxy),
        "CACHE_ADMIN_BIND": "",
        "IMGPROXY_BIND": f"127.0.0.1:{free_port()}",
    }
    for command, status in (("check", 1), ("run", 3)):
        done = imgproxy_cache(command, environ=settings, before=f"exec {closed}")
        assert done.status == status


def test_version_is_that_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = f"{package['name']} {package['version']}\n"
    assert imgproxy_cache("--version") == Finished(0, version, "")
