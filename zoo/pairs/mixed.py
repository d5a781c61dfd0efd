"""The pair for a table with columns of different kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import MinLen

from zoo.catalogue import register
from zoo.pairs.programs import Positive, Width, guide
from zoo.supports import MIXED

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data
    from zoo.models import Emission
    from zoo.supports import Column


@dataclass(frozen=True)
class MixedOptions:
    """``real``, ``positive``, ``count``, ... name the distribution given z of the columns with that support.

    ``floor`` is the smallest variance that real="constrained" and positive="log-normal" (of the logarithm) allow, in
    scaled units, and the square of the smallest scale of real="student-t" and "laplace".
    """

    real: Literal["learned", "constrained", "shared", "student-t", "laplace"] = "learned"
    positive: Literal["log-normal", "gamma"] = "log-normal"
    count: Literal["negative-binomial", "zero-inflated-negative-binomial", "poisson"] = "negative-binomial"
    ordinal: Literal["binned", "cumulative", "logistic-mixture"] = "binned"
    categorical: Literal["softmax"] = "softmax"
    binary: Literal["bernoulli"] = "bernoulli"
    floor: Positive = 0.01
    latent_dim: Width = 8
    hidden: Annotated[tuple[Width, ...], MinLen(1)] = (128,)
    activation: Literal["tanh", "relu", "gelu", "silu", "softplus"] = "tanh"


EMISSIONS: dict[str, Callable[[Any, list[Column]], Emission]] = {
    # emissions by the option's value, for the columns of one support
    "learned": lambda *_: _emissions().LearnedNormal(),
    "constrained": lambda options, _: _emissions().ConstrainedNormal(options.floor),
    "shared": lambda *_: _emissions().SharedNormal(),
    "student-t": lambda options, _: _emissions().StudentT(math.sqrt(options.floor), 3.0),
    "laplace": lambda options, _: _emissions().Laplace(math.sqrt(options.floor)),
    "log-normal": lambda options, _: _emissions().LogNormal(options.floor),
    "gamma": lambda *_: _emissions().Gamma(),
    "zero-inflated-negative-binomial": lambda *_: _emissions().ZeroInflatedNegativeBinomial(),
    "negative-binomial": lambda *_: _emissions().NegativeBinomial(),
    "poisson": lambda *_: _emissions().Poisson(),
    "binned": lambda _, columns: _emissions().BinnedOrdinal([column.levels for column in columns]),
    "cumulative": lambda _, columns: _emissions().CumulativeOrdinal([column.levels for column in columns]),
    "logistic-mixture": lambda _, columns: _emissions().LogisticMixtureOrdinal([c.levels for c in columns], 5),
    "softmax": lambda _, columns: _emissions().Softmax([len(column.categories or ()) for column in columns]),
    "bernoulli": lambda *_: _emissions().Bernoulli(),
}


def _emissions() -> Any:
    from zoo.models import emissions

    return emissions


@register(
    "mixed",
    title="Mixed columns",
    summary="A table with columns of different kinds: each has a distribution for its support, all share the latents.",
    formula="p(x|z) = ∏ⱼ p_kind(j)(xⱼ; hⱼ(z))",
    support="mixed",
    base_measure="mixed",
    bounded=False,
    bounded_if='with real="constrained", "student-t" or "laplace", or no real columns, and not with positive="gamma"',
    reference="Nazábal et al. (2020), Handling incomplete heterogeneous data using VAEs",
    link="https://arxiv.org/abs/1807.03653",
    remedies=("mixed[real=constrained]",),
)
def mixed(data: Data, options: MixedOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE whose emission suits each column's kind, and a guide that encodes each column by its kind."""
    from torch import nn

    from zoo.models import VAE
    from zoo.models.emissions import Columns
    from zoo.networks import NETWORKS

    groups: dict[str, list[int]] = {}
    for j, column in enumerate(data.columns):
        groups.setdefault(column.kind.mixed_as, []).append(j)
    emission = Columns(
        [
            (at, EMISSIONS[getattr(options, support)](options, [data.columns[j] for j in at]))
            for support, at in groups.items()
        ]
    )
    shape = ((emission.outputs,), options.hidden, options.activation, 1, options.latent_dim)
    decoder = nn.Sequential(NETWORKS["mlp"].decoder(*shape), nn.Flatten(-2))
    return VAE(decoder, options.latent_dim, emission), guide(data, options, MIXED)
