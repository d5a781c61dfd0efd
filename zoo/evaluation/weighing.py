"""One pass over the guide's draws: weights of the evidence, of cells, and of each feature given the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from zoo import inference
from zoo.context import Stream, random_stream
from zoo.densities import columns_log_prob, distribution_function, each_feature_given_the_others
from zoo.evaluation.predictions import PREDICTIVE_DRAWS, Draws, Predictions, predicted
from zoo.evaluation.tails import pareto_k
from zoo.lenses import Cells, Dequantized
from zoo.objectives import Program, masked_columns
from zoo.rowwise import Rowwise, keyed_blocks

__all__ = ["Asked", "Predicted", "Weigher", "Weights", "joined", "leave_one_feature_out"]

AT_ONCE = 2**20  # most numbers in the widest tensor of one datum's draws, and in the weights of a group of data
DRAWS, NUMBERS = 1000, 2**21  # most draws of z that predict a feature, and numbers kept per datum
K_FITS = 4096  # tails fitted for each seed


@dataclass(frozen=True)
class Asked:
    """What to compute from draws besides the log weights of the density.

    Attributes:
        samples: K, draws for each datum.
        columns: indices of columns whose marginal evidence is also computed.
        lens: turns a density into one of cells of ``width`` (D,), whose mass is also computed.
        features: for how many of the first data each feature is predicted from the others.
        filler: values that columns can take, (D,), in place of missing ones.
    """

    samples: int
    columns: Tensor | None = None
    lens: type[Cells] | None = None
    width: Tensor = field(default_factory=lambda: torch.zeros(0))
    features: int = 0
    filler: Tensor | None = None

    @property
    def as_cells(self) -> bool:
        """Whether features are predicted as cells."""
        return self.lens is Cells

    def seen(self, x: Tensor, at: Tensor) -> Tensor:
        """The data whose features are predicted: x, or the midpoints of its cells."""
        return at if self.as_cells else x


class Weights(NamedTuple):
    """Log weights (K, N) of the density, and of some columns and of cells if asked for."""

    density: Tensor
    columns: Tensor | None
    cells: Tensor | None


class Predicted(NamedTuple):
    """Each feature predicted from the others, (N, D), and the Pareto k of its weights for the first of the data."""

    of: Predictions
    k: np.ndarray[Any, np.dtype[np.float64]]


class Weigher:
    r"""Draws of a guide and their weights, for the seeds of a pair in turn.

    .. math:: w_k = p(x \mid z_k) \, \frac{p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    Enumerated latents are summed out; if nothing is drawn, K = 1. Cells and selected columns use the same draws.
    Features are predicted from at most the first thousand.

    Memory: about 100 MiB besides the result, whatever N, K and D, if a decoder takes at most a million numbers for one
    draw of a datum.
    """

    def __init__(self, asked: Asked, model: Program, guide: Program, x: Tensor) -> None:
        self.asked = asked
        self.exact = inference.draws_nothing(model, guide, x) and asked.lens is not Dequantized
        samples = 1 if self.exact else asked.samples
        of_features = min(samples, DRAWS, max(1, NUMBERS // x.shape[1]))
        width = max(inference.width(model, x), x.shape[1])
        largest = min(samples, DRAWS, max(1, AT_ONCE // width))
        predicting = [(draws, True) for draws in inference.pieces(of_features, largest)]
        predicting += [(draws, False) for draws in inference.pieces(samples - of_features, largest)]
        self.pieces = {True: predicting, False: [(draws, False) for draws in inference.pieces(samples, largest)]}
        numbers = width * (PREDICTIVE_DRAWS if self.exact and asked.features else largest)
        self.kernels = {
            piece: Rowwise(lambda *given, piece=piece: self._of_datum(*given, *piece), numbers)
            for piece in {*self.pieces[False], *(predicting if asked.features else ())}
        }
        self.at_once = max(1, AT_ONCE // samples)
        self.fits = max(1, K_FITS // x.shape[1])

    def __call__(
        self, model: Program, guide: Program, x: Tensor, at: Tensor
    ) -> Iterator[tuple[Weights, Predicted | None]]:
        """The weights of data x (N, D), and of cells around ``at`` (N, D), some data at a time."""
        rows = next(iter(self.kernels.values())).rows
        weights: list[Tensor] = []
        found: list[tuple[Predictions, Tensor]] = []
        done = 0
        for (of_x, of_cells), keys in keyed_blocks(rows, x, at):
            predicts = done < self.asked.features
            of_block, draws = self._of_block(model, guide, of_x, of_cells, keys, self.pieces[predicts])
            done += len(of_block)
            weights.append(of_block)
            if draws is not None:
                seen = self.asked.seen(of_x, of_cells)
                predictions, log_v = predicted(draws, self._whole(seen))
                fitted = log_v[: max(0, self.fits - done + len(log_v))].clone()  # a view would keep all of it
                found.append((predictions.where_observed(seen), fitted))
            if done == len(x) or sum(map(len, weights)) + rows > self.at_once:
                yield self._weights(torch.cat(weights)), self._predicted(found, x[done - sum(map(len, weights)) :])
                weights, found = [], []

    def once(self, model: Program, guide: Program, x: Tensor, at: Tensor) -> None:
        """Weight one datum and discard the result, to see whether everything asked for is known."""
        self._of_datum(model, guide, x, at, *self.pieces[self.asked.features > 0][0])

    def _of_block(
        self, model: Program, guide: Program, x: Tensor, at: Tensor, keys: list[int], pieces: list[tuple[int, bool]]
    ) -> tuple[Tensor, Draws | None]:
        """The log weights (B, V, K), and the ingredients of predictions of features."""
        weights, draws = [], []
        for number, piece in enumerate(pieces):
            of_piece = [random_stream(key, Stream.NOISE, number) for key in keys]
            of_all, *of_features = self.kernels[piece].block(model, guide, [x, at], of_piece)
            weights.append(of_all)
            if of_features:
                draws.append(Draws(*of_features))
        # the uniform numbers of the first piece suffice
        together = Draws._make(torch.cat(of, dim=1) for of in zip(*draws, strict=True)) if draws else None
        return torch.cat(weights, dim=-1), together

    def _of_datum(
        self, model: Any, guide: Program, x: Tensor, at: Tensor, draws: int, predicts: bool
    ) -> tuple[Tensor, ...]:
        """The log weights (V, K) of one datum, and the fields of :class:`Draws` for its features."""
        asked = self.asked
        likelihood, given, rest, mask = inference.weighted_likelihood(model, guide, x, draws)
        fn = likelihood
        parts = [given]
        if asked.columns is not None:
            parts.append(scale_and_mask(columns_log_prob(likelihood, x, asked.columns), 1.0, mask))
        if asked.lens is not None:
            fn = asked.lens(model, asked.width).likelihood(likelihood)
            parts.append(scale_and_mask(fn.log_prob(at), 1.0, mask))
        weights = torch.stack([part + rest for part in parts])[..., 0]
        if weights.dim() > 2:
            weights = weights.flatten(1, -2).logsumexp(1)
        if not predicts:
            return (weights,)
        seen = asked.seen(x, at)
        one = each_feature_given_the_others(fn if asked.as_cells else likelihood, seen)
        whole, features = self._whole(seen), seen.shape[-1]
        log_w = (parts[-1] if asked.as_cells else given) + rest
        if self.exact:  # one evaluation of a component is exact, one draw from it is not
            log_w = log_w.expand(*log_w.shape[:-2], PREDICTIVE_DRAWS, -1)
        batch = torch.Size((*log_w.shape, features))
        below, upto = distribution_function(one, whole)
        drawn = (one if one.batch_shape == batch else one.expand(batch)).sample()
        shown = (masked_columns(one.log_prob(whole), mask), below, upto, drawn)
        # a summed component counts as a draw
        of_features = (values.expand(batch).reshape(-1, features) for values in shown)
        return weights, log_w.reshape(-1), *of_features, torch.rand(2, features).to(x)

    def _whole(self, x: Tensor) -> Tensor:
        filler = self.asked.filler
        return x if filler is None else torch.where(x.isnan(), filler, x)

    def _weights(self, weights: Tensor) -> Weights:
        """From (B, V, K)."""
        density, *others = weights.movedim(0, -1).unbind()
        columns = others.pop(0) if self.asked.columns is not None else None
        return Weights(density, columns, others.pop(0) if self.asked.lens is not None else None)

    def _predicted(self, found: list[tuple[Predictions, Tensor]], x: Tensor) -> Predicted | None:
        if not found:
            return None
        predictions, log_v = zip(*found, strict=True)
        tails = torch.cat(log_v)  # (B, M, D)
        flat = tails.movedim(1, 0).flatten(1).numpy()
        k = (np.full(flat.shape[1], -np.inf) if self.exact else pareto_k(flat)).reshape(len(tails), x.shape[1])
        k = np.where(x[: len(tails)].isnan(), np.nan, k)
        return Predicted(Predictions(*(torch.cat(parts) for parts in zip(*predictions, strict=True))), k)


def leave_one_feature_out(
    model: Program, guide: Program, x: Tensor, samples: int, filler: Tensor | None = None
) -> Predicted:
    """Predictions of each feature from the others, for x (N, D)."""
    weigher = Weigher(Asked(samples, features=len(x), filler=filler), model, guide, x)
    _, blocks = zip(*weigher(model, guide, x, x), strict=True)
    return joined(blocks, len(x))


def joined(blocks: Iterable[Predicted | None], rows: int) -> Predicted:
    """The predictions of so many rows, of their blocks."""
    of, k = zip(*(block for block in blocks if block), strict=True)
    together = (torch.cat(parts)[:rows] for parts in zip(*of, strict=True))
    return Predicted(Predictions._make(together), np.concatenate(k))
