"""What a trained model and guide say about data: evidence, posterior draws, reconstructions and samples.

Plain functions of (model, guide, x) for one seed, with x and results in scaled units; random numbers come from torch's
global generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from zoo.answers import ask
from zoo.context import seeded
from zoo.densities import columns_log_prob, moments
from zoo.errors import Unknown
from zoo.latents import CATEGORY, REAL, latents
from zoo.lenses import Cells, Dequantized
from zoo.objectives import Program, latent_sites, plain_log_prob, traces
from zoo.rowwise import Rowwise
from zoo.storage import give_back

__all__ = [
    "Cells",
    "Dequantized",
    "Draws",
    "LogWeights",
    "Reconstruction",
    "Weighted",
    "decode",
    "draws_nothing",
    "encode",
    "encoded_site",
    "known_evidence",
    "log_mean_exp",
    "log_weights",
    "overflown",
    "pieces",
    "posterior_draws",
    "predictive_draws",
    "prior",
    "reconstruct",
    "refuse_overflow",
    "responsibility",
    "row_blocks",
    "weighted_likelihood",
    "width",
]

CHUNK = 2**20  # numbers in the widest layer of a pass: 4 MiB in single precision
DRAWN = 1000  # draws per datum at a time
ENCODING_DRAWS = 1000  # draws of a guide without a known mean


class Draws(NamedTuple):
    """Guide draws: ``latents`` by site (K, B, ...), ``lp`` = log p(x, z) and ``lq`` = log q(z | x), both (K, B)."""

    latents: dict[str, Tensor]
    lp: Tensor
    lq: Tensor


class Reconstruction(NamedTuple):
    """Mean of x given its latents, and the decoder's standard deviation around it, both (B, D)."""

    mean: Tensor
    scale: Tensor


def log_weights(model: Program, guide: Program, x: Tensor, samples: int, columns: Tensor | None = None) -> Tensor:
    r"""Log importance weights of the guide's draws; their log-mean-exp over K estimates log p(x).

    .. math:: \log w_k = \log p(x, z_k) - \log q(z_k \mid x), \qquad z_k \sim q(z \mid x)

    Enumerated latents y are summed out exactly, w_k = sum_y p(x, y, z_k) / q(z_k | x[, y]), with a draw z_k for each y
    if it depends on y. If the guide draws nothing, every weight is the evidence itself. Densities are not weighted,
    even if ``poutine.scale`` weights them in training.

    Args:
        model: p(x, z).
        guide: q(z | x).
        x: data, shape (B, D).
        samples: K.
        columns: indices of columns whose marginal evidence is also computed, from the same draws.

    Returns:
        Shape (K, B), or (2, K, B) with ``columns``: the weights with all columns and with only these columns.
    """
    likelihood, given, rest, mask = weighted_likelihood(model, guide, x, samples)
    parts = [given]
    if columns is not None:
        parts.append(scale_and_mask(columns_log_prob(likelihood, x, columns), 1.0, mask))
    weights: Tensor = torch.stack([part + rest for part in parts])
    if weights.dim() > 3:
        weights = weights.flatten(1, -3).logsumexp(1)
    return weights if columns is not None else weights[0]


class Weighted(NamedTuple):
    """p(x | z_k) for draws of the guide, its log density at x, and log p(z_k) - log q(z_k | x): (..., K, B) each.

    The values of an enumerated latent are in dimensions left of K and have no q. ``mask`` is the mask of site x.
    """

    likelihood: Any
    given: Tensor
    rest: Tensor
    mask: Any


def weighted_likelihood(model: Program, guide: Program, x: Tensor, samples: int) -> Weighted:
    """The parts of importance weights; ``given + rest`` is their logarithm."""
    with pyro.plate("samples", samples, dim=-2):
        p, q = traces(model, guide, x, plates=2)
    log_prior = sum(plain_log_prob(p.nodes[name]) for name in latent_sites(q))
    log_q = sum(plain_log_prob(q.nodes[name]) for name in latent_sites(q, enumerated=False))
    given, rest = torch.broadcast_tensors(plain_log_prob(p.nodes["x"]), log_prior - log_q)
    return Weighted(p.nodes["x"]["fn"], given, rest, p.nodes["x"]["mask"])


class LogWeights:
    """:func:`log_weights` of many draws, a few at a time, so that a decoder's memory does not grow with K.

    The programs are recorded once for several seeds of a pair and blocks of data. If nothing is drawn, the result is
    one exact row, K = 1, whatever was asked.
    """

    def __init__(self, samples: int, columns: Tensor | None = None) -> None:
        self.samples, self.columns = samples, columns
        self._kernels: dict[int, Rowwise] = {}

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """The log weights of x, shape (B, D): (K, B), or (2, K, B) with columns."""
        if draws_nothing(model, guide, x):
            return log_weights(model, guide, x, 1, self.columns)
        drawn = max(1, min(self.samples, DRAWN, CHUNK // width(model, x)))
        sizes = pieces(self.samples, drawn)
        of_pieces = [self._kernel(size, width(model, x))(model, guide, x)[0] for size in sizes]
        return torch.cat(of_pieces, dim=-1).movedim(0, -1)

    def known(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """The same, or one exact row if the model knows its evidence."""
        rows = known_evidence(model, x, self.columns)
        return self(model, guide, x) if rows is None else rows

    def _kernel(self, draws: int, numbers: int) -> Rowwise:
        if draws not in self._kernels:
            self._kernels[draws] = Rowwise(
                lambda model, guide, x: (log_weights(model, guide, x, draws, self.columns)[..., 0],), draws * numbers
            )
        return self._kernels[draws]


def pieces(draws: int, largest: int) -> list[int]:
    """The sizes of pieces of this many draws; all but the last are of the largest size."""
    return [largest] * (draws // largest) + [draws % largest] * (draws % largest > 0)


def known_evidence(model: Program, x: Tensor, columns: Tensor | None = None) -> Tensor | None:
    """The evidence in place of log weights, (1, B) or (2, 1, B), if the model has a method ``log_evidence``."""
    known = getattr(model, "log_evidence", None)
    if known is None:
        return None

    def of_all(*given: Tensor) -> Tensor:
        return torch.cat([known(rows, *given) for rows in row_blocks(x, width(model, x))])[None]

    return of_all() if columns is None else torch.stack([of_all(), of_all(columns)])


def draws_nothing(model: Program, guide: Program, x: Tensor) -> bool:
    """Whether every latent is summed out, so that one evaluation suffices."""
    return not latents(guide, x).drawn and not isinstance(model, Dequantized)


def width(model: Program, x: Tensor) -> int:
    """How many numbers a decoder pass holds for one draw of one datum: its widest layer, or the width of the data.

    A parameter of shape (a, b, ...) counts as a layer of width a.
    """
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else []
    return max([x.shape[-1], *(p.shape[0] for p in parameters if p.dim() > 1)])


def row_blocks(x: Tensor, numbers_per_row: int) -> Iterator[Tensor]:
    """x, shape (N, D), in blocks of rows whose passes hold about ``CHUNK`` numbers each."""
    for block in x.split(max(1, CHUNK // numbers_per_row)):
        yield block
        give_back()


def posterior_draws(model: Program, guide: Program, x: Tensor, samples: int) -> Draws:
    """K draws of every latent, including enumerated ones, from q(z | x) for each datum, a block of rows at a time."""
    blocks = [_posterior_draws(model, guide, rows, samples) for rows in row_blocks(x, samples * width(model, x))]
    latents = {name: torch.cat([block.latents[name] for block in blocks], dim=1) for name in blocks[0].latents}
    return Draws(latents, *(torch.cat([getattr(block, name) for block in blocks], dim=1) for name in ("lp", "lq")))


def _posterior_draws(model: Program, guide: Program, x: Tensor, samples: int) -> Draws:
    with pyro.plate("samples", samples, dim=-2):
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    q.compute_log_prob()
    p.compute_log_prob()
    names = latent_sites(q)
    lq: Any = sum(plain_log_prob(q.nodes[name]) for name in names)
    lp: Any = sum(plain_log_prob(p.nodes[name]) for name in ("x", *names))
    return Draws({name: q.nodes[name]["value"] for name in names}, lp, lq)


def prior(model: Any) -> nn.Module:
    """The prior of the latents as a guide."""
    return _Prior(model)


class _Prior(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> None:
        """The model's sites except the datum."""
        with poutine.block(hide=["x"]):
            self.model(x)


def overflown(model: Program, guide: Program, x: Tensor) -> Tensor:
    """Which data (N,) are so far out that their latents or decoder outputs are NaN."""
    with seeded(0):
        draws = posterior_draws(model, guide, x, 1)
    return (draws.lp - draws.lq)[0].isnan()


def refuse_overflow(model: Program, guide: Program, x: Tensor, obs: Sequence[int]) -> None:
    """Raise Unknown if a datum is so far out that its latents or decoder outputs are NaN.

    ``obs`` (N,) are the source row numbers of x, (N, D).
    """
    wrong = overflown(model, guide, x)
    if wrong.any():
        row = obs[int(wrong.nonzero()[0])]
        raise Unknown(f"row {row} of the test part is so far out that guide or decoder overflows")


def predictive_draws(model: Program, x: Tensor, samples: int, guide: Program | None = None) -> Tensor:
    """K draws of x, shape (K, B, D): given each datum's posterior, or from the prior without a guide.

    With the prior, ``x`` only provides B and D.
    """
    with pyro.plate("samples", samples, dim=-2):
        # conditioned on x, the model would return the data
        program = poutine.uncondition(model)
        if guide is not None:
            program = poutine.replay(program, trace=poutine.trace(guide).get_trace(x))
        drawn: Tensor = poutine.trace(program).get_trace(x).nodes["x"]["value"]
    return drawn


def encode(guide: Program, x: Tensor) -> Tensor:
    """The mean of q(z | x), shape (B, L), or the probability of each component, (B, C), for a discrete latent.

    With several latents it is z, or the first if none is called z. In closed form if known, otherwise from
    ``ENCODING_DRAWS`` draws: for a flow, or a z that depends on an earlier draw.
    """
    first, *others = latent_sites(poutine.trace(guide).get_trace(x[:1]))
    name = REAL if REAL in others else first
    if name == first:
        fn: Any = poutine.trace(guide).get_trace(x).nodes[name]["fn"]
        try:
            return fn.probs if isinstance(fn, dist.Categorical) else ask(fn, "mean")  # type: ignore[no-any-return]
        except Unknown:
            pass
    return torch.cat([_mean_draw(guide, rows, name) for rows in row_blocks(x, ENCODING_DRAWS * width(guide, x))])


def encoded_site(guide: Program, x: Tensor) -> str:
    """The latent whose mean :func:`encode` gives: z, or the first if none is called z."""
    sites = latent_sites(poutine.trace(guide).get_trace(x[:1]))
    return REAL if REAL in sites else sites[0]


def decode(model: Program, site: str, means: Tensor, blank: Tensor) -> Tensor:
    """The mean of p(x | z), (N, D), for latents (N, L), or for the probabilities of a discrete latent's values.

    ``blank`` (1, D) only provides D.
    """

    def mean(values: Tensor, rows: Tensor) -> Tensor:
        trace = poutine.trace(poutine.condition(model, {site: values})).get_trace(rows)
        return moments(trace.nodes["x"]["fn"])[0].expand(rows.shape)

    if site == REAL:
        return mean(means, blank.expand(len(means), -1))
    each = torch.cat([mean(torch.tensor([value]), blank) for value in range(means.shape[1])])
    return means @ each


def responsibility(guide: Program, x: Tensor) -> Tensor | None:
    """The probability of each component given the datum, (B, C), if the guide has a discrete latent ``component``.

    If it depends on earlier draws, the mean over ``ENCODING_DRAWS`` of them.
    """
    trace = poutine.trace(guide).get_trace(x[:1])
    if CATEGORY not in trace.nodes or not isinstance(trace.nodes[CATEGORY]["fn"], dist.Categorical):
        return None
    if latent_sites(trace)[0] == CATEGORY:
        return poutine.trace(guide).get_trace(x).nodes[CATEGORY]["fn"].probs  # type: ignore[no-any-return]

    def mean(rows: Tensor) -> Tensor:
        with pyro.plate("samples", ENCODING_DRAWS, dim=-2):
            probs: Tensor = poutine.trace(guide).get_trace(rows).nodes[CATEGORY]["fn"].probs
        return probs.mean(0)

    return torch.cat([mean(rows) for rows in row_blocks(x, ENCODING_DRAWS * width(guide, x))])


def _mean_draw(guide: Program, x: Tensor, name: str) -> Tensor:
    """The mean of K draws of a latent, shape (B, L)."""
    with pyro.plate("samples", ENCODING_DRAWS, dim=-2):
        drawn: Tensor = poutine.trace(guide).get_trace(x).nodes[name]["value"]
    return drawn.mean(0)


def reconstruct(model: Program, guide: Program, x: Tensor, samples: int) -> Reconstruction:
    """Mean and root mean variance of p(x | z_k) over K posterior draws, a block of rows at a time."""
    blocks = [_reconstruct(model, guide, rows, samples) for rows in row_blocks(x, samples * width(model, x))]
    return Reconstruction(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def _reconstruct(model: Program, guide: Program, x: Tensor, samples: int) -> Reconstruction:
    with pyro.plate("samples", samples, dim=-2):
        q = poutine.trace(guide).get_trace(x)
        fn = poutine.trace(poutine.replay(model, trace=q)).get_trace(x).nodes["x"]["fn"]
    mean, variance = moments(fn)
    return Reconstruction(mean.mean(0), variance.mean(0).sqrt())


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Log (1/K) sum_k w_k over the first axis, shape (K, N) to (N,), in double precision."""
    return log_weights.double().logsumexp(0) - torch.tensor(len(log_weights), dtype=torch.float64).log()
