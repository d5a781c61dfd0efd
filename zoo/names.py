"""How a pair is named with its guide and options: ``PAIR[:GUIDE][OPTION=VALUE, ...]``."""

from __future__ import annotations

import ast
import re
from itertools import product
from typing import Any, NamedTuple

from zoo.errors import UnknownPair

__all__ = ["Name", "alternatives", "literal"]

WHOLE = re.compile(r"(?P<pair>[^\[\]:]*)(?::(?P<guide>[^\[\]]+))?(?:\[(?P<options>.*)\])?", re.DOTALL)
BETWEEN = re.compile(r",\s*(?=[A-Za-z_]\w*\s*=)")  # options, and not the numbers of a tuple


class Name(NamedTuple):
    """A pair, one of its guides or nothing, and options.

    >>> Name.parse("gaussian-constrained:full-rank[floor=0.01, hidden=(64, 32)]")
    Name(pair='gaussian-constrained', guide='full-rank', options={'floor': 0.01, 'hidden': (64, 32)})
    """

    pair: str
    guide: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: Any) -> Name:
        """The parts of a name.

        Raises:
            UnknownPair: the text is no name.
        """
        pair, guide, options = _parts(text)
        return cls(pair, guide, {name: literal(told) for name, told in options.items()})


def alternatives(text: str) -> list[str]:
    """The names that a name with ``|`` between values stands for, one pair of each.

    >>> alternatives("mixed[real=constrained|student-t, latent_dim=4]")
    ['mixed[real=constrained, latent_dim=4]', 'mixed[real=student-t, latent_dim=4]']
    """
    pair, guide, options = _parts(text)
    if not options:
        return [text]
    chosen = product(*([f"{name}={one.strip()}" for one in told.split("|")] for name, told in options.items()))
    return [f"{pair}{f':{guide}' * bool(guide)}[{', '.join(of_pair)}]" for of_pair in chosen]


def literal(text: str) -> Any:
    """A Python literal, or the text itself.

    >>> literal("0.5"), literal("student-t")
    (0.5, 'student-t')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _parts(text: Any) -> tuple[str, str, dict[str, str]]:
    if not isinstance(text, str):
        raise UnknownPair(
            f"a pair's name is text such as 'gmm' or 'gaussian-learned:full-rank', and no {type(text).__name__}."
        )
    whole = WHOLE.fullmatch(text.strip())
    if whole is None:
        raise UnknownPair(f"{text!r} is no name of a pair: write PAIR, PAIR:GUIDE or PAIR[OPTION=VALUE, ...].")
    told = [part.partition("=") for part in BETWEEN.split(whole["options"])] if whole["options"] else []
    if wrong := [name for name, equals, _ in told if not equals]:
        raise UnknownPair(f"{text!r}: {wrong[0]!r} is no OPTION=VALUE; write {whole['pair']}[OPTION=VALUE, ...].")
    names = [name.strip() for name, _, _ in told]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UnknownPair(f"{text!r}: {twice[0]} is said twice.")
    return whole["pair"].strip(), (whole["guide"] or "").strip(), {n.strip(): v.strip() for n, _, v in told}
