"""A pair of one's own: a Laplace decoder, checked by the kit and compared with two pairs of the catalogue.

python scripts/own_pair.py digits own
zoo compare laplace gaussian-constrained --data digits --out own --plugin scripts/own_pair.py
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pyro.distributions as dist
import typer
from torch import Tensor, nn

import zoo
from zoo.models import VAE
from zoo.pairs import VAEOptions, decoder, guide


@dataclass(frozen=True)
class LaplaceOptions(VAEOptions):
    """``smallest`` is the smallest b allowed, in scaled units."""

    smallest: float = 0.1


class LaplaceDecoder(VAE):
    """p(x | z) = ∏ⱼ exp(-|xⱼ - μⱼ(z)| / bⱼ(z)) / (2 bⱼ(z)), with b(z) = smallest + exp v(z)."""

    outputs = 2

    def __init__(self, decoder: nn.Module, options: LaplaceOptions) -> None:
        super().__init__(decoder, options.latent_dim)
        self.smallest = options.smallest

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """Independent Laplace distributions, heavier in the tails than normal ones."""
        median, v = self.decoder(z).unbind(-2)
        return dist.Laplace(median, self.smallest + v.exp()).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-D log(2 smallest)."""
        return -features * math.log(2 * self.smallest)


@zoo.register(
    "laplace",
    title="Laplace, b ≥ smallest",
    summary="Absolute instead of squared error: single wild values cost less.",
    formula="p(x|z) = ∏ⱼ Laplace(xⱼ; μⱼ(z), bⱼ(z)),  b(z) = smallest + exp v(z)",
    support="real",
    bounded=True,
    bound="-D log(2 smallest)",
    base_measure="density",  # of counts and levels: "mass"
    reference="Laplace (1774), Mémoire sur la probabilité des causes par les évènements",
)
def laplace(data: zoo.Data, options: LaplaceOptions) -> tuple[nn.Module, nn.Module]:
    network = decoder(data, options, LaplaceDecoder.outputs)
    return LaplaceDecoder(network, options), guide(data, options)


def main(source: str, out: Path, steps: int = 2000, seeds: int = 4) -> None:
    zoo.testing.check_pair("laplace")

    data = zoo.load_data(source)
    runs = []
    for name in ["laplace", "gaussian-constrained", "gaussian-identity"]:
        run = zoo.fit(zoo.create(name, data), data, seeds=seeds, steps=steps)
        zoo.evaluate(run, data)
        runs.append(run)
    print(zoo.compare(runs)[["rank", "log_evidence", "se", "difference", "verdict"]])
    print(zoo.report(runs, out))


if __name__ == "__main__":
    typer.run(main)
