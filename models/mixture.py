"""Gaussian mixtures: the trap of the Gaussian VAE in the oldest model that has it."""

import math
from collections.abc import Callable
from functools import singledispatch

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["COVARIANCES", "GaussianMixture", "PenalizedMixture"]


class Diagonal(nn.Module):
    """Covariances diag(floor + exp v_c); one variance per component if ``width`` is 1."""

    def __init__(self, components: int, width: int, floor: float) -> None:
        super().__init__()
        self.log_excess = nn.Parameter(torch.zeros(components, width))
        self.floor = floor

    def start(self, variance: Tensor) -> None:
        """Give every component the variances of shape (D,), as nearly as its form allows."""
        per_column = variance if self.log_excess.shape[-1] > 1 else variance.mean(0, keepdim=True)
        self.log_excess.copy_(_log_above_floor(per_column, self.floor).expand_as(self.log_excess))

    def forward(self, mean: Tensor, component: Tensor) -> dist.TorchDistribution:
        """N(mean, Sigma_component) for means of shape (..., D)."""
        scale = (self.floor + self.log_excess.exp()).sqrt()[component]
        return dist.Normal(mean, scale.expand_as(mean)).to_event(1)


class Full(nn.Module):
    """Covariances floor I + T_c T_c', T_c lower triangular; one for all components if ``components`` is 1.

    Each row of T is its diagonal entry times (B, 1), so that a step of the optimiser stays small relative to its
    column, however narrow that has become.
    """

    def __init__(self, components: int, width: int, floor: float) -> None:
        super().__init__()
        self.log_diagonal = nn.Parameter(torch.zeros(components, width))
        self.below = nn.Parameter(torch.zeros(components, width, width))
        self.floor = floor

    def start(self, variance: Tensor) -> None:
        """Give every component the diagonal covariance of shape (D,)."""
        self.log_diagonal.copy_(_log_above_floor(variance, self.floor).expand_as(self.log_diagonal) / 2)

    def forward(self, mean: Tensor, component: Tensor) -> dist.TorchDistribution:
        """N(mean, Sigma_component) for means of shape (..., D)."""
        identity = torch.eye(self.below.shape[-1], dtype=self.below.dtype, device=self.below.device)
        factor = self.log_diagonal.exp()[..., None] * (self.below.tril(-1) + identity)
        if self.floor:
            factor, failed = torch.linalg.cholesky_ex(factor @ factor.mT + self.floor * identity)
            # one seed's failure must be that seed's NaN, not an exception for all
            factor = factor.masked_fill((failed > 0)[..., None, None], math.nan)
        if len(factor) == 1:
            return dist.MultivariateNormal(mean, scale_tril=factor[0])
        return dist.MultivariateNormal(mean, scale_tril=factor[component])


class RatioDiagonal(nn.Module):
    """Covariances e^b diag(c^sigmoid v): the largest of all variances is at most c times the smallest."""

    def __init__(self, components: int, width: int, ratio: float) -> None:
        super().__init__()
        self.log_smallest = nn.Parameter(torch.zeros(()))
        self.logits = nn.Parameter(torch.zeros(components, width))
        self.ratio = ratio

    def start(self, variance: Tensor) -> None:
        """Give every component the variances of shape (D,), as nearly as its form allows."""
        per_column = variance if self.logits.shape[-1] > 1 else variance.mean(0, keepdim=True)
        share, smallest = _share_of_range(per_column.log(), math.log(self.ratio))
        self.log_smallest.copy_(smallest)
        self.logits.copy_(share.logit().expand_as(self.logits))

    def forward(self, mean: Tensor, component: Tensor) -> dist.TorchDistribution:
        """N(mean, Sigma_component) for means of shape (..., D)."""
        log_variance = self.log_smallest + math.log(self.ratio) * self.logits.sigmoid()
        return dist.Normal(mean, (log_variance / 2).exp()[component].expand_as(mean)).to_event(1)


class RatioFull(nn.Module):
    """Covariances e^b [c I - (c - 1) (I + T T')^-1], T lower triangular: eigenvalues from e^b to c e^b."""

    def __init__(self, components: int, width: int, ratio: float) -> None:
        super().__init__()
        self.log_smallest = nn.Parameter(torch.zeros(()))
        self.log_diagonal = nn.Parameter(torch.zeros(components, width))
        self.below = nn.Parameter(torch.zeros(components, width, width))
        self.ratio = ratio

    def start(self, variance: Tensor) -> None:
        """Give every component the diagonal covariance of shape (D,), as nearly as the ratio allows."""
        share, smallest = _share_of_range(variance.log(), math.log(self.ratio))
        share = ((share * math.log(self.ratio)).exp() - 1) / (self.ratio - 1)  # on the linear scale of variances
        self.log_smallest.copy_(smallest)
        self.log_diagonal.copy_(share.logit().expand_as(self.log_diagonal) / 2)

    def forward(self, mean: Tensor, component: Tensor) -> dist.TorchDistribution:
        """N(mean, Sigma_component) for means of shape (..., D)."""
        identity = torch.eye(self.below.shape[-1], dtype=self.below.dtype, device=self.below.device)
        factor = self.log_diagonal.exp()[..., None] * (self.below.tril(-1) + identity)
        inner, _ = torch.linalg.cholesky_ex(identity + factor @ factor.mT)
        half = torch.linalg.solve_triangular(inner, identity.expand_as(inner), upper=False)
        covariance = self.ratio * identity - (self.ratio - 1) * half.mT @ half
        scale_tril, failed = torch.linalg.cholesky_ex(covariance)
        scale_tril = scale_tril.masked_fill((failed > 0)[..., None, None], math.nan) * (self.log_smallest / 2).exp()
        return dist.MultivariateNormal(mean, scale_tril=scale_tril[component if len(scale_tril) > 1 else 0])


Covariances = Diagonal | Full | RatioDiagonal | RatioFull

COVARIANCES: dict[str, Callable[[int, int, float], Diagonal | Full]] = {
    # for C components of D features
    "diagonal": lambda c, d, floor: Diagonal(c, d, floor),
    "spherical": lambda c, _, floor: Diagonal(c, 1, floor),
    "full": lambda c, d, floor: Full(c, d, floor),
    "tied": lambda _, d, floor: Full(1, d, floor),
}
RATIO_COVARIANCES: dict[str, Callable[[int, int, float], RatioDiagonal | RatioFull]] = {
    "diagonal": lambda c, d, ratio: RatioDiagonal(c, d, ratio),
    "spherical": lambda c, _, ratio: RatioDiagonal(c, 1, ratio),
    "full": lambda c, d, ratio: RatioFull(c, d, ratio),
    "tied": lambda _, d, ratio: RatioFull(1, d, ratio),
}


class GaussianMixture(nn.Module):
    r"""A mixture of Gaussians whose component is an enumerated latent.

    .. math:: p(x, c) = \pi_c \, N(x; \mu_c, \Sigma_c), \qquad
              \log p(x) = \log \sum_c p(x, c), \qquad \Sigma_c \ge \xi I

    With ``floor`` xi = 0 the likelihood is unbounded: put one mean on one datum and let its covariance vanish
    (Day 1969, https://doi.org/10.1093/biomet/56.3.463). With xi > 0, log p(x) <= -(D/2) log(2 pi xi).

    Args:
        components: C, the number of Gaussians.
        features: D.
        covariance: "diagonal", "spherical", "full" or "tied" (one full matrix for all components).
        floor: xi, the smallest eigenvalue allowed, in the units of x squared.
        ratio: c, instead of a floor: the largest allowed ratio of any two eigenvalues, over all components.

    With a ratio one component cannot collapse alone: with more distinct data than components,
    l <= -(nD/2) [log(2 pi R / (c n D)) + 1], R the sum of the scatter's eigenvalues beyond the largest C - 1, if R > 0
    (Hathaway 1985, https://doi.org/10.1214/aos/1176349557).

    >>> model = GaussianMixture(components=3, features=2)
    >>> model.likelihood(torch.tensor([0, 2, 2, 1])).batch_shape
    torch.Size([4])
    """

    def __init__(
        self,
        components: int,
        features: int,
        covariance: str = "diagonal",
        floor: float = 0.0,
        ratio: float | None = None,
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.covariance: Covariances = (
            COVARIANCES[covariance](components, features, floor)
            if ratio is None
            else RATIO_COVARIANCES[covariance](components, features, ratio)
        )
        self.floor = floor

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start from k-means++ centres in x, shape (N, D), and the variances of the data around them.

        A column without spread around its centres, such as a constant one, starts at unit variance, so that every
        kind of covariance starts positive definite; training then takes that variance to zero if the model allows
        it.
        """
        centres = _kmeans_plus_plus(x, len(self.means))
        nearest = torch.cdist(x, centres).argmin(1)
        variance = (x - centres[nearest]).square().mean(0)
        self.means.copy_(centres)
        self.covariance.start(torch.where(variance > 0, variance, 1.0))

    def likelihood(self, component: Tensor) -> dist.TorchDistribution:
        """p(x | c): batch shape (...), event shape (D,), for components of shape (...)."""
        return self.covariance(self.means[component], component)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi xi), infinite without a floor."""
        return -features / 2 * math.log(2 * math.pi * self.floor) if self.floor else math.inf

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its components."""
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Categorical(logits=self.logits)
            component = pyro.sample("component", prior, infer={"enumerate": "parallel"})
            pyro.sample("x", self.likelihood(component), obs=x)


class PenalizedMixture(GaussianMixture):
    r"""A Gaussian mixture under an inverse-Wishart prior on each covariance.

    .. math:: \log p(X, \Sigma) = \sum_i \log p(x_i) - \sum_c \left[ \tfrac{\nu + D + 1}{2} \log |\Sigma_c|
              + \tfrac{1}{2} \mathrm{tr}(\Lambda \Sigma_c^{-1}) \right], \qquad
              \nu = D + 2, \quad \Lambda = \mathrm{diag} \max(s_j^2, \xi) / C^{2/D}

    s_j^2 is the variance of column j. A positive definite Lambda, which xi > 0 gives even with constant columns, bounds
    the penalised likelihood; the likelihood of the data alone is as unbounded as before.

    Fraley & Raftery (2007), https://doi.org/10.1007/s00357-007-0004-5

    Args:
        components: C, the number of Gaussians.
        features: D.
        covariance: "diagonal", "spherical", "full" or "tied".
        smallest: xi, the least variance that the prior expects of a column, in the units of x squared.
    """

    rows: Tensor
    scale: Tensor

    def __init__(self, components: int, features: int, covariance: str, smallest: float) -> None:
        super().__init__(components, features, covariance)
        self.smallest = smallest
        self.covariances = 1 if covariance == "tied" else components
        self.register_buffer("rows", torch.ones(()))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start like a mixture, and take Lambda and the number of data that share the prior from x, (N, D)."""
        super().initialise(x)
        self.count(len(x))
        self.scale.copy_(x.var(0, correction=0).clamp(min=self.smallest) / len(self.means) ** (2 / x.shape[1]))

    def count(self, rows: int) -> None:
        """Take the number of data, of which x was a sample."""
        self.rows.fill_(rows)

    def log_prior(self) -> Tensor:
        """Log p(Sigma) per datum, without its constant."""
        log_determinant, precision = _spectrum(self.likelihood(torch.arange(self.covariances)))
        features = self.means.shape[1]
        of_each = (2 * features + 3) / 2 * log_determinant + (self.scale * precision).sum(-1) / 2
        return -of_each.sum() / self.rows

    def log_penalized_bound(self, rows: int) -> float:
        """The largest log p(X, Sigma) per datum, for this many data: every datum under the best component."""
        features, scale = self.means.shape[1], self.scale.double()

        def highest(power: float) -> float:
            """The maximum over Sigma of -(power log |Sigma| + tr(Lambda Sigma^-1)) / 2, at Lambda / power."""
            return float((power / 2 * ((power / scale).log() - 1)).sum())

        prior = 2 * features + 3
        total = highest(rows + prior) + (self.covariances - 1) * highest(prior)
        return total / rows - features / 2 * math.log(2 * math.pi)


@singledispatch
def _spectrum(fn: dist.TorchDistribution) -> tuple[Tensor, Tensor]:
    """Log determinants (C,) and the diagonals of the inverses (C, D) of Gaussians' covariances."""
    raise NotImplementedError(f"the covariance of {type(fn).__name__} is not known")


@_spectrum.register
def _(fn: dist.Independent) -> tuple[Tensor, Tensor]:
    return fn.variance.log().sum(-1), 1 / fn.variance


@_spectrum.register
def _(fn: dist.MultivariateNormal) -> tuple[Tensor, Tensor]:
    factor = fn.scale_tril
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(factor.shape[-1]).to(factor).expand_as(factor), upper=False
    )
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1), inverse.square().sum(-2)


def _share_of_range(log_variance: Tensor, span: float) -> tuple[Tensor, Tensor]:
    """The positions, in (0, 1), of variances in a log range of length ``span`` around their middle, and its start."""
    start = (log_variance.max() + log_variance.min() - span) / 2
    return ((log_variance - start) / span).clamp(0.05, 0.95), start


def _log_above_floor(variance: Tensor, floor: float) -> Tensor:
    """log(variance - floor), with at least a tenth of the variance above the floor."""
    return torch.maximum(variance - floor, variance / 10).log()


def _kmeans_plus_plus(x: Tensor, count: int) -> Tensor:
    """Centres drawn from the rows of x with probability proportional to the squared distance (Arthur 2007)."""
    centres = x[torch.randint(len(x), (1,))]
    while len(centres) < count:
        distance = torch.cdist(x, centres).amin(1).square()
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        centres = torch.cat([centres, x[torch.multinomial(weights, 1)]])
    return centres
