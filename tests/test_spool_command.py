"""`imgproxy-cache spool`: what waits and why, and having it tried now, server or not."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool import open_spool
from imgproxy_cache.uploads.spool_folder import quarantined, spooled_files
from tests.commands import imgproxy_cache
from tests.faults.front import Fault
from tests.faults.history import spool_files
from tests.faults.setup import staged, until_true
from tests.servers.s3 import S3Server
from tests.spooled import spooled
from tests.tiers.answers import answer


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "CACHE_STORE_URL": f"file://{tmp_path / 'store'}",
        "CACHE_SPOOL_DIR": str(tmp_path / "spool"),
    }


def leave_behind(environ: dict[str, str], *numbers: int) -> Path:
    """As a server that was killed; the folder of its store."""
    root, place = Path(environ["CACHE_SPOOL_DIR"]), environ["CACHE_STORE_URL"]
    spool = open_spool(root, place, sync=False)
    spool.write([spooled(number, at=number * 3600.0) for number in numbers])
    spool.note(
        '{"store_problem": "it is down", "spool_problem": null, "memory_items": 0, "reasons":'
        ' [{"text": "s3://images: NoSuchBucket: create it", "count": 12, "last_at": 0.0}]}'
    )
    spool.close()
    return store_folder(root, place)


def test_an_empty_spool_is_said_to_be_empty(environ: dict[str, str]) -> None:
    done = imgproxy_cache("spool", environ=environ)
    assert done.status == 0
    assert done.out.splitlines()[1:] == ["waiting: 0 images, 0 bytes"]


def test_what_waits_is_told_with_the_reasons_and_what_is_set_aside(
    environ: dict[str, str],
) -> None:
    folder = leave_behind(environ, 1, 2, 3)
    first = next(spooled_files(folder))
    aside = folder / "quarantine"
    aside.mkdir()
    moved = first.path.rename(aside / first.path.name)
    moved.with_suffix(".reason").write_text("the image is damaged\n")
    size = sum(file.size for file in spooled_files(folder))
    done = imgproxy_cache("spool", "list", environ=environ)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == f"spool of {environ['CACHE_STORE_URL']}: {folder}"
    assert lines[1].startswith(f"waiting: 2 images, {size} bytes, the oldest for ")
    assert lines[1].endswith(" d")
    assert lines[2:4] == ["the store fails: it is down", "last failures:"]
    assert lines[4].startswith("  12 x, last ")
    assert lines[4].endswith(" d ago: s3://images: NoSuchBucket: create it")
    assert lines[5:] == [
        f"set aside: 1 image, {moved.stat().st_size} bytes",
        f"  {moved}: the image is damaged",
    ]


def test_without_a_server_a_retry_uploads_here(environ: dict[str, str], tmp_path: Path) -> None:
    folder = leave_behind(environ, 1, 2)
    done = imgproxy_cache("spool", "retry", environ=environ)
    assert (done.status, done.out) == (0, "2 stored, 0 left, 0 set aside\n")
    assert list(spooled_files(folder)) == []
    assert (tmp_path / "store" / spooled(1)[0].key).read_bytes() == b"hello world"


def test_files_that_may_move_into_the_disk_tier_are_listed_and_uploaded_as_others(
    environ: dict[str, str], tmp_path: Path
) -> None:
    spool = open_spool(Path(environ["CACHE_SPOOL_DIR"]), environ["CACHE_STORE_URL"], sync=False)
    ((file,), _) = spool.write([spooled(1, kept=replace(answer(1), body=b""))])
    spool.close()
    done = imgproxy_cache("spool", environ=environ)
    assert done.out.splitlines()[1].startswith(f"waiting: 1 image, {file.size} bytes, ")
    done = imgproxy_cache("spool", "retry", environ=environ)
    assert (done.status, done.out) == (0, "1 stored, 0 left, 0 set aside\n")
    assert (tmp_path / "store" / file.key).read_bytes() == b"hello world"


def set_aside_all(folder: Path, reason: str) -> None:
    """As a server that found them damaged, or whose store would not have them."""
    aside = folder / "quarantine"
    aside.mkdir()
    for file in [*spooled_files(folder)]:
        moved = file.path.rename(aside / file.path.name)
        moved.with_suffix(".reason").write_text(f"{reason}\n")


def test_what_was_set_aside_is_tried_again_on_wish_and_set_aside_again_if_need_be(
    environ: dict[str, str], tmp_path: Path
) -> None:
    folder = leave_behind(environ, 1, 2)
    set_aside_all(folder, "EntityTooLarge")
    damaged = max((folder / "quarantine").glob("*.image"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert imgproxy_cache("spool", "retry", environ=environ).out == (
        "0 stored, 0 left, 0 set aside\n"
    ), "not without being asked to"
    done = imgproxy_cache("spool", "retry", "--set-aside", environ=environ)
    assert (done.status, done.out.splitlines()[-1]) == (1, "1 stored, 0 left, 1 set aside")
    assert (tmp_path / "store" / spooled(1)[0].key).read_bytes() == b"hello world"
    ((file, reason),) = quarantined(folder)
    assert (file.key, reason) == (spooled(2)[0].key, "it holds 10 bytes of an image of 11")
    assert len(list((folder / "quarantine").iterdir())) == 2


def test_set_aside_is_an_option_of_retry(environ: dict[str, str]) -> None:
    done = imgproxy_cache("spool", "--set-aside", environ=environ)
    assert done.status == 2
    assert "is for `spool retry`" in done.err


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Nobody listens there, and nobody can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_retry_that_fails_says_why_and_keeps_the_images(tmp_path: Path, dead_port: int) -> None:
    environ = {
        "S3_BUCKET": "images",
        "S3_ENDPOINT": f"http://127.0.0.1:{dead_port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "CACHE_SPOOL_DIR": str(tmp_path),
    }
    folder = leave_behind(
        environ | {"CACHE_STORE_URL": f"s3://images at {environ['S3_ENDPOINT']}"}, 1, 2
    )
    done = imgproxy_cache("spool", "retry", environ=environ)
    assert done.status == 1
    assert "0 stored, 2 left, 0 set aside; the store fails: s3://images: put " in done.out
    assert "connection refused" in done.out
    assert len(list(spooled_files(folder))) == 2


async def test_a_running_server_is_asked_to_retry(s3: S3Server, tmp_path: Path) -> None:
    async with staged(s3, tmp_path) as stage, stage.proxy() as proxy:
        stage.front.fail(Fault.FORBIDDEN)
        await stage.history.ask_many(proxy.port, 5)
        await until_true(lambda: len(spool_files(stage.spool)) == 5)
        await proxy.wait_for("store.failed")
        environ = stage.s3.environ | {
            "S3_BUCKET": stage.bucket,
            "S3_ENDPOINT": f"http://127.0.0.1:{stage.front.port}",
            "CACHE_SPOOL_DIR": str(stage.spool),
        }
        # The note is a second behind.
        await until_true(lambda: "AccessDenied" in imgproxy_cache("spool", environ=environ).out)
        stage.front.heal()
        done = imgproxy_cache("spool", "retry", environ=environ)
        assert done.out.startswith("asked the running server to try ")
        assert done.status == 0
        await stage.until_drained(proxy)
        stage.expect_all_stored()


async def test_a_running_server_takes_what_was_set_aside_however_old(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        environ = stage.s3.environ | {
            "S3_BUCKET": stage.bucket,
            "S3_ENDPOINT": f"http://127.0.0.1:{stage.front.port}",
            "CACHE_SPOOL_DIR": str(stage.spool),
        }
        folder = leave_behind(
            environ | {"CACHE_STORE_URL": f"s3://{stage.bucket} at {environ['S3_ENDPOINT']}"}, 1
        )
        set_aside_all(folder, "EntityTooLarge")
        async with stage.proxy() as proxy:
            done = imgproxy_cache("spool", "retry", "--set-aside", environ=environ)
            assert done.out == "asked the running server to try 1 image now: see its log\n"
            await until_true(lambda: stage.s3.names(stage.bucket) == [spooled(1)[0].key])
            await stage.until_drained(proxy)
        assert list(quarantined(folder)) == []
