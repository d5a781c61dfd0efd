"""What torch and Pyro know about a distribution, and the one error where they have no answer."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from zoo.errors import Unknown

__all__ = ["ask", "known", "name_of", "of_values"]

LIBRARIES = ("torch.distributions.", "pyro.distributions.")
WORDS = {"cdf": "distribution function", "stddev": "standard deviation"}


@contextmanager
def known(what: str) -> Iterator[None]:
    """Raise :class:`~zoo.errors.Unknown` about ``what`` where torch or Pyro has no answer in this block.

    Only their own errors count: a method that is not implemented, or a flow that can invert only its own draws. The
    same error from other code is a bug there and comes through.
    """
    try:
        yield
    except (NotImplementedError, KeyError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        theirs = str(frame.f_globals.get("__name__", "")).startswith(LIBRARIES)
        if not theirs or (isinstance(error, KeyError) and "intermediates cache" not in str(error)):
            raise
        raise Unknown(f"{what} is not known") from error


def ask(fn: Any, what: str, *at: Tensor) -> Any:
    """``fn.mean``, ``fn.variance``, ``fn.cdf(x)``, ...

    Raises:
        Unknown: torch has no answer for this distribution.

    >>> import torch
    >>> ask(dist.Normal(0.0, 1.0), "mean")
    tensor(0.)
    >>> ask(dist.StudentT(4.0).expand([3]).to_event(1), "cdf", torch.zeros(3))
    Traceback (most recent call last):
    zoo.errors.Unknown: the distribution function of StudentT is not known
    """
    with known(f"the {WORDS.get(what, what)} of {name_of(fn)}"):
        answer = getattr(fn, what)
        return answer(*at) if at else answer


def of_values(support: Any) -> Any:
    """The support of each number, whichever of its dimensions are events; a mixture wraps it twice."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def name_of(fn: Any) -> str:
    """The name of a distribution, whichever of its dimensions are events.

    >>> name_of(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    'Normal'
    """
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    if type(fn) is not dist.TransformedDistribution:
        return type(fn).__name__.removeprefix("_")  # one of Pyro's, computed more exactly
    return f"{name_of(fn.base_dist)} by {', '.join(type(part).__name__ for part in fn.transforms)}"
