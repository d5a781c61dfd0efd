"""What is maximised: registered frozen dataclasses, called with (model, guide, batch, weight of the KL term).

Each returns a :class:`Loss`: what a step minimises, and named values to record. A step is captured as one graph, so its
control flow must not depend on the value of a number.

>>> import zoo
>>> [part.name for part in zoo.parts.OBJECTIVES][:3]
['elbo', 'beta-vae', 'tempered']
"""

from zoo.objectives.bounds import ELBO, BetaELBO, FreeBits, TemperedELBO
from zoo.objectives.lower_bound import (
    Loss,
    Program,
    Terms,
    Weight,
    at_latents,
    held,
    latent_sites,
    masked_columns,
    observed_sites,
    plain_log_prob,
    refuse_coupled_rows,
    refuse_other_data,
    refuse_other_latents,
    refuse_other_sites,
    terms,
    traces,
)
from zoo.objectives.rules import (
    BetaNLL,
    Faithful,
    MapGamma,
    Penalized,
    Quantile,
    Split,
    TwoStage,
    VariationalVariance,
    pinball,
)
from zoo.objectives.scores import CRPS
from zoo.objectives.weighted import IWAE, MIWAE, Renyi

__all__ = [
    "CRPS",
    "ELBO",
    "IWAE",
    "MIWAE",
    "BetaELBO",
    "BetaNLL",
    "Faithful",
    "FreeBits",
    "Loss",
    "MapGamma",
    "Penalized",
    "Program",
    "Quantile",
    "Renyi",
    "Split",
    "TemperedELBO",
    "Terms",
    "TwoStage",
    "VariationalVariance",
    "Weight",
    "at_latents",
    "held",
    "latent_sites",
    "masked_columns",
    "observed_sites",
    "pinball",
    "plain_log_prob",
    "refuse_coupled_rows",
    "refuse_other_data",
    "refuse_other_latents",
    "refuse_other_sites",
    "terms",
    "traces",
]
