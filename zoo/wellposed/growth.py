"""Whether a likelihood is bounded, shown by computation: how it grows along a path of parameters."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.catalogue import Pair
from zoo.context import pyro_context
from zoo.errors import OptionError, Unknown
from zoo.wellposed.likelihood import elbo, log_likelihood
from zoo.wellposed.nonparametric import complete
from zoo.wellposed.paths import COLLAPSE, Path, paths, steepness
from zoo.words import nats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

__all__ = ["Witness", "witness"]

SHARPNESS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LASTING = 2 / 3  # share of the previous doubling's gain
FLAT = 0.1  # nats per doubling of the sharpness, over all data


@dataclass(frozen=True)
class Witness:
    """A path of parameters, and the exact log likelihood of a data set along it.

    Attributes:
        pair: the name of the pair.
        path: what the path does, in words.
        needs: what the path needs from the architecture beyond the pair's own; empty if nothing.
        sharpness: a, how far along the path, (A,).
        log_likelihood: log p(X) of the whole data set there, in nats, in the units as loaded, (A,).
        elbo: a lower bound on it with a Gaussian encoder, for a path that collapses onto one datum; empty for others.
            The KL term costs each of the other data about log 2a.
        penalized: log p(X) + log p(theta) there, for a pair with a prior on its parameters; otherwise empty.
        bound: the least known upper bound on log p(X), infinite if there is none.
        formula: that bound per datum, as on the card.
        steered: log p of the steered data, (A,): the one datum of a collapse, since every other p(x) is at least half
            of what it is elsewhere; the whole data set on other paths.
    """

    pair: str
    path: str
    needs: str
    sharpness: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    elbo: NDArray[np.float64]
    penalized: NDArray[np.float64]
    bound: float
    formula: str
    steered: NDArray[np.float64]

    @property
    def grows(self) -> bool:
        """Whether the last doubling of the sharpness still gains, and not much less than the previous one.

        Without a bound the gain rises each time, or stays equal if growth is logarithmic; under a bound it shrinks in
        the end. A likelihood that keeps to a known bound does not grow without end, however slowly it gets there.
        """
        before, last = self._gains[-2:]
        return bool(last > max(LASTING * before, FLAT)) and not self.log_likelihood[-1] <= self.bound < math.inf

    @property
    def gain(self) -> float:
        """What the steered data gain in the last doubling of the sharpness, in nats."""
        return float(self._gains[-1])

    @property
    def _gains(self) -> NDArray[np.float64]:
        return np.diff(self.steered) / np.diff(np.log2(self.sharpness))

    def __str__(self) -> str:
        reached = f"{nats(self.log_likelihood[-1])} nats at sharpness {self.sharpness[-1]:g}"
        if math.isfinite(self.bound):
            return f"{self.pair} is bounded, log p(X) <= {nats(self.bound)} nats; {self.path}, it has {reached}."
        growth = f"grows without end, by {nats(self.gain)} nats at the last doubling"
        verb = growth if self.grows else "does not grow here, which is no proof of a bound"
        needs = f" (needs {self.needs})" if self.needs else ""
        return f"{self.pair}: {self.path}{needs}, log p(X) {verb}: {reached}."


def witness(pair: Pair, x: ArrayLike, sharpness: tuple[float, ...] = SHARPNESS) -> Witness:
    r"""A path of parameters that shows whether the likelihood of x is bounded.

    Along it the decoder's outputs h move to what raises the likelihood of one datum most, on half of the prior's mass,

    .. math:: h(z) = \arg\max_{|h|_\infty \le a} \log p(x_1 \mid h) \text{ where } z_1 < 0, \text{ else } 0,
              \qquad a \to \infty

    which is Theorem 1 of Mattei & Frellsen (2018), https://arxiv.org/abs/1802.04826, if the outputs are a mean and a
    log variance. If all data share parameters, such as one variance, these are steered together with outputs that pass
    through all values of one column, or every datum (Dai et al. 2018, https://arxiv.org/abs/1706.05148). The first of
    these paths that grows is the witness. A mixture puts one component on one datum; a linear decoder spans the data.
    The decoder depends on a single latent direction, so log p(x) is an integral over it, computed by Gauss-Legendre
    quadrature in double precision: no encoder and no sampling.

    Args:
        pair: from :func:`zoo.create`; its weights are not changed.
        x: data in the units as loaded, shape (N, D).
        sharpness: a, how far outputs and shared parameters may go from their start; at least three, increasing.

    Raises:
        OptionError: data with gaps, or a sharpness that is not positive and increasing.
        Unknown: a model without a decoder whose outputs could be steered, or whose prior is not standard normal and
            cannot be made so; data at which its density is 0 or infinite.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> witness(zoo.create("gaussian-learned", data), data.train).grows
    True
    >>> witness(zoo.create("gaussian-constrained", data), data.train).grows
    False
    """
    pair, rows = complete(pair, x)
    try:
        grid = np.array([float(a) for a in sharpness])
    except (TypeError, ValueError):
        grid = np.zeros(1)
    if not (grid.size > 2 and np.isfinite(grid).all() and grid[0] > 0 and (np.diff(grid) > 0).all()):
        raise OptionError(f"sharpness={sharpness!r}; give at least three increasing positive numbers.")
    model = copy.deepcopy(pair.model).double().eval()
    tried, reasons = [], []
    with torch.no_grad(), pyro_context():
        for path in paths(model, rows):
            try:
                tried.append(_followed(pair, path, rows, grid))
            except Unknown as reason:  # another path may be known
                reasons.append(reason)
                continue
            if tried[-1].grows:
                return tried[-1]
    if not tried:
        raise reasons[0]
    return max(tried, key=lambda each: each.log_likelihood[-1])


def _followed(pair: Pair, path: Path, rows: Tensor, grid: NDArray[np.float64]) -> Witness:
    """How the likelihood behaves along a path."""
    volume = len(rows) * pair.view.log_volume
    likelihood, steered, lower, penalized = [], [], [], []
    for a, (model, positions) in zip(grid.tolist(), path.along(grid.tolist()), strict=True):
        of_rows = log_likelihood(model, rows, positions) - pair.view.log_volume
        likelihood.append(float(of_rows.sum()))
        steered.append(float(of_rows[0]) if path.description == COLLAPSE else likelihood[-1])
        if not math.isfinite(likelihood[-1]):
            raise Unknown(f"log p(X) is {likelihood[-1]:g} on its path: some values have such a density")
        if path.description == COLLAPSE and pair.card.base_measure == "density":
            lower.append(elbo(model, rows, steepness(a)) - volume)
        if hasattr(model, "log_prior"):
            penalized.append(likelihood[-1] + len(rows) * float(model.log_prior()))
    bound_of: Any = getattr(pair.model, "log_density_bound", None)
    return Witness(
        pair=pair.name,
        path=path.description,
        needs=path.needs,
        sharpness=grid,
        log_likelihood=np.array(likelihood),
        elbo=np.array(lower),
        penalized=np.array(penalized),
        bound=len(rows) * bound_of(pair.data.features) - volume if bound_of else math.inf,
        formula=pair.card.bound,
        steered=np.array(steered),
    )
