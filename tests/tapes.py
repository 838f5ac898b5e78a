"""Recorded answers of imgproxy 3.30.1 and 4.0.12: `tapes/README.md` says what is in them."""

import json
from base64 import b64decode
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imgproxy_cache.core.headers import Headers

VERSIONS = ("3.30.1", "4.0.12")
_FOLDER = Path(__file__).with_name("tapes")


@dataclass(frozen=True, slots=True)
class Tape:
    """One request and what imgproxy answered."""

    name: str
    version: str
    env: dict[str, str]
    """imgproxy's settings; `IMAGES` in a value is the folder of the images."""
    method: str
    target: bytes
    request_headers: Headers
    """As they arrived, with lower-case names as uvicorn hands them over."""
    status: int
    headers: Headers
    """In the order and the case of the wire."""
    body: bytes
    expected: str
    """The verdict of `verdicts.txt`: `stored`, or why not."""

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


@cache
def tapes(version: str) -> tuple[Tape, ...]:
    """All tapes of one version."""
    verdicts = _verdicts(version)
    lines = (_FOLDER / f"imgproxy-{version}.jsonl").read_text("utf-8").splitlines()
    return tuple(_tape(line, verdicts) for line in lines)


def tape(name: str, version: str) -> Tape:
    """One tape by its name."""
    return next(tape for tape in tapes(version) if tape.name == name)


def all_tapes() -> list[Tape]:
    """Both versions, one after the other."""
    return [tape for version in VERSIONS for tape in tapes(version)]


def _tape(line: str, verdicts: dict[str, str]) -> Tape:
    recorded = json.loads(line)
    sent = [["Host", "img.example"], ["Connection", "close"], *recorded["request"]]
    return Tape(
        name=recorded["name"],
        version=recorded["version"],
        env=recorded["env"],
        method=recorded["method"],
        target=recorded["target"].encode("latin-1"),
        request_headers=[
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent
        ],
        status=recorded["status"],
        headers=[
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in recorded["headers"]
        ],
        body=b64decode(recorded["body"]),
        expected=verdicts[recorded["name"]],
    )


def _verdicts(version: str) -> dict[str, str]:
    lines = (_FOLDER / "verdicts.txt").read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {row[0]: row[1 + VERSIONS.index(version)] for row in rows}
