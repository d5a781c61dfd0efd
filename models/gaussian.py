"""Gaussian decoders: what the covariance may be decides whether the likelihood is bounded."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from .vae import VAE

__all__ = [
    "ColumnVariance",
    "ConstrainedVariance",
    "FixedVariance",
    "LearnedVariance",
    "OptimalVariance",
    "PenalizedVariance",
    "RatioVariance",
    "SharedVariance",
]

SETTLED_ROWS = 4096  # rows per pass


class LearnedVariance(VAE):
    r"""Mean and diagonal covariance are both functions of z; the likelihood is unbounded.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2(z)), \qquad
              (\mu, \log \sigma^2)(z) = \mathrm{decoder}(z)

    There is no floor, clamp or epsilon. In float32 the density overflows once sigma is below about 1e-19
    (sigma^2 underflows); the loss is then not finite, and training freezes that seed.

    Kingma & Welling (2014), appendix C.2, https://arxiv.org/abs/1312.6114

    >>> model = LearnedVariance(nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3))), latent_dim=2)
    >>> model.likelihood(torch.zeros(5, 2)).batch_shape, model.likelihood(torch.zeros(5, 2)).event_shape
    (torch.Size([5]), torch.Size([3]))
    """

    outputs = 2

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), diag sigma^2(z))."""
        mean, log_variance = self.decoder(z).unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)


class ConstrainedVariance(VAE):
    r"""A learned diagonal covariance none of whose eigenvalues falls below ``floor``.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2(z)), \qquad
              \sigma^2(z) = \xi + e^{v(z)} \ge \xi, \qquad
              \log p(x) \le -\tfrac{D}{2} \log 2 \pi \xi

    Mattei & Frellsen (2018), https://arxiv.org/abs/1802.04826

    Args:
        decoder: maps z (..., L) to (mu, v), shape (..., 2, D).
        latent_dim: L.
        floor: xi, a variance in the units of x.

    >>> decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3)))
    >>> model = ConstrainedVariance(decoder, latent_dim=2, floor=0.25)
    >>> bool((model.likelihood(torch.randn(5, 2)).variance >= 0.25).all())
    True
    """

    outputs = 2

    def __init__(self, decoder: nn.Module, latent_dim: int, floor: float) -> None:
        super().__init__(decoder, latent_dim)
        self.floor = floor

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), diag(xi + exp v(z)))."""
        mean, log_excess = self.decoder(z).unbind(-2)
        return dist.Normal(mean, (self.floor + log_excess.exp()).sqrt()).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi xi)."""
        return -features / 2 * math.log(2 * math.pi * self.floor)


class FixedVariance(VAE):
    r"""Mean only: squared error with its full constant.

    .. math:: p(x \mid z) = N(x; \mu(z), s^2 I), \qquad \log p(x) \le -\tfrac{D}{2} \log 2 \pi s^2

    Args:
        decoder: maps z (..., L) to mu, shape (..., 1, D).
        latent_dim: L.
        scale: s, a standard deviation in the units of x.

    >>> model = FixedVariance(nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (1, 3))), latent_dim=2, scale=1.0)
    >>> model.likelihood(torch.zeros(5, 2)).variance.unique()
    tensor([1.])
    """

    outputs = 1

    def __init__(self, decoder: nn.Module, latent_dim: int, scale: float) -> None:
        super().__init__(decoder, latent_dim)
        self.scale = scale

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), s^2 I)."""
        (mean,) = self.decoder(z).unbind(-2)
        return dist.Normal(mean, torch.full_like(mean, self.scale)).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi s^2)."""
        return -features / 2 * math.log(2 * math.pi * self.scale**2)


class SharedVariance(VAE):
    r"""One learned variance for all features and latents.

    .. math:: p(x \mid z) = N(x; \mu(z), \sigma^2 I), \qquad
              \log \sigma = c + \mathrm{softplus}(s - c) \ge c \text{ with a soft clip } c, \text{ else } s

    No single datum can be collapsed onto any more, but a mean that passes through every datum, or data on a surface
    that the mean covers, still takes the likelihood to infinity as sigma vanishes. With the clip,
    log p(x) <= -(D/2) log(2 pi) - D c.

    Rybkin, Daniilidis & Levine (2021), sigma-VAE, https://arxiv.org/abs/2006.13202; Dai et al. (2018), Theorem 5,
    https://arxiv.org/abs/1706.05148

    Args:
        decoder: maps z (..., L) to mu, shape (..., 1, D).
        latent_dim: L.
        soft_clip: c, the smallest log sigma, in the units of x; None for no clip.

    >>> decoder = nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (1, 3)))
    >>> SharedVariance(decoder, latent_dim=2).likelihood(torch.zeros(5, 2)).variance.unique().numel()
    1
    """

    outputs = 1

    def __init__(self, decoder: nn.Module, latent_dim: int, soft_clip: float | None = None) -> None:
        super().__init__(decoder, latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.soft_clip = soft_clip

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), sigma^2 I)."""
        (mean,) = self.decoder(z).unbind(-2)
        return dist.Normal(mean, _soft_clipped(self.log_scale, self.soft_clip).exp().expand_as(mean)).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi) - D c, infinite without a clip."""
        return _clipped_bound(features, self.soft_clip)


class ColumnVariance(SharedVariance):
    r"""One learned variance for each column, whatever the latents: what is commonest in practice.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2), \qquad
              \log \sigma_j = c + \mathrm{softplus}(s_j - c) \ge c \text{ with a soft clip } c, \text{ else } s_j

    One column is enough for a collapse: where it takes few values, the mean can be each of them on a stretch of z, and
    its variance vanishes on all data at once. With the clip, log p(x) <= -(D/2) log(2 pi) - D c.

    As in TVAE, which keeps sigma above 0.01: Xu et al. (2019), https://arxiv.org/abs/1907.00503

    Args:
        decoder: maps z (..., L) to mu, shape (..., 1, D).
        latent_dim: L.
        features: D.
        soft_clip: c, the smallest log sigma, in the units of x; None for no clip.

    >>> decoder = nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (1, 3)))
    >>> ColumnVariance(decoder, latent_dim=2, features=3).likelihood(torch.zeros(5, 2)).variance.shape
    torch.Size([5, 3])
    """

    def __init__(self, decoder: nn.Module, latent_dim: int, features: int, soft_clip: float | None = None) -> None:
        super().__init__(decoder, latent_dim, soft_clip)
        self.log_scale = nn.Parameter(torch.zeros(features))


class OptimalVariance(VAE):
    r"""One variance, at every step the best there is for the batch.

    .. math:: p(x \mid z) = N(x; \mu(z), \sigma^2 I), \qquad
              \sigma^2 = \frac{1}{D} E_{x} E_{q(z \mid x)} \lVert x - \mu(z) \rVert^2

    In training the outer mean is over the batch; a density that is to score a datum must not depend on the data beside
    it, so :meth:`settle` fixes sigma to the mean over the training part, and that is what validation and scores use.

    Rybkin, Daniilidis & Levine (2021), optimal sigma-VAE, https://arxiv.org/abs/2006.13202

    Args:
        decoder: maps z (..., L) to mu, shape (..., 1, D).
        latent_dim: L.
        soft_clip: c, the smallest log sigma, in the units of x; None for no clip.
    """

    outputs = 1
    log_scale: Tensor

    def __init__(self, decoder: nn.Module, latent_dim: int, soft_clip: float | None = None) -> None:
        super().__init__(decoder, latent_dim)
        self.soft_clip = soft_clip
        self.register_buffer("log_scale", torch.zeros(()))

    def likelihood(self, z: Tensor, x: Tensor | None = None) -> dist.TorchDistribution:
        """N(mu(z), sigma^2 I), with the sigma that suits x best, or the one that was settled."""
        (mean,) = self.decoder(z).unbind(-2)
        log_scale = self.log_scale if x is None else _mean_square(x, mean).log() / 2
        return dist.Normal(mean, _soft_clipped(log_scale, self.soft_clip).exp().expand_as(mean)).to_event(1)

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents."""
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", self.likelihood(z, x if self.training else None), obs=x)

    @torch.no_grad()
    def settle(self, guide: Callable[[Tensor], None], x: Tensor) -> None:
        """Fix sigma to its best value for all of x, shape (N, D), at one draw of z for each datum."""
        total = x.new_zeros(())
        for rows in x.split(SETTLED_ROWS):
            z = poutine.trace(guide).get_trace(rows).nodes["z"]["value"]
            total = total + _residual(rows, self.decoder(z)[..., 0, :]).square().sum()
        self.log_scale.copy_((total / (~x.isnan()).sum()).log() / 2)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi) - D c, infinite without a clip."""
        return _clipped_bound(features, self.soft_clip)


class RatioVariance(VAE):
    r"""A learned diagonal covariance whose largest variance is at most c times its smallest, over features and latents.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2(z)), \qquad
              \sigma^2(z) = e^b c^{\,\mathrm{sigmoid}\, v(z)} \in (e^b, c\, e^b)

    One datum cannot be collapsed onto alone; as with one shared variance, all variances may still vanish together where
    the mean passes through every datum. The constraint is equivariant: it does not change with the units of x.

    After Hathaway (1985), https://doi.org/10.1214/aos/1176349557, whose constraint is on a mixture's components

    Args:
        decoder: maps z (..., L) to (mu, v), shape (..., 2, D).
        latent_dim: L.
        ratio: c.

    >>> decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3)))
    >>> variance = RatioVariance(decoder, latent_dim=2, ratio=9.0).likelihood(100 * torch.randn(50, 2)).variance
    >>> bool(variance.max() <= 9.001 * variance.min())
    True
    """

    outputs = 2

    def __init__(self, decoder: nn.Module, latent_dim: int, ratio: float) -> None:
        super().__init__(decoder, latent_dim)
        self.log_smallest = nn.Parameter(torch.tensor(-math.log(ratio) / 2))  # a variance of 1 in the middle
        self.ratio = ratio

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), diag e^b c^sigmoid(v(z)))."""
        mean, v = self.decoder(z).unbind(-2)
        log_variance = self.log_smallest + math.log(self.ratio) * v.sigmoid()
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)


class PenalizedVariance(LearnedVariance):
    r"""The learned variance under a standard normal prior on the decoder's weights and biases.

    .. math:: \log p(X, \theta) = \sum_i \log p(x_i \mid \theta) + \log N(\theta; 0, I)
              \le \tfrac{1}{8} D (H + 1) n^2 - \tfrac{1}{2} n D \log 2 \pi

    for a last hidden layer of H units in [-1, 1], such as tanh: a density grows at most linearly in the weights of the
    output layer, and its prior falls quadratically. Not so for units without a bound. The likelihood of the data alone
    is as unbounded as before.

    Kingma & Welling (2014), appendix C.2 and their weight decay, https://arxiv.org/abs/1312.6114

    Args:
        decoder: maps z (..., L) to (mu, log sigma^2), shape (..., 2, D).
        latent_dim: L.
    """

    rows: Tensor

    def __init__(self, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__(decoder, latent_dim)
        self.register_buffer("rows", torch.ones(()))

    def initialise(self, x: Tensor) -> None:
        """Learn how many data the one prior belongs to, from x, shape (N, D)."""
        self.rows.fill_(len(x))

    def log_prior(self) -> Tensor:
        """Log p(theta) per datum, without its constant: -|theta|^2 / 2n."""
        return -sum(p.square().sum() for p in self.decoder.parameters()) / (2 * self.rows)


def _residual(x: Tensor, mean: Tensor) -> Tensor:
    """What the mean is off, and 0 where x was not observed."""
    return torch.where(x.isnan(), mean, x) - mean


def _mean_square(x: Tensor, mean: Tensor) -> Tensor:
    """Over the entries of x that were observed."""
    return _residual(x, mean).square().sum() / (~x.isnan()).sum()


def _soft_clipped(log_scale: Tensor, clip: float | None) -> Tensor:
    return log_scale if clip is None else clip + nn.functional.softplus(log_scale - clip)


def _clipped_bound(features: int, clip: float | None) -> float:
    return math.inf if clip is None else -features * (math.log(2 * math.pi) / 2 + clip)
