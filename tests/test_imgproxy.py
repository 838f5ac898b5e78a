"""What stands behind the proxy: found or embedded, and what it sees of our environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from imgproxy_cache.imgproxy import environ_for_imgproxy, fallback_image_ttl
from tests.commands import SECONDS, environment, imgproxy_cache

FALLBACK = "IMGPROXY_FALLBACK_IMAGE_"


@pytest.mark.parametrize(
    ("ours", "host", "theirs"),
    [
        pytest.param(
            {"IMGPROXY_BIND": ":8080", "IMGPROXY_NETWORK": "unix", "PORT": "80"},
            "127.0.0.1",
            {"IMGPROXY_BIND": "127.0.0.1:8081", "IMGPROXY_NETWORK": "tcp"},
            id="listens where we expect it, and not where we do",
        ),
        pytest.param(
            {},
            "::1",
            {"IMGPROXY_BIND": "[::1]:8081", "IMGPROXY_NETWORK": "tcp"},
            id="on IPv6",
        ),
        pytest.param(
            {"IMGPROXY_KEY": "00", "AWS_REGION": "auto", "S3_BUCKET": "images"},
            "localhost",
            {
                "IMGPROXY_KEY": "00",
                "AWS_REGION": "auto",
                "S3_BUCKET": "images",
                "IMGPROXY_BIND": "localhost:8081",
                "IMGPROXY_NETWORK": "tcp",
            },
            id="all else as it is",
        ),
    ],
)
def test_what_imgproxy_sees(ours: dict[str, str], host: str, theirs: dict[str, str]) -> None:
    assert environ_for_imgproxy(ours, host=host, port=8081) == theirs


@pytest.mark.parametrize(
    ("environ", "added"),
    [
        pytest.param({}, {}, id="no fallback image"),
        pytest.param({"PATH": "/f.png"}, {"TTL": "67"}, id="a file"),
        pytest.param({"URL": "http://127.0.0.1/f"}, {"TTL": "67"}, id="a URL"),
        pytest.param({"DATA": "R0lGOD"}, {"TTL": "67"}, id="data"),
        pytest.param({"PATH": "/f.png", "HTTP_CODE": "200"}, {"TTL": "67"}, id="the usual status"),
        pytest.param({"PATH": "/f.png", "HTTP_CODE": "404"}, {}, id="a status of its own"),
        pytest.param({"PATH": "/f.png", "HTTP_CODE": "0"}, {}, id="the status of the error"),
        pytest.param({"PATH": "/f.png", "TTL": "60"}, {}, id="a lifetime of its own"),
        pytest.param({"PATH": "/f.png", "TTL": ""}, {"TTL": "67"}, id="an empty lifetime"),
    ],
)
def test_fallback_image_that_nothing_tells_from_others_gets_a_lifetime_of_its_own(
    environ: dict[str, str], added: dict[str, str]
) -> None:
    named = {f"{FALLBACK}{name}": value for name, value in environ.items()}
    assert fallback_image_ttl(named) == {f"{FALLBACK}{name}": v for name, v in added.items()}


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_named_imgproxy_goes_before_the_one_on_path(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin/imgproxy", "echo on PATH")
    named = program(tmp_path / "other", "echo named: $IMGPROXY_BIND")
    search = {"PATH": f"{on_path.parent}:/bin"}
    assert imgproxy_cache("imgproxy", environ=search).out == "on PATH\n"
    done = imgproxy_cache("imgproxy", environ=search | {"CACHE_IMGPROXY_BIN": str(named)})
    assert done.out == "named: 127.0.0.1:8081\n"


def test_named_imgproxy_that_does_not_exist_is_told() -> None:
    done = imgproxy_cache("imgproxy", environ={"CACHE_IMGPROXY_BIN": "/nowhere/imgproxy"})
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "CACHE_IMGPROXY_BIN='/nowhere/imgproxy' is no program: expected the path of imgproxy\n"
    )


def test_imgproxy_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "imgproxy"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    done = imgproxy_cache("imgproxy", environ={"CACHE_IMGPROXY_BIN": str(broken)})
    assert (done.status, done.out) == (1, "")
    assert done.err == f"{broken} does not start: Exec format error\n"


def test_machine_without_imgproxy_and_engine_is_told_what_to_install() -> None:
    # A module that is None counts as missing.
    code = (
        "import sys; sys.modules['pyvips'] = None\n"
        "from imgproxy_cache.cli import main; sys.exit(main(['imgproxy']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment({"PATH": "/nowhere"}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "no imgproxy on this machine, and no pyvips for the embedded engine: install imgproxy"
    )
    assert "pip install 'imgproxy-cache[engine]'" in done.stderr
