"""Checks on what a caller gave: options (frozen dataclasses) against their annotations, and single arguments."""

from __future__ import annotations

import operator
import os
import re
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar

from zoo.errors import OptionError
from zoo.words import did_you_mean

__all__ = [
    "MAX_SEED",
    "MOST",
    "MOST_SEEDS",
    "ImputationMethod",
    "checked",
    "count",
    "location",
    "share",
    "switch",
]

T = TypeVar("T")
ImputationMethod = Literal["importance", "gibbs", "pseudo-gibbs"]
MOST = 10**8  # largest count accepted: far more than anyone can wait for, and no overflow yet
MOST_SEEDS, MAX_SEED = 10_000, 2**63 - 1
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # pathlib drops the second slash


def checked(kind: type[T], given: dict[str, Any], owner: str) -> T:
    """An instance of the dataclass ``kind`` from ``given``, every value checked against its annotation.

    Raises:
        OptionError: an unknown name, or a value of the wrong type or range; the message lists the options of
            ``owner`` with their defaults.

    >>> from zoo.pairs import MixtureOptions
    >>> checked(MixtureOptions, {"components": 3}, "gmm")
    MixtureOptions(components=3, covariance='diagonal')
    """
    import pydantic

    known = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None:
        complaint = f"no option is called {wrong!r}{did_you_mean(wrong, known, '.')}"
    else:
        try:
            return pydantic.TypeAdapter(kind).validate_python(given)
        except pydantic.ValidationError as error:
            at = error.errors()[0]["loc"]  # empty where the class itself objects to several options together
            # for a union, what each member accepts
            faults = dict.fromkeys(fault["msg"] for fault in error.errors() if fault["loc"][:1] == at[:1])
            told = [text.removeprefix("Value error, ") for text in faults]
            said = ", or ".join(text[0].lower() + text[1:] for text in told).rstrip(".")
            complaint = f"{at[0]}={given[str(at[0])]!r}: {said}." if at else f"{said}."
    listing = ", ".join(f"{name}={default!r}" for name, default in known.items())
    raise OptionError(f"{owner}: {complaint} {f'Options: {listing}.' if known else 'It has none.'}")


def count(argument: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """The value, if it is an integer in this range."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise OptionError(f"{argument}={value!r}; give an integer from {least} to {most}.")
    return number


def share(argument: str, value: Any) -> float:
    """The value, if it is at least 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise OptionError(f"{argument}={value!r}; give a share: a number from 0 to below 1.")
    return float(value)


def switch(argument: str, value: Any) -> bool:
    """The value, if it is true or false."""
    if not isinstance(value, bool):
        raise OptionError(f"{argument}={value!r}; give True or False.")
    return value


def location(argument: str, value: Any) -> Path:
    """The value as a path with ``~`` expanded, if it can name a place for files, existing or not."""
    try:
        name = os.fspath(value).encode().decode()
        if URL.match(name):
            raise OptionError(f"{argument}={value!r} is a URL: download it first and give the path of the file.")
        path = Path(name).expanduser()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # it may still be created
        pass
    except RuntimeError:
        raise OptionError(f"{argument}={value!r}: that user has no home directory here; write the path out.") from None
    except OptionError:
        raise
    except (TypeError, ValueError, AttributeError):  # not a text, or one that cannot be a path
        raise OptionError(f"{argument}={value!r}; give a path, as text.") from None
    except OSError as error:
        raise OptionError(f"{argument}={value!r}: {error.strerror}.") from None
    if not name:
        raise OptionError(f"{argument} is empty; give a path.")
    return path
