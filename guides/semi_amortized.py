"""A guide whose parameters an encoder proposes and a few steps up the datum's own ELBO improve."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from .amortized import Amortized

__all__ = ["SemiAmortized"]

SEED = 0x5EED
FIRST_ENUMERATED = -3  # left of every plate that may be open outside, so that an outer enumeration does not collide


class SemiAmortized(nn.Module):
    r"""An encoder's parameters for a datum, moved a few steps up the ELBO of that datum.

    .. math:: q(z \mid x) = \mathrm{distribution}(\lambda_T), \qquad \lambda_0 = \mathrm{encoder}(x), \qquad
              \lambda_{t+1} = \lambda_t + \eta_t \, u \odot \frac{g}{\sqrt{1 + g^2}}, \quad
              g = u \odot \nabla_\lambda \frac{1}{K} \sum_k \log \frac{p(x, z_k)}{q_\lambda(z_k)}, \quad
              \eta_t = \eta \, (1 - t / T)

    u are the family's ``units`` at lambda_t, such as the scale of q for its mean. So g is in nats however narrow q is.
    If g is small, a step follows the natural gradient; otherwise no number moves by more than eta units, so that a
    datum far from its optimum is not thrown further away. The gradient is only through the draws, which leaves no noise
    where q is the posterior (Roeder, Wu & Duvenaud 2017, https://arxiv.org/abs/1703.09194).
    Encoder and model are trained through the steps. Enumerated latents of the model are summed out.

    Outside a recorded step the noise of the T steps is the same at every call, so q is a function of x only.

    Kim et al. (2018), Semi-Amortized Variational Autoencoders, https://arxiv.org/abs/1802.02550

    Args:
        start: a guide with an encoder; for a mixture, whose draws have only first derivatives, the gradient through
            the steps leaves out a term.
        model: p(x, z), every site inside one data plate.
        steps: T.
        rate: eta, in units.
        draws: K, draws per step.

    Raises:
        ValueError: the model draws another latent.
    """

    def __init__(self, start: Amortized, model: nn.Module, steps: int, rate: float, draws: int = 4) -> None:
        super().__init__()
        self.start, self.model = start, model
        self.steps, self.rate, self.draws = steps, rate, draws

    def of(self, model: nn.Module) -> "SemiAmortized":
        """The same for another model, with the same encoder."""
        return SemiAmortized(self.start, model, self.steps, self.rate, self.draws)

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        numbers = self.numbers(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.distribution(numbers))

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """The member of the start's family with these parameters."""
        return self.start.distribution(numbers)

    def units(self, numbers: Tensor) -> Tensor:
        """The units of the start's family."""
        return self.start.units(numbers)

    def numbers(self, x: Tensor) -> Tensor:
        """Where the steps lead, (B, outputs, L), for x of shape (B, D)."""
        numbers = self.start.numbers(x)
        with _same_noise():
            for step in range(self.steps):
                units = self.start.units(numbers)
                slope: Tensor = units * torch.func.grad(self._elbo)(numbers, numbers, x)
                rate = self.rate * (1 - step / self.steps)
                numbers = numbers + rate * units * slope / (1 + slope.square()).sqrt()
        return numbers

    def _elbo(self, numbers: Tensor, of_density: Tensor, x: Tensor) -> Tensor:
        """The sum over data of the ELBO at draws from some parameters, (B, outputs, L), under the density of others."""
        z = self.start.distribution(numbers).rsample(torch.Size([self.draws]))
        log_density: Tensor = self.start.distribution(of_density).log_prob(z)
        return (self._log_joint(x, z) - log_density).sum() / self.draws

    def _log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x, z) for z of shape (K, B, L), (K, B)."""
        rows = x.expand(len(z), *x.shape).flatten(0, 1)  # no plate over K, since an outer plate may use its dimension
        given = poutine.condition(self.model, data={"z": z.flatten(0, 1)})
        with poutine.block(), poutine.enum(first_available_dim=FIRST_ENUMERATED):
            trace = poutine.trace(given).get_trace(rows)
        trace.compute_log_prob()
        drawn = [name for name in trace.stochastic_nodes if "_enumerate_dim" not in trace.nodes[name]["infer"]]
        drawn = [name for name in drawn if not poutine.util.site_is_subsample(trace.nodes[name])]
        if drawn:
            raise ValueError(f"a semi-amortized guide handles only z and enumerated latents, and {drawn[0]!r} is drawn")
        log_joint: Any = sum(trace.nodes[name]["log_prob"] for name in trace.nodes if "log_prob" in trace.nodes[name])
        summed: Tensor = log_joint.reshape(-1, len(rows)).logsumexp(0)
        return summed.reshape(z.shape[:-1])


@contextmanager
def _same_noise() -> Iterator[None]:
    """Draw the same numbers at every call, and restore the caller's random state."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(SEED)
        yield
