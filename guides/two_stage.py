"""The guide of a two-stage VAE."""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["TwoStageNormal"]


class TwoStageNormal(nn.Module):
    r"""Independent normals for the first stage's latents, and for the second stage's given the first's.

    .. math:: q(z, u \mid x) = N(z; m_1(x), \mathrm{diag}\, s_1^2(x)) \; N(u; m_2(z), \mathrm{diag}\, s_2^2(z))

    No gradient passes from u back to z: the second stage does not change the first.

    Dai & Wipf (2019), https://arxiv.org/abs/1903.05789

    Args:
        first: maps x (..., D) to (m_1, log s_1^2), shape (..., 2, L).
        second: maps z (..., L) to (m_2, log s_2^2), shape (..., 2, L).
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> None:
        """Declare q(z, u | x) for x of shape (B, D)."""
        with pyro.plate("data", len(x), dim=-1):
            mean, log_variance = self.first(x).unbind(-2)
            z = pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
            mean, log_variance = self.second(z.detach()).unbind(-2)
            pyro.sample("u", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
