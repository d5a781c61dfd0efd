"""Likelihoods as users write them from the README, each with its registration; a test calls what it wants to register.

``student_t()`` adds "own-student-t" to the catalogue, and so on; options are of :class:`zoo.pairs.VAEOptions`.
"""

import math

import pyro.distributions as dist
import torch

import zoo
from zoo.models import VAE
from zoo.pairs import VAEOptions, decoder, guide


def register(model, **claims):
    """Register a class with the card's claims, under the name and "own-" before it; gives that back."""
    name = f"own-{claims['name']}"
    words = {"title": name, "summary": "Of a user's own.", "formula": "p(x|z)", "reference": "None"}

    @zoo.register(**words | claims | {"name": name})
    def build(data: zoo.Data, options: VAEOptions):
        return model(decoder(data, options, model.outputs), options.latent_dim), guide(data, options)

    return name


class StudentT(VAE):
    """Three degrees of freedom, or so few that there is no mean, and a scale of at least ``smallest``."""

    outputs, df, smallest, lowered = 2, 3.0, 0.1, 0.0

    def likelihood(self, z):
        location, v = self.decoder(z).unbind(-2)
        return dist.StudentT(self.df, location, self.smallest + v.exp()).to_event(1)

    def log_density_bound(self, features):
        peak = math.lgamma((self.df + 1) / 2) - math.lgamma(self.df / 2) - math.log(self.df * math.pi) / 2
        return features * (peak - math.log(self.smallest) - self.lowered)


def student_t(df=3.0, lowered=0.0):
    """With a bound that is right, or too low by so many nats a column."""
    model = type("StudentT", (StudentT,), {"df": df, "lowered": lowered})
    return register(model, name="student-t", support="real", bounded=True, bound="D (log t(0) - log smallest)")


class Poisson(VAE):
    outputs = 1

    def likelihood(self, z):
        (log_rate,) = self.decoder(z).unbind(-2)
        return dist.Poisson(log_rate.exp()).to_event(1)

    def log_density_bound(self, features):  # noqa: ARG002
        return 0.0


def poisson():
    return register(Poisson, name="poisson", support="count", base_measure="mass", bounded=True, bound="0")


class NegativeBinomial(Poisson):
    outputs = 2

    def likelihood(self, z):
        log_count, logits = self.decoder(z).unbind(-2)
        # beyond that torch's differences of log gammas are rounding, and its masses above 1
        return dist.NegativeBinomial(log_count.clamp(max=7.0).exp(), logits=logits).to_event(1)


def negative_binomial():
    claims = {"support": "count", "base_measure": "mass", "bounded": True, "bound": "0"}
    return register(NegativeBinomial, name="negative-binomial", **claims)


class ContinuousBernoulli(VAE):
    outputs = 1

    def likelihood(self, z):
        (logits,) = self.decoder(z).unbind(-2)
        return dist.ContinuousBernoulli(logits=logits).to_event(1)


def continuous_bernoulli():
    return register(ContinuousBernoulli, name="continuous-bernoulli", support="unit", bounded=False)


class Gamma(VAE):
    outputs = 2

    def likelihood(self, z):
        log_shape, log_rate = self.decoder(z).unbind(-2)
        return dist.Gamma(log_shape.exp(), log_rate.exp()).to_event(1)


def gamma():
    """No card can say "positive" today."""
    return register(Gamma, name="gamma", support="real", bounded=False)


class LowRank(VAE):
    """A floor under the diagonal, so that the determinant has one."""

    outputs, floor = 3, 0.1

    def likelihood(self, z):
        mean, factor, v = self.decoder(z).unbind(-2)
        return dist.LowRankMultivariateNormal(mean, factor[..., None], self.floor + v.exp())

    def log_density_bound(self, features):
        return -features / 2 * math.log(2 * math.pi * self.floor)


def low_rank():
    return register(LowRank, name="low-rank", support="real", bounded=True, bound="-(D/2) log(2π floor)")


class Cauchy(VAE):
    """No moments at all."""

    outputs = 2

    def likelihood(self, z):
        location, log_scale = self.decoder(z).unbind(-2)
        return dist.Cauchy(location, log_scale.exp()).to_event(1)


def cauchy():
    return register(Cauchy, name="cauchy", support="real", bounded=False)


class TwoPeaks(VAE):
    """Far apart, and of widths that differ a thousandfold: the middle of it all is nowhere."""

    outputs = 1

    def likelihood(self, z):
        (location,) = self.decoder(z).unbind(-2)
        each = dist.Normal(location[..., None] + torch.tensor([-50.0, 50.0]), torch.tensor([0.01, 10.0]))
        return dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), each).to_event(1)


def two_peaks():
    return register(TwoPeaks, name="two-peaks", support="real", bounded=False)
