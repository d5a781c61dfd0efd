"""Bounds on the evidence that are tighter than the ELBO, by importance weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import pyro
from annotated_types import Ge, Le
from torch import Tensor

from zoo.objectives.lower_bound import Program, Terms, latent_sites, plain_log_prob, terms, traces

__all__ = ["MIWAE"]


@dataclass(frozen=True)
class MIWAE:
    r"""The importance-weighted bound on the evidence of what was observed; with nothing missing, that of the IWAE.

    .. math:: E_{z_1, \dots, z_K \sim q(z \mid x_o)}
              \log \frac{1}{K} \sum_k \frac{p(x_o \mid z_k) \, p(z_k)}{q(z_k \mid x_o)}

    At least the ELBO, which it is for K = 1, and the closer to the evidence the larger K is. The terms named after the
    ELBO are those of the mean draw. Mattei & Frellsen (2019), https://arxiv.org/abs/1812.02633; Burda, Grosse &
    Salakhutdinov (2016), https://arxiv.org/abs/1509.00519

    Args:
        samples: K.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 20

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Terms:
        """The bound of a batch x, (B, D)."""
        with pyro.plate("samples", self.samples, dim=-2):
            p, q = traces(model, guide, x, plates=2)
        of_elbo = terms(p, q, self.samples * len(x))
        drawn, latents = latent_sites(q, enumerated=False), latent_sites(q)
        log_w: Any = sum(plain_log_prob(p.nodes[name]) for name in ("x", *latents))
        log_w = log_w - sum(plain_log_prob(q.nodes[name]) for name in drawn)
        # the values of an enumerated latent are in dimensions left of K
        log_w = log_w.expand(*log_w.shape[:-2], self.samples, len(x)).reshape(-1, self.samples, len(x)).logsumexp(0)
        bound = (log_w.logsumexp(0) - math.log(self.samples)).mean()
        return of_elbo._replace(extra=of_elbo.extra + bound - of_elbo.elbo)
