"""A table of the report: one row per run; each cell is a number with, in small print, a value to compare it with."""

from dataclasses import dataclass

__all__ = ["Cell", "Table"]

Cell = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """``rows`` are labels of runs with their cells, one for each of ``columns``."""

    columns: tuple[str, ...]
    rows: list[tuple[str, list[Cell]]]
    title: str = ""
