"""The exact posterior over a discrete latent."""

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor, nn

__all__ = ["ExactPosterior"]


class ExactPosterior(nn.Module):
    r"""Bayes' rule by enumeration, for a model with one enumerated latent named ``component``.

    .. math:: q(c \mid x) = \frac{p(x, c)}{\sum_{c'} p(x, c')}

    The ELBO under this guide is the evidence log p(x) itself, and the guide has no parameters of its own.

    Args:
        model: a Pyro model p(x, component) with every site inside one data plate.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def of(self, model: nn.Module) -> "ExactPosterior":
        """The same for another model, of which it has all that it knows."""
        return ExactPosterior(model)

    def forward(self, x: Tensor) -> None:
        """Declare q(component | x) for x of shape (B, D)."""
        with poutine.block(), poutine.enum(first_available_dim=-2):
            trace = poutine.trace(self.model).get_trace(x)
        trace.compute_log_prob()
        log_joint = trace.nodes["component"]["log_prob"] + trace.nodes["x"]["log_prob"]
        with pyro.plate("data", len(x), dim=-1):
            posterior = dist.Categorical(logits=log_joint.mT)
            pyro.sample("component", posterior, infer={"enumerate": "parallel"})
