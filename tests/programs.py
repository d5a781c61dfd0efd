"""Programs that several tests train or score, ways to break them, and processes to run them in."""

import multiprocessing
from importlib import import_module

import pyro
import pyro.distributions as dist
import torch
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
    """A few steps, draws and rows of each, for tests that ask of a score only that it is there."""
    monkeypatch.setattr("zoo.evaluation.inference_gaps.STEPS", 5)
    monkeypatch.setattr("zoo.evaluation.inference_gaps.ELBO_DRAWS", 100)
    monkeypatch.setattr(import_module("zoo.evaluation.imputation"), "ROWS", 10)
    monkeypatch.setattr("zoo.wellposed.paths.UPHILL", 10)
    monkeypatch.setattr("zoo.wellposed.paths.FURTHER", 5)
    monkeypatch.setattr(import_module("zoo.evaluation.wellposedness"), "SAMPLES", 50)
    monkeypatch.setattr(import_module("zoo.evaluation.wellposedness"), "CEILING_ROWS", 50)


def break_at(monkeypatch, number, error):
    """The engine breaks off before step ``number``, in the middle of whatever was going on."""
    step = Engine.step

    def breaking(self, at):
        if at == number:
            raise error
        return step(self, at)

    monkeypatch.setattr(Engine, "step", breaking)


def forked(function, *arguments, **named):
    """Another process that calls a function, and has nothing to import before it does."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(function, arguments, named))
    process.start()
    return process


def _alone(function, arguments, named):
    torch.set_num_threads(1)  # those of the process that was forked are not here
    function(*arguments, **named)
