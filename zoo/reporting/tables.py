"""A table of the report: a row a run, each cell a number with, in small, what to hold it against."""

from dataclasses import dataclass

__all__ = ["Cell", "Table"]

Cell = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """``rows`` are labels of runs with their cells, as many as ``columns``."""

    columns: tuple[str, ...]
    rows: list[tuple[str, list[Cell]]]
    title: str = ""
