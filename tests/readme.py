"""The README as the tests read it: its code blocks, its commands and its tables."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text() -> str:
    return README.read_text("utf-8")


def blocks(language: str) -> list[str]:
    """What stands in the code blocks of a language, in order."""
    return [code for name, code in _BLOCK.findall(text()) if name == language]


def table(first_column: str) -> list[list[str]]:
    """The rows of the table whose first column has this title, without their head."""
    lines = iter(text().splitlines())
    rows = []
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            break
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
