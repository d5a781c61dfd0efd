"""Errors and warnings written for people: what was wrong, where, and what to do about it."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = [
    "DataError",
    "Diverged",
    "DivergenceWarning",
    "OptionError",
    "RunError",
    "Unknown",
    "UnknownPair",
    "ZooError",
    "one_line",
    "tell",
]


class ZooError(Exception):
    """A mistake the caller can correct; the command line prints it on one line and exits with status 2."""


class DataError(ZooError, ValueError):
    """Data that cannot be used as they are; the message names the column or row and the remedy."""


class OptionError(ZooError, ValueError):
    """An option the pair does not have, or a value of the wrong type or out of range."""


class UnknownPair(ZooError, KeyError):
    """No pair of that name in the catalogue; the message names the closest ones."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class RunError(ZooError, ValueError):
    """A run on disk that is missing, incomplete, or of another version."""


class Unknown(ZooError, RuntimeError):
    """A question a pair cannot answer; the message is one sentence that says why."""


class Diverged(ZooError, RuntimeError):
    """Training ran away and ``on_divergence="raise"`` was asked for."""


class DivergenceWarning(UserWarning):
    """A decoder scale is running to zero, or a seed was frozen at its last finite state."""


def one_line(error: BaseException, within: Path | None = None) -> str:
    """The message of an exception and, if it is not the zoo's own, where it was raised, in ``within`` if given.

    >>> one_line(OptionError("floor=-1: too small."))
    'floor=-1: too small.'
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if within is None or Path(f.filename) == within]
    if isinstance(error, SyntaxError):
        where = (error.filename, error.lineno)
    else:
        where = (frames[-1].filename, frames[-1].lineno) if frames else (None, None)
    told, *_ = str(error).splitlines() or [""]  # Pyro appends the shapes of every site
    text = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {told}"
    own = isinstance(error, ZooError) and within is None
    return text if own or where[0] is None else f"{text} ({where[0]}, line {where[1]})"


def tell(text: str, style: str | None = None) -> None:
    """One line on stderr, whatever the width of the terminal."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    console.print(" ".join(text.split()), style=style, soft_wrap=True)
