"""Programs that several tests train or score, and ways to break them."""

import pyro
import pyro.distributions as dist
from torch import nn

from zoo.engine import Engine


class Perturbed(nn.Module):
    """The exact posterior with its deviations multiplied and its mean moved by so many of them."""

    def __init__(self, model, spread=1.0, shift=0.0):
        super().__init__()
        self.model, self.spread, self.shift = model, spread, shift

    def forward(self, x):
        mean, scale_tril = self.model.posterior(x)
        mean = mean + self.shift * scale_tril.square().sum(1).sqrt()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=self.spread * scale_tril))


def score_quickly(monkeypatch):
    """A few steps towards the best guide and up each path, for tests that ask of a score only that it is there."""
    monkeypatch.setattr("zoo.evaluation.inference_gaps.STEPS", 10)
    monkeypatch.setattr("zoo.evaluation.inference_gaps.ELBO_DRAWS", 100)
    monkeypatch.setattr("zoo.wellposed.paths.UPHILL", 10)
    monkeypatch.setattr("zoo.wellposed.paths.FURTHER", 5)


def break_at(monkeypatch, number, error):
    """The engine breaks off before step ``number``, in the middle of whatever was going on."""
    step = Engine.step

    def breaking(self, at):
        if at == number:
            raise error
        return step(self, at)

    monkeypatch.setattr(Engine, "step", breaking)
