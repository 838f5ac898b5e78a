"""
The log: one JSON object a line on stdout, or readable lines on a terminal.

Every line has `timestamp` (RFC 3339, UTC), `level`, `event` (``noun.past_participle``)
and, where there is a sentence for people, `message`.  The events:

======================== =========================================================
``server.started``       listening; `bind`, `workers`, `store`
``server.stopping``      asked to stop; `drain_seconds`
``server.stopped``       done
``server.warned``        a setting that works otherwise than it may seem
``server.logged``        what uvicorn or asyncio had to say
``worker.died``          one of several workers ended; another takes its place
``upstream.awaited``     "Waiting for imgproxy to be ready..."
``upstream.ready``       "imgproxy is ready"
``upstream.failed``      not ready in time, and what to look at
``upstream.paused``      with read-through: it failed five times in a row; only probes ask it
``upstream.recovered``   it answers again
``request.served``       one for each request; for most hits of the nearest tier at level debug
``request.failed``       one for each request that got no whole answer, and why
``request.refused``      no request for us: one line each, 10 a second; then `unlogged`: the rest
``request.crashed``      a bug of ours, with its traceback; answered with 500
``fetch.abandoned``      images that a stop did not wait for; their clients had gone
``image.refused``        announced as stored, but it did not arrive whole
``client.stalled``       cut off: it took next to nothing of its answer
``upload.stored``        "Uploaded to S3"; `path`, `bucket`, `key`
``upload.unchanged``     the store had it already (debug)
``upload.retried``       some failed at first, the store took others: why, how often (one a minute)
``upload.failed``        once for each image that the store would not have in the end
``upload.dropped``       the queue was full
``upload.expired``       it waited for longer than `CACHE_SPOOL_MAX_AGE_SECONDS`
``upload.left``          what a stop left in the spool, for the next start
``upload.abandoned``     what a stop lost
``store.failed``         nothing is uploaded from now on, and why; images are kept
``store.awaited``        this goes on (one a minute); how much waits, since when
``store.recovered``      uploading again
``store.read_failed``    no image is read from the store from now on, and why; imgproxy makes them
``store.read_recovered`` reading from it again
``image.rejected``       an object of the store is not what was put there: a miss (one a minute)
``spool.adopted``        found in the spool: an earlier run or a worker that died has left it
``spool.quarantined``    a file of the spool is damaged, or the store will not have it
``spool.failed``         nothing goes into the spool from now on, and why
``spool.recovered``      the spool takes images again
``disk.failed``          nothing is kept on disk from now on, and why; what is there is still given
``disk.recovered``       images are kept on disk again
``disk.damaged``         a file there was not what was written: removed, a miss (one a minute)
======================== =========================================================

No line holds a secret: targets come without their query, settings without values.

A JSON line has at most 4,096 bytes, so that the lines of several workers do not mix in
the pipe that they share: longer texts lose their middle, which becomes ``[...]``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

LogFormat = Literal["json", "console"]

# Lines that wait are written at the latest when they are so many.
MAX_WAITING_LINES = 256
# What a pipe of Linux takes whole, however full it is and whoever else writes to it: pipe(7).
PIPE_BUF = 4096
CUT = "[...]"


def configure(level: str, log_format: LogFormat | None) -> InfoLog:
    """
    Set structlog up, and send what libraries log from WARNING up the same way.

    `log_format` None is `console` on a terminal, else `json`.  Returns a
    shorter way for the most frequent lines.
    """
    log_format = log_format or ("console" if sys.stdout.isatty() else "json")
    renderer: Any = _render_json if log_format == "json" else _console_renderer()
    lines = _Lines()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _event_first, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *args: lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)
    if level not in {"debug", "info"}:
        return _no_line
    return _line_of(lines) if log_format == "json" else _structlog_line


class InfoLog(Protocol):
    """
    Writes a line of level `info`: ``log("request.served", status=200, ...)``.

    For the lines that every request and every image pay for: without structlog
    on their way they cost 2 us instead of 6.
    """

    def __call__(self, event: str, **fields: object) -> None: ...


class Rationed:
    """
    For lines that strangers can cause as often as they like: at most `per_second` of them.

    The first line of a later second has `unlogged`, how many were left out, if any were.
    `clock` counts seconds.
    """

    def __init__(self, line: InfoLog, *, per_second: int, clock: Callable[[], float]) -> None:
        self._line = line
        self._per_second = per_second
        self._clock = clock
        self._since = -math.inf
        self._logged = 0
        self._unlogged = 0

    def __call__(self, event: str, **fields: object) -> None:
        now = self._clock()
        if now - self._since >= 1.0:
            self._since, self._logged = now, 0
        if self._logged == self._per_second:
            self._unlogged += 1
            return
        self._logged += 1
        if self._unlogged:
            fields["unlogged"], self._unlogged = self._unlogged, 0
        self._line(event, **fields)


def _no_line(event: str, **fields: object) -> None:
    pass


def _structlog_line(event: str, **fields: object) -> None:
    structlog.get_logger().info(event, **fields)


def _line_of(lines: _Lines) -> InfoLog:
    def line(event: str, **fields: object) -> None:
        now = datetime.now(UTC)
        lines.write({"timestamp": now, "level": "info", "event": event, **fields})

    return line


class _Lines:
    """
    Stdout, written once for all lines of one turn of the event loop.

    A line of its own system call would cost as much as making it.  Without a
    running loop a line is written at once.
    """

    def __init__(self) -> None:
        self._waiting: list[bytes | dict[str, object]] = []

    def write(self, line: bytes | dict[str, object]) -> None:
        """Fields are rendered with the others, when the processor is warm to it."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._flush()
        elif len(self._waiting) == MAX_WAITING_LINES:
            self._flush()

    debug = info = warning = error = critical = write

    def _flush(self) -> None:
        if self._waiting:
            lines = [
                line if isinstance(line, bytes) else _json_line(line) for line in self._waiting
            ]
            self._waiting.clear()
            text = b"\n".join([*lines, b""])
            stdout = sys.stdout.buffer
            try:  # suppress() would take half a microsecond
                for piece in (text,) if len(text) <= PIPE_BUF else _pieces(lines):
                    stdout.write(piece)
                    stdout.flush()
            except OSError:
                # Nobody reads them any more: to say so would end here again, in every turn.
                pass


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """The lines, as many at once as reach a pipe together."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > PIPE_BUF and piece:
            yield b"\n".join([*piece, b""])
            piece, size = [], len(line) + 1
        piece.append(line)
    yield b"\n".join([*piece, b""])


def _json_line(fields: Mapping[str, object]) -> bytes:
    line = orjson.dumps(fields, default=str, option=orjson.OPT_UTC_Z)
    excess = len(line) + 1 - PIPE_BUF
    return line if excess <= 0 else _shortened_line(fields, excess) or line


def _shortened_line(fields: Mapping[str, object], excess: int) -> bytes | None:
    """The line without so many bytes in the middle of its longest text, if it has one."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    longest = max(texts, key=lambda name: len(texts[name]), default="")
    text = texts.get(longest, "")
    if len(text) <= len(CUT):
        return None
    written = len(orjson.dumps(text))
    kept = len(text) * (written - excess - len(CUT)) // written
    kept = max(0, min(kept, len(text) - 2 * len(CUT)))  # and not half of an earlier cut
    text = text[: kept - kept // 2] + CUT + text[len(text) - kept // 2 :]
    return _json_line({**fields, longest: text})


def _event_first(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    return {
        "timestamp": datetime.now(UTC),
        "level": method_name,
        "event": event_dict["event"],
        **event_dict,
    }


def _render_json(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> bytes:
    return _json_line(event_dict)


def _console_renderer() -> Any:
    render = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())

    def as_bytes(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> bytes:
        event_dict["timestamp"] = event_dict["timestamp"].isoformat(timespec="milliseconds")
        return str(render(logger, method_name, event_dict)).encode("utf-8", "backslashreplace")

    return as_bytes


class _ToStructlog(logging.Handler):
    """What uvicorn and asyncio log, as one line each, the traceback included."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, str] = {"message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(structlog.get_logger(), level)("server.logged", **fields)
