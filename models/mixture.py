"""Gaussian mixtures: the same trap as the Gaussian VAE's, in the oldest model that has it."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["COVARIANCES", "GaussianMixture"]


class Diagonal(nn.Module):
    """Covariances diag(floor + exp v_c); one variance a component if ``width`` is 1."""

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

    Each row of T is its diagonal entry times (B, 1): a step of the optimiser is then small against the column it
    belongs to, however narrow that has become.
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


COVARIANCES: dict[str, Callable[[int, int, float], Diagonal | Full]] = {
    # for C components of D features
    "diagonal": lambda c, d, floor: Diagonal(c, d, floor),
    "spherical": lambda c, _, floor: Diagonal(c, 1, floor),
    "full": lambda c, d, floor: Full(c, d, floor),
    "tied": lambda _, d, floor: Full(1, d, floor),
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
        floor: xi, the smallest eigenvalue allowed to a covariance, in the units of x squared.

    >>> model = GaussianMixture(components=3, features=2)
    >>> model.likelihood(torch.tensor([0, 2, 2, 1])).batch_shape
    torch.Size([4])
    """

    def __init__(self, components: int, features: int, covariance: str = "diagonal", floor: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.covariance = COVARIANCES[covariance](components, features, floor)
        self.floor = floor

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start from k-means++ centres in x, shape (N, D), and the variances of the data around them.

        A column without spread around its centres (one that is constant, say) starts at unit variance, so every
        kind of covariance starts positive definite; where the model lets it, training then takes that variance
        to zero.
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


def _log_above_floor(variance: Tensor, floor: float) -> Tensor:
    """log(variance - floor), at least a tenth of the variance being above the floor."""
    return torch.maximum(variance - floor, variance / 10).log()


def _kmeans_plus_plus(x: Tensor, count: int) -> Tensor:
    """Centres drawn from the rows of x with probability proportional to the squared distance (Arthur 2007)."""
    centres = x[torch.randint(len(x), (1,))]
    while len(centres) < count:
        distance = torch.cdist(x, centres).amin(1).square()
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        centres = torch.cat([centres, x[torch.multinomial(weights, 1)]])
    return centres
