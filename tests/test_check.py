"""`imgproxy-cache check` against real servers, and what it says where something is wrong."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import Finished, imgproxy_cache
from tests.servers.engine import RunningEngine, running_engine
from tests.servers.process import free_port
from tests.servers.s3 import S3Server

START_IT = (
    "start imgproxy (`imgproxy-cache run` does), or fix CACHE_UPSTREAM_URL or IMGPROXY_PATH_PREFIX"
)
FIX_THE_KEYS = "fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role)"


@pytest.fixture(scope="module")
def imgproxy() -> Iterator[RunningEngine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def settings(s3: S3Server, imgproxy: RunningEngine) -> dict[str, str]:
    """A set-up without a fault."""
    return s3.environ | {
        "S3_BUCKET": s3.make_bucket("checked"),
        "S3_ENDPOINT": s3.endpoint,
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{imgproxy.port}",
    }


def check(settings: dict[str, str]) -> Finished:
    """What it says, with a word for the key, which is another each time."""
    done = imgproxy_cache("check", environ=settings)
    return Finished(done.status, re.sub("[0-9a-f]{32}", "KEY", done.out), done.err)


def test_good_set_up_is_told_line_by_line_and_nothing_is_left_in_the_bucket(
    settings: dict[str, str], s3: S3Server
) -> None:
    done = check(settings | {"S3_FOLDER": "processed"})
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "ok      settings",
        f"ok      imgproxy: {settings['CACHE_UPSTREAM_URL']}/health",
        "ok      store: s3://checked/processed: write",
        "ok      store: s3://checked/processed: read",
        "ok      store: s3://checked/processed: delete",
    ]
    assert s3.names("checked") == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param(
            {"AWS_SECRET_ACCESS_KEY": "of somebody else"},
            f"s3://checked: put KEY: SignatureDoesNotMatch: .*: {re.escape(FIX_THE_KEYS)}",
            id="wrong secret key",
        ),
        pytest.param(
            {"AWS_ACCESS_KEY_ID": "nobody"},
            f"s3://checked: put KEY: InvalidAccessKeyId: .*: {re.escape(FIX_THE_KEYS)}",
            id="unknown access key",
        ),
        pytest.param(
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            f"s3://checked: put KEY: no AWS credentials were found: {re.escape(FIX_THE_KEYS)}",
            id="no keys",
        ),
        pytest.param(
            {"S3_BUCKET": "nonesuch"},
            "s3://nonesuch: put KEY: NoSuchBucket: .*: create it or fix S3_BUCKET",
            id="missing bucket",
        ),
        pytest.param(
            {"S3_BUCKET": "", "CACHE_STORE_URL": "file:///etc/passwd/images"},
            "file:///etc/passwd/images: put KEY: not a directory: name a folder in CACHE_STORE_URL",
            id="unwritable folder",
        ),
    ],
)
def test_store_that_does_not_work_is_told_with_what_to_do(
    settings: dict[str, str], changed: dict[str, str], words: str
) -> None:
    done = check(settings | changed)
    assert (done.status, done.err) == (1, "")
    settings_line, imgproxy_line, store_line = done.out.splitlines()
    assert (settings_line, imgproxy_line[:16]) == ("ok      settings", "ok      imgproxy")
    assert re.fullmatch(f"failed  store: {words}", store_line)


def test_endpoint_where_nobody_listens_is_told_with_what_to_do(settings: dict[str, str]) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    done = check(settings | {"S3_ENDPOINT": endpoint})
    why = f"put KEY: {endpoint}: connection refused: start it or fix S3_ENDPOINT"
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines()[-1] == f"failed  store: s3://checked: {why}"


def test_stopped_imgproxy_is_told_and_the_store_still_tried(settings: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = check(settings | {"CACHE_UPSTREAM_URL": url})
    assert done.status == 1
    assert done.out.splitlines() == [
        "ok      settings",
        f"failed  imgproxy: GET {url}/health: Connection refused: {START_IT}",
        "ok      store: s3://checked: write",
        "ok      store: s3://checked: read",
        "ok      store: s3://checked: delete",
    ]


@pytest.mark.parametrize("name", ["kept", "made/by/the/proxy"])
def test_disk_that_images_are_to_be_kept_on_is_tried_and_left_as_it_was(
    settings: dict[str, str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "kept").mkdir(mode=0o700)
    disk = {"CACHE_READ_THROUGH": "true", "CACHE_DISK_DIR": f"{tmp_path}/{name}"}
    done = check(settings | disk)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[2] == f"ok      disk: {tmp_path}/{name}: write"
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            Path.touch,
            "{} is a link or no folder: set CACHE_DISK_DIR to a folder",
            id="a file",
        ),
        pytest.param(
            lambda path: path.symlink_to("/"),
            "{} is a link or no folder: set CACHE_DISK_DIR to a folder",
            id="a link",
        ),
    ],
)
def test_disk_that_takes_nothing_is_told_with_what_to_do(
    settings: dict[str, str], tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    disk = tmp_path / "disk"
    make(disk)
    done = check(settings | {"CACHE_READ_THROUGH": "true", "CACHE_DISK_DIR": str(disk)})
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines()[2] == f"failed  disk: {words.format(disk)}"


def test_disk_that_cannot_be_written_is_told_with_what_to_do(settings: dict[str, str]) -> None:
    """Not even root may make a file there."""
    done = check(settings | {"CACHE_READ_THROUGH": "true", "CACHE_DISK_DIR": "/proc/images"})
    hint = f"let user {os.geteuid()} write there, or set CACHE_DISK_DIR to another folder"
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines()[2] == f"failed  disk: /proc: no such file or directory: {hint}"


def test_disk_is_not_tried_without_read_through(settings: dict[str, str]) -> None:
    assert "disk" not in check(settings | {"CACHE_DISK_DIR": "/proc/nonesuch"}).out


def test_imgproxy_under_another_prefix_is_told(settings: dict[str, str]) -> None:
    done = check(settings | {"IMGPROXY_PATH_PREFIX": "/img"})
    url = f"{settings['CACHE_UPSTREAM_URL']}/img/health"
    assert done.status == 1
    assert done.out.splitlines()[1] == f"failed  imgproxy: GET {url}: answered 404: {START_IT}"


def test_every_wrong_setting_has_a_line() -> None:
    done = check({"CACHE_DRAIN_SECONDS": "soon"})
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines() == [
        "failed  settings: S3_BUCKET is not set: expected a bucket name",
        "failed  settings: CACHE_DRAIN_SECONDS='soon': expected seconds, 0 or more",
    ]


@pytest.mark.parametrize("any_host", ["", "0.0.0.0", "[::]"])
def test_health_is_good_where_the_proxy_passes_imgproxys_on(
    imgproxy: RunningEngine, any_host: str
) -> None:
    # imgproxy itself answers as a proxy in front of it does.
    bind = f"{any_host}:{imgproxy.port}"
    done = imgproxy_cache("check", "--health", environ={"IMGPROXY_BIND": bind})
    assert done == Finished(0, f"ok      proxy on {bind}\n", "")


def test_health_of_a_proxy_that_does_not_run_is_bad() -> None:
    bind = f"127.0.0.1:{free_port()}"
    done = imgproxy_cache("check", "--health", environ={"IMGPROXY_BIND": bind})
    words = f"failed  proxy on {bind}: connection refused: see its log\n"
    assert done == Finished(1, words, "")
