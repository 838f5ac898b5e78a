"""
`imgproxy-cache serve`: listening sockets, worker processes, signals, exit status.

The sockets are bound first, so that a port in use is said at once, and listen
only when imgproxy is ready.  One worker is this process; several are children
that share the sockets and are replaced when they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import itertools
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

import structlog
import uvicorn
import uvloop

from imgproxy_cache import log as logging_setup
from imgproxy_cache.app import LAST_UPLOADS_SECONDS, health_of, proxy_app
from imgproxy_cache.asked_server import AskedServer
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.errors import FolderError, SpoolError
from imgproxy_cache.huge_pages import gather_in_huge_pages
from imgproxy_cache.leaving import leave
from imgproxy_cache.listen import bound
from imgproxy_cache.metrics import FIGURES_DIR, Metrics
from imgproxy_cache.private_folder import make_private as make_folder_private
from imgproxy_cache.protocol import ClientConnection
from imgproxy_cache.refusals import Refusal
from imgproxy_cache.settings import Settings
from imgproxy_cache.stop_signals import stop_signals
from imgproxy_cache.stores import open_store
from imgproxy_cache.uploads.spool_folder import make_private

KEEP_ALIVE_SECONDS = 75  # as nginx's keepalive_timeout
# A worker that dies at once is not started again in a busy loop.
RESTART_SECONDS = 1.0
# Enough to see what is wrong; what hostile clients send fills no disk.
REFUSALS_LOGGED_PER_SECOND = 10
M_TRIM_THRESHOLD = -1  # glibc's malloc.h
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD_BYTES = 128 * 1024  # its own default, which is no longer adjusted when it is set
# What 256 answers of 30 KB on their way take.  At glibc's 128 KB, no longer adjusted either, memory
# went back and came again in every turn of the loop: 12 us of the 85 that a request cost.
TRIM_THRESHOLD_BYTES = 16 * 1024 * 1024

log = structlog.get_logger()


def serve(settings: Settings) -> int:
    """
    Serve until a signal asks to stop; return the exit status.

    0 after a stop that was asked for, 1 if imgproxy was not ready in time.

    Raises:
        ListenError: an address cannot be listened on
        SpoolError: the folder that was named for the spool is not ours alone
        FolderError: nor is that of the disk tier, or several workers have none for their figures
        StoreError: the store cannot even be described
    """
    info_log = logging_setup.configure(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        log.warning("server.warned", message=warning)
    _exit_when_signalled()
    _look_at_spool(settings)
    _look_at_disk_tier(settings)
    _allow_many_files()
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(bound(settings.bind))
        at = settings.admin_bind
        admin = stack.enter_context(bound(at)) if at is not None else []
        stack.enter_context(_figures_apart(settings))
        status = uvloop.run(_until_ready(settings))
        if status is not None:
            return status
        _exit_when_signalled()
        if settings.workers == 1:
            return _work(settings, info_log, public, admin)
        return _Workers(settings, public, admin).run()


@contextlib.contextmanager
def _figures_apart(settings: Settings) -> Iterator[None]:
    """
    Have several workers keep their figures in a folder of ours, from where each shows all.

    prometheus-client does so wherever this variable is set: one that other programs share, whose
    figures are not ours, is not used even by a single worker.
    """
    if settings.workers == 1 and FIGURES_DIR not in os.environ:
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="imgproxy-cache-metrics-")
    except OSError as exc:
        hint = "let TMPDIR name one that can be written, or leave WEB_CONCURRENCY at 1"
        raise FolderError(f"no folder for the figures of workers: {exc.strerror}: {hint}") from exc
    with folder as os.environ[FIGURES_DIR]:
        yield


def _exit_when_signalled() -> None:
    """While nothing is served yet, a stop has nothing to finish."""
    for number in stop_signals():
        signal.signal(number, lambda number, frame: sys.exit(0))


def _look_at_spool(settings: Settings) -> None:
    """
    A folder that somebody else can reach into is refused, or done without if nobody named it.

    A disk that is full or fails keeps us from nothing: it is tried again.
    """
    try:
        if settings.spool_items:
            make_private(settings.spool_dir, may_be_roots=True)
    except SpoolError as exc:
        if settings.spool_is_lasting:
            raise
        log.warning("server.warned", message=f"images wait in memory only: {exc}")
    except OSError as exc:
        reason = f"{settings.spool_dir}: {exc.strerror}: fix CACHE_SPOOL_DIR"
        log.warning("server.warned", message=f"images wait in memory only: {reason}")


def _look_at_disk_tier(settings: Settings) -> None:
    """As with the spool: whose answers are in it, clients are given."""
    read_through = settings.read_through
    if read_through is None or read_through.disk_dir is None:
        return
    try:
        make_folder_private(read_through.disk_dir, setting="CACHE_DISK_DIR", may_be_roots=True)
    except OSError as exc:
        reason = f"{read_through.disk_dir}: {exc.strerror}: fix CACHE_DISK_DIR"
        log.warning("server.warned", message=f"nothing is kept on disk: {reason}")


def _allow_many_files() -> None:
    """
    As many as the system lets us have open: connections, and half of them for the tiers.

    The soft limit is often 1,024, for programs that call select().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit behind the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _until_ready(settings: Settings) -> int | None:
    """None when it is; else the exit status: 0 if asked to stop, 1 if imgproxy was not in time."""
    waiting = asyncio.create_task(_wait_for_all(settings))
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, waiting.cancel)
    try:
        return await waiting
    except asyncio.CancelledError:
        return 0


async def _wait_for_all(settings: Settings) -> int | None:
    await _open_the_store_once(settings)
    return await _wait_for_imgproxy(settings)


async def _open_the_store_once(settings: Settings) -> None:
    """
    Where that fails, once and in one line.

    In a worker's lifespan it would be a traceback of uvicorn's, and where there are
    several workers one more each second.
    """
    async with open_store(settings.store):
        pass


async def _wait_for_imgproxy(settings: Settings) -> int | None:
    seconds = settings.health_check_timeout_seconds
    log.info(
        "upstream.awaited",
        message="Waiting for imgproxy to be ready...",
        url=settings.upstream_url,
        timeout_seconds=seconds,
    )
    async with health_of(settings) as health:
        reason = await health.wait(seconds)
    if reason is None:
        log.info("upstream.ready", message="imgproxy is ready")
        return None
    log.error("upstream.failed", message=_not_ready(settings, reason), reason=reason)
    return 1


def _not_ready(settings: Settings, reason: str) -> str:
    hints = [
        f"imgproxy was not ready in {settings.health_check_timeout_seconds:g} s: {reason}",
        "look at imgproxy's own log lines above",
        "is CACHE_UPSTREAM_URL where it listens, and IMGPROXY_PATH_PREFIX the same for both?",
        *([settings.port_collision] if settings.port_collision else []),
    ]
    return "; ".join(hints)


def _work(
    settings: Settings,
    info_log: logging_setup.InfoLog,
    public: list[socket.socket],
    admin: list[socket.socket],
) -> int:
    """Be a worker, in this process, until asked to stop."""
    metrics = Metrics()
    server: _Server

    def stop_deadline() -> float:
        return server.stop_deadline

    def client_was_cut_off() -> None:
        metrics.client_was_cut_off()
        log.info(
            "client.stalled",
            message="cut off: it took next to nothing of its answer",
            seconds=settings.client_stall_seconds,
        )

    log_refusal = logging_setup.Rationed(
        info_log, per_second=REFUSALS_LOGGED_PER_SECOND, clock=time.monotonic
    )

    def request_was_refused(refusal: Refusal, target: bytes) -> None:
        metrics.request_refused(refusal.outcome)
        log_refusal(
            "request.refused",
            message=refusal.reason.decode("ascii"),
            target=printable_target(target),
            status=refusal.status,
            outcome=refusal.outcome,
        )

    app = proxy_app(settings, metrics, info_log, admin_sockets=admin, stop_deadline=stop_deadline)
    config = uvicorn.Config(
        app,
        interface="asgi3",  # uvicorn knows it by `async def`
        http=partial(  # type: ignore[arg-type]
            ClientConnection,
            client_stall_seconds=settings.client_stall_seconds,
            client_was_cut_off=client_was_cut_off,
            request_was_refused=request_was_refused,
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(0.1, settings.drain_seconds - LAST_UPLOADS_SECONDS),  # type: ignore[arg-type]
    )
    server = _Server(config, settings)
    _calm_the_collector()
    _return_large_memory()
    uvloop.run(server.serve(sockets=public))
    log.info("server.stopped", message="stopped", pid=os.getpid())
    return 0 if server.started else 1


def _calm_the_collector() -> None:
    """
    Look for reference cycles less often, and not among what was imported.

    A request leaves about ten objects in cycles; at the default threshold the
    collector took 8 % of the time under load, at this one under 1 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _return_large_memory() -> None:
    """
    Have glibc give large pieces back to the system when they are freed, as it starts to do.

    Once it has freed one of 20 MB it would take all up to that size from heaps, whose
    fragments it keeps: with 200 clients of such images 510-590 MB instead of 455-470, and
    400 instead of 50 when all had gone.
    """
    with contextlib.suppress(AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


class _Server(AskedServer):
    """uvicorn's server, which ends with status 0 when asked to stop, and in time."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.stop_deadline = float("inf")
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From here on the sockets listen: everything behind them is open."""
        for number in stop_signals():  # uvicorn knows two of them
            signal.signal(number, self.handle_exit)
        await super().startup(sockets)
        if self.started:
            gather_in_huge_pages()  # what all requests use is there now
            settings = self._settings
            log.info(
                "server.started",
                message=f"listening on {settings.bind}",
                bind=str(settings.bind),
                admin=str(settings.admin_bind) if settings.admin_bind else None,
                store=str(settings.store),
                workers=settings.workers,
                pid=os.getpid(),
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own notes the signal, to die of it after a clean stop.
        # Another one may come in the middle of this: what is said of it comes last.
        if self.should_exit:
            return
        self.stop_deadline = time.monotonic() + self._settings.drain_seconds
        self.should_exit = True
        # It comes in the middle of anything, and may be the first thing to happen for a while.
        asyncio.get_running_loop().call_soon_threadsafe(self.stop)
        log.info(
            "server.stopping",
            message=f"{signal.Signals(sig).name}: finishing what is under way",
            drain_seconds=self._settings.drain_seconds,
            pid=os.getpid(),
        )


class _Workers:
    """Several worker processes over the same sockets."""

    def __init__(
        self, settings: Settings, public: list[socket.socket], admin: list[socket.socket]
    ) -> None:
        self._settings = settings
        self._sockets = (public, admin)
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[BaseProcess] = []
        self._is_stopping = False

    def run(self) -> int:
        read_end, write_end = socket.socketpair()
        write_end.setblocking(False)
        signal.set_wakeup_fd(write_end.fileno())
        for number in stop_signals():
            signal.signal(number, self._stop)
        self._processes = [self._start() for _ in range(self._settings.workers)]
        while not self._is_stopping:
            wait([read_end, *(process.sentinel for process in self._processes)])
            self._replace_the_dead()
        for process in self._processes:
            process.terminate()
        for listener in itertools.chain(*self._sockets):
            listener.close()  # while one is open its port is, and who connects waits for nobody
        give_up = time.monotonic() + self._settings.drain_seconds + 1
        for process in self._processes:
            process.join(max(0, give_up - time.monotonic()))
            if process.exitcode is None:
                process.kill()
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True

    def _start(self) -> BaseProcess:
        process = self._context.Process(
            target=_worker, args=(self._settings, *self._sockets), daemon=True
        )
        process.start()
        return process

    def _replace_the_dead(self) -> None:
        for index, process in enumerate(self._processes):
            if process.exitcode is not None and not self._is_stopping:
                log.error("worker.died", pid=process.pid, status=process.exitcode)
                time.sleep(RESTART_SECONDS)
                self._processes[index] = self._start()


def _worker(settings: Settings, public: list[socket.socket], admin: list[socket.socket]) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    info_log = logging_setup.configure(settings.log_level, settings.log_format)
    leave(_work(settings, info_log, public, admin))


def _end_with_the_parent() -> None:
    """A parent that was killed cannot stop its workers, which would keep the ports."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
