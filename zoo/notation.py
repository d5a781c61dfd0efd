"""How people write values that are not plain numbers, and how pandas turns them into numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["READ_CSV", "Notation", "notation"]

MOST_TOLD = 8  # marks listed in a remedy


class Notation(NamedTuple):
    """A way of writing; the remedy may use ``{column}``, ``{cells}`` and the groups of the pattern."""

    pattern: re.Pattern[str]
    name: str
    remedy: str

    def mend(self, column: str, cells: Sequence[str]) -> str:
        """The remedy for these cells of a column."""
        same = {cell: match for cell in cells if (match := self.pattern.fullmatch(cell.strip()))}
        groups = {name: repr(text) for name, text in next(iter(same.values())).groupdict().items()}
        told = sorted({cell.strip() for cell in same})
        listed = f"[{', '.join(map(repr, told[:MOST_TOLD]))}{', ...' if len(told) > MOST_TOLD else ''}]"
        return self.remedy.format(column=repr(column), cells=listed, **groups)


SIGN, PLAIN = r"[-+−]?", r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
PARTS = {
    "SIGN": SIGN,
    "AMOUNT": r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)",
    "NUMBER": SIGN + PLAIN,
    "MONTH": "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)",
}


def _notation(pattern: str, name: str, remedy: str) -> Notation:
    for part, meaning in PARTS.items():
        pattern = pattern.replace(part, meaning)
    return Notation(re.compile(pattern, re.IGNORECASE), name, remedy)


READ_CSV = "pandas.read_csv(..., "
_LOAD = f"load the frame of {READ_CSV}{{}})"
NOTATIONS = (
    _notation(
        r"\d{1,4}(?P<mark>[-./])\d{1,2}(?P=mark)\d{1,4}(?:[T ].*)?|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*[ap]m)?|"
        r"(?:\d{1,2}[-. ]+)?MONTH\.?[-, ]+\d{1,4}(?:,? +\d{4})?",
        "a date or a time",
        "leave the column out, or put a number in its place, such as the days since a first date",
    ),
    _notation(
        r"SIGN[1-9]\d{0,2}(?P<separator>[,' ])\d{3}(?:(?P=separator)\d{3})*(?:\.\d+)?",
        "a number with a thousands separator",
        _LOAD.format("thousands={separator}"),
    ),
    _notation(
        r"SIGN[1-9]\d{0,2}(?:\.\d{3})+,\d+|SIGN[1-9]\d{0,2}(?:\.\d{3}){2,}",
        "a number with points between thousands",
        _LOAD.format('thousands=".", decimal=","'),
    ),
    _notation(
        r"SIGN\d+[,;]SIGN\d+",
        "one with a decimal comma",
        "write 1.5, or " + _LOAD.format('decimal=","'),
    ),
    _notation(
        r"NUMBER\s*%",
        "a percentage",
        "take the sign off and load the frame: frame[{column}] = frame[{column}].str.rstrip(' %').astype(float)",
    ),
    _notation(
        r"SIGN[$€£¥₹]\s*SIGNAMOUNT|SIGNAMOUNT\s*[$€£¥₹]|\([$€£¥₹]\s*AMOUNT\)|\(AMOUNT\s*[$€£¥₹]\)",
        "an amount of money",
        "take the sign off and load the frame: "
        r"frame[{column}] = frame[{column}].str.replace(r'[(−]', '-', regex=True)"
        r".str.replace(r'[^\d.-]', '', regex=True).astype(float)",
    ),
    _notation(
        r"[<>≤≥]=?\s*NUMBER",
        "one side of a limit, as of detection",
        "put a number in its place, or pass missing_values={cells} to make it a missing entry",
    ),
    _notation(
        r"n\.? ?[adq]\.?|n/[ad]|null|none|nil|missing|unknown|[-–—?*.]+|bdl|bql|<? ?lo[dq]|tr\.?|trace|#[a-z/0]+[!?]?",
        "a mark for no value",
        "pass missing_values={cells} to make it a missing entry",
    ),
)
OTHERWISE = _notation(
    r"[<>≤≥=~≈(\s]*[-+−]?[$€£¥₹\s]*[-+−]?\d(?:[.,'’]?\d|\s\d{3})*[.,]?[%‰$€£¥₹\s]*\)?",
    "a number written in another way",
    "write it with a decimal point and nothing else, such as -1234.5",
)


def notation(cells: Sequence[str]) -> Notation | None:
    """How the first cell is written; if it can be read in two ways, the other cells decide.

    >>> notation(["1,234"]).name, notation(["1,234", "12,5"]).name, notation(["oops"])
    ('a number with a thousands separator', 'one with a decimal comma', None)
    """
    possible = [known for known in NOTATIONS if known.pattern.fullmatch(cells[0].strip())]
    fallback = OTHERWISE if OTHERWISE.pattern.fullmatch(cells[0].strip()) else None
    return max(possible, key=lambda n: sum(bool(n.pattern.fullmatch(c.strip())) for c in cells), default=fallback)
