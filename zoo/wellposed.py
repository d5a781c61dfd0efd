"""Whether a likelihood is bounded, shown by computation: paths of parameters along which it is not."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import singledispatch
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from zoo import inference, models
from zoo.catalogue import Pair, create
from zoo.context import pyro_context, seeded
from zoo.errors import OptionError, Unknown
from zoo.lenses import Observed
from zoo.models import emissions
from zoo.options import count
from zoo.words import nats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Ceiling", "Witness", "ceiling", "witness"]

COLLAPSE = "half of the prior's mass is given to one datum"
THROUGH_ALL = "the mean passes through every datum while the variance vanishes"
ON_A_COLUMN = "the mean passes through all values of the column of fewest while its variance vanishes"
ON_A_SURFACE = "the latents span the data's principal directions while the variance around them vanishes"
CERTAIN = "one datum becomes certain"
ON_ONE = "one component shrinks onto one datum"

OF_OWN_VARIANCE = (emissions.LearnedNormal, emissions.ConstrainedNormal)
SHARPNESS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
FLAT = 0.01  # nats per unit of sharpness: a path without end gains at least one for every column
REACH = 12.0  # the prior's mass beyond so many standard deviations is below 1e-32
PANEL_NODES = 12


@dataclass(frozen=True)
class Witness:
    """A path of parameters, and the exact log likelihood of a data set along it.

    Attributes:
        pair: the name of the pair.
        path: what the path does, in words.
        needs: what the architecture has to have for it, beyond what the pair has; empty if it has it.
        sharpness: a, how far along the path, (A,).
        log_likelihood: log p(X) of the whole data set there, in nats and in the units as loaded, (A,).
        elbo: a lower bound of it there, whose encoder is Gaussian, for a path that collapses onto one datum; empty for
            the others. The KL term costs each of the other data about (1/2) log 4a.
        penalized: log p(X) + log p(theta) there, for a pair with a prior on its parameters; empty without.
        bound: the least upper bound known for log p(X), infinite if there is none.
        formula: that bound per datum, as the card has it.
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

    @property
    def grows(self) -> bool:
        """Whether the path still gains at its end, about as steeply as just before: then it has no end."""
        slopes = np.diff(self.log_likelihood) / np.diff(self.sharpness)
        return bool(slopes[-1] > max(0.5 * slopes[-2], FLAT))

    def __str__(self) -> str:
        reached = f"{nats(self.log_likelihood[-1])} nats at sharpness {self.sharpness[-1]:g}"
        if math.isfinite(self.bound):
            return f"{self.pair} is bounded, log p(X) <= {nats(self.bound)} nats; {self.path}, it has {reached}."
        verb = "grows without end" if self.grows else "does not grow"
        needs = f" (needs {self.needs})" if self.needs else ""
        return f"{self.pair}: {self.path}{needs}, log p(X) {verb}: {reached}."


def witness(pair: Pair, x: ArrayLike, sharpness: tuple[float, ...] = SHARPNESS) -> Witness:
    r"""A path of parameters that shows whether the likelihood of x is bounded.

    Along it a decoder with a variance of its own gives half of the prior's mass to one datum,

    .. math:: \mu(z) = x_1, \qquad \log \sigma^2(z) = -2 a \, [z_1 < 0], \qquad a \to \infty

    (Theorem 1 of Mattei & Frellsen 2018, https://arxiv.org/abs/1802.04826); a decoder with one variance for all takes
    its mean through every datum in turn while the variance vanishes (Dai et al. 2018, https://arxiv.org/abs/1706.05148);
    a mixture puts one component on one datum. The decoder then depends on one latent direction alone, and log p(x) is
    an integral over it, taken by Gauss-Legendre quadrature in double precision: no encoder, no sampling, no hope.

    Args:
        pair: from :func:`zoo.create`; its weights are left as they are.
        x: data in the units as loaded, shape (N, D).
        sharpness: a.

    Raises:
        OptionError: a pair for which no path is known, a decoder that is not a multilayer perceptron, or a sharpness
            that is not positive.
        Unknown: the pair's prior is not the standard normal one.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> witness(zoo.create("gaussian-learned", data), data.train).grows
    True
    >>> witness(zoo.create("gaussian-constrained", data), data.train).grows
    False
    """
    pair, rows = _complete(pair, x)
    try:
        grid = np.array([float(a) for a in sharpness])
    except (TypeError, ValueError):
        grid = np.zeros(1)
    if not (grid.size and np.isfinite(grid).all() and (grid > 0).all()):
        raise OptionError(f"sharpness={sharpness!r}; give positive numbers.")
    pair, needs = _wide_enough(pair, rows)
    model: Any = copy.deepcopy(pair.model).double().eval()
    likelihood, elbo, penalized = [], [], []
    with torch.no_grad(), pyro_context():
        for a in grid.tolist():
            route = steer(model, rows, a)
            likelihood.append(float(log_likelihood(model, rows, route).sum()) - len(rows) * pair.view.log_volume)
            if route.description == COLLAPSE and pair.card.base_measure == "density":
                elbo.append(_elbo(model, rows, a) - len(rows) * pair.view.log_volume)
            if hasattr(model, "log_prior"):
                penalized.append(likelihood[-1] + len(rows) * float(model.log_prior()))
    bound_of = getattr(model, "log_density_bound", None)
    bound = (bound_of(pair.data.features) - pair.view.log_volume) * len(rows) if bound_of else math.inf
    return Witness(
        pair=pair.name,
        path=route.description,
        needs=needs,
        sharpness=grid,
        log_likelihood=np.array(likelihood),
        elbo=np.array(elbo),
        penalized=np.array(penalized),
        bound=bound,
        formula=pair.card.bound,
    )


@dataclass(frozen=True)
class Route:
    """Where a path leads, in words, and the values of the first latent at which the decoder changes, (P,)."""

    description: str
    positions: Tensor


# -- the paths: each sets the parameters of a model in place -----------------------------------------------------------


@singledispatch
def steer(model: Any, x: Tensor, sharpness: float) -> Route:  # noqa: ARG001
    """Set the model's parameters to a point of its path for data x, shape (N, D), in the model's units."""
    raise OptionError(f"no path is known for {type(model).__name__}")


@steer.register(models.LearnedVariance)
@steer.register(models.ConstrainedVariance)
@steer.register(models.QuantileDecoder)
def _(model: Any, x: Tensor, sharpness: float) -> Route:
    return _collapse(model.decoder, x[0], sharpness)


@steer.register
def _(model: models.PenalizedVariance, x: Tensor, sharpness: float) -> Route:
    model.initialise(x)
    return _collapse(model.decoder, x[0], sharpness)


@steer.register
def _(model: models.BinnedGaussian, x: Tensor, sharpness: float) -> Route:
    return _collapse(model.decoder, (x[0] - model.center) / model.scale, sharpness)


@steer.register(models.SharedVariance)
@steer.register(models.OptimalVariance)
def _(model: models.SharedVariance | models.OptimalVariance, x: Tensor, sharpness: float) -> Route:
    model.log_scale.fill_(-sharpness / 4)  # in double precision a mean of many steps is exact to some 1e-15
    return _through_all(model.decoder, x, sharpness, outputs=1)


@steer.register
def _(model: models.ColumnVariance, x: Tensor, sharpness: float) -> Route:
    """The mean of one column is each of its values on a stretch of z; the others stay as they are, whatever z."""
    column = _column_of_fewest(x)
    values, counts = x[:, column].unique(return_counts=True)
    shares = counts.cumsum(0)[:-1] / len(x)
    steps = Steps(
        model.decoder, torch.special.ndtri(shares.double()) if len(shares) else torch.zeros(1), sharpness * len(x)
    )
    (mean,) = steps.outputs(1)
    only = torch.arange(x.shape[1]) == column
    mean.level(torch.where(only, values[0], 0.0))
    if len(shares):
        mean.rise(torch.where(only, values.diff()[:, None], 0.0))
    model.log_scale.copy_(torch.where(only, -sharpness / 4, 0.0))
    return Route(ON_A_COLUMN, steps.positions)


def _column_of_fewest(x: Tensor) -> int:
    return int(np.argmin([len(column.unique()) for column in x.T]))


@steer.register
def _(model: models.RatioVariance, x: Tensor, sharpness: float) -> Route:
    model.log_smallest.fill_(-sharpness / 2)
    return _through_all(model.decoder, x, sharpness, outputs=2)


@steer.register
def _(model: models.FixedVariance, x: Tensor, sharpness: float) -> Route:
    return _through_all(model.decoder, x, sharpness, outputs=1)


@steer.register
def _(model: models.Mixed, x: Tensor, sharpness: float) -> Route:
    """The collapse in all columns whose normal has a variance of its own; the others stay as they are, whatever z."""
    parts: Any = list(zip(model.columns, model.emissions, strict=True))
    if not any(isinstance(emission, OF_OWN_VARIANCE) for _, emission in parts):
        raise OptionError("no path is known for a mixed pair none of whose columns is normal with its own variance")
    network: Any = model.decoder
    steps = Steps(network[0], torch.zeros(1), sharpness)
    widths = [emission.outputs * len(columns) for columns, emission in parts]
    for (columns, emission), rows in zip(parts, torch.arange(sum(widths)).split(widths), strict=True):
        if isinstance(emission, OF_OWN_VARIANCE):
            _narrow(steps.outputs(2, slice(int(rows[0]), int(rows[-1]) + 1)), x[0, columns], sharpness)
    return Route(COLLAPSE, steps.positions)


@steer.register
def _(model: models.TwoStage, x: Tensor, sharpness: float) -> Route:
    for parameter in model.second.parameters():  # z is then standard normal, whatever u is
        parameter.zero_()
    return steer(model.first, x, sharpness)


@steer.register
def _(model: models.BernoulliDecoder, x: Tensor, sharpness: float) -> Route:
    (logits,) = Steps(model.decoder, torch.zeros(1), sharpness).outputs(1)
    logits.level(sharpness * (2 * x[0] - 1))
    return Route(CERTAIN, torch.zeros(1))


@steer.register
def _(model: models.CategoricalDecoder, x: Tensor, sharpness: float) -> Route:
    logits = Steps(model.decoder, torch.zeros(1), sharpness).outputs(len(model.levels))
    for level, output in zip(model.levels, logits, strict=True):
        output.level(sharpness * (x[0] == level))
    return Route(CERTAIN, torch.zeros(1))


@steer.register
def _(model: models.GaussianMixture, x: Tensor, sharpness: float) -> Route:
    with seeded(0):
        model.initialise(x)
    model.means[0] = x[0]
    covariance: Any = model.covariance
    for name, per_unit in (("log_excess", -2.0), ("logits", -2.0), ("log_diagonal", -1.0)):
        if hasattr(covariance, name):
            getattr(covariance, name)[0] = per_unit * sharpness
    return Route(ON_ONE, torch.zeros(0))


@steer.register
def _(model: models.LinearGaussian, x: Tensor, sharpness: float) -> Route:
    """The principal directions of x, and a variance that vanishes around them."""
    variance = math.exp(-sharpness / 2)
    centred = x - x.mean(0)
    _, deviations, directions = torch.linalg.svd(centred / len(x) ** 0.5, full_matrices=False)
    count = min(model.latent_dim, len(deviations))
    model.decoder.weight.zero_()
    model.decoder.weight[:, :count] = directions[:count].T * (deviations[:count] ** 2 - variance).clamp(min=0).sqrt()
    model.decoder.bias.copy_(x.mean(0))
    model.log_scale.fill_(-sharpness / 4)
    return Route(ON_A_SURFACE, torch.zeros(0))


def _collapse(decoder: nn.Module, mean: Tensor, sharpness: float) -> Route:
    """mu(z) = mean, and the second output -2a where z < 0 and 0 where z > 0."""
    steps = Steps(decoder, torch.zeros(1), sharpness)
    _narrow(steps.outputs(2), mean, sharpness)
    return Route(COLLAPSE, steps.positions)


def _narrow(outputs: list[Output], mean: Tensor, sharpness: float) -> None:
    """The mean, and a log variance that steps from -2a up to 0."""
    location, spread = outputs
    location.level(mean)
    spread.level(torch.full_like(mean, -2 * sharpness))
    spread.rise(torch.full_like(mean, 2 * sharpness)[None])


def _through_all(decoder: nn.Module, x: Tensor, sharpness: float, outputs: int) -> Route:
    """A mean that is each of the data in turn, on stretches of z that the prior gives the same mass."""
    shares = torch.arange(1, len(x), dtype=torch.float64) / len(x)
    # steps that narrow faster than the variance vanishes
    steps = Steps(decoder, torch.special.ndtri(shares), sharpness * len(x))
    mean, *_ = steps.outputs(outputs)
    mean.level(x[0])
    mean.rise(x.diff(dim=0))
    return Route(THROUGH_ALL, steps.positions)


class Steps:
    """Makes a perceptron's last hidden layer a row of steps from 0 to 1 of the first latent, and its outputs of those.

    Args:
        decoder: linear layers and activations, then an ``Unflatten``.
        positions: where the steps are, (P,).
        sharpness: how steep they are.
    """

    def __init__(self, decoder: nn.Module, positions: Tensor, sharpness: float) -> None:
        self.units = _units(decoder)
        for parameter in decoder.parameters():
            parameter.zero_()
        self.positions = positions.double()
        *hidden, self.last = [layer for layer in decoder.children() if isinstance(layer, nn.Linear)]
        self.width = len(positions)
        for depth, layer in enumerate(hidden):
            for unit in range(self.units):
                rows = slice(unit * self.width, (unit + 1) * self.width)
                if depth == 0:
                    layer.weight[rows, 0] = sharpness
                    layer.bias[rows] = -sharpness * self.positions - unit
                else:
                    self._read(layer.weight[rows], layer.bias[rows], sharpness * torch.eye(self.width).double())
                    layer.bias[rows] -= sharpness / 2 + unit

    def _read(self, weight: Tensor, bias: Tensor, factors: Tensor) -> None:
        """Make rows of a layer ``factors`` (..., P) times the steps that the layer before it holds."""
        if self.units == 1:  # tanh: a step is 1/2 + tanh/2
            weight[:, : self.width] = factors / 2
            bias += factors.sum(-1) / 2
        else:  # a unit without an upper bound: a step is the difference of two
            weight[:, : self.width] = factors
            weight[:, self.width : 2 * self.width] = -factors

    def outputs(self, count: int, rows: slice = slice(None)) -> list[Output]:
        """The ``count`` outputs, (D,) each, that these rows of the last layer are."""
        weight, bias = (tensor[rows].unflatten(0, (count, -1)) for tensor in (self.last.weight, self.last.bias))
        return [Output(self, weight[i], bias[i]) for i in range(count)]


@dataclass(frozen=True)
class Output:
    """One output of a decoder, as a sum of steps."""

    steps: Steps
    weight: Tensor
    bias: Tensor

    def level(self, value: Tensor) -> None:
        """Start at this value, (D,)."""
        self.bias.add_(value)

    def rise(self, jumps: Tensor) -> None:
        """Rise by these at each step, (P, D)."""
        self.steps._read(self.weight, self.bias, jumps.T)


def _units(decoder: nn.Module) -> int:
    """Hidden units that a step takes: one that is bounded on both sides, or two that are not."""
    layers = list(decoder.children())
    if not (isinstance(decoder, nn.Sequential) and isinstance(layers[0], nn.Linear)):
        raise OptionError('no path is known for this decoder; use network="mlp".')
    return 1 if isinstance(layers[1], nn.Tanh) else 2


THROUGH_ALL_NEEDS_WIDTH = (
    models.SharedVariance,
    models.OptimalVariance,
    models.FixedVariance,
    models.RatioVariance,
)


def _wide_enough(pair: Pair, x: Tensor) -> tuple[Pair, str]:
    """The pair, or the same with as many hidden units as its path takes, and how many those are if it had fewer."""
    model: Any = pair.model.first if isinstance(pair.model, models.TwoStage) else pair.model
    if not isinstance(model, THROUGH_ALL_NEEDS_WIDTH):
        return pair, ""
    through = x[:, _column_of_fewest(x)].unique() if isinstance(model, models.ColumnVariance) else x
    needed = max(1, len(through) - 1) * _units(model.decoder)
    if min(pair.options.hidden) >= needed:
        return pair, ""
    options = {name: getattr(pair.options, name) for name in pair.options.__dataclass_fields__}
    wide = create(pair.name, pair.data, **options | {"hidden": tuple(max(h, needed) for h in pair.options.hidden)})
    return wide, f"{needed} units in each hidden layer for these {len(x)} rows, and has {min(pair.options.hidden)}"


# -- the exact likelihood on a path ------------------------------------------------------------------------------------


@singledispatch
def log_likelihood(model: Any, x: Tensor, route: Route) -> Tensor:  # noqa: ARG001
    """Log p(x) of each datum, (N,), of a model whose decoder looks at the first latent alone."""
    raise OptionError(f"no path is known for {type(model).__name__}")


@log_likelihood.register
def _(model: models.GaussianMixture, x: Tensor, route: Route) -> Tensor:  # noqa: ARG001
    components = torch.arange(len(model.means))
    joint = model.likelihood(components).log_prob(x[:, None]) + model.logits.log_softmax(0)
    evidence: Tensor = joint.logsumexp(1)
    return evidence


@log_likelihood.register
def _(model: models.LinearGaussian, x: Tensor, route: Route) -> Tensor:  # noqa: ARG001
    return model.log_evidence(x)


@log_likelihood.register(models.VAE)
@log_likelihood.register(models.TwoStage)
def _(model: models.VAE | models.TwoStage, x: Tensor, route: Route) -> Tensor:
    _check_prior(model, x)
    nodes, log_weights = _quadrature(route.positions)
    latent_dim = (model.first if isinstance(model, models.TwoStage) else model).latent_dim
    z = torch.zeros(len(nodes), latent_dim, dtype=torch.float64)
    z[:, 0] = nodes
    fn = model.likelihood(z)
    blocks = inference.row_blocks(x, len(nodes) * x.shape[1])
    return torch.cat([(fn.log_prob(rows[:, None]) + log_weights).logsumexp(1) for rows in blocks])


def _check_prior(model: nn.Module, x: Tensor) -> None:
    """Raise Unknown unless z is standard normal, the prior over which a path is integrated."""
    with seeded(0):
        fn = poutine.trace(model).get_trace(x[:1]).nodes["z"]["fn"]
    normal = getattr(fn, "base_dist", fn)
    if not (isinstance(normal, dist.Normal) and (normal.loc == 0).all() and (normal.scale == 1).all()):
        raise Unknown(f"the path is integrated over a standard normal prior, and that of {type(model).__name__} is not")


def _elbo(model: models.VAE, x: Tensor, sharpness: float) -> float:
    """The ELBO of all data on a path of collapse, q being N(-1, s^2) for the first datum, N(1, s^2) for the others.

    Of a few s the best for each datum.
    """
    first = [_gaussian_elbo(model, x[:1], -1.0, variance) for variance in (1.0, 0.25 / sharpness)]
    rest = [_gaussian_elbo(model, x[1:], 1.0, 1 / (k * sharpness)) for k in (4, 6, 10)] if len(x) > 1 else []
    return float(sum(torch.stack(each).amax(0).sum() for each in (first, rest) if each))


def _gaussian_elbo(model: models.VAE, x: Tensor, mean: float, variance: float) -> Tensor:
    """E log p(x | z) - KL of each datum under q(z_1) = N(mean, variance), the other latents as in the prior."""
    deviation = variance**0.5
    nodes, log_weights = _quadrature(torch.tensor([-mean / deviation]))  # where the decoder's step is
    z = torch.zeros(len(nodes), model.latent_dim, dtype=torch.float64)
    z[:, 0] = mean + deviation * nodes
    expected: Tensor = model.likelihood(z).log_prob(x[:, None]) @ log_weights.exp()
    return expected - (variance + mean**2 - 1 - math.log(variance)) / 2


def _quadrature(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and log weights of the integral over a standard normal, in panels that narrow towards every position."""
    at = positions.numpy()
    gap = np.diff(at).min() / 2 if len(at) > 1 else 0.25
    offsets = np.geomspace(1e-6, gap, max(8, 24 // max(1, len(at))))
    around = np.concatenate([at[:, None] + sign * offsets for sign in (-1, 1)], axis=None)
    edges = np.unique(np.concatenate([at, around, np.arange(-REACH, REACH + 0.1, 0.5)]))
    nodes, weights = np.polynomial.legendre.leggauss(PANEL_NODES)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    z = torch.as_tensor((middle[:, None] + half[:, None] * nodes).ravel())
    log_density = -z.square() / 2 - math.log(2 * math.pi) / 2
    return z, torch.as_tensor(np.log(half[:, None] * weights).ravel()) + log_density


# -- ceilings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceiling:
    """How high the log likelihood of a whole data set can go under a smallest variance, in nats and units as loaded.

    Attributes:
        naive: every datum at the mode of the narrowest density.
        reached: what the best mixture of such densities that was found reaches.
        certified: no distribution of their means can do better than this.
        atoms: how many means that mixture has.
    """

    naive: float
    reached: float
    certified: float
    atoms: int


def _complete(pair: Pair, x: ArrayLike) -> tuple[Pair, Tensor]:
    """The pair as a model of complete data, and such data in its units."""
    if not isinstance(pair, Pair):
        raise OptionError(f"pair is a {type(pair).__name__}; create it first, with zoo.create.")
    rows = torch.as_tensor(pair.view.inward(pair.view.checked(x)))
    if rows.isnan().any():
        raise OptionError(
            "x has entries that were not observed, and a path or a ceiling is that of complete rows: leave others out."
        )
    inner: Any = pair.model
    return (replace(pair, model=inner.model) if isinstance(inner, Observed) else pair), rows


def ceiling(pair: Pair, x: ArrayLike, *, iterations: int = 500, tolerance: float = 1e-6) -> Ceiling:
    r"""The highest log likelihood of x that any decoder could give a pair whose variances have a floor.

    Every p(x) of such a pair is a mixture of densities N(\mu, \xi I), so that the nonparametric maximum-likelihood
    mixture is a ceiling (Mattei & Frellsen 2018, Theorem 2, https://arxiv.org/abs/1802.04826). It is approached from
    below by EM over weights and means, started from the data, and certified from above: the log likelihood is concave
    in the mixing distribution G, so

    .. math:: \sup_{G'} \ell(G') \le \ell(G) + \max_\mu \sum_i \frac{N(x_i; \mu, \xi I)}{f_G(x_i)} - n

    the maximum being sought by mean shift from every datum. Beside it the naive bound, -(nD/2) log 2 pi xi. Both are
    ceilings of the full sum over x, not of a minibatch or a validation trace.

    Args:
        pair: a pair with a floor or a fixed variance.
        x: data in the units as loaded, shape (N, D). Memory: some matrices of N x N.
        iterations: the most EM steps and mean shifts.
        tolerance: EM ends when a step gains less than this, in nats per datum.

    Raises:
        OptionError: a pair without a smallest variance, or an argument of the wrong type or range.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> found = ceiling(zoo.create("gaussian-constrained", data, floor=0.1), data.train)
    >>> found.reached <= found.certified < found.naive
    True
    """
    (pair, rows), iterations = _complete(pair, x), count("iterations", iterations)
    if not (isinstance(tolerance, Real) and 0 <= tolerance < math.inf):
        raise OptionError(f"tolerance={tolerance!r}; give a number of nats, at least 0.")
    smallest = smallest_variance(pair.model)
    n, d = rows.shape
    constant = -d / 2 * math.log(2 * math.pi * smallest)
    means, log_weights = rows.clone(), torch.full((n,), -math.log(n), dtype=torch.float64)
    height = torch.full((n,), -math.inf, dtype=torch.float64)
    for _ in range(iterations):
        joint = _log_kernel(rows, means, smallest) + log_weights
        before, height = height, joint.logsumexp(1)
        if (height - before).mean() < float(tolerance):
            break
        share = (joint - height[:, None]).exp()
        weights = share.sum(0)
        kept = weights > 1e-12
        share, weights = share[:, kept], weights[kept]
        means, log_weights = share.T @ rows / weights[:, None], (weights / n).log()
    at = rows.clone()
    for _ in range(iterations):  # mean shift: uphill on the certificate, from every datum
        pull = (_log_kernel(rows, at, smallest) - height[:, None]).T.softmax(1)
        at, last = pull @ rows, at
        if (at - last).abs().max() < 1e-9:
            break
    excess = float((_log_kernel(rows, at, smallest) - height[:, None]).logsumexp(0).exp().max()) - n
    reached = float(height.sum()) + n * (constant - pair.view.log_volume)
    naive = n * (constant - pair.view.log_volume)
    return Ceiling(naive, reached, min(naive, reached + max(0.0, excess)), len(_distinct(means, smallest)))


@singledispatch
def smallest_variance(model: Any) -> float:
    """The smallest eigenvalue that any covariance of the model may have, in its units."""
    raise OptionError(f"{type(model).__name__} has no smallest variance, so its likelihood has no ceiling.")


@smallest_variance.register(models.ConstrainedVariance)
@smallest_variance.register(models.GaussianMixture)
def _(model: models.ConstrainedVariance | models.GaussianMixture) -> float:
    if not model.floor:
        raise OptionError(f"{type(model).__name__} without a floor has no smallest variance: nor has its likelihood.")
    return model.floor


@smallest_variance.register
def _(model: models.FixedVariance) -> float:
    return model.scale**2


def _log_kernel(x: Tensor, means: Tensor, variance: float) -> Tensor:
    """-|x_i - mu_k|^2 / 2 xi, (N, K)."""
    return torch.cdist(x, means).square() / (-2 * variance)


def _distinct(means: Tensor, variance: float) -> Tensor:
    """The means, those closer than a thousandth of a standard deviation counted once."""
    distinct: Tensor = (means / (1e-3 * variance**0.5)).round().unique(dim=0)
    return distinct
