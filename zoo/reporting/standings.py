"""The ranking in two tables: the few numbers that decide, and the rest."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from zoo.comparison import Recommendation
from zoo.reporting.ink import DASH, Panel
from zoo.reporting.tables import Cell, Table
from zoo.reporting.text import number

__all__ = ["Standing", "heading", "numbers"]

MEASURES = {"mass": "scored by probability", "density": "scored by density"}


@dataclass(frozen=True)
class Standing:
    """One table of a comparison: its recommendation, its picture, its rows best first, and its other numbers."""

    heading: str
    recommendation: Recommendation | None
    rows: list[dict[str, Any]]
    numbers: Table
    cautions: list[str]
    picture: Panel | None


def heading(label: str) -> str:
    """The name of a table for people: 'digits, scored by probability'."""
    measure, _, data = label.partition(", ")
    return f"{data}, {MEASURES.get(measure, measure)}"


def numbers(rows: pd.DataFrame) -> Table:
    """Everything known about the scores of a table; empty columns are left out."""
    told = [(str(name), _cells(row)) for name, row in rows.iterrows()]
    names = [name for name in told[0][1] if any(cells[name][0] not in (DASH, "") for _, cells in told)]
    return Table(tuple(names), [(label, [cells[name] for name in names]) for label, cells in told])


def _cells(row: "pd.Series[Any]") -> dict[str, Cell]:
    """The cells of a row, by column name."""
    share = "" if pd.isna(row["weight_se"]) else f"± {row['weight_se']:.2f}"
    return {
        "share in the best mixture": (DASH if pd.isna(row["weight"]) else f"{row['weight']:.2f}", share),
        "bits per dimension": (number(row["bits_per_dim"]), ""),
        "median row": (number(row["median"]), ""),
        "worst row": (number(row["worst"]), ""),
        "worst seed": (number(row["worst_seed"]), ""),
        "spread over seeds": (number(row["seed_sd"]), number(row["seed_disagreement"])),
        "from constant columns": (number(row["share_constant"]), ""),
        "rows beyond importance sampling": (_doubtful(row), ""),
        "seeds scored": (row["seeds"], ""),
        "log density": (number(row["log_density"]), ""),
        "scored as": (row["scored_as"], ""),
    }


def _doubtful(row: "pd.Series[Any]") -> str:
    """How many rows importance sampling cannot score."""
    if row["exact"]:
        return "none, exact"
    if pd.isna(row["bad_k"]):
        return "unknown"
    return f"{row['bad_k']}, annealed" if not pd.isna(row["annealed"]) and row["annealed"] else str(row["bad_k"])
