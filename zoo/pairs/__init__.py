"""The zoo's own pairs, a file for each kind of column: what each claims, and the model and guide behind it.

Cards are plain data, so that listing them is instant; torch and pyro are imported when a pair is built.
"""

from zoo.pairs import count, discrete, latent, linear, mixed, mixture, normal, positive, real, rules, unit
from zoo.pairs.mixture import MixtureOptions
from zoo.pairs.normal import ConstrainedOptions
from zoo.pairs.programs import VAEOptions, decoder, encoder, guide, vae

__all__ = [
    "ConstrainedOptions",
    "MixtureOptions",
    "VAEOptions",
    "count",
    "decoder",
    "discrete",
    "encoder",
    "guide",
    "latent",
    "linear",
    "mixed",
    "mixture",
    "normal",
    "positive",
    "real",
    "rules",
    "unit",
    "vae",
]
