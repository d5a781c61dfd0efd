"""Normal emissions of real columns, in standardised units: the form of the variance decides what is bounded."""

import math
from collections.abc import Iterable
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..ordinal import LOG_ROOT_TAU
from .emission import Emission

__all__ = [
    "LOWER_QUANTILE",
    "SPREAD",
    "ColumnNormal",
    "ConstrainedNormal",
    "FixedNormal",
    "LearnedNormal",
    "NaturalNormal",
    "OptimalNormal",
    "QuantileNormal",
    "RatioNormal",
    "SharedNormal",
]

LOWER_QUANTILE = 0.15
SPREAD = 1.0364333894937898  # -Phi^-1(0.15): how many standard deviations a normal's 15 % quantile is below its median


class LearnedNormal(Emission):
    r"""Mean and variance both depend on z; the density is unbounded.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, e^{v_j})

    There is no floor, clamp or epsilon. In float32 the density overflows once sigma is below about 1e-19
    (sigma^2 underflows); the loss is then not finite, and training freezes that seed.

    Kingma & Welling (2014), appendix C.2, https://arxiv.org/abs/1312.6114

    >>> LearnedNormal()(torch.zeros(5, 2, 3)).log_prob(torch.zeros(3)).shape
    torch.Size([5, 3])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, e^v) from (mu, v), (..., 2, d)."""
        mean, log_variance = parameters.unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp())


class ConstrainedNormal(Emission):
    r"""A learned variance that is at least a floor.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \xi + e^{v_j}) \le (2 \pi \xi)^{-1/2}

    Mattei & Frellsen (2018), https://arxiv.org/abs/1802.04826

    Args:
        floor: xi, a variance.

    >>> bool((ConstrainedNormal(0.25)(torch.zeros(5, 2, 3)).variance >= 0.25).all())
    True
    """

    outputs = 2

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, xi + e^v) from (mu, v), (..., 2, d)."""
        mean, log_excess = parameters.unbind(-2)
        return dist.Normal(mean, (self.floor + log_excess.exp()).sqrt())

    def log_density_bound(self) -> float:
        """-(1/2) log(2 pi xi)."""
        return -LOG_ROOT_TAU - math.log(self.floor) / 2


class FixedNormal(Emission):
    r"""A learned mean only: squared error with its full constant.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, s^2) \le (2 \pi)^{-1/2} / s

    Args:
        scale: s, a standard deviation.

    >>> FixedNormal(1.0)(torch.zeros(5, 1, 3)).variance.unique()
    tensor([1.])
    """

    outputs = 1

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, s^2) from mu, (..., 1, d)."""
        (mean,) = parameters.unbind(-2)
        return dist.Normal(mean, torch.full_like(mean, self.scale))

    def log_density_bound(self) -> float:
        """-(1/2) log(2 pi s^2)."""
        return -LOG_ROOT_TAU - math.log(self.scale)


class _OfOneScale(Emission):
    """A normal whose scale does not depend on z, and may be softly clipped."""

    outputs = 1

    def __init__(self, soft_clip: float | None) -> None:
        super().__init__()
        self.soft_clip = soft_clip

    def normal(self, parameters: Tensor, log_scale: Tensor) -> dist.TorchDistribution:
        """N(mu, sigma^2) from mu, (..., 1, d), and log sigma."""
        (mean,) = parameters.unbind(-2)
        if self.soft_clip is not None:
            log_scale = self.soft_clip + nn.functional.softplus(log_scale - self.soft_clip)
        return dist.Normal(mean, log_scale.exp().expand_as(mean))

    def log_density_bound(self) -> float:
        """-(1/2) log(2 pi) - c, infinite without a clip."""
        return math.inf if self.soft_clip is None else -LOG_ROOT_TAU - self.soft_clip


class SharedNormal(_OfOneScale):
    r"""One learned variance for all columns, independent of z.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \sigma^2), \qquad
              \log \sigma = c + \mathrm{softplus}(s - c) \ge c \text{ with a soft clip } c, \text{ else } s

    It cannot collapse onto a single datum, but if the mean passes through every datum, or the data lie on a surface
    that the mean covers, the likelihood still goes to infinity as sigma vanishes. With the clip, the density is at most
    (2 pi)^(-1/2) e^(-c).

    Rybkin, Daniilidis & Levine (2021), sigma-VAE, https://arxiv.org/abs/2006.13202; Dai et al. (2018), Theorem 5,
    https://arxiv.org/abs/1706.05148

    Args:
        soft_clip: c, the smallest log sigma; None for no clip.

    >>> SharedNormal()(torch.zeros(5, 1, 3)).variance.unique().numel()
    1
    """

    def __init__(self, soft_clip: float | None = None) -> None:
        super().__init__(soft_clip)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, sigma^2) from mu, (..., 1, d)."""
        return self.normal(parameters, self.log_scale)


class ColumnNormal(SharedNormal):
    r"""One learned variance per column, independent of z: the most common choice in practice.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \sigma_j^2), \qquad
              \log \sigma_j = c + \mathrm{softplus}(s_j - c) \ge c \text{ with a soft clip } c, \text{ else } s_j

    One column with few values is enough for a collapse: the mean can be each of them on a stretch of z, and the
    variance vanishes on all data at once. With the clip, the density is at most (2 pi)^(-1/2) e^(-c).

    As in TVAE, which keeps sigma above 0.01: Xu et al. (2019), https://arxiv.org/abs/1907.00503

    Args:
        columns: d.
        soft_clip: c, the smallest log sigma; None for no clip.

    >>> ColumnNormal(3)(torch.zeros(5, 1, 3)).variance.shape
    torch.Size([5, 3])
    """

    def __init__(self, columns: int, soft_clip: float | None = None) -> None:
        super().__init__(soft_clip)
        self.log_scale = nn.Parameter(torch.zeros(columns))


class OptimalNormal(_OfOneScale):
    r"""One variance for all columns, the best for the data.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \sigma^2), \qquad
              \sigma^2 = \frac{1}{D} E_{x} E_{q(z \mid x)} \lVert x - \mu(z) \rVert^2

    :meth:`best` takes the outer mean over a batch; :meth:`settle` takes it over everything it is given and fixes it.
    Bounded like :class:`SharedNormal`.

    Rybkin, Daniilidis & Levine (2021), optimal sigma-VAE, https://arxiv.org/abs/2006.13202

    Args:
        soft_clip: c, the smallest log sigma; None for no clip.
    """

    settled = ("log_scale",)
    log_scale: Tensor

    def __init__(self, soft_clip: float | None = None) -> None:
        super().__init__(soft_clip)
        self.register_buffer("log_scale", torch.zeros(()))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, sigma^2) from mu, (..., 1, d), with the settled sigma."""
        return self.normal(parameters, self.log_scale)

    def best(self, parameters: Tensor, x: Tensor) -> dist.TorchDistribution:
        """The same with the best sigma for x (..., d)."""
        return self.normal(parameters, _mean_square([(parameters, x)]).log() / 2)

    def settle(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fix sigma to the best value for blocks of rows x (B, d) with means (B, 1, d)."""
        self.log_scale.copy_(_mean_square(blocks).log() / 2)


class RatioNormal(Emission):
    r"""Learned variances, the largest at most c times the smallest, over columns and latents.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \sigma_j^2), \qquad
              \sigma_j^2 = e^b c^{\,\mathrm{sigmoid}\, v_j} \in (e^b, c\, e^b)

    It cannot collapse onto a single datum; as with one shared variance, all variances may still vanish together if the
    mean passes through every datum. The constraint does not change with the units of x.

    After Hathaway (1985), https://doi.org/10.1214/aos/1176349557, whose constraint is on a mixture's components

    Args:
        ratio: c.

    >>> variance = RatioNormal(9.0)(torch.tensor([[0.0], [-50.0]]) * torch.ones(3)).variance
    >>> bool(variance.max() <= 9.001 * variance.min())
    True
    """

    outputs = 2

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.log_smallest = nn.Parameter(torch.tensor(-math.log(ratio) / 2))  # a variance of 1 in the middle
        self.ratio = ratio

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, e^b c^sigmoid(v)) from (mu, v), (..., 2, d)."""
        mean, v = parameters.unbind(-2)
        log_variance = self.log_smallest + math.log(self.ratio) * v.sigmoid()
        return dist.Normal(mean, (log_variance / 2).exp())


class NaturalNormal(Emission):
    r"""A normal by natural parameters; the head decides how fast the likelihood runs away.

    .. math:: p(x_j \mid z) = N(x_j; m_j / \lambda_j, 1 / \lambda_j), \qquad
              \lambda_j = \mathrm{softplus}\, a_j \text{ or } e^{a_j}

    Unbounded: at its mean the log density grows like (1/2) log a under softplus, and like a/2 under the exponential.
    m is the first natural parameter, lambda is -2 times the second.

    Immer et al. (2023), https://openreview.net/forum?id=A6EquH0enk

    Args:
        head: "softplus" or "exp".

    >>> NaturalNormal("exp")(torch.tensor([[3.0], [0.0]])).mean
    tensor([3.])
    """

    outputs = 2

    def __init__(self, head: Literal["softplus", "exp"]) -> None:
        super().__init__()
        self.head = head

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(m / lambda, 1 / lambda) from (m, a), (..., 2, d)."""
        m, a = parameters.unbind(-2)
        precision = nn.functional.softplus(a) if self.head == "softplus" else a.exp()
        return dist.Normal(m / precision, precision.rsqrt())


class QuantileNormal(Emission):
    r"""The median and the 15 % quantile of each column; as a density, the normal with these quantiles.

    .. math:: \mu = Q_{50}, \qquad \sigma = \frac{Q_{50} - Q_{15}}{1.0364}, \qquad
              Q_{15} = Q_{50} - \mathrm{softplus}\, v

    The quantiles are in order by construction. It is trained by the pinball loss, which is bounded; the plug-in normal,
    whose evidence is reported, is not bounded and was not maximised.

    Akrami et al. (2020), https://arxiv.org/abs/2010.09042

    >>> fn = QuantileNormal()(torch.zeros(2, 3))
    >>> torch.allclose(fn.cdf(fn.mean - SPREAD * fn.stddev), torch.tensor(LOWER_QUANTILE))
    True
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(Q50, ((Q50 - Q15) / 1.0364)^2) from (Q50, v), (..., 2, d)."""
        median, v = parameters.unbind(-2)
        return dist.Normal(median, nn.functional.softplus(v) / SPREAD)


def _mean_square(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of (x - mu)^2 over the observed entries of x (B, d), with means (B, 1, d)."""
    sums = []
    for parameters, x in blocks:
        (mean,) = parameters.unbind(-2)
        residual = torch.where(x.isnan(), mean, x) - mean
        sums.append(torch.stack([residual.square().sum(), (~x.isnan()).sum().to(x)]))
    total, count = torch.stack(sums).sum(0).unbind()
    return total / count
