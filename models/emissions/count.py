"""Emissions of counts: masses on 0, 1, 2, ... that add up to 1."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..gammas import log_rise
from .emission import MassEmission

__all__ = [
    "BetaBinomial",
    "ColumnNegativeBinomial",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "log_beta_binomial",
]

LARGEST = 25.0  # largest log rate: counts do not exceed 7e10, and single precision can still multiply it by counts
LEAST_EXCESS = 0.01  # least start of variance / mean - 1: a larger k has hardly any gradient
SHARES = 100  # shares of structural zeros tried as a start


class _Poisson(dist.Poisson):  # type: ignore[misc]
    """In double precision: for large counts the difference of two log gammas is rounding error in single precision."""

    def log_prob(self, value: Tensor) -> Tensor:
        rate, count = self.rate.double(), value.double()
        log_mass: Tensor = torch.xlogy(count, rate) - rate - (count + 1).lgamma()
        return log_mass.to(self.rate)


class _NegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    """Also in double precision."""

    def log_prob(self, value: Tensor) -> Tensor:
        size, count, logits = self.total_count.double(), value.double(), self.logits.double()
        chosen = log_rise(size, count) + count * size.log() - (count + 1).lgamma()
        spread = size * nn.functional.logsigmoid(-logits) + count * nn.functional.logsigmoid(logits)
        log_mass: Tensor = chosen + spread
        return log_mass.to(self.logits)


class _ZeroInflated(dist.ZeroInflatedDistribution):  # type: ignore[misc]
    """Avoids Pyro's differences of the gate's logits and of squared means, and its expand(), which fails for logits."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_ZeroInflated":
        return _ZeroInflated(self.base_dist.expand(batch_shape), gate_logits=self.gate_logits.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        gate, log_mass = self.gate_logits.double(), self.base_dist.log_prob(value).double()
        counted = nn.functional.logsigmoid(-gate) + log_mass
        either = torch.logaddexp(nn.functional.logsigmoid(gate), counted)
        return torch.where(value == 0, either, counted).to(self.gate_logits)

    @property
    def mean(self) -> Tensor:
        return (-self.gate_logits).sigmoid() * self.base_dist.mean  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        within, between = self.base_dist.variance, self.gate_logits.sigmoid() * self.base_dist.mean.square()
        return (-self.gate_logits).sigmoid() * (within + between)  # type: ignore[no-any-return]


class _BetaBinomial(dist.BetaBinomial):  # type: ignore[misc]
    """Also in double precision."""

    def log_prob(self, value: Tensor) -> Tensor:
        of_ones, of_zeros = self.concentration1.double(), self.concentration0.double()
        log_mass = log_beta_binomial(value.double(), self.total_count.double(), of_ones, of_zeros)
        return log_mass.to(self.concentration1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """By the logarithms of two gammas: torch's beta draws 1/2 if both concentrations are small."""
        shape = self._extended_shape(torch.Size(sample_shape))
        first, second = (
            # a gamma of a is one of a + 1 times u^(1/a)
            (dist.Gamma(a + 1, 1.0).sample().log() - dist.Exponential(a).sample())
            for a in (part.double().expand(shape) for part in (self.concentration1, self.concentration0))
        )
        drawn = torch.binomial(self.total_count.double().expand(shape), (first - second).sigmoid())
        return drawn.to(self.concentration1)


def log_beta_binomial(x: Tensor, total: Tensor, of_ones: Tensor, of_zeros: Tensor) -> Tensor:
    """The log mass that a beta-binomial gives x out of a total: the binomial's, and what is more at the ends."""
    ones, zeros = x.clamp(min=0).minimum(total), (total - x).clamp(min=0).minimum(total)
    choices = (total + 1).lgamma() - (ones + 1).lgamma() - (zeros + 1).lgamma()
    binomial = choices - ones * (of_zeros / of_ones).log1p() - zeros * (of_ones / of_zeros).log1p()
    spread = log_rise(of_ones, ones) + log_rise(of_zeros, zeros) - log_rise(of_ones + of_zeros, total)
    # above 0 only by rounding, for totals of a million
    return torch.where((x < 0) | (x > total), -torch.inf, (binomial + spread).clamp(max=0.0))


class Poisson(MassEmission):
    r"""Poisson counts.

    .. math:: P(x_j \mid z) = e^{-\lambda_j} \lambda_j^{x_j} / x_j!, \qquad \log \lambda_j = r_j

    >>> import torch
    >>> mass = Poisson()(torch.full((1, 1), 0.7)).log_prob(torch.arange(100.0)[:, None]).exp()
    >>> round(float(mass.sum()), 6)
    1.0
    """

    outputs = 1

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From r, (..., 1, d)."""
        (log_rate,) = parameters.unbind(-2)
        return _Poisson(log_rate.clamp(-LARGEST, LARGEST).exp())

    def start(self, x: Tensor) -> Tensor:
        """The log of the mean."""
        mean, _ = _moments(x)
        return mean.log()[None].to(x)


class NegativeBinomial(MassEmission):
    r"""Overdispersed counts: a Poisson whose rate is gamma-distributed around a mean.

    .. math:: P(x_j \mid z) = \frac{\Gamma(x_j + k_j)}{\Gamma(k_j) \, x_j!}
              \left(\frac{k_j}{k_j + \mu_j}\right)^{k_j} \left(\frac{\mu_j}{k_j + \mu_j}\right)^{x_j}, \qquad
              \log \mu_j = r_j, \quad \log k_j = s_j

    The variance is mu + mu^2 / k. Lopez et al. (2018), scVI, https://doi.org/10.1038/s41592-018-0229-2

    >>> fn = NegativeBinomial()(torch.tensor([[3.0], [1.0]]).log())
    >>> round(float(fn.mean), 4), round(float(fn.variance), 4)
    (3.0, 12.0)
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (r, s), (..., 2, d)."""
        log_mean, log_size = parameters.unbind(-2)
        return _negative_binomial(log_mean, log_size)

    def start(self, x: Tensor) -> Tensor:
        """The mean of x, and the k that gives the variance of x, if it exceeds the mean."""
        mean, variance = _moments(x)
        size = mean / (variance / mean - 1).clamp(min=LEAST_EXCESS)
        return torch.stack([mean, size]).log().to(x)


class ColumnNegativeBinomial(NegativeBinomial):
    r"""The negative binomial with one learned dispersion per column, independent of z.

    .. math:: P(x_j \mid z) = \mathrm{NB}(x_j; \mu_j, k_j), \qquad \log \mu_j = r_j

    Lopez et al. (2018), scVI, https://doi.org/10.1038/s41592-018-0229-2, whose code has it by default.

    Args:
        columns: d.

    >>> ColumnNegativeBinomial(3)(torch.zeros(1, 3)).variance.tolist()
    [2.0, 2.0, 2.0]
    """

    outputs = 1

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.log_size = nn.Parameter(torch.zeros(columns))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From r, (..., 1, d)."""
        (log_mean,) = parameters.unbind(-2)
        return _negative_binomial(log_mean, self.log_size.expand_as(log_mean))

    def start(self, x: Tensor) -> Tensor:
        """The mean of x; also sets k, which is not an output."""
        log_mean, log_size = super().start(x).unbind()
        with torch.no_grad():
            self.log_size.copy_(log_size)
        return log_mean[None]


class ZeroInflatedNegativeBinomial(MassEmission):
    r"""A negative binomial with extra zeros.

    .. math:: P(x_j \mid z) = \pi_j [x_j = 0] + (1 - \pi_j) \, \mathrm{NB}(x_j; \mu_j, k_j), \qquad
              \log \mu_j = r_j, \quad \log k_j = s_j, \quad \mathrm{logit} \, \pi_j = g_j

    Lopez et al. (2018), scVI, https://doi.org/10.1038/s41592-018-0229-2

    >>> fn = ZeroInflatedNegativeBinomial()(torch.zeros(3, 1))
    >>> float(fn.log_prob(torch.zeros(1)).exp()), float(fn.mean)
    (0.75, 0.5)
    """

    outputs = 3

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (r, s, g), (..., 3, d)."""
        log_mean, log_size, gate = parameters.unbind(-2)
        return _ZeroInflated(_negative_binomial(log_mean, log_size), gate_logits=gate)

    def start(self, x: Tensor) -> Tensor:
        """Among shares of zeros that match the mean and variance of x, the one whose P(0) is closest to x's."""
        mean, variance = _moments(x)
        gate = ((torch.arange(SHARES).to(mean) + 0.5) / SHARES)[:, None]
        of_rest = mean / (1 - gate)
        # of variance / mean - 1, pi mu comes from the zeros, the rest is mu / k
        size = of_rest / (variance / mean - 1 - gate * of_rest).clamp(min=LEAST_EXCESS)
        zero = gate + (1 - gate) * (-size * (of_rest / size).log1p()).exp()
        zeros = (x == 0).sum(0) / (~x.isnan()).sum(0)
        nearest = (zero - zeros).abs().argmin(0, keepdim=True)
        rows = [of_rest.log(), size.log(), gate.logit().expand_as(size)]
        return torch.cat([row.gather(0, nearest) for row in rows]).to(x)


class BetaBinomial(MassEmission):
    r"""Overdispersed counts out of a known total: their probability is beta-distributed.

    .. math:: P(x_j \mid z) = \binom{n_j}{x_j}
              \frac{B(x_j + \kappa_j m_j, \; n_j - x_j + \kappa_j (1 - m_j))}{B(\kappa_j m_j, \; \kappa_j (1 - m_j))},
              \qquad m_j = \mathrm{sigmoid}\, a_j, \quad \log \kappa_j = b_j

    The mean is n m, the variance n m (1 - m) (n + kappa) / (1 + kappa): a binomial's where kappa is infinite; where it
    is 0 there are only 0 and n. Skellam (1948), Journal of the Royal Statistical Society B 10, 257-261;
    https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.betabinom.html

    Args:
        total: n, for all columns or (d,).

    >>> emission = BetaBinomial(10)
    >>> round(float(emission(torch.zeros(2, 1)).log_prob(torch.arange(11.0)[:, None]).exp().sum()), 6)
    1.0
    """

    outputs = 2
    total: Tensor

    def __init__(self, total: int | Tensor) -> None:
        super().__init__()
        self.register_buffer("total", torch.as_tensor(total, dtype=torch.get_default_dtype()))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (a, b), (..., 2, d)."""
        # this far out a probability is within 1e-11 of 0 or 1, and single precision can hold the concentration
        a, b = parameters.clamp(-LARGEST, LARGEST).unbind(-2)
        return _BetaBinomial(b.exp() * a.sigmoid(), b.exp() * (-a).sigmoid(), self.total)

    def start(self, x: Tensor) -> Tensor:
        """The mean of x, and the kappa that gives the variance of x, if there is one."""
        mean, variance = _moments(x)
        total = self.total.to(mean)
        least = 0.5 / len(x) / total
        m = (mean / total).clamp(least, 1 - least)
        # 1 / (1 + kappa): the correlation of two trials of a total
        alike = (variance / (total * m * (1 - m)) - 1) / (total - 1).clamp(min=1)
        return torch.stack([m.logit(), -alike.clamp(LEAST_EXCESS, 1 - LEAST_EXCESS).logit()]).to(x)


def _negative_binomial(log_mean: Tensor, log_size: Tensor) -> _NegativeBinomial:
    log_mean, log_size = log_mean.clamp(-LARGEST, LARGEST), log_size.clamp(-LARGEST, LARGEST)
    return _NegativeBinomial(log_size.exp(), logits=log_mean - log_size)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the columns of x (N, d), for all zeros those of half a count; gaps are left out."""
    x = x.double()
    mean = x.nanmean(0)
    return mean.clamp(min=0.5 / len(x)), (x - mean).square().nanmean(0)
