"""The networks, guides and VAEs that pairs are made of, by their options."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from zoo.errors import OptionError
from zoo.supports import Encoding, encoded

if TYPE_CHECKING:
    from torch import nn

    from zoo.cards import Card
    from zoo.data import Data
    from zoo.models import VAE, Emission
    from zoo.parts.guides import Target
    from zoo.supports import Support

__all__ = ["CURES", "Positive", "VAEOptions", "Width", "decoder", "encoder", "guide", "target", "vae"]

CURES = ("gaussian-constrained", "gaussian-identity", "gaussian-binned")  # for an unbounded density of real columns
Width = Annotated[int, Ge(1), Le(1_000_000)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]


@dataclass(frozen=True)
class PerceptronOptions:
    """``hidden`` is the width of each hidden layer of the encoder, from the data inwards; the decoder mirrors it."""

    latent_dim: Width = 8
    hidden: Annotated[tuple[Width, ...], MinLen(1)] = (128,)
    activation: Literal["tanh", "relu", "gelu", "silu", "softplus"] = "tanh"


@dataclass(frozen=True)
class VAEOptions(PerceptronOptions):
    """Options that every VAE has; ``hidden`` are the channels of the encoder for ``network="conv"``."""

    network: Literal["mlp", "conv"] = "mlp"


def vae(
    data: Data, options: Any, emission: Emission, support: Support = "real", *, kind: type[VAE] | None = None
) -> tuple[nn.Module, nn.Module]:
    """A VAE with this emission, and its default guide.

    Args:
        data: the data the pair is built for.
        options: a :class:`VAEOptions`.
        emission: the likelihood of all columns given the decoder's outputs.
        support: the card's support, which decides what the encoder sees.
        kind: the class of VAE, if not the plain one.
    """
    from zoo.models import VAE

    outputs: Any = getattr(emission, "outputs", None)
    if not isinstance(outputs, int) or outputs < 1:
        raise OptionError(
            f"{type(emission).__name__}.outputs is {outputs!r}; say how many numbers the decoder gives for each "
            "column, as in `outputs = 2`."
        )
    network = decoder(data, options, outputs)
    return (kind or VAE)(network, options.latent_dim, emission), guide(data, options, support)


def decoder(data: Data, options: Any, outputs: int) -> nn.Module:
    """The network from z (..., L) to ``outputs`` numbers a feature, (..., outputs, D)."""
    from zoo.networks import NETWORKS

    shape = data.image_shape or (data.features,)
    return NETWORKS[getattr(options, "network", "mlp")].decoder(
        shape, options.hidden, options.activation, outputs, options.latent_dim
    )


def encoder(data: Data, options: Any, outputs: int, support: Support = "real") -> nn.Module:
    """The network from x (..., D) to ``outputs`` numbers a latent, (..., outputs, L).

    It sees each column in the form for this support, with an indicator of gaps if there are any.
    """
    from zoo.networks import NETWORKS, Tabulated

    encodings = [encoded(support, column) for column in data.columns]
    gaps = data.missing > 0
    shape = Tabulated.shape(data.image_shape or (data.features,), encodings, gaps=gaps)
    network = NETWORKS[getattr(options, "network", "mlp")].encoder(
        shape, options.hidden, options.activation, outputs, options.latent_dim
    )
    return Tabulated(network, encodings, gaps=gaps) if gaps or set(encodings) != {Encoding()} else network


def guide(data: Data, options: Any, support: Support = "real") -> nn.Module:
    """A VAE's default guide: independent normals, by the encoder of the options."""
    from zoo.guides import MeanFieldNormal

    return MeanFieldNormal(encoder(data, options, MeanFieldNormal.outputs(options.latent_dim), support))


def target(card: Card, data: Data, options: Any, model: Any) -> Target:
    """What a guide for a model is built from; options the pair lacks have the defaults of :class:`VAEOptions`."""
    import torch

    from zoo.latents import vector_dim
    from zoo.parts.guides import Target
    from zoo.views import View

    row = torch.as_tensor(View(data, card).filler, dtype=torch.get_default_dtype())[None]
    latents, latent_dim = vector_dim(model, row)
    known: dict[str, Any] = {f.name: getattr(options, f.name) for f in fields(VAEOptions) if hasattr(options, f.name)}
    of_encoder = VAEOptions(**known | {"latent_dim": latent_dim})
    return Target(
        model, latents, latent_dim, data.features, lambda outputs: encoder(data, of_encoder, outputs, card.support)
    )
