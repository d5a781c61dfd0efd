"""Options are small frozen dataclasses; this checks what a caller gave against their annotations."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any, TypeVar

from zoo.errors import OptionError

__all__ = ["checked"]

T = TypeVar("T")


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
        near = difflib.get_close_matches(wrong, known, 1)
        complaint = f"no option is called {wrong!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
    else:
        try:
            return pydantic.TypeAdapter(kind).validate_python(given)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            complaint = f"{name}={given[name]!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
    listing = ", ".join(f"{name}={default!r}" for name, default in known.items())
    raise OptionError(f"{owner}: {complaint} Options: {listing}.")
