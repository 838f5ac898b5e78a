"""
The engine against what imgproxy answered, case by case.

Version 4.0.12 is the reference.  Where 3.30.1 differs from it the engine does
as 4 does: ``DIFFERS_IN_3`` says where, and nothing else may differ.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.servers.engine import (
    RunningEngine,
    WireAnswer,
    first_to_answer,
    read_answer,
    request,
    running_engine,
)
from tests.servers.source import TapeSource, tape_source
from tests.tapes import VERSIONS, Tape, tapes

RECORDED_SOURCE = b"127.0.0.1:18090"
YEAR = "max-age=31536000, public"

NOT_COMPARED = {"date", "server", "x-request-id"}
"""Fields that the tapes' README excepts; of these, only that they are there."""
VALUE_NOT_COMPARED = {"etag", "last-modified"}
NOT_COMPARED_IN_3 = {"content-security-policy", "etag", "last-modified"}
"""4 sends them always: a stricter policy, and the source's validators."""

EXACT = 4.0
KERNELS = 8.0
"""Mean difference of samples, out of 255; where a kernel or a search for details is involved."""
KERNEL_CASES = {"blur", "sharpen", "gravity-sm", "pixelate", "trim"}

EXCEPTIONS_4: dict[str, str] = {}
"""Cases of 4.0.12 that do not hold, and why."""

DIFFERS_IN_3: dict[str, str] = {
    name: reason
    for reason, names in {
        "3 answers HEAD and OPTIONS without Cache-Control, Content-Type and body": (
            "cors-options head-image head-nonsense head-root options secret-head signed-head-wrong"
        ),
        "4 repairs %3A in the options and a doubled slash, 3.30 does not": (
            "double-slash lead-double-slash percent-colon signed-double-slash signed-percent-colon"
        ),
        "4 words it otherwise, and passes the source's status on": (
            "http-403 http-404 http-500 http-garbage http-refused missing-file source-too-slow "
            "traversal ttl-404 unsupported-scheme"
        ),
        "4 ignores IMGPROXY_ENABLE_CLIENT_HINTS": "hints-dpr hints-none hints-width",
        "4 ignores IMGPROXY_RETURN_ATTACHMENT": "attachment-default",
        "3.30 gives an error that is a fallback image a year": "fallback-404",
        "4 sends conditionals to the source unless told not to": "source-etag-304",
    }.items()
    for name in names.split()
}
"""Cases in which 3.30.1 answers otherwise than 4.0.12."""


def env_of(tape: Tape) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(tape.env.items()))


CASES = sorted(
    [
        pytest.param(env_of(tape), tape, id=str(tape))
        for version in reversed(VERSIONS)
        for tape in tapes(version)
    ],
    key=lambda case: str(case.values[0]),
)


@pytest.fixture(scope="module")
def source() -> Iterator[TapeSource]:
    with tape_source() as server:
        yield server


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """One process for all cases with the same settings, but in no hurry: no case is about that."""
    unhurried = {"IMGPROXY_TIMEOUT": "60", "IMGPROXY_LOG_LEVEL": "info"}
    with running_engine(dict(request.param) | unhurried) as running:
        yield running


@pytest.mark.parametrize(("engine", "tape"), CASES, indirect=["engine"], scope="module")
def test_engine_answers_as_imgproxy_does(
    engine: RunningEngine, tape: Tape, source: TapeSource
) -> None:
    exceptions = EXCEPTIONS_4 if tape.version.startswith("4.") else DIFFERS_IN_3
    difference = why_different(tape, answer_to(tape, engine, source), source)
    if tape.name in exceptions:
        assert difference, f"holds by now: {exceptions[tape.name]}"
    else:
        assert not difference


def test_at_least_138_cases_of_the_reference_hold() -> None:
    assert len(tapes("4.0.12")) - len(EXCEPTIONS_4) >= 138


def answer_to(tape: Tape, engine: RunningEngine, source: TapeSource) -> WireAnswer:
    target = tape.target.replace(RECORDED_SOURCE, b"127.0.0.1:%d" % source.server_port)
    headers = [
        (name.decode(), value.decode("latin-1"))
        for name, value in tape.request_headers
        if name not in (b"host", b"connection")
    ]
    if tape.name != "queue-full":
        return engine.ask(target, tape.method, headers)
    # One at work, one in the queue, and two too many: what is answered at once counts.
    connections = [engine.send(request(target, tape.method, headers)) for _ in range(4)]
    try:
        return read_answer(first_to_answer(connections))
    finally:
        for connection in connections:
            connection.close()


def why_different(tape: Tape, answer: WireAnswer, source: TapeSource) -> list[str]:
    """What of an answer is not as it was recorded."""
    problems = []
    if answer.status != tape.status:
        problems.append(f"status {answer.status} instead of {tape.status}: {answer.body[:80]!r}")
        return problems
    expected = [
        (
            name.decode().lower(),
            value.replace(RECORDED_SOURCE, b"127.0.0.1:%d" % source.server_port).decode("latin-1"),
        )
        for name, value in tape.headers
    ]
    problems += header_differences(tape, expected, answer)
    content_type = dict(expected).get("content-type", "")
    if content_type == "image/svg+xml":
        if ET.canonicalize(answer.body.decode()) != ET.canonicalize(tape.body.decode()):
            problems.append(f"another SVG: {answer.body!r}")
    elif content_type.startswith("image/") and tape.body and "raw" not in tape.name:
        problems += picture_differences(tape, answer.body)
    elif answer.body != tape.body:
        problems.append(f"body {answer.body[:80]!r} instead of {tape.body[:80]!r}")
    return problems


def header_differences(
    tape: Tape, expected: list[tuple[str, str]], answer: WireAnswer
) -> list[str]:
    passed_over = NOT_COMPARED_IN_3 if tape.version.startswith("3.") else set()
    theirs = {name: value for name, value in expected if name not in passed_over}
    ours = {name: value for name, value in answer.headers if name not in passed_over}
    problems = [f"no {name}" for name in theirs.keys() - ours.keys()]
    problems += [f"{name}: {ours[name]} was not sent" for name in ours.keys() - theirs.keys()]
    for name in theirs.keys() & ours.keys() - NOT_COMPARED - VALUE_NOT_COMPARED:
        if not is_same_value(name, theirs[name], ours[name], theirs.get("content-type", "")):
            problems.append(f"{name}: {ours[name]} instead of {theirs[name]}")
    given_id = dict(tape.request_headers).get(b"x-request-id", b"").decode()
    if theirs.get("x-request-id") == given_id and ours.get("x-request-id") != given_id:
        problems.append("x-request-id was not echoed")
    return problems


def is_same_value(name: str, theirs: str, ours: str, content_type: str) -> bool:
    if name == "content-length" and content_type.startswith("image/"):
        return int(ours) > 0
    if name == "cache-control" and theirs.startswith("max-age=2"):
        # passthrough-expires: seconds from the recording, and from now, to the same time.
        return bool(re.fullmatch(r"max-age=22\d{8}, public", ours))
    return theirs == ours


def picture_differences(tape: Tape, body: bytes) -> list[str]:
    theirs, ours = Image.open(io.BytesIO(tape.body)), Image.open(io.BytesIO(body))
    if (theirs.format, theirs.size) != (ours.format, ours.size):
        return [f"{ours.format} {ours.size} instead of {theirs.format} {theirs.size}"]
    allowed = KERNELS if tape.name in KERNEL_CASES else EXACT
    difference = ImageChops.difference(theirs.convert("RGBA"), ours.convert("RGBA"))
    mean = sum(ImageStat.Stat(difference).mean) / 4
    return [f"pixels differ by {mean:.2f}, allowed {allowed}"] if mean > allowed else []
