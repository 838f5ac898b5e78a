"""The log is a stream that somebody else reads, or does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from imgproxy_cache.log import Rationed

LOG_SOMETHING = """
import asyncio
import structlog
from imgproxy_cache.leaving import leave
from imgproxy_cache.log import configure

async def main():
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    structlog.get_logger().info("server.started")
    for _ in range(10):
        await asyncio.sleep(0)
    return len(complaints)

configure("info", "json")
leave(asyncio.run(main()))
"""


def test_log_that_nobody_reads_any_more_is_no_error() -> None:
    """Which would be logged, and would fail again: in every turn of the event loop."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LOG_SOMETHING],
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_rationed_lines_are_so_many_a_second_and_then_a_count() -> None:
    lines: list[dict[str, object]] = []
    now = 100.0
    log = Rationed(lambda event, **fields: lines.append(fields), per_second=3, clock=lambda: now)
    for at in (100.0, 100.1, 100.2, 100.3, 100.9, 101.0, 101.1, 103.5):
        now = at
        log("request.refused", at=at)

    assert lines == [
        {"at": 100.0},
        {"at": 100.1},
        {"at": 100.2},
        {"at": 101.0, "unlogged": 2},
        {"at": 101.1},
        {"at": 103.5},
    ]


LOG_LINES = """
import asyncio
import sys
from imgproxy_cache.leaving import leave
from imgproxy_cache.log import configure

async def main():
    log("server.started")
    await asyncio.sleep(0)
    sys.stdin.read()
    for number in range(LINES):
        log("request.served", worker=WORKER, number=number, target="/" + "a" * (number * 29 % 7000))
        if number % 40 == 0:
            await asyncio.sleep(0)
    return 0

log = configure("info", "json")
leave(asyncio.run(main()))
"""


def test_lines_of_several_workers_do_not_mix_in_their_pipe() -> None:
    """Which runs full: then the system takes a longer write in parts, and others' in between."""
    lines = 3000
    read_end, write_end = os.pipe()
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                LOG_LINES.replace("LINES", str(lines)).replace("WORKER", str(number)),
            ],
            stdin=subprocess.PIPE,
            stdout=write_end,
        )
        for number in range(3)
    ]
    os.close(write_end)
    with open(read_end, "rb") as pipe:  # noqa: PTH123 - a descriptor
        for _ in workers:
            assert b"server.started" in pipe.readline()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        received = pipe.read().splitlines(keepends=True)

    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    entries = [json.loads(line) for line in received]
    assert max(len(line) for line in received) <= 4096
    for number in range(3):
        assert [one["number"] for one in entries if one["worker"] == number] == [*range(lines)]


LOG_ONE_LINE = """
import structlog
from imgproxy_cache.log import configure

line = configure("info", "json")
fields = {"short": "x", **FIELDS}
line("request.served", **fields) if DIRECT else structlog.get_logger().info("some", **fields)
"""


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "structlog"])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("a" * 3000 + "b" * 3000, 1900, id="ASCII"),
        pytest.param("a\n" * 3000 + "b\n" * 3000, 500, id="escapes of two bytes"),
        pytest.param("\x01" * 3000 + "\x02" * 3000, 0, id="escapes of six bytes"),
        pytest.param("\u20ac" * 3000 + "\u20ad" * 3000, 0, id="characters of three bytes"),
    ],
)
def test_text_that_is_too_long_for_a_line_loses_its_middle(
    text: str, kept: int, direct: bool
) -> None:
    code = LOG_ONE_LINE.replace("FIELDS", repr({"long": text})).replace("DIRECT", str(direct))
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)

    assert len(ran.stdout) <= 4096
    entry = json.loads(ran.stdout)
    begin, end = entry["long"].split("[...]")
    assert min(len(begin), len(end)) >= kept
    assert (text.startswith(begin), text.endswith(end), entry["short"]) == (True, True, "x")


def test_text_that_fits_a_line_is_whole() -> None:
    code = LOG_ONE_LINE.replace("FIELDS", repr({"long": "a" * 3900})).replace("DIRECT", "True")
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)

    assert json.loads(ran.stdout)["long"] == "a" * 3900
