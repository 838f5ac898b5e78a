"""The one table."""

from dataclasses import dataclass

COLUMNS = ("what", "ours", "beside", "ratio", "goal", "")


@dataclass(frozen=True, slots=True)
class Row:
    """
    One figure of ours, beside whose, and what it should be.

    `ratio` is what the goal is about; where the goal is not a ratio, `value` is.
    """

    what: str
    ours: str
    beside: str = ""
    ratio: float | None = None
    value: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    @property
    def is_reached(self) -> bool | None:
        """None where there is no goal, or nothing to hold it against."""
        measured = self.ratio if self.value is None else self.value
        if measured is None:
            return None
        if self.at_most is not None:
            return measured <= self.at_most
        if self.at_least is not None:
            return measured >= self.at_least
        return None

    def cells(self) -> tuple[str, ...]:
        goal = ""
        if self.at_most is not None:
            goal = f"<= {self.at_most:g}{self.unit}"
        elif self.at_least is not None:
            goal = f">= {self.at_least:g}{self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[self.is_reached]
        return (self.what, self.ours, self.beside, ratio, goal, verdict)


def table(rows: list[Row]) -> str:
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
