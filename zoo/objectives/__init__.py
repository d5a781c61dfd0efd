"""What is maximised, as plain functions of (model, guide, batch) that can be captured as one graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from zoo.errors import OptionError
from zoo.names import Name
from zoo.objectives.lower_bound import (
    Program,
    Terms,
    elbo,
    latent_sites,
    plain_log_prob,
    refuse_other_data,
    refuse_other_latents,
    terms,
    traces,
)
from zoo.objectives.rules import (
    BetaNLL,
    MapGamma,
    VariationalVariance,
    faithful,
    penalized,
    pinball,
    quantile,
    two_stage,
)
from zoo.objectives.weighted import MIWAE
from zoo.options import checked

__all__ = [
    "MIWAE",
    "OBJECTIVES",
    "BetaNLL",
    "MapGamma",
    "Program",
    "Terms",
    "VariationalVariance",
    "elbo",
    "latent_sites",
    "objective",
    "pinball",
    "plain_log_prob",
    "refuse_other_data",
    "refuse_other_latents",
    "terms",
    "traces",
]

OBJECTIVES: dict[str, Callable[[Any, Program, Tensor], Terms]] = {
    "elbo": elbo,
    "penalized": penalized,
    "quantile": quantile,
    "two-stage": two_stage,
    "miwae": MIWAE(),
    "faithful": faithful,
    "beta-nll": BetaNLL(),
    "map-gamma": MapGamma(),
    "variational-variance": VariationalVariance(),
}


def objective(text: str) -> Callable[[Any, Program, Tensor], Terms]:
    """What a name says is maximised, with options in brackets if it has any.

    Raises:
        OptionError: there is no such objective, or no such option of it.

    >>> objective("miwae[samples=5]")
    MIWAE(samples=5)
    """
    name, _, options = Name.parse(text)
    found = OBJECTIVES.get(name)
    if found is None:
        raise OptionError(f"fit: objective={text!r}; choose from {', '.join(OBJECTIVES)}.")
    if not options:
        return found
    if not is_dataclass(found):
        raise OptionError(f"fit: objective={text!r}: {name} has no options.")
    return checked(type(found), options, name)
