"""Names of pairs with guide and options, ``PAIR[:GUIDE][OPTION=VALUE, ...]``, and names of parts."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

from zoo.errors import OptionError, UnknownPair

__all__ = ["Name", "alternatives", "literal", "parse_part"]

WHOLE = re.compile(r"(?P<pair>[^\[\]:]*)(?::(?P<guide>[^\[\]]+))?(?:\[(?P<options>.*)\])?", re.DOTALL)
OPTION = re.compile(r"\s*[A-Za-z_]\w*\s*=")
OPENING, CLOSING = "[({", "])}"


class Name(NamedTuple):
    """A pair, a guide or none, and options.

    >>> Name.parse("gaussian-constrained:full-rank[floor=0.01, hidden=(64, 32)]")
    Name(pair='gaussian-constrained', guide='full-rank', options={'floor': 0.01, 'hidden': (64, 32)})
    >>> Name.parse("gaussian-constrained[prior=vamp[components=50]]").options
    {'prior': 'vamp[components=50]'}
    """

    pair: str
    guide: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: Any) -> Name:
        """The parts of a name.

        Raises:
            UnknownPair: the text is not a name.
        """
        pair, guide, options = _parts(text)
        return cls(pair, guide, {name: literal(told) for name, told in options.items()})


def parse_part(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a guide, a prior or an objective, and its options.

    Raises:
        OptionError: the text is not a name.

    >>> parse_part("miwae[samples=5]")
    ('miwae', {'samples': 5})
    """
    _check_brackets(text, OptionError)
    whole = WHOLE.fullmatch(text.strip())
    if whole is None or whole["guide"]:
        raise OptionError(f"{text!r} is not a name: write NAME or NAME[OPTION=VALUE, ...].")
    name = whole["pair"].strip()
    return name, {option: literal(told) for option, told in _options(whole["options"], text, name, OptionError).items()}


def alternatives(text: str) -> list[str]:
    """The names that a name with ``|`` between values stands for, one per combination.

    >>> alternatives("mixed[real=constrained|student-t, latent_dim=4]")
    ['mixed[real=constrained, latent_dim=4]', 'mixed[real=student-t, latent_dim=4]']
    >>> alternatives("gaussian-learned[prior=normal|vamp[components=5|50]]")[1:]
    ['gaussian-learned[prior=vamp[components=5]]', 'gaussian-learned[prior=vamp[components=50]]']
    """
    pair, guide, options = _parts(text)
    if not options:
        return [text]
    values = {name: _split(told, "|") for name, told in options.items()}
    if empty := [name for name, some in values.items() if not all(value.strip() for value in some)]:
        raise UnknownPair(f"{text!r}: a value of {empty[0]} is empty; write {empty[0]}=VALUE|VALUE.")
    choices = [[f"{name}={one}" for value in some for one in _values(value)] for name, some in values.items()]
    return [f"{pair}{f':{guide}' * bool(guide)}[{', '.join(of_pair)}]" for of_pair in product(*choices)]


def _values(told: str) -> list[str]:
    """The values that a value with alternatives among its own options stands for."""
    return (
        alternatives(told.strip()) if re.fullmatch(r"[^\[\]'\"]+\[.*=.*\]", told.strip(), re.DOTALL) else [told.strip()]
    )


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
            f"a pair's name is text such as 'gmm' or 'gaussian-learned:full-rank', not a {type(text).__name__}."
        )
    _check_brackets(text, UnknownPair)
    whole = WHOLE.fullmatch(text.strip())
    if whole is None:
        raise UnknownPair(f"{text!r} is not the name of a pair: write PAIR, PAIR:GUIDE or PAIR[OPTION=VALUE, ...].")
    options = _options(whole["options"], text, whole["pair"].strip(), UnknownPair)
    return whole["pair"].strip(), (whole["guide"] or "").strip(), options


def _options(told: str | None, text: str, owner: str, kind: Callable[[str], Exception]) -> dict[str, str]:
    """The options in brackets, as text by name."""
    pieces: list[str] = []
    for piece in _split(told, ",") if told else []:
        if pieces and not OPTION.match(piece):  # a comma within a tuple without parentheses
            pieces[-1] += f",{piece}"
        else:
            pieces.append(piece)
    said = [piece.partition("=") for piece in pieces]
    if wrong := [name for name, equals, _ in said if not equals]:
        raise kind(f"{text!r}: {wrong[0]!r} is not OPTION=VALUE; write {owner}[OPTION=VALUE, ...].")
    names = [name.strip() for name, _, _ in said]
    if twice := [name for name in names if names.count(name) > 1]:
        raise kind(f"{text!r}: {twice[0]} is given twice.")
    return {name: value.strip() for name, (_, _, value) in zip(names, said, strict=True)}


def _check_brackets(text: str, kind: Callable[[str], Exception]) -> None:
    """Refuse text with unbalanced brackets."""
    open_now: list[str] = []
    for letter in text:
        if letter in OPENING:
            open_now.append(letter)
        elif letter in CLOSING and (not open_now or OPENING.index(open_now.pop()) != CLOSING.index(letter)):
            raise kind(f"{text!r}: {letter!r} closes no bracket.")
    if open_now:
        raise kind(f"{text!r}: {open_now[-1]!r} is not closed.")


def _split(text: str, mark: str) -> list[str]:
    """The pieces of a text between marks outside brackets.

    >>> _split("a=1|2,b=c[d=3,e=4]", ",")
    ['a=1|2', 'b=c[d=3,e=4]']
    """
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in OPENING) - (letter in CLOSING)
        if letter == mark and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces
