"""The store fails in every way there is: clients do not notice, and nothing is lost."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.faults.form import short_or_long
from tests.faults.front import Fault
from tests.faults.history import spool_files
from tests.faults.setup import staged, until, until_true
from tests.servers.s3 import S3Server

IMAGES = short_or_long(60, 3000)


@pytest.mark.parametrize(
    "fault",
    [Fault.UNAVAILABLE, Fault.FORBIDDEN, Fault.RESET, Fault.CUT, Fault.LOST, Fault.HANG],
    ids=lambda fault: fault.name.lower(),
)
async def test_nothing_is_lost_while_the_store_fails(
    s3: S3Server, tmp_path: Path, fault: Fault
) -> None:
    async with staged(s3, tmp_path) as stage, stage.proxy() as proxy:
        stage.front.fail(fault)
        await stage.history.ask_many(proxy.port, IMAGES)
        assert stage.history.failed == []
        if fault is not Fault.HANG:
            await proxy.wait_for("store.failed")
            ready = await proxy.admin(b"/ready")
            assert ready.status == 503
            assert (
                proxy.events("store.failed")[0]["message"].split(";")[0].encode()[:20] in ready.body
            )
        await until_true(lambda: len(spool_files(stage.spool)) == IMAGES)
        stage.expect_all_kept()
        failures = len(stage.front.asked)
        assert failures < 40, "a probe now and then, not all of them again and again"
        stage.front.heal()
        await stage.until_drained(proxy)
        stage.expect_all_stored()
        assert len(proxy.events("store.failed")) <= 1
        assert proxy.events("upload.failed") == []
        assert await proxy.stop() == 0


async def test_nothing_is_lost_over_tls_while_every_third_request_fails(
    s3: S3Server, s3_tls: S3Server, tmp_path: Path
) -> None:
    assert s3_tls.ca_bundle is not None
    async with staged(s3, tmp_path, tls=s3_tls.ca_bundle.parent) as stage:
        stage.environ["AWS_CA_BUNDLE"] = str(s3_tls.ca_bundle)
        stage.front.fail(
            Fault.UNAVAILABLE, Fault.RESET, Fault.CUT, Fault.LOST, Fault.SLOW, share=1 / 3
        )
        async with stage.proxy() as proxy:
            await stage.history.ask_many(proxy.port, IMAGES)
            assert stage.history.failed == []
            stage.front.heal()
            await stage.until_drained(proxy)
            stage.expect_all_stored()
            assert await proxy.stop() == 0
            assert proxy.events("server.logged") == []


async def test_a_store_that_is_down_at_the_start_heals_without_a_restart(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        stage.front.fail(Fault.RESET)
        async with stage.proxy() as proxy:
            await stage.history.ask_many(proxy.port, 10)
            assert stage.history.failed == []
            await proxy.wait_for("store.failed")
            stage.front.heal()
            await stage.until_drained(proxy)
            await proxy.wait_for("store.recovered")
            assert (await proxy.admin(b"/ready")).status == 200
        stage.expect_all_stored()


async def test_a_store_that_is_back_is_known_to_be_though_no_image_waits_for_it(
    s3: S3Server, tmp_path: Path
) -> None:
    async with (
        staged(s3, tmp_path) as stage,
        stage.proxy(CACHE_SPOOL_MAX_AGE_SECONDS="3") as proxy,
    ):
        stage.front.fail(Fault.FORBIDDEN)
        await stage.history.ask_many(proxy.port, 1)
        await proxy.wait_for("store.failed")
        await proxy.wait_for("upload.expired")
        assert (await proxy.admin(b"/ready")).status == 503
        stage.front.heal()
        assert (await proxy.admin(b"/ready")).status == 200


async def test_wrong_keys_are_named_and_heal_without_a_restart(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        keys = {"AWS_ACCESS_KEY_ID": "not-yet", "AWS_SECRET_ACCESS_KEY": "not-yet-secret"}
        async with stage.proxy(**keys) as proxy:
            await stage.history.ask_many(proxy.port, 10)
            failure = await proxy.wait_for("store.failed")
            assert failure["kind"] == "credentials"
            assert "AWS_ACCESS_KEY_ID" in failure["hint"]
            s3.admit({"not-yet": "not-yet-secret"})
            try:
                await stage.until_drained(proxy)
            finally:
                s3.admit({})
        stage.expect_all_stored()


async def test_a_missing_bucket_is_named_and_heals_without_a_restart(
    s3: S3Server, tmp_path: Path
) -> None:
    bucket = f"faults-{tmp_path.name[-20:].strip('_').lower().replace('_', '-')}"
    async with staged(s3, tmp_path, bucket=bucket) as stage, stage.proxy() as proxy:
        await stage.history.ask_many(proxy.port, 10)
        failure = await proxy.wait_for("store.failed")
        assert (failure["kind"], failure["hint"]) == ("bucket", "create it or fix S3_BUCKET")
        s3.make_bucket(bucket)
        await stage.until_drained(proxy)
        stage.expect_all_stored()


async def test_two_replicas_that_store_the_same_images_at_once_leave_one_good_object_of_each(
    s3: S3Server, tmp_path: Path
) -> None:
    images = short_or_long(100, 500)
    async with (
        staged(s3, tmp_path) as stage,
        stage.proxy() as one,
        stage.proxy(CACHE_SPOOL_DIR=str(tmp_path / "other")) as other,
    ):
        paths = [stage.history.new_path() for _ in range(images)]
        limit = asyncio.Semaphore(20)

        async def ask_both(path: bytes) -> None:
            async with limit:
                await asyncio.gather(
                    stage.history.ask(one.port, path), stage.history.ask(other.port, path)
                )

        await asyncio.gather(*(ask_both(path) for path in paths))
        await stage.until_drained(one)
        await stage.until_drained(other)
        stage.expect_all_stored()
        assert stage.front.count("PUT", 200) == images
        assert stage.front.count("PUT", 412) <= images
        assert stage.front.count("HEAD", 200) == stage.front.count("PUT", 412)
        assert len([one for one in stage.front.asked if one.method == "PUT"]) <= 2 * images


async def test_workers_share_the_spool_and_take_over_from_one_that_died(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        stage.front.fail(Fault.UNAVAILABLE)
        async with stage.proxy(WEB_CONCURRENCY="2") as proxy:
            await proxy.wait_for("server.started", times=2)
            await stage.history.ask_many(proxy.port, 100)
            assert stage.history.failed == []
            await until_true(lambda: len(spool_files(stage.spool)) == 100)
            assert len(list(stage.spool.glob("*/worker-*"))) == 2
            worker = proxy.children()[-1]
            os.kill(worker, signal.SIGKILL)
            await proxy.wait_for("worker.died")
            stage.front.heal()

            async def all_stored() -> bool:
                return not spool_files(stage.spool)

            await until(all_stored)
            stage.expect_all_stored()
            assert stage.front.count("PUT", 200) == 100, "each was stored once"
            assert await proxy.stop() == 0
