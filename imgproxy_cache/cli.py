"""The `imgproxy-cache` command."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NoReturn

from imgproxy_cache.core.key import key_from_target, object_name
from imgproxy_cache.core.location import FolderLocation
from imgproxy_cache.core.printable import fits_a_target
from imgproxy_cache.errors import ImgproxyCacheError, SettingsError
from imgproxy_cache.leaving import leave
from imgproxy_cache.settings import Settings
from imgproxy_cache.settings.environment import Environment
from imgproxy_cache.settings.read_through import read_key_rules
from imgproxy_cache.settings.reference import SETTINGS
from imgproxy_cache.settings.store import read_store

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]

ABOUT = """\
A caching sidecar for imgproxy: answers every request at once, and keeps every good image in
S3-compatible storage under the MD5 of its request path. Settings are environment variables."""

RUN = """\
Starts imgproxy and the proxy in front of it, and stops both when one of them ends.

The proxy listens on IMGPROXY_BIND (:8080), imgproxy on the address of CACHE_UPSTREAM_URL
(127.0.0.1:8081). An imgproxy on another machine is not started: the proxy then runs alone.
Logs of both go to stdout. SIGTERM or Ctrl-C stops the proxy first, when its answers and uploads
are done, then imgproxy.

Exit status: 0 when asked to stop; 2 when settings are wrong; else that of the program that ended.

  S3_BUCKET=images AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... imgproxy-cache run"""

SERVE = """\
Starts the proxy alone, in front of the imgproxy of CACHE_UPSTREAM_URL, which has to run already
or to come up within HEALTH_CHECK_TIMEOUT_IN_SEC.

  S3_BUCKET=images CACHE_UPSTREAM_URL=http://imgproxy.internal:8080 imgproxy-cache serve"""

IMGPROXY = """\
Becomes the imgproxy behind the proxy: the program of CACHE_IMGPROXY_BIN, else `imgproxy` on PATH,
else /opt/imgproxy/bin/imgproxy; where none is installed, the embedded engine, which answers
imgproxy's URLs well enough for a first run, for tests and for small sites.

All IMGPROXY_* settings are passed on but IMGPROXY_BIND, which becomes the address of
CACHE_UPSTREAM_URL, IMGPROXY_NETWORK (tcp) and PORT (dropped). A fallback image without a status
or a lifetime of its own gets IMGPROXY_FALLBACK_IMAGE_TTL=67, by which the proxy knows it."""

CHECK = """\
Tries the set-up without serving anybody: the settings, imgproxy's health, writing in CACHE_DISK_DIR
where read-through uses it, and writing, reading and deleting an object in the store. One line each;
where one fails it says what to do. Exit status 1 when one fails.

With --health only asks the proxy that runs on this machine for imgproxy's /health, and writes
nothing: this is what the container's HEALTHCHECK does."""

KEY = """\
Prints the name of the object for each path: S3_FOLDER, if set, and the MD5 of the path, signature
and all, as it stands in the URL after the host; what follows a "?" does not count. With
CACHE_KEY_SIGNATURE=exclude the signature does not count either: it is what stands between
IMGPROXY_PATH_PREFIX, if set, and the next slash.

  imgproxy-cache key /insecure/rs:fill:300:300/plain/https://example.com/image.jpg"""


SPOOL = """\
Shows the images that were answered and that the store has not taken yet: how many, how large and
how old they are, why uploads failed lately, and what was set aside (damaged files, and images that
the store will not have). Works while the server runs, and when it does not.

`imgproxy-cache spool retry` has everything tried now; with --set-aside what was set aside too. A
running server is asked to; else the images are uploaded here. Exit status 1 when some could not be.

Run it with the server's settings, as the user that the server runs as:

  docker exec CONTAINER imgproxy-cache spool"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for wrong settings or arguments."""
    _open_standard_streams()
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments, os.environ)
    except SettingsError as exc:
        return _fail(str(exc), 2)
    except ImgproxyCacheError as exc:
        return _fail(str(exc), 1)
    except KeyboardInterrupt:
        return 130


def _open_standard_streams() -> None:
    """
    Open those that whoever started us has closed (`<&-`).

    What is opened next would take their numbers: a socket would be logged into, and libuv ends a
    process that has it close one of the three.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from imgproxy_cache.run import run  # noqa: PLC0415

    return run(environ)


def _serve(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from imgproxy_cache.server import serve  # noqa: PLC0415

    leave(serve(Settings.from_environ(environ)))


def _imgproxy(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from imgproxy_cache.imgproxy import become_imgproxy  # noqa: PLC0415

    settings = Settings.from_environ(_with_a_store(environ))
    return become_imgproxy(
        environ,
        named=settings.imgproxy_bin,
        host=settings.upstream_host,
        port=settings.upstream_port,
    )


def _check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.health:
        return _check_health(Settings.from_environ(_with_a_store(environ)))
    try:
        settings = Settings.from_environ(environ)
    except SettingsError as exc:
        print("\n".join(f"failed  settings: {problem}" for problem in exc.problems))
        return 1
    else:
        import uvloop  # noqa: PLC0415

        leave(uvloop.run(_print_findings(settings)))


async def _print_findings(settings: Settings) -> int:
    from imgproxy_cache.check import check  # noqa: PLC0415

    status = 0
    async for finding in check(settings):
        print(finding, flush=True)
        status = status if finding.is_good else 1
    return status


def _check_health(settings: Settings) -> int:
    from imgproxy_cache.liveness import why_not_alive  # noqa: PLC0415

    bind = settings.bind
    problem = why_not_alive(bind, settings.health_path)
    print(
        f"failed  proxy on {bind}: {problem}: see its log"
        if problem
        else f"ok      proxy on {bind}"
    )
    return 1 if problem else 0


def _key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    env = Environment(_with_a_store(environ))
    rules = read_key_rules(env)
    is_wrong = bool(env.problems)
    location = read_store(env)
    if location is None or is_wrong:
        raise SettingsError(env.problems)
    folder = "" if isinstance(location, FolderLocation) else location.folder
    for path in arguments.path:
        if not fits_a_target(path):
            hint = "expected blanks and what is beyond ASCII escaped, as browsers send them"
            sys.stderr.write(f"{path!a} is the path of no request: {hint}\n")
        print(object_name(folder, key_from_target(os.fsencode(path), rules)))
    return 0


def _spool(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from imgproxy_cache import log  # noqa: PLC0415
    from imgproxy_cache.spool_command import describe_spool, retry_spool  # noqa: PLC0415

    settings = Settings.from_environ(environ)
    if arguments.action == "list":
        if arguments.set_aside:
            print(
                "--set-aside is for `spool retry`: `spool` lists what was set aside",
                file=sys.stderr,
            )
            return 2
        print("\n".join(describe_spool(settings)))
        return 0
    log.configure("error", None)
    result, status = retry_spool(settings, set_aside=arguments.set_aside)
    print(result)
    return status


def _with_a_store(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Commands that use no store do not insist on one."""
    is_named = any(environ.get(name) for name in ("S3_BUCKET", "BUCKET_NAME", "CACHE_STORE_URL"))
    return environ if is_named else {**environ, "S3_BUCKET": "any"}


def _path(argument: str) -> str:
    if not argument.startswith("/"):
        hint = "expected what follows the host in the URL, from its first slash on"
        raise argparse.ArgumentTypeError(f"{argument!r} does not start with a slash: {hint}")
    return argument


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that costs more than all the rest of a start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(parser.prog, version("imgproxy-cache"))
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imgproxy-cache",
        description=ABOUT,
        epilog="`imgproxy-cache COMMAND --help` explains each, with the settings that it reads.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Command, brief: str, about: str, settings: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=brief,
            description=about,
            epilog=settings,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    add("run", _run, "start imgproxy and the proxy in front of it", RUN, _settings())
    add("serve", _serve, "start the proxy alone", SERVE, _settings())
    add(
        "imgproxy",
        _imgproxy,
        "become the imgproxy behind the proxy",
        IMGPROXY,
        _settings("CACHE_IMGPROXY_BIN", "CACHE_UPSTREAM_URL"),
    )
    added = add("check", _check, "prove the set-up without serving", CHECK, _settings())
    added.add_argument(
        "--health", action="store_true", help="only ask the running proxy for its health"
    )
    added = add(
        "spool",
        _spool,
        "show what the store has not taken yet, or have it tried now",
        SPOOL,
        _settings("S3_BUCKET", "CACHE_STORE_URL", "CACHE_SPOOL_DIR"),
    )
    added.add_argument(
        "action", nargs="?", choices=("list", "retry"), default="list", help="what to do [list]"
    )
    added.add_argument("--set-aside", action="store_true", help="retry: what was set aside as well")
    added = add(
        "key",
        _key,
        "print the object name for a path",
        KEY,
        _settings("S3_FOLDER", "CACHE_STORE_URL", "CACHE_KEY_SIGNATURE"),
    )
    added.add_argument(
        "path",
        metavar="PATH",
        nargs="+",
        type=_path,
        help="as in the URL, from the slash after the host on",
    )
    return parser


def _settings(*names: str) -> str:
    """The table of settings for the end of a command's help: those named, else all."""
    columns = min(shutil.get_terminal_size().columns, 100)
    lines = ["settings (environment variables; in brackets the default):"]
    for setting in SETTINGS:
        if names and setting.name not in names:
            continue
        default = f" [{setting.default}]" if setting.default else ""
        lines.append(f"  {setting.name}{default}")
        lines += textwrap.wrap(
            setting.meaning, columns, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status
