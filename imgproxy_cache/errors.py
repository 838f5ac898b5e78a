"""Every exception that imgproxy-cache raises."""

from collections.abc import Sequence


class ImgproxyCacheError(Exception):
    """Anything that went wrong and that we know how to explain."""


class SettingsError(ImgproxyCacheError):
    """
    The environment does not say what we need to start.

    `problems` holds one line per setting, ready to be shown: never a secret,
    never the user part of a URL.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        noun = "setting" if len(self.problems) == 1 else "settings"
        lines = [f"cannot start, {len(self.problems)} {noun} to fix:"]
        return "\n  ".join([*lines, *self.problems])


class StoreError(ImgproxyCacheError):
    """
    A store failed at an operation (a missing image is no failure: that is None).

    `place` is the store as printed (`s3://images/processed`), `operation` the
    verb with its object (`put cache/0123...`), `cause` what the store said,
    `hint` what the operator can do about it, and `kind` one short word out of
    a small set, fit for a metric's label.
    """

    def __init__(
        self, *, operation: str, place: str, cause: str, hint: str, kind: str = "other"
    ) -> None:
        self.operation = operation
        self.place = place
        self.cause = cause
        self.hint = hint
        self.kind = kind
        super().__init__(operation, place, cause, hint, kind)

    def __str__(self) -> str:
        parts = (self.place, self.operation, self.cause, self.hint)
        return ": ".join(part for part in parts if part)


class StoreBugError(StoreError):
    """Something was raised that nobody expected: of the image, as far as the store is concerned."""

    def __init__(self, exc: BaseException, *, operation: str, place: str) -> None:
        super().__init__(
            operation=operation,
            place=place,
            cause=f"{type(exc).__name__}: {exc}",
            hint="this is a bug in imgproxy-cache: please report it",
            kind="bug",
        )


class StoredTooLargeError(StoreError):
    """An object is not read for its size."""

    def __init__(self, size: int, *, operation: str, place: str) -> None:
        super().__init__(
            operation=operation,
            place=place,
            cause=f"it has {size} bytes, more than CACHE_MAX_OBJECT_BYTES",
            hint="remove it, or raise the setting",
            kind="too-large",
        )


class UpstreamError(ImgproxyCacheError):
    """imgproxy, or the server of a store, gave no whole answer."""


class UpstreamUnreachable(UpstreamError):  # noqa: N818 - a server's state, told by its parent
    """No connection, or it was lost before the first byte of the answer."""


class UpstreamTimedOut(UpstreamError):  # noqa: N818
    """It did not accept or answer in time."""


class UpstreamBroken(UpstreamError):  # noqa: N818
    """Its answer is not HTTP, or it broke off in the middle."""


class UpstreamBusy(UpstreamError):  # noqa: N818
    """No connection, or no buffer for the answer, came free in time."""


class UpstreamFailing(UpstreamError):  # noqa: N818
    """imgproxy failed several times in a row, and is not asked for a moment."""


class ListenError(ImgproxyCacheError):
    """An address that we cannot listen on."""


class FolderError(ImgproxyCacheError):
    """A folder that was named for us alone is not, or one that we need cannot be made."""


class SpoolError(ImgproxyCacheError):
    """The spool's folder cannot be used, or not safely."""


class SpoolFileError(ImgproxyCacheError):
    """A file of the spool is not what was written."""


class KeptFileError(ImgproxyCacheError):
    """A file of the disk tier is not what was written."""


class StoredImageError(ImgproxyCacheError):
    """An object of the store is not what was put there."""
