"""The programs of supervisord.conf under supervisord, until the first of them ends."""

import ctypes
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor import events
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from imgproxy_cache.stop_signals import stop_signals

CONFIGURATION = Path(__file__).with_name("supervisord.conf")
PROXY, IMGPROXY = "imgproxy-cache", "imgproxy"


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended that nobody had asked to."""

    program: str
    what: str  # "exited with status 3", "was killed by SIGKILL"
    status: int  # never 0

    def __str__(self) -> str:
        return f"{self.program} {self.what}"


def supervise(
    programs: Sequence[str], *, environment: Mapping[str, str], drain_seconds: float
) -> ProgramEnd | None:
    """
    Run the named programs of supervisord.conf until one ends or a signal asks to stop.

    Returns how the one that ended first did, and None after SIGTERM, SIGINT, SIGQUIT or SIGHUP;
    by then all have ended, in the order of their priorities. The programs see our environment
    with `environment` added, and write to our own stdout and stderr. Where the kernel can do that
    (Linux) they are asked to stop even when we are killed. Takes over the signals of the process:
    call it from the main thread, once.
    """
    options = _Options()
    options.realize(["-c", str(CONFIGURATION)], doc="")
    groups = [group for group in options.process_group_configs if group.name in programs]
    options.process_group_configs = groups
    for group in groups:
        for program in group.process_configs:
            program.command = _as_this_python(program.command)
            program.environment = dict(environment)
            if program.name == PROXY:
                program.stopwaitsecs = drain_seconds + 2
    supervisor = _Supervisor(options)
    with suppress(ExitNow):
        supervisor.main()
    return supervisor.first_end


class _Options(ServerOptions):  # type: ignore[misc] # supervisor has no types
    """supervisord as the parent of two programs that a container, or a terminal, looks at."""

    def __init__(self) -> None:
        # For log files, of which there are none: a container that can only be read has no other.
        tempfile.tempdir = "/"
        super().__init__()
        self.first, self.test = True, False
        self.wait_status: dict[int, int] = {}
        self._wakeup = _Wakeup()
        self._libc = ctypes.CDLL(None)
        self._pid = os.getpid()

    def write_pidfile(self) -> None:
        """Nobody reads one; and as root, `/dev/null` as its name would be deleted at the end."""

    def setsignals(self) -> None:
        """Signals end the second that supervisord sleeps: a platform may give us only five."""
        heeded = stop_signals()
        super().setsignals()
        if signal.SIGHUP not in heeded:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._wakeup.on_signals()

    def get_socket_map(self) -> dict[int, Any]:
        return {self._wakeup.fileno: self._wakeup}

    def waitpid(self) -> tuple[int | None, int | None]:
        """Keep the whole status: supervisord forgets which signal it was."""
        pid, status = super().waitpid()
        if pid:
            self.wait_status[pid] = status
        return pid, status

    def fork(self) -> int:
        """A stop signal in the moment between fork and exec ends the program, and is not lost."""
        heeded = stop_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
        pid: int = super().fork()
        if pid == 0:
            for number in heeded:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)
        return pid

    def dup2(self, frm: int, to: int) -> None:
        """
        Leave stdout and stderr of a program as they are: our own.

        Read and written again by supervisord, every line would cost its time once more, a
        terminal would look like a file, and a socket (systemd's journal) could not be opened.
        """
        if to == 0:
            super().dup2(frm, to)

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
        if sys.platform == "linux":
            pr_set_pdeathsig = 1
            self._libc.prctl(pr_set_pdeathsig, signal.SIGTERM)
            if os.getppid() != self._pid:  # killed before the kernel knew
                return
        super().execve(filename, argv, env)


class _Supervisor(Supervisor):  # type: ignore[misc]
    """Stops everything when the first program ends, and remembers which it was."""

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self.first_end: ProgramEnd | None = None

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateExitedEvent, self._on_exit)
        events.subscribe(events.ProcessStateFatalEvent, self._on_failed_start)
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Go on to the next program at once where one has ended by itself, not in a second."""
        while self.stop_groups and not self.stop_groups[-1].get_unstopped_processes():
            self.stop_groups.pop()
        super().ordered_stop_groups_phase_1()

    def _on_exit(self, event: Any) -> None:
        program = event.process
        # What it leaves behind (the workers of a killed server) shares its group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        self._stop(_end_from_status(program.config.name, self.options.wait_status[program.pid]))

    def _on_failed_start(self, event: Any) -> None:
        program = event.process
        self._stop(ProgramEnd(program.config.name, f"did not start: {program.spawnerr}", 1))

    def _stop(self, end: ProgramEnd) -> None:
        if self.options.mood >= SupervisorStates.RUNNING:
            self.first_end = end
            self.options.mood = SupervisorStates.SHUTDOWN
            sys.stderr.write(f"imgproxy-cache run: {end}, stopping\n")
            sys.stderr.flush()


class _Wakeup:
    """A pipe that becomes readable once for every signal, as supervisord's loop wants it."""

    def __init__(self) -> None:
        self.fileno, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def on_signals(self) -> None:
        """Wake up for every signal from now on, and once at once: the programs are waiting."""
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        os.write(self._write_end, b"\0")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        os.read(self.fileno, 1)

    def handle_error(self) -> None:
        raise AssertionError("reading one's own pipe does not fail")


def _end_from_status(program: str, wait_status: int) -> ProgramEnd:
    status = os.waitstatus_to_exitcode(wait_status)
    if status < 0:
        return ProgramEnd(program, f"was killed by {signal.Signals(-status).name}", 128 - status)
    return ProgramEnd(program, f"exited with status {status}", status or 1)


def _as_this_python(command: str) -> str:
    """The command of our own that the configuration names need not be on PATH."""
    name, _, arguments = command.partition(" ")
    if name != PROXY:
        return command
    return f"{shlex.quote(sys.executable)} -m imgproxy_cache {arguments}"
