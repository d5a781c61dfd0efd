"""What guides, priors and objectives are for, measured where the truth is known.

python scripts/parts.py

1. A posterior that is a ring, and one of two bumps: how much of what independent normals lose each guide gets back.
   The approximation gap is the report's; log p(x) is by quadrature; draws are held against the posterior's own, as
   are those of NUTS.
2. Digits as zeros and ones under each prior: held-out evidence.
3. A linear model under a guide that is too wide: the importance-weighted bound beside the evidence, and the noise of
   its gradient by each of two rules.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
import typer
from torch import Tensor, nn

import zoo
from zoo.context import Stream, pyro_context, seeded
from zoo.evaluation.reference import nuts
from zoo.evaluation.spread import squared_mmd
from zoo.inference import posterior_draws
from zoo.latents import REAL
from zoo.models import VAE
from zoo.objectives import IWAE
from zoo.pairs import VAEOptions, guide

NOISE = 0.2
ROWS, NUTS_ROWS, GRID = 400, 6, 801
GUIDES = {
    "ring": ("mean-field", "full-rank", "mixture[components=64]", "iaf", "spline"),
    "bumps": ("mean-field", "full-rank", "mixture[components=16]", "iaf", "spline[bins=16]"),
}
NORMAL = ("mean-field", "full-rank")
SEEN = {"ring": [2.0], "bumps": [1.0, 0.5]}
PRIORS = ("normal", "mixture[components=50]", "vamp[components=50]", "flow")


class Curved(VAE):
    """N(x; f(z), 0.2² I) for an f that is given, not learned."""

    def __init__(self, curve: Any) -> None:
        super().__init__(nn.Identity(), 2)
        self.curve = curve

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z)."""
        return dist.Normal(self.curve(z), NOISE).to_event(1)


def ring(z: Tensor) -> Tensor:
    """The squared length: all z of one length explain it."""
    return z.square().sum(-1, keepdim=True)


def bumps(z: Tensor) -> Tensor:
    """The square of the first, which hides its sign, and the second."""
    return torch.stack([z[..., 0].square(), z[..., 1]], dim=-1)


def register(name: str, curve: Any) -> None:
    """A pair whose posterior has the shape of its name."""

    @zoo.register(
        name,
        title=name,
        summary=f"A posterior of the shape {name}.",
        formula="p(x|z) = N(x; f(z), 0.04 I)",
        support="real",
        bounded=True,
        bound="-(D/2) log(0.08 π)",
        reference="None",
    )
    def build(data: zoo.Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
        return Curved(curve), guide(data, options)


def joint(curve: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Points of a square grid of z (M, 2), and log p(x, z) there for each datum, (N, M), in units of a cell."""
    line = torch.linspace(-6, 6, GRID, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    cell = 2 * math.log(float(line[1] - line[0]))
    prior, means = dist.Normal(0.0, 1.0).log_prob(z).sum(-1), curve(z)
    return z, torch.stack([prior + dist.Normal(means, NOISE).log_prob(row).sum(-1) + cell for row in x])


def shaped(name: str, curve: Any, steps: int, seeds: int) -> pd.DataFrame:
    """What each guide loses on a posterior of some shape."""
    register(name, curve)
    with seeded(0):  # data that all have a posterior of this shape
        x = torch.tensor(SEEN[name]) + NOISE * torch.randn(ROWS, len(SEEN[name]))
    data = zoo.Data.from_array(x.double().numpy(), name=name, support="real", scaling="none", resolution=None)
    test = torch.as_tensor(data.test.values)
    grid, densities = joint(curve, test)
    exact, rows, lost = densities.logsumexp(1).numpy(), [], math.nan
    with pyro_context(), seeded(1):
        truth = grid[torch.multinomial(densities[:NUTS_ROWS].softmax(1), 1000, replacement=True)]
        chains = torch.as_tensor(nuts(Curved(curve).double(), test[:NUTS_ROWS]).z).flatten(0, 1)[::2].swapaxes(0, 1)

    def off(draws: Tensor) -> float:
        """The squared MMD between draws (NUTS_ROWS, K, 2) and draws of the posterior, averaged over rows."""
        pairs = zip(draws.double(), truth, strict=True)
        return float(np.mean([float(squared_mmd(one, other, torch.tensor(0.5))) for one, other in pairs]))

    for text in GUIDES[name]:
        pair = zoo.create(name, data, guide=text, latent_dim=2, hidden=(64,))
        # normals settle on a part of it, and do so best at once; the others find all of it if they start from the prior
        how: dict[str, Any] = {} if text in NORMAL else {"objective": "tempered", "warmup": int(0.8 * steps)}
        how |= {"learning_rate": 5e-3 if "mixture" in text else 2e-3, "keep": "last"}
        run = zoo.fit(pair, data, seeds=seeds, steps=steps, progress=False, **how)
        tree = zoo.evaluate(run, data, samples=500, temperatures=0)
        gaps = tree["spread"].to_dataset()
        optimal, elbo = gaps["elbo_optimal"].values, gaps["elbo"].values
        approximation = float((exact[: optimal.shape[1]] - optimal).mean())
        lost = approximation if text == "mean-field" else lost
        draws = run.each_seed(
            lambda model, q: posterior_draws(model, q, test[:NUTS_ROWS].float(), 1000).latents[REAL], Stream.POSTERIOR
        )
        rows.append(
            {
                "posterior": name,
                "guide": text,
                "approximation gap": approximation,
                "closed": 1 - approximation / lost,
                "amortisation gap": float((optimal - elbo).mean()),
                "evidence (importance), off by": float((tree["heldout/log_evidence"].values - exact).mean()),
                "MMD²": float(np.mean([off(one.swapaxes(0, 1)) for one in draws])),
            }
        )
        print(rows[-1], flush=True)
    rows.append({"posterior": name, "guide": "(NUTS, 4 chains of 200 + 400)", "MMD²": off(chains)})
    return pd.DataFrame(rows)


def priors(steps: int, seeds: int) -> pd.DataFrame:
    """Held-out evidence of digits under each prior."""
    data, rows = zoo.load_data("mnist-5k", binarize="threshold"), []
    for text in PRIORS:
        pair = zoo.create(f"bernoulli[prior={text}]", data, latent_dim=10, hidden=(256,), activation="relu")
        run = zoo.fit(pair, data, seeds=seeds, steps=steps, learning_rate=1e-3, progress=False)
        scores = run.log_evidence(data.test.values, samples=500).mean(1)
        rows.append({"prior": text, "log evidence": scores.mean(), "sd over seeds": scores.std(ddof=1)})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Wide:
    """Probabilistic PCA and a guide whose scales are too large by a factor."""

    pair: zoo.Pair
    x: Tensor

    @classmethod
    def made(cls, factor: float) -> "Wide":
        """On simulated data, in double precision, its means where they should be."""
        from zoo.testing import make_subject

        subject = make_subject("linear-shared:linear", latent_dim=2)
        model: Any = subject.pair.model
        q: Any = subject.pair.guide
        with torch.no_grad(), seeded(3):
            mean, scale_tril = model.posterior(subject.x)
            fitted = np.linalg.lstsq(np.column_stack([subject.x, np.ones(len(subject.x))]), mean, rcond=None)[0]
            q.mean.weight.copy_(torch.as_tensor(fitted[:-1].T))
            q.mean.bias.copy_(torch.as_tensor(fitted[-1]))
            q.log_diagonal.copy_((factor * scale_tril.diagonal()).log())
        return cls(subject.pair, subject.x)

    def noise(self, objective: IWAE, draws: int) -> float:
        """The variance of the gradient of the guide, summed over its parameters."""
        found = []
        for seed in range(draws):
            with seeded(seed), pyro_context():
                value = objective(self.pair.model, self.pair.guide, self.x).value
            of_guide = torch.autograd.grad(value, list(self.pair.guide.parameters()))
            found.append(torch.cat([g.flatten() for g in of_guide]))
        return float(torch.stack(found).var(0).sum())


def bounds(draws: int) -> pd.DataFrame:
    """The importance-weighted bound against the evidence, and the noise of its gradient."""
    made, rows = Wide.made(1.4), []
    model: Any = made.pair.model
    exact = model.log_evidence(made.x).mean().item()
    for samples in (1, 5, 50, 5000):
        values = []
        for seed in range(max(20, draws // samples)):
            with seeded(seed), pyro_context(), torch.no_grad():
                values.append(-IWAE(samples)(made.pair.model, made.pair.guide, made.x).value.item())
        of_gradient = {}
        if 1 < samples < 5000:
            of_gradient = {rule: made.noise(IWAE(samples, gradient=rule), draws) for rule in ("total", "dreg")}
        error = np.std(values) / math.sqrt(len(values))
        rows.append({"K": samples, "bound": np.mean(values), "se": error, "evidence": exact, **of_gradient})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main(steps: int = 4000, seeds: int = 3, draws: int = 1000) -> None:
    shapes = [shaped("ring", ring, steps, seeds), shaped("bumps", bumps, steps, seeds)]
    for table in (*shapes, priors(steps, seeds), bounds(draws)):
        print("\n" + table.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
