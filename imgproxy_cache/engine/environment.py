"""
Reading ``IMGPROXY_*`` as imgproxy reads it: an empty value is no value.

All problems are collected, none is raised, and no value is printed that may be
a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from imgproxy_cache.engine.arguments import FORMAT_NAMES, TRUE

FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


class Environment:
    """
    The settings of a process, and what is wrong with them.

    ``problems`` grows as settings are read; ``names`` are those that were asked for.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.names: set[str] = set()
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        self.names.add(name)
        value = self._environ.get(name, "")
        return value if value.strip() else default

    def is_set(self, name: str) -> bool:
        """Whether a setting has a value, which we do not use."""
        return bool(self._environ.get(name, "").strip())

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            self._wrong(name, f"one of {', '.join(choices)}")
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.text(name)
        if not value:
            return default
        if value not in TRUE | FALSE:
            self._wrong(name, "true or false")
        return value in TRUE

    def integer(self, name: str, default: int, least: int = 0, most: int = 2**63 - 1) -> int:
        value = self.text(name)
        if not value:
            return default
        if not _INTEGER.fullmatch(value) or not least <= int(value) <= most:
            self._wrong(name, f"a whole number from {least}" + f" to {most}" * (most < 2**63 - 1))
            return default
        return int(value)

    def megapixels(self, name: str, default: int, least: int = 0) -> int:
        """Pixels of a number of millions."""
        value = self.text(name)
        if not value:
            return default
        try:
            pixels = int(float(value) * 1_000_000)
        except (ValueError, OverflowError):
            pixels = -1
        if pixels < least:
            self._wrong(name, "megapixels, a number" + " above 0" * bool(least))
            return default
        return pixels

    def texts(self, name: str, separator: str = ",") -> tuple[str, ...]:
        value = self.text(name)
        return tuple(part.strip() for part in value.split(separator)) if value else ()

    def formats(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple("jpeg" if text == "jpg" else text for text in self.texts(name))
        if not set(names) <= FORMAT_NAMES:
            self._wrong(name, f"formats out of {', '.join(sorted(FORMAT_NAMES))}")
            return default
        return names or default

    def qualities(self, name: str) -> dict[str, int]:
        """``jpeg=80,webp=70``"""
        qualities = {}
        for text in self.texts(name):
            format_name, _, quality = (part.strip() for part in text.partition("="))
            format_name = "jpeg" if format_name == "jpg" else format_name
            is_quality = re.fullmatch("[0-9]{1,3}", quality, re.ASCII) and 0 < int(quality) <= 100
            if format_name not in FORMAT_NAMES or not is_quality:
                self._wrong(name, "format=quality pairs with qualities from 1 to 100")
                return {}
            qualities[format_name] = int(quality)
        return qualities

    def secrets(self, name: str) -> tuple[bytes, ...]:
        """Hexadecimal values; a problem tells only their length."""
        try:
            return tuple(bytes.fromhex(text) for text in self.texts(name))
        except ValueError:
            length = len(self.text(name))
            self.problems.append(f"{name} ({length} characters): expected hexadecimal digits")
            return ()

    def patterns(self, name: str) -> tuple[re.Pattern[str], ...]:
        """URL prefixes in which ``*`` is anything but a slash."""
        return tuple(wildcard(text) for text in self.texts(name))

    def replacements(self, name: str) -> tuple[tuple[re.Pattern[str], str], ...]:
        """``pattern=replacement;...``: ``${1}`` in a replacement is what the first ``*`` was."""
        pairs = []
        for text in self.text(name).split(";") if self.text(name) else ():
            pattern, equals, replacement = text.partition("=")
            if not equals:
                self._wrong(name, "pattern=replacement pairs")
                return ()
            pairs.append((wildcard(pattern), replacement))
        return tuple(pairs)

    def file(self, name: str) -> Path | None:
        value = self.text(name)
        if value and not Path(value).is_file():
            self._wrong(name, "an existing file")
        return Path(value) if value else None

    def folder(self, name: str) -> Path | None:
        value = self.text(name)
        if value and not Path(value).is_dir():
            self._wrong(name, "an existing folder")
        return Path(value) if value else None

    def lines(self, name: str) -> tuple[str, ...]:
        """The lines of the file that the setting names."""
        path = self.file(name)
        if path is None or not path.is_file():
            return ()
        return tuple(path.read_text("utf-8", "surrogateescape").splitlines())

    def _wrong(self, name: str, expected: str) -> None:
        self.problems.append(f"{name}={self._environ[name]!r}: expected {expected}")


def wildcard(text: str) -> re.Pattern[str]:
    """Match from the start what ``*`` stands for: anything but a slash."""
    return re.compile("^" + "([^/]*)".join(re.escape(part) for part in text.split("*")))
