"""
Runs a program and fails it at one of its system calls, without strace.

``failing_call.py rename KILL 3 PROGRAM ROOT``: the third rename kills; or fails, with the name
of an errno in place of KILL.  What Python calls is what the system would be asked for.
"""

import errno
import fcntl
import os
import signal
import sys
from typing import Any

name, action, number, program = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
module: Any = fcntl if name == "flock" else os
call = getattr(module, name)
calls = 0


def failing(*args: Any, **kwargs: Any) -> Any:
    global calls  # noqa: PLW0603 - a program of one page
    calls += 1
    if calls == number:
        if action == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, action)
        raise OSError(code, os.strerror(code))
    return call(*args, **kwargs)


setattr(module, name, failing)
sys.argv[1:] = sys.argv[5:]
exec(program)
