"""The exact posterior over a discrete latent, alone or together with a sampled z."""

from typing import Any

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor, nn

__all__ = ["ExactPosterior", "WithComponent"]


class ExactPosterior(nn.Module):
    r"""Bayes' rule by enumeration, for a model with one enumerated latent named ``component``.

    .. math:: q(c \mid x) = \frac{p(x, c)}{\sum_{c'} p(x, c')}

    The ELBO under this guide is the evidence log p(x) itself, and the guide has no parameters.

    Args:
        model: a Pyro model p(x, component) with every site inside one data plate.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def of(self, model: nn.Module) -> "ExactPosterior":
        """The same guide for another model, which determines it completely."""
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


class WithComponent(nn.Module):
    r"""A guide of z, with the component of z by Bayes' rule.

    .. math:: q(z, c \mid x) = q(z \mid x) \; p(c \mid z), \qquad p(c \mid z) = p(c \mid x, z)

    This q(c | x, z) is exact: at every draw the ELBO equals that of z alone under the model with c summed out. The
    component has no parameters. It does not depend on what is put at site x, so it serves any lens.

    Jiang et al. (2017), section 3.2, https://arxiv.org/abs/1611.05148, whose q(c | x) is its mean over z.

    Args:
        guide: q(z | x), with the latent ``z`` inside one plate ``data``.
        model: p(x, z, c) with a method ``component_logits(z)``, log p(c | z) of shape (..., C) for z (..., L).
    """

    def __init__(self, guide: nn.Module, model: Any) -> None:
        super().__init__()
        self.guide, self.model = guide, model

    def forward(self, x: Tensor) -> None:
        """Declare q(z, component | x) for x of shape (B, D)."""
        with poutine.block(hide=["data"]):  # its plate is entered again below
            z = poutine.trace(self.guide).get_trace(x).nodes["z"]["value"]
        with pyro.plate("data", len(x), dim=-1):
            posterior = dist.Categorical(logits=self.model.component_logits(z))
            pyro.sample("component", posterior, infer={"enumerate": "parallel"})
