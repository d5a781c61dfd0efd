"""The table of a comparison: one row per pair, best first, and the summary of several splits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
import pandas as pd

from zoo.comparison.choices import families
from zoo.comparison.difference import Difference, Floats, split_error, standard_error
from zoo.comparison.outcome import Outcome, Source, outcomes, with_ensembles
from zoo.comparison.verdicts import first, gift, height, listed_apart, remarks, verdict
from zoo.comparison.weights import stacking_weights
from zoo.errors import RunError
from zoo.options import switch

__all__ = ["across_splits", "by_table", "compare"]

COLUMNS = (
    "table", "rank", "title", "scored_as", "log_evidence", "se", "seed_sd", "seed_disagreement", "worst_seed", "median",
    "worst", "difference", "difference_se", "difference_seed_se", "weight", "weight_se", "bits_per_dim", "log_density",
    "share_constant", "bad_k", "annealed", "exact", "seeds", "rows", "validation", "validation_sd", "chosen", "choice",
    "verdict",
)  # fmt: skip


def compare(runs: Source | Iterable[Source], *, ensembles: bool = False) -> pd.DataFrame:
    """Rank runs by held-out log evidence, in nats per datum: one row per pair, best first.

    Rows fall into tables that share a base measure and exactly the same data; ``rank``, ``difference`` and ``weight``
    restart in each, since a density and a mass, or densities of other data, are different quantities. Data with
    levels, counts, and zeros and ones are ranked by log mass. Every likelihood has one: its own, its density
    integrated over the cell of a level, or a lower bound by uniform dequantisation (``scored_as``).

    A row is listed apart, below the ranked ones and without rank, difference and weight, when

    - it is ranked by a density and one of its seeds ran away: its score depends on when it was stopped;
    - it leads another row with every column counted, yet trails it on the columns that vary in training, both
      beyond noise. The leader is set apart, never the row it leads, so that both scores agree on the order of the
      ranked rows. Rows that ran away set no other row apart;
    - its density is not bounded, it leads all remaining rows, and more than half of its lead over the best of
      them comes from columns constant in training. A bounded pair that leads on both scores stays, and its
      verdict says how much of the lead those columns gave;
    - it was not evaluated, or its evidence is not a number.

    Columns: ``table``, ``rank``, ``title``, ``scored_as``, ``log_evidence`` (mean over test data of the average over
    seeds), ``se`` (over data), ``seed_sd`` (over seeds, of that mean), ``seed_disagreement`` (over seeds, of a datum;
    mean over data), ``worst_seed`` (the mean of the worst seed), ``median`` and ``worst`` datum, ``difference`` to the
    best ranked row with ``difference_se`` (over data, paired) and ``difference_seed_se`` (over the seeds of both, NaN
    where neither was repeated), ``weight`` (stacking) and ``weight_se`` (bootstrap over
    data), ``bits_per_dim`` (of masses) and ``log_density`` (of densities ranked by their mass), ``share_constant``
    (nats that the columns constant in training give a density, NaN without such columns), ``bad_k`` (data with Pareto k
    above 0.7, in the worst seed; NA where a k is unknown), ``annealed`` (how many of them were annealed), ``exact``,
    ``seeds`` (scored/trained: a frozen seed is not scored), ``rows`` (how many test data are scored), ``validation``
    (validation ELBO of the weights that are scored, mean over the scored seeds: a lower bound on the log evidence, of
    the pair's own density or mass) with ``validation_sd`` (over seeds), ``chosen`` (whether validation chooses it among
    the runs of its pair that differ in options; NA without others) with ``choice`` (that in words, the same for all of
    them; else empty), and ``verdict``, a sentence. Noise is the 95 % interval over data and seeds together
    (:class:`~zoo.comparison.difference.Difference`), and at least 0.01 nats; a difference within it is called none.
    Where one datum makes up more than half of the spread of the paired differences, a trimmed mean, a twentieth of the
    data less at each end, decides together with the mean.

    With ``ensembles`` each run of several seeds gets a second row for the equal mixture of its seeds, scored by the log
    of their mean density. The mixture is a model of its own, at least as good as their average.

    ``runs`` are runs, DataTrees, or paths of a run's directory or netCDF file: one or several. Raises
    ``RunError`` for a path without a run, a tree without its attributes, or runs on the same data that were scored on
    different test rows.

    >>> import numpy as np, xarray as xr
    >>> def run(pair, evidence):
    ...     about = dict(pair=pair, base_measure="density", data="toy", data_fingerprint="f00d")
    ...     heldout = xr.Dataset({"log_evidence": (("chain", "obs"), evidence)})
    ...     return xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})
    >>> level, seeds = -np.arange(40.0), np.array([[0.1], [-0.1]])
    >>> table = compare([run("plain", level + seeds - 4), run("better", level - seeds)])
    >>> table[["rank", "log_evidence", "difference", "verdict"]].round(2)
            rank  log_evidence  difference                            verdict
    pair
    better     1         -19.5         0.0                               best
    plain      2         -23.5        -4.0    worse than better by 4.00 ± 0.14
    """
    ensembles = switch("ensembles", ensembles)
    read = outcomes(runs)
    with np.errstate(invalid="ignore", over="ignore"):  # a seed may hold infinities; the verdict tells
        return pd.concat([_table(*rows) for rows in by_table(with_ensembles(read) if ensembles else read).items()])


def by_table(runs: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """The runs of each table, by its name: 'mass, digits (binarized by threshold)'."""
    tables: dict[tuple[str, str], list[Outcome]] = {}
    for run in runs:
        tables.setdefault(run.table, []).append(run)
    names = {key: f"{key[0]}, {rows[0].data_name}" for key, rows in tables.items()}
    taken = Counter(names.values())
    return {name if taken[name] == 1 else f"{name} [{key[1][:8]}]": tables[key] for key, name in names.items()}


def across_splits(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Summarise comparisons of the same pairs on several splits of the same data: one row per pair, best first.

    Columns: ``table``; ``splits`` (in which the pair has a score); ``log_evidence`` (mean over splits), ``split_sd``
    (standard deviation over them) and ``worst`` (the worst datum of all); ``difference`` to the pair with the highest
    mean and ``difference_se``, paired by split; ``best``, ``apart`` and ``chosen``, the number of splits in which it
    was ranked first, listed apart, or chosen by validation among the options of its pair. The standard error is that of
    :func:`zoo.comparison.difference.split_error`.
    """
    every = pd.concat([table.reset_index().assign(split=split) for split, table in enumerate(tables)])
    frames = []
    for label, rows in every.groupby("table", sort=False):
        scores = rows.pivot(index="split", columns="pair", values="log_evidence").astype(float)
        by_pair = rows.groupby("pair")
        frame = pd.DataFrame(
            {
                "table": label,
                "splits": scores.notna().sum(),
                "log_evidence": scores.mean(),
                "split_sd": scores.std(),
                "worst": by_pair["worst"].min(),
                "best": by_pair["rank"].agg(lambda rank: int((rank == 1).sum())),
                "apart": by_pair["rank"].agg(lambda rank: int(rank.isna().sum())),
                "chosen": by_pair["chosen"].sum(),
            }
        ).sort_values("log_evidence", ascending=False)
        paired = scores[frame.index].sub(scores[frame.index[0]], axis=0)
        frame.insert(4, "difference", paired.mean())
        frame.insert(5, "difference_se", [split_error(column.dropna().to_numpy()) for _, column in paired.items()])
        frames.append(frame)
    return pd.concat(frames)


def _table(label: str, rows: Sequence[Outcome]) -> pd.DataFrame:
    """The rows of one table: ranked rows best first, then those listed apart."""
    scored = [row for row in rows if row.evidence is not None]
    if not all(_scored_alike(row, scored[0]) for row in scored):
        counts = ", ".join(f"{row.label} on {'{:,} of {:,}'.format(*row.scored_rows)}" for row in scored)
        raise RunError(f"runs were scored on different test rows ({counts}): evaluate them all with the same rows=")
    apart = listed_apart(rows)
    ranked = sorted((row for row in rows if row.label not in apart), key=height)
    below = sorted((row for row in rows if row.label in apart), key=lambda row: -np.nan_to_num(row.score, nan=-np.inf))
    weights, weights_se = stacking_weights(ranked)
    frame = pd.DataFrame([_row(row) for row in ranked + below], index=[row.label for row in ranked + below])
    frame.index.name = "pair"
    frame.insert(0, "table", label)
    frame["rank"] = pd.array([*range(1, len(ranked) + 1), *[pd.NA] * len(below)], dtype="Int64")
    frame[["bad_k", "annealed"]] = frame[["bad_k", "annealed"]].astype("Int64")
    behind = [_behind(row, ranked[0]) for row in ranked[1:]]
    frame["difference"] = [*(0.0 for _ in ranked[:1]), *(-each.mean for each in behind), *(np.nan for _ in below)]
    for name, of in (("difference_se", "over_data"), ("difference_seed_se", "over_seeds")):
        frame[name] = [*(0.0 for _ in ranked[:1]), *(getattr(each, of) for each in behind), *(np.nan for _ in below)]
    frame["weight"] = [weights.get(name, np.nan) for name in frame.index]
    frame["weight_se"] = [weights_se.get(name, np.nan) for name in frame.index]
    others = [*zip(ranked[1:], behind, strict=True)]
    alone = "alone in its table: nothing to rank it against"
    verdicts = [alone if len(rows) == 1 else first(best, others) for best in ranked[:1]]
    verdicts += [verdict(row, ranked[0], each) for row, each in others]
    gifts = [gift(row, lower, best=row is ranked[0]) for row, lower in pairwise(ranked)] + [""]
    said = [*map(add, verdicts, gifts), *(apart[row.label] for row in below)]
    frame["verdict"] = [text + remarks(row, text) for text, row in zip(said, ranked + below, strict=True)]
    _choose(frame, rows)
    return frame[list(COLUMNS)]


def _choose(frame: pd.DataFrame, rows: Sequence[Outcome]) -> None:
    """Write into the table which of each pair's options validation chooses."""
    frame["chosen"], frame["choice"] = pd.array([pd.NA] * len(frame), dtype="boolean"), ""
    for family in families(row for row in rows if not row.ensemble):
        labels = [run.label for run in family.runs]
        frame.loc[labels, ["chosen", "choice"]] = False, family.statement
        if family.chosen:
            at = [family.chosen.label]
            frame.loc[at, "chosen"] = True
            frame.loc[at, "verdict"] += f"; validation chooses it of {len(labels)}"


def _scored_alike(row: Outcome, other: Outcome) -> bool:
    """Whether two runs on the same data were scored on the same test rows; if all were scored, their values decide."""
    rows, of = row.scored_rows
    return row.scored_rows == other.scored_rows and (rows == of or np.array_equal(row.obs, other.obs))


def _behind(row: Outcome, best: Outcome) -> Difference:
    """How far a ranked row is behind the best."""
    assert row.by_datum is not None and best.by_datum is not None  # noqa: PT018 (ranked rows have evidence)
    return Difference.between(best.by_datum, row.by_datum)


def _row(run: Outcome) -> dict[str, Any]:
    """The columns that a run decides alone."""
    per_seed = np.full((1, 1), np.nan) if run.per_seed is None else run.per_seed
    evidence, means = per_seed.mean(0), per_seed.mean(1)
    many, mass = len(per_seed) > 1, run.table[0] == "mass"
    also_density = run.has_mass and run.read("base_measure") == "density" and not run.ensemble
    return {
        "title": run.title,
        "scored_as": run.scored_as,
        "log_evidence": run.score,
        "se": standard_error(evidence),
        "seed_sd": _deviation(means),
        "seed_disagreement": float(per_seed.std(0, ddof=1).mean()) if many else np.nan,
        "worst_seed": float(means.min()),
        "median": float(np.median(evidence)),
        "worst": float(evidence.min()),
        "bits_per_dim": -run.score / (run.features * np.log(2)) if mass and run.features else np.nan,
        "log_density": run.density if also_density else np.nan,
        "share_constant": np.nan if run.varying is None else run.share_constant,
        "bad_k": pd.NA if run.bad_k is None else run.bad_k,
        "annealed": pd.NA if run.annealed is None else run.annealed,
        "exact": run.exact,
        "seeds": f"{run.used.sum()}/{run.used.size}",
        "rows": 0 if run.evidence is None else run.evidence.size,
        "validation": float(run.validation.mean()) if run.validation.size else np.nan,
        "validation_sd": _deviation(run.validation),
    }


def _deviation(values: Floats) -> float:
    """The standard deviation of a sample; NaN for a sample of one or a value that is not finite."""
    return float(values.std(ddof=1)) if values.size > 1 and np.isfinite(values).all() else float("nan")
