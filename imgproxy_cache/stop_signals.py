"""The signals that ask us to stop."""

import signal

_ALWAYS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def stop_signals() -> tuple[signal.Signals, ...]:
    """A terminal that is closed (SIGHUP) is one as well, but not for what `nohup` started."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return _ALWAYS if is_ignored else (*_ALWAYS, signal.SIGHUP)
