"""Starts what is measured, as its users start it: the proxy, nginx, imgproxy, the engine."""

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.clients import answered
from benchmarks.machine import pinned
from imgproxy_cache.imgproxy import find_imgproxy
from tests.servers.process import free_port, running

PHOTOGRAPHS = Path(__file__).parents[1] / "tests" / "images"
PYTHON = sys.executable
START_SECONDS = 30.0

_NGINX = """
daemon off;
{processes}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {cache}
    upstream imgproxy {{
        server 127.0.0.1:{upstream_port};
        keepalive 300;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        keepalive_requests 1000000000;
        location / {{
            proxy_pass http://imgproxy;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 16k;
            proxy_buffers 8 32k;
            {caching}
        }}
    }}
}}
"""
# With its workers, and as the user that owns the folder.
_WORKERS = "user {user}; worker_processes {workers}; worker_rlimit_nofile 16384;"
# sendfile and tcp_nopush are in the nginx.conf of Debian, open_file_cache is not.
_CACHE = """
    sendfile on;
    tcp_nopush on;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=images:10m max_size=1g inactive=1h
        use_temp_path=off;
"""
_OPEN_FILES = "    open_file_cache max=4000 inactive=1h;\n"


class Server:
    """A process of ours and where it listens."""

    def __init__(self, name: str, pid: int, port: int) -> None:
        self.name = name
        self.pid = pid
        self.port = port


@asynccontextmanager
async def proxy(
    upstream_port: int,
    store: Mapping[str, str],
    *,
    cores: frozenset[int],
    command: Sequence[str] = ("-m", "imgproxy_cache", "serve"),
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """imgproxy-cache with its defaults, keeping images in the store that the variables name."""
    port = free_port()
    # A spool of its own: what another run has left is not uploaded in this one.
    spool = Path(tempfile.mkdtemp(prefix="imgproxy-cache-bench-spool-"))
    environ = {
        **_clean_environ(),
        **store,
        "TMPDIR": str(spool),
        "IMGPROXY_BIND": f"127.0.0.1:{port}",
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
        "CACHE_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        **(settings or {}),
    }
    try:
        async with _started([PYTHON, *command], port, environ, cores) as pid:
            # It listens before it has opened its store: wait for that.
            await answered(port, b"/health")
            yield Server("imgproxy-cache", pid, port)
    finally:
        shutil.rmtree(spool)


def nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def nginx(
    program: str, folder: Path, upstream_port: int, *, cores: frozenset[int]
) -> AsyncIterator[Server]:
    """nginx as a reverse proxy: one process, connections kept alive on both sides, no log."""
    configuration = {"processes": "master_process off;", "cache": "", "caching": ""}
    async with _nginx(program, folder, upstream_port, configuration, cores) as (pid, port):
        yield Server("nginx", pid, port)


@asynccontextmanager
async def caching_nginx(
    program: str,
    folder: Path,
    upstream_port: int,
    *,
    cores: frozenset[int],
    workers: int = 1,
    opens_files_once: bool = False,
) -> AsyncIterator[Server]:
    """
    The same with `proxy_cache`; so many workers, and a master.

    The way it comes from Debian, or with `open_file_cache`.
    """
    name = "nginx-with-open-files" if opens_files_once else "nginx"
    home = folder / name
    home.mkdir()
    user = pwd.getpwuid(os.geteuid()).pw_name
    open_files = _OPEN_FILES if opens_files_once else ""
    configuration = {
        "processes": _WORKERS.format(user=user, workers=workers),
        "cache": _CACHE.format(folder=home) + open_files,
        "caching": "proxy_cache images; proxy_cache_lock on;",
    }
    async with _nginx(program, home, upstream_port, configuration, cores) as (pid, port):
        yield Server(name, pid, port)


@asynccontextmanager
async def _nginx(
    program: str,
    folder: Path,
    upstream_port: int,
    configuration: Mapping[str, str],
    cores: frozenset[int],
) -> AsyncIterator[tuple[int, int]]:
    """Its process, and its port."""
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(
        _NGINX.format(folder=folder, port=port, upstream_port=upstream_port, **configuration)
    )
    command = [program, "-p", str(folder), "-c", str(file), "-e", str(folder / "nginx.log")]
    async with _started(command, port, _clean_environ(), cores) as pid:
        yield pid, port


def imgproxy_program() -> str | None:
    """The real imgproxy, where one is installed."""
    return find_imgproxy(os.environ.get("CACHE_IMGPROXY_BIN"), path=os.environ.get("PATH"))


@asynccontextmanager
async def imgproxy(program: str | None, *, cores: frozenset[int]) -> AsyncIterator[Server]:
    """The imgproxy of this path, or (None) the embedded engine, over the photographs."""
    port = free_port()
    environ = {
        **_clean_environ(),
        "IMGPROXY_BIND": f"127.0.0.1:{port}",
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(PHOTOGRAPHS),
        "IMGPROXY_LOG_LEVEL": "warn",
    }
    command = [program] if program else [PYTHON, "-m", "imgproxy_cache.engine"]
    async with _started(command, port, environ, cores) as pid:
        yield Server("imgproxy" if program else "engine", pid, port)


async def figure_of(
    module: str,
    *arguments: str,
    cores: frozenset[int],
    environ: Mapping[str, str] | None = None,
) -> float:
    """The number that one of the programs of this package prints, and is only made for."""
    with pinned(cores):
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-m", module, *arguments),
            env={**_clean_environ(), **(environ or {})},
            stdout=subprocess.PIPE,
        )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return float(said)


@asynccontextmanager
async def _started(
    command: Sequence[str], port: int, environ: Mapping[str, str], cores: frozenset[int]
) -> AsyncIterator[int]:
    """Starts and stops it in a thread: it may wait for answers that this event loop gives."""
    stack = ExitStack()

    def start() -> int:
        process = running(command, port=port, env=environ, timeout_seconds=START_SECONDS)
        with pinned(cores):
            return stack.enter_context(process).pid

    try:
        yield await asyncio.to_thread(start)
    finally:
        await asyncio.to_thread(stack.close)


def _clean_environ() -> dict[str, str]:
    """Nothing that would change the settings of what we start."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
