"""How well a trained pair fills in hidden entries, compared with common imputers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.densities import cells, each_missing, missing_draws
from zoo.errors import Unknown
from zoo.imputation import SWEEPS, center, given_latents, states
from zoo.options import ImputationMethod
from zoo.runs import Run
from zoo.splits import subsample
from zoo.supports import Column
from zoo.tables import looked_at

__all__ = ["HIDDEN", "IMPUTERS", "hidden_entries", "imputation"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

HIDDEN = 0.1
ROWS, TRAINING_ROWS = 1000, 5000
CHAINS, KEPT = 20, SWEEPS // 2  # chains, and the last sweeps, which count
WIDEST = 100  # columns up to which scikit-learn's iterative imputer takes no longer than everything else
SEED = 0  # hides the same entries for every pair
_LAST = f"the last {KEPT} of {SWEEPS} sweeps of {CHAINS} chains"
METHODS: dict[str, str] = {
    "importance": "importance sampling",
    "gibbs": f"Metropolis within Gibbs, {_LAST}",
    "pseudo-gibbs": f"pseudo-Gibbs, {_LAST}",
}


def hidden_entries(x: Array, share: float, seed: int = SEED) -> Array:
    """Which entries of x (N, D) are hidden: a share of the observed ones, always leaving one in a row."""
    there = ~np.isnan(x)
    order = np.where(there, np.random.default_rng(seed).random(x.shape), np.inf)
    kept = order == order.min(axis=1, keepdims=True)
    # a larger share of the rest, to give the share of all
    rest = there & ~kept
    limit = np.quantile(order[rest], min(1.0, share * there.sum() / rest.sum())) if rest.any() else -np.inf
    return np.asarray(rest & (order <= limit))


class Imputed(NamedTuple):
    """For the H hidden entries: log scores under the data's measure, and the centre of the draws, as loaded."""

    log_score: Array
    center: Array


def imputation(run: Run, data: Data, share: float, method: ImputationMethod = "gibbs") -> xarray.Dataset:
    r"""The group ``imputation``: the pair's predictions of hidden test entries.

    .. math:: \log p(x_h \mid x_o) \approx \log \tfrac{1}{K} \sum_k p(x_h \mid x_o, z_k), \qquad z_k \sim p(z \mid x_o)

    entry by entry, over the last 25 of 50 sweeps of 20 chains of Metropolis within Gibbs, or over as many draws by
    another method. ``log_score`` is its mean by column, in nats, using the mass of the cell in columns with a
    resolution. ``error`` is the root mean square error of the mean of the draws, as loaded, in columns of numbers, and
    the share of wrong most frequent draws in others (``measure`` says which). ``baseline_error`` is the same for each
    ``imputer``: the training part's means and most frequent values, and scikit-learn's KNNImputer and IterativeImputer
    with their defaults, fitted to the training part, with categories as zeros and ones. ``rmse`` and ``baseline_rmse``
    are over all numbers, each in standard deviations of its column, or of all columns if they are scaled as one;
    ``error_rate`` and ``baseline_error_rate`` are over all others. ``count`` is the number of hidden entries by column,
    the same for every pair.

    Args:
        run: a trained pair.
        data: the data it was trained on; the first thousand test rows are used.
        share: the share of their observed entries to hide.
        method: how z is drawn, one of :func:`zoo.imputation.states`.

    Raises:
        Unknown: the likelihood does not give the distribution of an entry given the others.
    """
    loaded = data.test[:ROWS].values
    hidden = hidden_entries(loaded, share)
    if not hidden.any():
        raise Unknown(f"no entry of the test part was hidden: a share of {share:g} of {(~np.isnan(loaded)).sum()}")
    if data.noise == "dequantize":
        loaded = data.on_levels(loaded)
    view, truth = run.pair.view, loaded[hidden]
    given = np.where(hidden, np.nan, loaded)
    x, target = run.inward(given), run.inward(loaded)
    width = torch.as_tensor(view.width, dtype=torch.float32)
    columns = np.nonzero(hidden)[1]
    absent: dict[str, str] = {}
    nominal = np.array([column.kind.nominal for column in data.columns])

    def of_seed(model: Any, guide: Any) -> Imputed:
        score, drawn = _score(model, guide, x, target, torch.as_tensor(hidden), width, method, absent)
        volume = np.where(view.dense & (np.isnan(view.width) | ("cells" in absent)), np.log(view.scale), 0.0)
        values = np.full((len(drawn), len(columns)), np.nan)
        for j in np.unique(columns):  # in the units as loaded, as a value the column can take
            scaled = drawn[:, columns == j] * view.scale[j] + view.center[j]
            values[:, columns == j] = data.columns[j].nearest(scaled)
        return Imputed(score - volume[columns], center(values, nominal[columns]))

    seeds = run.each_seed(of_seed, Stream.IMPUTATION, gaps=True)
    baselines = {}
    for name, fill in IMPUTERS.items():
        try:
            baselines[name] = fill(data, given)[hidden]
        except Unknown as reason:
            absent[name] = str(reason)
    errors = np.stack([_errors(seed.center, truth, nominal[columns]) for seed in seeds])
    others = np.stack([_errors(filled, truth, nominal[columns]) for filled in baselines.values()])
    is_number = ~nominal[columns]
    unit = np.where(is_number, data.unit[columns], 1.0)

    def by_column(values: Array, mean: Callable[[Array], Any]) -> Array:
        """(..., H) to (..., D)."""
        found = np.full((*values.shape[:-1], data.features), np.nan)
        for j in np.unique(columns):
            found[..., j] = mean(values[..., columns == j])
        return found

    def of_all(values: Array, of: Array) -> Array:
        """The mean over some entries, NaN if there are none."""
        return values[..., of].mean(-1) if of.any() else np.full(values.shape[:-1], np.nan)

    def of_errors(values: Array) -> Array:
        found = by_column(values, lambda v: v.mean(-1))
        return np.where(nominal, found, np.sqrt(found))

    score = np.stack([seed.log_score for seed in seeds])
    return xarray.Dataset(
        {
            "count": ("feature", np.bincount(columns, minlength=data.features)),
            "measure": ("feature", np.where(nominal, "error rate", "RMSE")),
            "log_score": (("chain", "feature"), by_column(score, lambda v: v.mean(-1)), {"units": "nats per entry"}),
            "log_score_mean": ("chain", score.mean(-1), {"units": "nats per entry"}),
            "error": (("chain", "feature"), of_errors(errors)),
            "baseline_error": (("imputer", "feature"), of_errors(others)),
            "rmse": ("chain", np.sqrt(of_all(errors / unit**2, is_number))),
            "baseline_rmse": ("imputer", np.sqrt(of_all(others / unit**2, is_number))),
            "error_rate": ("chain", of_all(errors, ~is_number)),
            "baseline_error_rate": ("imputer", of_all(others, ~is_number)),
        },
        coords={"imputer": [*baselines]},
        attrs={
            "share": share,
            "hidden": int(hidden.sum()),
            "note": f"{hidden.sum()} entries hidden of the first {len(loaded)} scored test rows; "
            f"{CHAINS * KEPT} draws by {METHODS[method]}",
            "absent": absent,
        },
    )


def _score(
    model: Any,
    guide: Any,
    x: Tensor,
    target: Tensor,
    hidden: Tensor,
    width: Tensor,
    method: ImputationMethod,
    absent: dict[str, str],
) -> tuple[Array, Array]:
    """Log scores (H,) of the hidden entries of x (N, D), and draws of them (K, H), in the model's units."""
    at_once, left_out = (CHAINS * KEPT, 0) if method == "importance" else (CHAINS, SWEEPS - KEPT)
    # a few numbers of each layer per draw of the latents
    size = max(1, inference.CHUNK // (at_once * inference.width(model, x)))
    scores, draws = [], []
    for rows, true, gone in zip(*(part.split(size) for part in (x, target, hidden)), strict=True):
        total, drawn = torch.full(rows.shape, -torch.inf).double(), []
        for latents in islice(states(model, guide, rows, at_once, method, SWEEPS), left_out, None):
            fn = given_latents(model, rows, latents).base
            drawn.append(missing_draws(fn, rows)[:, gone])
            one = each_missing(_cells(fn, width, absent), rows)
            log_p = one.log_prob(torch.where(gone, true, torch.where(rows.isnan(), model.filler, rows)))
            total = torch.logaddexp(total, log_p.double().logsumexp(0))
        draws.append(torch.cat(drawn))
        scores.append((total - np.log(len(draws[-1])))[gone])
    return torch.cat(scores).numpy(), torch.cat(draws, dim=1).double().numpy()


def _cells(fn: Any, width: Tensor, absent: dict[str, str]) -> Any:
    """The likelihood of the cells that values stand for, if known; otherwise notes why."""
    if width.isnan().all():
        return fn
    try:
        return cells(fn, width)
    except Unknown as reason:
        absent["cells"] = str(reason)
        return fn


def _mode(values: Array) -> float:
    told, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return float(told[counts.argmax()])


def _errors(center: Array, truth: Array, nominal: Array) -> Array:
    """Squared errors of numbers, and 1 for a wrong name."""
    return np.asarray(np.where(nominal, center != truth, np.square(center - truth)))


# -- common imputers ---------------------------------------------------------------------------------------------------


def _constant(data: Data, given: Array) -> Array:
    """The mean of each column of the training part, or its most frequent value."""
    train = subsample(data.train, looked_at(data.train.shape)).values
    center = [_mode(v) if c.kind.nominal else np.nanmean(v) for c, v in zip(data.columns, train.T, strict=True)]
    return np.asarray(np.broadcast_to(center, given.shape))


def _nearest_neighbours(data: Data, given: Array) -> Array:
    from sklearn.impute import KNNImputer

    return _by_scikit_learn(KNNImputer(keep_empty_features=True), data, given, last=True)


def _iterative(data: Data, given: Array) -> Array:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    if data.features > WIDEST:
        raise Unknown(f"scikit-learn's iterative imputer is not tried on more than {WIDEST} columns")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its defaults are what people run
        # with all indicators of a category, each would be predicted from the others, which are missing with it
        imputer = IterativeImputer(random_state=SEED, keep_empty_features=True)
        return _by_scikit_learn(imputer, data, given, last=False)


def _by_scikit_learn(imputer: Any, data: Data, given: Array, *, last: bool) -> Array:
    """A table as an imputer of real numbers sees it: standardised numbers, categories as zeros and ones."""
    imputer.fit(_as_numbers(data, data.train[:TRAINING_ROWS].values, last))
    found, filled, at = imputer.transform(_as_numbers(data, given, last)), np.empty_like(given), 0
    for j, column in enumerate(data.columns):
        size = _indicators(column, last)
        block, at = found[:, at : at + size], at + size
        if column.categories and column.kind.nominal:
            filled[:, j] = (block if last else np.c_[block, 1 - block.sum(1)]).argmax(1)
        else:
            filled[:, j] = column.nearest(block[:, 0] * data.scaling.scale[j] + data.scaling.center[j])
    return filled


def _as_numbers(data: Data, x: Array, last: bool) -> Array:
    columns = []
    for j, column in enumerate(data.columns):
        if column.categories and column.kind.nominal:
            one_hot = (x[:, j, None] == np.arange(_indicators(column, last))).astype(float)
            columns.append(np.where(np.isnan(x[:, j, None]), np.nan, one_hot))
        else:
            columns.append((x[:, j, None] - data.scaling.center[j]) / data.scaling.scale[j])
    return np.concatenate(columns, axis=1)


def _indicators(column: Column, last: bool) -> int:
    """How many indicators or numbers a column becomes, with or without one for the last category."""
    return len(column.categories) - (not last) if column.categories and column.kind.nominal else 1


IMPUTERS: dict[str, Callable[[Data, Array], Array]] = {
    "column mean or mode": _constant,
    "nearest neighbours": _nearest_neighbours,
    "iterative": _iterative,
}
