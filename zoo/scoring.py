"""How typical a row is: its log evidence, its rank among the training rows, and the columns that cost it most."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zoo import inference
from zoo.context import Stream, random_stream
from zoo.dataframes import row_names, same_kind
from zoo.densities import each_feature_given_the_others
from zoo.errors import DataError, RunError, Unknown
from zoo.objectives import Program, masked_columns
from zoo.options import count
from zoo.rowwise import Rowwise, base_key
from zoo.splits import subsample
from zoo.tables import looked_at

if TYPE_CHECKING:
    from zoo.runs import Run

__all__ = ["REFERENCE_ROWS", "Reference", "RowWeights", "has_gaps", "log_evidence", "mixture_evidence", "score_rows"]

log = logging.getLogger("zoo")

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

REFERENCE_ROWS = 1000  # training rows that others are ranked among
DRAWN = 1000  # draws per datum at a time


class Evidence(NamedTuple):
    """For N rows: log p(x), (N,), and log p(x_-j) without each column, (N, D), or None if not asked for."""

    whole: Tensor
    others: Tensor | None


class RowWeights:
    r"""The log evidence of rows and, with ``by_column``, of each row without each of its columns.

    .. math:: p(x) \approx \frac{1}{K} \sum_k w_k, \qquad
              p(x_{-j}) \approx \frac{1}{K} \sum_k \frac{w_k}{p(x_j \mid z_k, x_{-j})}, \qquad
              w_k = p(x \mid z_k) \frac{p(z_k)}{q(z_k \mid x)}

    All rows use the same standard noise, so a row's result does not depend on its place or on the other rows, and
    differences between rows are more precise than the values. The programs are recorded once for all seeds of a pair.

    Args:
        samples: K; one is enough if nothing is drawn.
        filler: values that columns can take, (D,), in place of missing ones.
        by_column: whether to score rows without each column too.
    """

    def __init__(self, samples: int, filler: Tensor, *, by_column: bool) -> None:
        self.samples, self.filler, self.by_column = samples, filler, by_column
        self._kernels: dict[int, Rowwise] = {}

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Evidence:
        """Scores of x, (N, D), NaN for missing entries, with draws from torch's global random state."""
        samples = 1 if inference.draws_nothing(model, guide, x) else self.samples
        numbers = max(inference.width(model, x), x.shape[1])
        largest = min(samples, DRAWN, max(1, inference.CHUNK // numbers))
        key, found = base_key(), []
        for piece, draws in enumerate(inference.pieces(samples, largest)):
            if draws not in self._kernels:
                self._kernels[draws] = Rowwise(self._of_datum(draws), draws * numbers)
            keys = [random_stream(key, Stream.NOISE, piece)] * len(x)
            found.append(self._kernels[draws].block(model, guide, [x], keys))
        whole, *others = (torch.stack(of).logsumexp(0) - np.log(samples) for of in zip(*found, strict=True))
        known = inference.known_evidence(model, x)
        return Evidence(whole if known is None else known[0].double(), others[0] if others else None)

    def _of_datum(self, draws: int) -> Callable[..., tuple[Tensor, ...]]:
        """The log of the sum of one datum's weights, and of its weights without each column, (D,)."""

        def of_datum(model: Any, guide: Program, x: Tensor) -> tuple[Tensor, ...]:
            likelihood, given, rest, mask = inference.weighted_likelihood(model, guide, x, draws)
            log_w = (given + rest).double()
            whole = log_w.flatten().logsumexp(0)
            if not self.by_column:
                return (whole,)
            one = each_feature_given_the_others(likelihood, x)
            log_p = masked_columns(one.log_prob(torch.where(x.isnan(), self.filler, x)), mask).double()
            log_p = log_p.expand(*log_w.shape, x.shape[-1])
            # a draw that gives the column zero density gives the row zero density
            without = torch.where(log_p == -torch.inf, -torch.inf, log_w[..., None] - log_p)
            return whole, without.reshape(-1, x.shape[-1]).logsumexp(0)

        return of_datum


def mixture_evidence(log_p: Array) -> Array:
    """The log of the mean over seeds, (S, ...) to (...), without seeds whose value is NaN.

    >>> mixture_evidence(np.log([[0.2, 0.5], [0.4, np.nan]])).round(6).tolist() == np.log([0.3, 0.5]).round(6).tolist()
    True
    """
    there = ~np.isnan(log_p)
    highest = np.where(there, log_p, -np.inf).max(axis=0)
    base = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.where(there, np.exp(log_p - base), 0.0).sum(axis=0)
        return np.asarray(base + np.log(total / there.sum(axis=0)))


class Scored(NamedTuple):
    """For N rows: log evidence by seed, (S, N), of the mixture of seeds, (N,), and log p(x_j | x_-j), (N, D)."""

    seeds: Array
    evidence: Array
    columns: Array | None


class Reference(NamedTuple):
    """The scores of training rows: ascending log evidence, (M,), and the median log p(x_j | x_-j), (D,).

    The medians are NaN if there are no such rows or columns are not scored.
    """

    evidence: Array
    columns: Array


class Scorer:
    """Scores rows under the mixture of all seeds of a run, whose programs are recorded once.

    Args:
        run: a trained pair.
        samples: K.
        by_column: whether columns are scored too.
    """

    def __init__(self, run: Run, samples: int, *, by_column: bool) -> None:
        self.run, self.samples, self.by_column = run, samples, by_column
        self._weights: dict[tuple[bool, bool], RowWeights] = {}

    def __call__(self, x: Tensor) -> Scored:
        """Scores of rows (N, D) in the likelihood's units; if the guide overflows, draws of the prior replace it.

        In double precision: in single precision a row's last digits depend on how many rows are multiplied together.
        """
        x, gaps = x.double(), has_gaps(x)

        def of_seed(model: Any, guide: Any) -> Evidence:
            model, guide = model.double(), guide.double()
            found = self._kernel(gaps, of_prior=False)(model, guide, x)
            if (lost := found.whole.isnan()).any():
                again = self._kernel(gaps, of_prior=True)(model, inference.prior(model), x[lost])
                for into, values in zip(found, again, strict=True):
                    if into is not None and values is not None:
                        into[lost] = values.nan_to_num(-torch.inf)
            found.whole[x.isnan().all(dim=1)] = 0.0  # a row without entries scores exactly 0
            return found

        seeds = self.run.each_seed(of_seed, Stream.EVIDENCE, gaps=gaps)
        whole = np.stack([of.whole.numpy() for of in seeds])
        evidence = mixture_evidence(whole)
        if not self.by_column:
            return Scored(whole, evidence, None)
        others = mixture_evidence(np.stack([of.others.numpy() for of in seeds if of.others is not None]))
        with np.errstate(invalid="ignore"):  # a row without any probability
            columns = np.where(np.isneginf(evidence)[:, None], -np.inf, evidence[:, None] - others)
        return Scored(whole, evidence, np.where(x.isnan().numpy(), np.nan, columns))

    def _kernel(self, gaps: bool, *, of_prior: bool) -> RowWeights:
        if (gaps, of_prior) not in self._weights:
            filler = torch.as_tensor(self.run.pair.view.filler)
            self._weights[gaps, of_prior] = RowWeights(self.samples, filler, by_column=self.by_column)
        return self._weights[gaps, of_prior]

    def reference(self, pattern: Array, given: Array | None) -> Reference:
        """The scores, by the columns of a pattern, (D,), of the training rows that have these columns.

        They are computed once for a run, unless the rows are given, (M, D).
        """
        key = (pattern.tobytes(), self.samples, self.by_column)
        if given is not None or key not in self.run.references:
            found = self._reference(pattern, training_rows(self.run) if given is None else given)
            if given is not None:
                return found
            self.run.references[key] = found
        return self.run.references[key]

    def _reference(self, pattern: Array, rows: Array) -> Reference:
        rows = np.where(pattern, rows[~np.isnan(rows[:, pattern]).any(axis=1)], np.nan)
        unknown = np.full(pattern.shape, np.nan)
        if not len(rows):
            return Reference(np.empty(0), unknown)
        random, view = np.random.default_rng(0), self.run.pair.view
        if len(rows) > REFERENCE_ROWS:
            rows = rows[np.sort(random.choice(len(rows), REFERENCE_ROWS, replace=False))]
        # with a draw of the data's noise
        scored = self(torch.as_tensor(view.noisy(view.inward(rows), random.random(rows.shape)), dtype=torch.float32))
        medians = unknown if scored.columns is None else np.median(scored.columns, axis=0)
        return Reference(np.sort(scored.evidence), medians)


def log_evidence(run: Run, x: Any, samples: int) -> Array:
    """The log evidence of each row under the mixture of all seeds, (N,), in nats, in the units as loaded."""
    loaded, score = run.loaded(x), Scorer(run, count("samples", samples), by_column=False)
    return score(run.inward(loaded)).evidence - run.pair.view.log_volumes(loaded)


def score_rows(run: Run, x: Any, columns: int, samples: int, training: Any) -> Any:
    """The result of :meth:`zoo.Run.score`."""
    import pandas as pd

    loaded, samples = run.loaded(x), count("samples", samples)
    most = min(count("columns", columns, least=0), loaded.shape[1])
    if most and (reason := _unknown(run, loaded)):
        log.warning("score names no costly columns: %s.", reason)
        most = 0
    score, given = Scorer(run, samples, by_column=most > 0), None if training is None else run.loaded(training)
    evidence, deviation, rank = (np.full(len(loaded), np.nan) for _ in range(3))
    cost = np.full(loaded.shape, np.nan)
    patterns, group = np.unique(~np.isnan(loaded), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        some = group.ravel() == number
        scored, reference = score(run.inward(loaded[some])), score.reference(pattern, given)
        evidence[some] = scored.evidence - run.pair.view.log_volumes(loaded[some])
        if len(run.seeds) > 1:
            deviation[some] = scored.seeds.std(axis=0, ddof=1)
        if pattern.any() and (m := len(reference.evidence)):
            rank[some] = (1 + np.searchsorted(reference.evidence, scored.evidence, side="right")) / (m + 1)
        if scored.columns is not None:
            cost[some] = reference.columns - scored.columns
    frame = {"log_evidence": evidence, "seed_sd": deviation, "rank": rank} | _dearest(cost, run.pair.data.names, most)
    return same_kind(pd.DataFrame(frame, row_names(x)), x)


def _dearest(cost: Array, names: Sequence[str], most: int) -> dict[str, Array]:
    """The most costly columns of each row of costs (N, D) with their costs, in order; empty where there are none."""
    order = np.argsort(-np.where(np.isnan(cost), -np.inf, cost), axis=1, kind="stable")[:, :most]
    dearest = np.take_along_axis(cost, order, axis=1)
    words = np.array([*names, None], dtype=object)[np.where(np.isnan(dearest), len(names), order)]
    return {f"{told}_{k + 1}": of[:, k] for k in range(most) for told, of in (("column", words), ("cost", dearest))}


def training_rows(run: Run) -> Array:
    """The training rows of a run, or a sample of a large table: from memory, or loaded again.

    Raises:
        RunError: they cannot be loaded.
    """
    from zoo.sources import DataCall

    train, call = run.pair.data.train, run.tree.attrs.get("data_call", "")
    if not len(train):
        needs, remedy = "score ranks rows among the training rows", "give them as training= (zoo score: --training)"
        if not call:
            raise RunError(f"{needs}, which were only in memory and not saved with this run: {remedy}.")
        try:
            data = DataCall.parse(call).load()
        except DataError as error:
            raise RunError(f"{needs}, and {str(error).rstrip('.')}: {remedy}.") from error
        if data.fingerprint != run.tree.attrs["data_fingerprint"]:
            raise RunError(f"{needs}, but {call} now gives other data: {remedy}.")
        train = data.train
    return np.asarray(subsample(train, looked_at(train.shape)).values)


def _unknown(run: Run, loaded: Array) -> str:
    """Why the pair does not know the distribution of a column given the others; empty if it does."""
    try:
        Scorer(run, 2, by_column=True)(run.inward(loaded[:1]))
    except Unknown as reason:
        return str(reason).rstrip(".")
    return ""


def has_gaps(x: Tensor) -> bool:
    """Whether any entries are missing."""
    return bool(x.isnan().any())
