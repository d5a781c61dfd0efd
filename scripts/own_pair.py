"""Your own pair: a soft Laplace decoder, checked by the kit and compared with two pairs of the catalogue.

python scripts/own_pair.py digits own
zoo compare soft-laplace gaussian-constrained --data digits --out own --plugin scripts/own_pair.py
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pyro.distributions as dist
import typer
from torch import Tensor, nn

import zoo
from zoo.models import Emission
from zoo.pairs import VAEOptions, vae


@dataclass(frozen=True)
class SoftLaplaceOptions(VAEOptions):
    """``smallest`` is the smallest s allowed, in scaled units."""

    smallest: float = 0.1


class SoftLaplace(Emission):
    """p(xⱼ | z) = sech((xⱼ - mⱼ) / sⱼ) / (π sⱼ), with sⱼ = smallest + exp vⱼ: a Laplace with a round top."""

    outputs = 2  # numbers that the decoder gives for each column

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From m and v, (..., 2, d)."""
        location, v = parameters.unbind(-2)
        return dist.SoftLaplace(location, self.smallest + v.exp())

    def log_density_bound(self) -> float:
        """-log(π smallest), of one column."""
        return -math.log(math.pi * self.smallest)


@zoo.register(
    "soft-laplace",
    title="Soft Laplace, s ≥ smallest",
    summary="Nearly absolute instead of squared error: single wild values cost less.",
    formula="p(x|z) = ∏ⱼ sech((xⱼ - mⱼ(z))/sⱼ(z)) / πsⱼ(z),  s(z) = smallest + exp v(z)",
    support="real",
    bounded=True,
    bound="-D log(π smallest)",
    base_measure="density",  # of counts and levels: "mass"
    reference="Pyro contributors, pyro.distributions.SoftLaplace",
)
def soft_laplace(data: zoo.Data, options: SoftLaplaceOptions) -> tuple[nn.Module, nn.Module]:
    return vae(data, options, SoftLaplace(options.smallest))


def main(source: str, out: Path, steps: int = 2000, seeds: int = 4) -> None:
    zoo.testing.check_pair("soft-laplace")

    data = zoo.load_data(source)
    runs = []
    for name in ["soft-laplace", "gaussian-constrained", "gaussian-identity"]:
        run = zoo.fit(zoo.create(name, data), data, seeds=seeds, steps=steps)
        zoo.evaluate(run, data)
        runs.append(run)
    print(zoo.compare(runs)[["rank", "log_evidence", "se", "difference", "verdict"]])
    print(zoo.report(runs, out))


if __name__ == "__main__":
    typer.run(main)
