"""Environment variables, read one at a time; what is wrong is collected, secrets left out."""

import re
from collections.abc import Mapping, Sequence

# As Go's strconv.ParseBool reads them, for imgproxy's names and for ours.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LONGEST_PRINTED = 120


class Environment:
    """
    Reads variables, and goes on after a bad one with its default.

    A variable that is empty or blank counts as not set, as in imgproxy.  When
    everything has been read, `problems` says all that is wrong, in the order in
    which it was found.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def names(self, prefix: str) -> list[str]:
        """The variables that are set and begin with a prefix."""
        return [name for name in self._environ if name.startswith(prefix) and self.text(name)]

    def is_present(self, name: str) -> bool:
        """Is there such a variable, be it empty?"""
        return name in self._environ

    def text(self, name: str) -> str | None:
        """The value as it is; None if it is not set."""
        value = self._environ.get(name, "")
        return value if value.strip() else None

    def first_of(self, names: Sequence[str]) -> tuple[str, str] | None:
        """Name and value of the first variable that is set."""
        for name in names:
            if (value := self.text(name)) is not None:
                return name, value.strip()
        return None

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self.text(name)
        if value is None:
            return default
        if value not in _TRUE | _FALSE:
            self.reject(name, "true or false")
        return value in _TRUE

    def number(
        self,
        name: str,
        default: int,
        *,
        at_least: int,
        at_most: int | None = None,
        unit: str = "a whole number",
    ) -> int:
        """A whole number within limits."""
        value = self.text(name)
        if value is None:
            return default
        expected = f"{unit}, {at_least} or more"
        if at_most is not None:
            expected = f"{unit} from {at_least} to {at_most}"
        if not _WHOLE_NUMBER.fullmatch(value.strip()):
            self.reject(name, expected)
            return default
        number = int(value)
        if number < at_least or (at_most is not None and number > at_most):
            self.reject(name, expected)
            return default
        return number

    def seconds(self, name: str, default: float, *, may_be_zero: bool = False) -> float:
        """A span of time."""
        value = self.text(name)
        if value is None:
            return default
        is_number = _SECONDS.fullmatch(value.strip())
        if not is_number or (float(value) == 0 and not may_be_zero):
            self.reject(name, "seconds, 0 or more" if may_be_zero else "seconds, more than 0")
            return default
        return float(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of a few words, in any case; None if it is not set."""
        value = self.text(name)
        if value is None or value.strip().lower() in choices:
            return value and value.strip().lower()
        self.reject(name, " or ".join((", ".join(choices[:-1]), choices[-1])))
        return None

    def items(self, name: str) -> list[str]:
        """What stands between commas, without the blanks around it; nothing if it is not set."""
        value = self.text(name)
        return [] if value is None else [item.strip() for item in value.split(",")]

    def hex_items(self, name: str) -> list[bytes]:
        """Secrets in hexadecimal between commas."""
        try:
            return [bytes.fromhex(_without_blanks(item)) for item in self.items(name)]
        except ValueError:
            self.reject_secret(name, "hexadecimal digits in pairs, several keys by commas")
            return []

    def reject(self, name: str, expected: str) -> None:
        """Note that a value is not what was expected."""
        self.problems.append(
            f"{name}={printable(self._environ.get(name, ''))}: expected {expected}"
        )

    def reject_secret(self, name: str, expected: str) -> None:
        """As :meth:`reject`, of a secret: of its value only the length is told."""
        length = len(self._environ.get(name, ""))
        noun = "character" if length == 1 else "characters"
        self.problems.append(f"{name} ({length} {noun}): expected {expected}")

    def require(self, name: str, expected: str) -> None:
        """Note that a value is missing."""
        self.problems.append(f"{name} is not set: expected {expected}")


def printable(value: str) -> str:
    """
    Quote a value for a message, without what may be a secret in it.

    The user part of a URL goes, up to the last `@` since a password may hold
    anything, and so does a query, which may be signed.
    """
    head, at, rest = value.rpartition("@")
    if at:
        scheme = _SCHEME.match(head)
        value = f"{scheme.group() if scheme else ''}***@{rest}"
    value, query, _ = value.partition("?")
    value += "?***" if query else ""
    if len(value) > _LONGEST_PRINTED:
        value = f"{value[:_LONGEST_PRINTED]}..."
    return repr(value)


def _without_blanks(digits: str) -> str:
    # bytes.fromhex() skips blanks, imgproxy does not.
    return "-" if re.search(r"\s", digits) else digits
