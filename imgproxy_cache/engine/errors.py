"""Every way an engine request can fail: the status and the words that imgproxy answers with."""

# ruff: noqa: N818 - the names say what happened; that it is an error, their parent says

from __future__ import annotations


class EngineError(Exception):
    """
    A request that is answered with an error.

    ``status`` and ``public`` are what the client sees; ``str()`` is the reason, for the log only.
    """

    status = 500
    public = "Internal error"


class InvalidUrl(EngineError):
    """The path is none that imgproxy understands."""

    status = 404
    public = "Invalid URL"


class Forbidden(EngineError):
    """Wrong signature or secret."""

    status = 403
    public = "Forbidden"


class QueueFull(EngineError):
    """More requests wait than the queue may hold."""

    status = 429
    public = "Too many requests"


class TimedOut(EngineError):
    """The request took longer than ``IMGPROXY_TIMEOUT``."""

    status = 503
    public = "Timeout"


class SourceNotAllowed(EngineError):
    """The source is not in ``IMGPROXY_ALLOWED_SOURCES``, or its address is a refused one."""

    status = 404
    public = "Invalid source URL"


class SourceUnreachable(EngineError):
    """
    No usable answer came from the source.

    The status is 404, or what the source's own status makes of it: 4xx as it
    came, 502 for 5xx.
    """

    public = "Source is unreachable"

    def __init__(self, reason: str, status: int = 404) -> None:
        super().__init__(reason)
        self.status = status


class SourceTimedOut(SourceUnreachable):
    """The source took longer than ``IMGPROXY_DOWNLOAD_TIMEOUT``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, status=504)


class SourceIncomplete(EngineError):
    """The source's body ended too early."""

    status = 422
    public = "Source response is incomplete"


class InvalidSource(EngineError):
    """The source is no image of a known kind, or is larger than allowed."""

    status = 422
    public = "Invalid source image"


class BrokenImage(EngineError):
    """The source looks like an image but cannot be decoded."""

    status = 422
    public = "Broken or unsupported image"


class BrokenSvg(EngineError):
    """The source looks like an SVG but is not well-formed XML."""

    status = 422
    public = "Broken or unsupported SVG image"


class UnsupportedFormat(EngineError):
    """This libvips cannot load the source's format, or not save the wanted one."""

    status = 422
    public = "Invalid URL"
