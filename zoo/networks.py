"""The neural networks behind the pairs, chosen by option: multilayer perceptrons and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn

from zoo.errors import OptionError
from zoo.supports import Encoding

__all__ = ["ACTIVATIONS", "NETWORKS", "FaithfulDecoder", "Network", "Tabulated"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


@dataclass(frozen=True)
class Network:
    """How to build the two networks of a VAE.

    ``encoder(shape, hidden, activation, outputs, L)`` maps x (..., D) to (..., outputs, L);
    ``decoder(shape, hidden, activation, outputs, L)`` maps z (..., L) to (..., outputs, D). ``shape`` is the shape
    of one datum, (D,) for tables and (H, W) or (C, H, W) for images, with D its product.
    """

    encoder: Callable[[tuple[int, ...], tuple[int, ...], str, int, int], nn.Module]
    decoder: Callable[[tuple[int, ...], tuple[int, ...], str, int, int], nn.Module]


def _perceptron(inputs: int, hidden: tuple[int, ...], activation: str, outputs: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    last = (inputs, *hidden)[-1]
    return nn.Sequential(*layers, nn.Linear(last, outputs * width), nn.Unflatten(-1, (outputs, width)))


def _mlp_encoder(
    shape: tuple[int, ...], hidden: tuple[int, ...], activation: str, outputs: int, latent_dim: int
) -> nn.Module:
    return _perceptron(prod(shape), hidden, activation, outputs, latent_dim)


def _mlp_decoder(
    shape: tuple[int, ...], hidden: tuple[int, ...], activation: str, outputs: int, latent_dim: int
) -> nn.Module:
    return _perceptron(latent_dim, hidden[::-1], activation, outputs, prod(shape))


class FaithfulDecoder(nn.Sequential):
    """A perceptron whose hidden units are trained only by its first output, the mean.

    Stirn et al. (2023), https://arxiv.org/abs/2212.09184
    """

    def forward(self, z: Tensor) -> Tensor:
        """(..., L) to (..., outputs, D); only the first output has a gradient beyond the last layer."""
        *trunk, head, shape = self
        for layer in trunk:
            z = layer(z)
        mean, rest = shape(head(z))[..., :1, :], shape(head(z.detach()))[..., 1:, :]
        return torch.cat([mean, rest], dim=-2)


class ConvEncoder(nn.Module):
    """Convolutions of stride 2, one per entry of ``hidden`` (its channels), then a linear layer."""

    def __init__(
        self, shape: tuple[int, ...], hidden: tuple[int, ...], activation: str, outputs: int, latent_dim: int
    ) -> None:
        super().__init__()
        self.image = _as_image(shape)
        channels, *size = self.image
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((channels, *hidden)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
            size = [ceil(n / 2) for n in size]
        flat = ((channels, *hidden)[-1]) * prod(size)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(flat, outputs * latent_dim),
            nn.Unflatten(-1, (outputs, latent_dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., outputs, L)."""
        out: Tensor = self.layers(x.reshape(-1, *self.image))
        return out.reshape(*x.shape[:-1], *out.shape[1:])


class ConvDecoder(nn.Module):
    """The mirror image of :class:`ConvEncoder`; what transposed convolutions add at the edges is cropped."""

    def __init__(
        self, shape: tuple[int, ...], hidden: tuple[int, ...], activation: str, outputs: int, latent_dim: int
    ) -> None:
        super().__init__()
        channels, *self.size = _as_image(shape)
        start = [ceil(n / 2 ** len(hidden)) for n in self.size]
        widths = (*hidden[::-1], outputs * channels)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[0] * prod(start)),
            nn.Unflatten(-1, (widths[0], *start)),
        ]
        for fan_in, fan_out in pairwise(widths):
            layers += [ACTIVATIONS[activation](), nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.outputs = outputs

    def forward(self, z: Tensor) -> Tensor:
        """(..., L) to (..., outputs, D)."""
        height, width = self.size
        out: Tensor = self.layers(z.reshape(-1, z.shape[-1]))[..., :height, :width]
        return out.reshape(*z.shape[:-1], self.outputs, -1)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "number": lambda x: x,
    "log1p": torch.log1p,
    "log": torch.log,
}


class Tabulated(nn.Module):
    r"""A network that sees columns as numbers of similar size, and optionally which entries were observed.

    .. math:: (t_j(x_j) - \mathrm{center}_j) / \mathrm{scale}_j

    with :math:`t_j(x) = x`, :math:`\log(1 + x)` or :math:`\log x`; a category is one-hot. A missing entry (NaN) is seen
    as zeros; with ``gaps``, one more input per column says which entries were observed.

    Args:
        network: takes (..., inputs) numbers, as many as :meth:`shape` says.
        encodings: the encoding of each of the D columns.
        gaps: whether entries may be missing.
    """

    def __init__(self, network: nn.Module, encodings: Sequence[Encoding], *, gaps: bool) -> None:
        super().__init__()
        self.network, self.gaps = network, gaps
        self.named = [(j, e.categories) for j, e in enumerate(encodings) if e.transform == "one-hot"]
        self.columns: dict[str, list[int]] = {}
        for name in TRANSFORMS:
            columns = [j for j, encoding in enumerate(encodings) if encoding.transform == name]
            if columns:
                of_columns = torch.tensor([(encodings[j].center, encodings[j].scale) for j in columns])
                self.register_buffer(f"center_{name}", of_columns[:, 0].clone())
                self.register_buffer(f"scale_{name}", of_columns[:, 1].clone())
                self.columns[name] = columns

    @staticmethod
    def shape(shape: tuple[int, ...], encodings: Sequence[Encoding], *, gaps: bool) -> tuple[int, ...]:
        """The shape of the network's input for a datum of this shape; images get extra channels for gaps."""
        if len(shape) > 1:
            return ((1 + gaps) * prod(shape[:-2]), *shape[-2:])
        return (sum(e.categories or 1 for e in encodings) + gaps * len(encodings),)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the network's output."""
        out: Tensor = self.network(self.seen(x))
        return out

    def seen(self, x: Tensor) -> Tensor:
        """(..., D) to what the network sees, (..., inputs)."""
        observed = ~x.isnan()
        seen = []
        for name, columns in self.columns.items():
            center, scale = getattr(self, f"center_{name}"), getattr(self, f"scale_{name}")
            value, there = (x, observed) if len(columns) == x.shape[-1] else (x[..., columns], observed[..., columns])
            value = torch.where(there, value, 1.0)  # valid in every transform
            seen.append(torch.where(there, (TRANSFORMS[name](value) - center) / scale, 0.0))
        seen += [(x[..., j, None] == torch.arange(size, device=x.device)).to(x) for j, size in self.named]
        return torch.cat([*seen, *([observed.to(x)] if self.gaps else [])], dim=-1)


NETWORKS = {
    "mlp": Network(_mlp_encoder, _mlp_decoder),
    "conv": Network(ConvEncoder, ConvDecoder),
}


def _as_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W) or (C, H, W) as (C, H, W)."""
    if len(shape) not in (2, 3):
        raise OptionError(
            'network="conv" needs images, and a row of these data is not one; use network="mlp", or '
            "load_data(..., image_shape=(height, width))."
        )
    return (1, *shape) if len(shape) == 2 else shape
