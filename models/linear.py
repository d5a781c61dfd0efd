"""Linear Gaussian latent-variable models, with evidence and posterior in closed form."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .vae import VAE

__all__ = ["FactorAnalysis", "LinearGaussian", "ProbabilisticPCA"]


class LinearGaussian(VAE):
    r"""A decoder linear in z, with variances that do not depend on z.

    .. math:: p(x \mid z) = N(x; W z + b, \Psi), \qquad p(x) = N(x; b, W W' + \Psi), \qquad
              p(z \mid x) = N(z; M^{-1} W' \Psi^{-1} (x - b), M^{-1}), \quad M = I + W' \Psi^{-1} W

    A subclass chooses Psi. Tipping & Bishop (1999), https://doi.org/10.1111/1467-9868.00196

    Args:
        features: D.
        latent_dim: L.
        variances: D for a variance per feature, 1 for a shared one.
    """

    decoder: nn.Linear

    def __init__(self, features: int, latent_dim: int, variances: int) -> None:
        super().__init__(nn.Linear(latent_dim, features), latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(variances))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start b at the mean of x, shape (N, D), Psi at its variances (1 for a constant column), W in their units.

        A narrow column whose row of W started at size one would be far from the maximum even after thousands of steps.
        """
        varies = x.amax(0) > x.amin(0)  # rounding gives a constant column a variance
        variance = x.var(0, correction=0) * varies
        if len(self.log_scale) == 1:
            variance = variance.mean(0, keepdim=True)
        scale = torch.where(variance > 0, variance, 1.0).sqrt()
        self.decoder.bias.copy_(x.mean(0))
        self.decoder.weight.mul_(scale[:, None])
        self.log_scale.copy_(scale.log())

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(W z + b, Psi)."""
        mean = self.decoder(z)
        return dist.Normal(mean, self.log_scale.exp().expand_as(mean)).to_event(1)

    def log_evidence(self, x: Tensor, columns: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        r"""Log N(x; b, W W' + Psi), exact, in double precision.

        .. math:: -\tfrac{1}{2} \left[ D \log 2 \pi + \log |\Psi| + \log |M| + |m|^2
                  + |\Psi^{-1/2} (x - b - W m)|^2 \right], \qquad m = E[z \mid x]

        Woodbury's formula takes a difference; this is a sum, minimal at m, so a rounding error in m enters only
        squared.

        Args:
            x: data, shape (B, D).
            columns: indices of the columns whose marginal evidence to compute; None for all.
            observed: which entries are observed, (B, D); the others are integrated out. None for all.

        Returns:
            Nats per datum, shape (B,).
        """
        weight, residual, log_scale = self._standardized(x, columns)
        if observed is not None:
            return _log_evidence_of_some(weight, residual, log_scale, _of(observed, columns))
        mean, inverse = _posterior(weight, residual)
        square = (residual - mean @ weight.mT).square().sum(-1) + mean.square().sum(-1)
        log_determinant = 2 * log_scale.sum() - 2 * inverse.diagonal().log().sum()
        return -(log_scale.numel() * math.log(2 * math.pi) + log_determinant + square) / 2

    def posterior(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (B, L) of p(z | x) for x of shape (B, D), and the Cholesky factor (L, L) of its covariance.

        If only some entries are ``observed`` (B, D), each datum has its own factor, (B, L, L).
        """
        weight, residual, _ = self._standardized(x)
        if observed is None:
            mean, scale_tril = _posterior(weight, residual)
        else:
            mean, scale_tril = _posterior_of_some(weight, residual * observed, observed)
        return mean.to(x.dtype), scale_tril.to(x.dtype)

    def _standardized(self, x: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Psi^-1/2 W (D, L), Psi^-1/2 (x - b) (B, D) and log Psi^1/2 (D,), of some columns, in double precision."""
        weight, bias = self.decoder.weight.double(), self.decoder.bias.double()
        x, log_scale = x.double(), self.log_scale.double().expand_as(bias)
        if columns is not None:
            weight, bias, x, log_scale = weight[columns], bias[columns], x[..., columns], log_scale[columns]
        return weight / log_scale.exp()[:, None], (x - bias) / log_scale.exp(), log_scale


class ProbabilisticPCA(LinearGaussian):
    r"""One variance for all features: probabilistic principal component analysis.

    .. math:: p(x \mid z) = N(x; W z + b, \sigma^2 I)

    At the maximum W spans the leading L eigenvectors of the sample covariance, and sigma^2 is the mean of the other
    eigenvalues; the ELBO adds no local maxima of its own. The likelihood is bounded unless the data lie in a proper
    affine subspace of at most L dimensions, which W can span while sigma vanishes.

    Tipping & Bishop (1999), https://doi.org/10.1111/1467-9868.00196; Lucas et al. (2019), Don't Blame the ELBO!,
    https://arxiv.org/abs/1911.02469

    Args:
        features: D.
        latent_dim: L.

    >>> model = ProbabilisticPCA(features=3, latent_dim=2)
    >>> model.log_evidence(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim, 1)


class FactorAnalysis(LinearGaussian):
    r"""A variance for each feature: factor analysis.

    .. math:: p(x \mid z) = N(x; W z + b, \mathrm{diag}\, \psi)

    The likelihood is bounded unless at most L + 1 features are affinely dependent on the data (a constant feature is by
    itself): the factors can then carry them without error, and their variances vanish together. (A null vector of
    W W' + Psi lives on features with variance 0, and some null vector on at most L + 1 of them; the density of data it
    does not annihilate vanishes.) Even if it is bounded, the maximum is often at a variance of 0, a Heywood case.

    Jöreskog (1967), Some Contributions to Maximum Likelihood Factor Analysis, https://doi.org/10.1007/BF02289658

    Args:
        features: D.
        latent_dim: L.

    >>> model = FactorAnalysis(features=3, latent_dim=2)
    >>> mean, scale_tril = model.posterior(torch.zeros(5, 3))
    >>> mean.shape, scale_tril.shape
    (torch.Size([5, 2]), torch.Size([2, 2]))
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim, features)


def _posterior(weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of M^-1, for A = Psi^-1/2 W and standardised residuals: M = I + A'A."""
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    # M = U U' with U upper triangular, so that its inverse, M^-1 = (U^-1)' U^-1, has a lower triangular factor
    flipped, failed = torch.linalg.cholesky_ex((identity + weight.mT @ weight).flip(0, 1))
    # one seed's failure must be that seed's NaN, not an exception for all
    upper = flipped.flip(0, 1).masked_fill(failed > 0, math.nan)
    scale_tril = torch.linalg.solve_triangular(upper, identity, upper=True).mT
    return residual @ weight @ scale_tril @ scale_tril.mT, scale_tril


def _of(observed: Tensor, columns: Tensor | None) -> Tensor:
    return observed if columns is None else observed[..., columns]


def _posterior_of_some(weight: Tensor, residual: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, L) and factors (B, L, L) given the observed entries (B, D), with the other residuals 0."""
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    precision = identity + torch.einsum("bd,dk,dl->bkl", observed.to(weight), weight, weight)
    flipped, failed = torch.linalg.cholesky_ex(precision.flip(-2, -1))
    upper = flipped.flip(-2, -1).masked_fill((failed > 0)[..., None, None], math.nan)
    scale_tril = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True).mT
    return (scale_tril @ (scale_tril.mT @ (residual @ weight)[..., None]))[..., 0], scale_tril


def _log_evidence_of_some(weight: Tensor, residual: Tensor, log_scale: Tensor, observed: Tensor) -> Tensor:
    """The evidence of the observed entries, (B, D), from their rows of W and their variances."""
    part = observed.to(weight)
    mean, scale_tril = _posterior_of_some(weight, residual * part, observed)
    square = ((residual - mean @ weight.mT) * part).square().sum(-1) + mean.square().sum(-1)
    log_determinant = 2 * (part * log_scale).sum(-1) - 2 * scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -(part.sum(-1) * math.log(2 * math.pi) + log_determinant + square) / 2
