"""Which pair explains held-out data best: the paired comparison of runs, from their DataTrees alone."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from zoo.errors import RunError
from zoo.options import location, switch
from zoo.storage import read_tree

__all__ = ["HasTree", "Outcome", "Source", "across_splits", "compare", "elpd", "outcomes", "with_ensembles"]

COLLAPSED = 1e-3  # a decoder scale below this, in scaled units, is one that a run-away took there
ANNEALED = 2  # as the group heldout numbers its methods
BAD_K = 0.7  # above it an importance-sampling estimate is not to be trusted (Vehtari et al., 2024)
NEGLIGIBLE = -30.0  # nats below the best pair for a datum: exp of it no longer moves a stacking weight
NOISE = 0.01  # nats per datum: a smaller difference may be rounding, however small its standard error
OVERLAP = 1 / 4  # test rows over all other rows of a split
STRAY = 2.0  # times the range of the other seeds, from which on the verdict names the one that is worse
SHARE = 0.05  # nats of a lead that constant columns gave, from which on the verdict says so

BOOTSTRAPS = 50  # resamples of the test data, for the standard error of the stacking weights
COLUMNS = (
    "table", "rank", "title", "scored_as", "log_evidence", "se", "seed_sd", "seed_disagreement", "worst_seed", "median",
    "worst", "difference", "difference_se", "weight", "weight_se", "bits_per_dim", "log_density", "share_constant",
    "bad_k", "annealed", "exact", "seeds", "verdict",
)  # fmt: skip

Floats: TypeAlias = NDArray[np.float64]


class HasTree(Protocol):
    """Anything that carries the record of a run, such as a ``Run``."""

    @property
    def tree(self) -> xr.DataTree:
        """The record of the run."""
        ...


Source: TypeAlias = xr.DataTree | HasTree | str | Path


def compare(runs: Source | Iterable[Source], *, ensembles: bool = False) -> pd.DataFrame:
    """Rank runs by held-out log evidence, in nats per datum: one row a pair, best first.

    Rows fall into tables that share a base measure and the very same data; ``rank``, ``difference`` and
    ``weight`` restart in each: a density and a mass, or densities of other data, are different quantities. Data
    with levels, counts and zeros and ones are ranked by log mass, for which every likelihood has one: its own, that
    of a density over the cell of a level, or that by uniform dequantisation, a lower bound (``scored_as``).

    A row is listed apart, below the ranked ones and without rank, difference and weight, when

    - it is ranked by a density and a seed of it ran away: its score is a matter of when it was stopped;
    - it leads another row with every column counted, yet trails it on the columns that vary in training, both
      beyond noise. Of the two the leader goes apart, never the one it leads, so that among the ranked rows
      both scores agree on the order. Rows that ran away set no other row apart;
    - its density is not bounded, it leads all rows that are left, and more than half of its lead over the
      best of them comes from columns constant in training. A bounded pair that leads on both scores stays, and
      its verdict says how much of the lead they gave;
    - it was not evaluated, or its evidence is not a number.

    Columns: ``table``, ``rank``, ``title``, ``scored_as``, ``log_evidence`` (mean over test data of the average over
    seeds), ``se`` (over data), ``seed_sd`` (over seeds, of that mean), ``seed_disagreement`` (over seeds, of a datum;
    mean over data), ``worst_seed`` (the mean of the worst seed), ``median`` and ``worst`` datum, ``difference`` to the
    best ranked row and ``difference_se`` (paired per datum), ``weight`` (stacking) and ``weight_se`` (bootstrap over
    data), ``bits_per_dim`` (of masses) and ``log_density`` (of densities ranked by their mass), ``share_constant``
    (nats that the columns constant in training give a density, NaN without such columns), ``bad_k`` (data with Pareto k
    above 0.7, in the worst seed; NA where a k is unknown), ``annealed`` (how many of them were annealed), ``exact``,
    ``seeds`` (scored/trained: a frozen seed is not scored) and ``verdict``, a sentence. Noise is two paired
    standard errors, and at least 0.01 nats; a difference within it is called none.

    With ``ensembles`` each run of several seeds has a second row, of the equal mixture of its seeds: the log of their
    mean density, another model than any of them and at least as good as their average.

    ``runs`` are runs, DataTrees, or paths of a run's directory or netCDF file: one or several. Raises
    ``RunError`` for a path without a run, a tree without its attributes, or evidence of unequal length on the
    same data.

    >>> def run(pair, evidence):
    ...     about = dict(pair=pair, base_measure="density", data="toy", data_fingerprint="f00d")
    ...     heldout = xr.Dataset({"log_evidence": (("chain", "obs"), evidence)})
    ...     return xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})
    >>> table = compare([run("plain", [[-5.0, -6.0, -7.0]]), run("better", [[-1.0, -2.0, -3.1]])])
    >>> table[["rank", "log_evidence", "difference", "verdict"]].round(2)
            rank  log_evidence  difference                            verdict
    pair
    better     1         -2.03        0.00                               best
    plain      2         -6.00       -3.97  worse than better by 3.967 ± 0.033
    """
    ensembles = switch("ensembles", ensembles)
    tables: dict[tuple[str, str], list[Outcome]] = {}
    read = outcomes(runs)
    for outcome in with_ensembles(read) if ensembles else read:
        tables.setdefault(outcome.table, []).append(outcome)
    labels = [_table_label(rows[0]) for rows in tables.values()]
    frames = []
    with np.errstate(invalid="ignore", over="ignore"):  # a seed may hold infinities; the verdict tells
        for (_, fingerprint), rows, label in zip(tables, tables.values(), labels, strict=True):
            unique = label if labels.count(label) == 1 else f"{label} [{fingerprint[:8]}]"
            frames.append(_table(unique, rows))
    return pd.concat(frames)


def across_splits(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What comparisons of the same pairs on several splits of the same data say together: a row a pair, best first.

    Columns: ``table``; ``splits`` (in which the pair has a score); ``log_evidence`` (mean over splits), ``split_sd``
    (standard deviation over them) and ``worst`` (the worst datum of all); ``difference`` to the pair with the highest
    mean and ``difference_se``, paired by split; ``best`` and ``apart``, in how many splits it was ranked first and
    listed apart. Splits share most of their rows, so the standard error is the corrected one of Nadeau & Bengio (2003),
    https://doi.org/10.1023/A:1024068626366, for a test part of a fifth: s sqrt(1/R + 1/4).
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
            }
        ).sort_values("log_evidence", ascending=False)
        paired = scores[frame.index].sub(scores[frame.index[0]], axis=0)
        frame.insert(4, "difference", paired.mean())
        frame.insert(5, "difference_se", paired.std() * np.sqrt(1 / paired.notna().sum() + OVERLAP))
        frames.append(frame)
    return pd.concat(frames)


@dataclass(frozen=True)
class Outcome:
    """What one run says about itself: attributes read from JSON, evidence averaged over the seeds that count.

    ``label`` is the pair's name, made unique among the runs it was read with. An ``ensemble`` is scored as the mixture
    of its seeds.
    """

    label: str
    tree: xr.DataTree
    ensemble: bool = False

    def read(self, name: str, default: Any = None) -> Any:
        """The root attribute ``name``, decoded if it is JSON text."""
        value = self.tree.attrs.get(name, default)
        if isinstance(value, str) and value[:1] in "[{":
            with suppress(json.JSONDecodeError):
                return json.loads(value)
        return value

    def get(self, path: str) -> xr.DataArray | None:
        """The variable at ``group/name``, or None where the run has none."""
        group, name = path.split("/")
        return self.tree[group].data_vars.get(name) if group in self.tree.children else None

    @property
    def title(self) -> str:
        """The name for tables, with what tells it apart from its twins."""
        pair = str(self.read("pair", ""))
        return str(self.read("title", pair)) + self.label.removeprefix(pair)

    @property
    def features(self) -> int:
        """The number of columns, 0 where it is not recorded."""
        return int(self.summary.get("features") or 0)

    @property
    def data_name(self) -> str:
        """The name of the data."""
        return str(self.read("data", "unnamed data"))

    @property
    def bounded(self) -> bool:
        """Whether the card claims a bound of the likelihood."""
        return bool((self.read("card") or {}).get("bounded", True))

    @property
    def bound(self) -> float:
        """The upper bound of the log likelihood, NaN without one."""
        return float(self.read("bound", np.nan))

    @property
    def has_mass(self) -> bool:
        """Whether it is ranked by the log mass of discrete data."""
        return bool(self.read("mass_fingerprint")) and self.get("heldout/log_mass") is not None

    @property
    def table(self) -> tuple[str, str]:
        """What two runs must share to be ranked against each other."""
        if self.has_mass:
            return "mass", str(self.read("mass_fingerprint"))
        return str(self.read("base_measure")), str(self.read("data_fingerprint"))

    @property
    def scored_as(self) -> str:
        """How the score was had: a density, or which kind of mass, and whether it is exact or a lower bound."""
        if "heldout" not in self.tree.children:
            return ""
        of = str(self.tree["heldout"].attrs.get("mass", "own")) + " mass" if self.has_mass else self.table[0]
        return f"{of}, {'exact' if self.exact else 'lower bound'}".removeprefix("own ")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the run records about its data."""
        return dict(self.read("data_summary") or {})

    @cached_property
    def constant_columns(self) -> list[str]:
        """Names of the columns that are constant in training."""
        return [str(name) for name in self.summary.get("constant_columns") or ()]

    @cached_property
    def constants(self) -> dict[str, str]:
        """The options that are a variance or a standard deviation in scaled units, told in the data's units."""
        options = self.read("options") or {}
        scale = self.get("constant_data/scale")
        if scale is None:
            return {}
        told = {}
        for name, deviation in (("floor", lambda floor: floor**0.5), ("scale", float)):
            if name in options and str(self.read("base_measure")) == "density":
                low, high = (float(end) * deviation(options[name]) for end in (scale.min(), scale.max()))
                span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}, by column"
                told[name] = (
                    f"a standard deviation of {deviation(options[name]):.3g} in scaled units, {span} in the data's"
                )
        return told

    @property
    def exact(self) -> bool:
        """Whether the score was computed rather than estimated."""
        name = "mass_exact" if self.has_mass else "exact"
        return "heldout" in self.tree.children and bool(self.tree["heldout"].attrs.get(name, 0))

    @cached_property
    def ran_away(self) -> bool:
        """Whether the divergence watch fired in any seed."""
        at = self.get("optimization/ran_away_at")
        return at is not None and bool((at >= 0).any())

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """(S,) which seeds are scored: those never frozen by a non-finite loss."""
        frozen = self.get("optimization/frozen_at")
        evidence = self.get("heldout/log_evidence")
        if frozen is None:
            return np.ones(0 if evidence is None else evidence.sizes["chain"], bool)
        return np.asarray(~(frozen >= 0))

    def pointwise(self, name: str) -> Floats | None:
        """(S, N) values of the group ``heldout``, of the seeds that are scored, or None."""
        values = self.get(f"heldout/{name}")
        if values is None or not self.used.any() or not values.size:
            return None
        return np.asarray(values.transpose("chain", "obs"), np.float64)[self.used]

    @cached_property
    def per_seed(self) -> Floats | None:
        """(S, N) what each seed scores each datum, (1, N) for an ensemble, or None."""
        values = self.pointwise("log_mass" if self.has_mass else "log_evidence")
        if values is None or not self.ensemble:
            return values
        mixture: Floats = np.logaddexp.reduce(values, axis=0, keepdims=True) - np.log(len(values))
        return mixture

    @cached_property
    def evidence(self) -> Floats | None:
        """(N,) log evidence or mass averaged over seeds, or None."""
        return None if self.per_seed is None else self.per_seed.mean(0)

    @cached_property
    def varying(self) -> Floats | None:
        """(N,) log density of the columns that vary in training, averaged over seeds, where that is the score."""
        values = None if self.has_mass or self.ensemble else self.pointwise("log_evidence_varying")
        return None if values is None else values.mean(0)

    @cached_property
    def density(self) -> float:
        """Mean log evidence as the pair has it, which for a density of discrete data is not the score."""
        values = self.pointwise("log_evidence")
        return float("nan") if values is None else float(values.mean())

    @cached_property
    def share_constant(self) -> float:
        """Nats per datum that the columns constant in training give the density, NaN where there are none."""
        values = self.pointwise("log_evidence_varying")
        return float("nan") if values is None else self.density - float(values.mean())

    @cached_property
    def score(self) -> float:
        """Mean log evidence, NaN without one; -inf if some datum is given no probability at all."""
        return float("nan") if self.evidence is None else float(self.evidence.mean())

    @property
    def checks(self) -> NDArray[Any]:
        """The steps at which the run was validated."""
        return np.asarray(self.tree["validation"]["step"] if "validation" in self.tree.children else [])

    @cached_property
    def last_scales(self) -> Floats | None:
        """(D,) smallest decoder scale of a column in any seed, at the seed's last finite check, or None."""
        scales = self.get("validation/column_scale")
        if scales is None:
            return None
        values = np.asarray(scales.transpose("chain", "check", "feature"), np.float64)
        last = [seed[np.isfinite(seed).any(1)][-1] for seed in values if np.isfinite(seed).any()]
        return np.asarray(np.fmin.reduce(last)) if last else None


def outcomes(runs: Source | Iterable[Source]) -> list[Outcome]:
    """Read runs, paths or DataTrees, and give each pair a name of its own.

    Two runs of one pair are told apart by the options in which they differ: ``gmm (components=10)``.
    """
    single = isinstance(runs, str | Path | xr.DataTree) or hasattr(runs, "tree")
    try:
        sources = cast(list[Source], [runs] if single else list(cast(Iterable[Source], runs)))
    except TypeError:
        raise RunError(f"runs={runs!r}: give runs, DataTrees, or paths of runs' directories") from None
    trees = [_tree(source) for source in sources]
    if not trees:
        raise RunError("no runs to compare: pass at least one run, DataTree or path of a run's directory")
    plain = [Outcome(str(tree.attrs["pair"]), tree) for tree in trees]
    settings = [
        {name: run.read(name) for name in ("guide", "data", "steps", "learning_rate")} | dict(run.read("options") or {})
        for run in plain
    ]
    labels = []
    for run, own in zip(plain, settings, strict=True):
        twins = [other for twin, other in zip(plain, settings, strict=True) if twin.label == run.label]
        differing = [key for key in own if any(other.get(key) != own[key] for other in twins)]
        told_apart = ", ".join(str(own[key]) if key == "data" else f"{key}={own[key]}" for key in differing)
        labels.append(f"{run.label} ({told_apart})" if told_apart else run.label)
    repeats = [labels[:i].count(label) + 1 for i, label in enumerate(labels)]
    total = Counter(labels)
    return [
        Outcome(f"{label} #{n}" if total[label] > 1 else label, run.tree)
        for label, n, run in zip(labels, repeats, plain, strict=True)
    ]


def with_ensembles(runs: Iterable[Outcome]) -> list[Outcome]:
    """Each run of several scored seeds followed by the mixture of them."""
    return [
        outcome
        for run in runs
        for outcome in (run, Outcome(f"{run.label} (ensemble of {run.used.sum()})", run.tree, ensemble=True))
        if not outcome.ensemble or (run.per_seed is not None and len(run.per_seed) > 1)
    ]


def elpd(run: Source) -> Any:
    """The held-out evidence of a run as an ``ELPDData``, for ArviZ's ``compare`` and ``plot_compare``.

    ``elpd_i`` is the evidence of each test datum averaged over seeds, nats; on discrete data the log mass, as in
    :func:`compare`. Only runs of one of its tables can be compared.

    >>> about = dict(pair="plain", base_measure="density", data="toy", data_fingerprint="f00d")
    >>> heldout = xr.Dataset({"log_evidence": (("chain", "obs"), [[-5.0, -6.0, -7.0]])})
    >>> float(elpd(xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})).elpd)
    -18.0
    """
    outcome, *others = outcomes(run)
    if others:
        raise RunError(f"{len(others) + 1} runs: give one")
    if outcome.evidence is None:
        raise RunError(f"{outcome.label} has no held-out evidence: evaluate it first")
    return _elpd(outcome.evidence)


def _elpd(values: Floats) -> Any:
    from inspect import signature

    from arviz_stats.utils import ELPDData

    kind = (
        {"kind": "held-out"} if "kind" in signature(ELPDData).parameters else {}
    )  # ArviZ 0 wants it, ArviZ 1 has none
    return ELPDData(
        elpd=values.sum(),
        se=float(np.sqrt(values.size * values.var())),
        p=0.0,
        n_samples=1,
        n_data_points=values.size,
        scale="log",
        warning=False,
        good_k=BAD_K,
        elpd_i=xr.DataArray(values, dims="obs"),
        **kind,
    )


def _tree(source: Source) -> xr.DataTree:
    """The DataTree of a run, from memory or disk."""
    if isinstance(source, xr.DataTree):
        tree, where = source, "the DataTree"
    elif isinstance(source, str | Path):
        path, where = location("runs", source), str(source)
        files = sorted(path.glob("*.nc")) if path.is_dir() else [path] if path.is_file() else []
        if len(files) != 1:
            found = f"{len(files)} .nc files" if path.is_dir() else "nothing"
            raise RunError(f"no run at {where}: expected a directory with one .nc file, or that file; found {found}")
        try:
            tree = read_tree(files[0])
        except (OSError, ValueError) as error:
            raise RunError(f"{files[0]} is not the netCDF file of a run ({error}); train it again") from error
    elif isinstance(getattr(source, "tree", None), xr.DataTree):
        tree, where = source.tree, "the run"
    else:
        raise RunError(f"not a run: {type(source).__name__}; pass a run, a DataTree or the path of a run")
    missing = {"pair", "base_measure", "data_fingerprint"} - set(tree.attrs)
    if missing:
        raise RunError(f"{where} is not a run of the zoo: root attributes {sorted(missing)} are missing")
    return tree


def _table_label(run: Outcome) -> str:
    """What a table holds, in words: 'mass, digits (binarized by threshold)'."""
    return f"{run.table[0]}, {run.data_name}"


def _table(label: str, rows: Sequence[Outcome]) -> pd.DataFrame:
    """The rows of one table: ranked ones best first, then those listed apart."""
    lengths = {row.label: row.evidence.size for row in rows if row.evidence is not None}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {size}" for name, size in lengths.items())
        raise RunError(f"unequal numbers of held-out data ({counts}): evaluate every run on the whole test part")
    apart = _apart(rows)
    ranked = sorted((row for row in rows if row.label not in apart), key=_height)
    below = sorted((row for row in rows if row.label in apart), key=lambda row: -np.nan_to_num(row.score, nan=-np.inf))
    weights, weights_se = _stacking_weights(ranked)
    frame = pd.DataFrame([_row(row) for row in ranked + below], index=[row.label for row in ranked + below])
    frame.index.name = "pair"
    frame.insert(0, "table", label)
    frame["rank"] = pd.array([*range(1, len(ranked) + 1), *[pd.NA] * len(below)], dtype="Int64")
    frame[["bad_k", "annealed"]] = frame[["bad_k", "annealed"]].astype("Int64")
    differences = [_difference(row, ranked[0]) for row in ranked] + [(np.nan, np.nan)] * len(below)
    frame["difference"], frame["difference_se"] = np.array(differences).T
    frame["weight"] = [weights.get(name, np.nan) for name in frame.index]
    frame["weight_se"] = [weights_se.get(name, np.nan) for name in frame.index]
    verdicts = ["best" if len(rows) > 1 else "alone in its table: nothing to rank it against"][: len(ranked)]
    verdicts += [_verdict(ranked[0], *pair) for pair in differences[1 : len(ranked)]]
    gifts = [_gift(row, lower, best=row is ranked[0]) for row, lower in pairwise(ranked)] + [""]
    said = [*map(add, verdicts, gifts), *(apart[row.label] for row in below)]
    remarks = (_stray(row) + _early(row) + _density_ran_away(row) for row in ranked + below)
    frame["verdict"] = [text + remark for text, remark in zip(said, remarks, strict=True)]
    return frame[list(COLUMNS)]


def _row(run: Outcome) -> dict[str, Any]:
    """The columns that a run decides alone."""
    per_seed = np.full((1, 1), np.nan) if run.per_seed is None else run.per_seed
    evidence, means = per_seed.mean(0), per_seed.mean(1)
    k = run.pointwise("mass_k" if run.has_mass else "pareto_k")
    method = run.pointwise("mass_method" if run.has_mass else "method")
    many, mass = len(per_seed) > 1, run.table[0] == "mass"
    also_density = run.has_mass and run.read("base_measure") == "density" and not run.ensemble
    return {
        "title": run.title,
        "scored_as": run.scored_as,
        "log_evidence": run.score,
        "se": _standard_error(evidence),
        "seed_sd": _deviation(means),
        "seed_disagreement": float(per_seed.std(0, ddof=1).mean()) if many else np.nan,
        "worst_seed": float(means.min()),
        "median": float(np.median(evidence)),
        "worst": float(evidence.min()),
        "bits_per_dim": -run.score / (run.features * np.log(2)) if mass and run.features else np.nan,
        "log_density": run.density if also_density else np.nan,
        "share_constant": np.nan if run.varying is None else run.share_constant,
        "bad_k": pd.NA if k is None or np.isnan(k).any() else int((k > BAD_K).sum(1).max()),
        "annealed": pd.NA if method is None else int((method == ANNEALED).sum(1).max()),
        "exact": run.exact,
        "seeds": f"{run.used.sum()}/{run.used.size}",
    }


def _height(row: Outcome) -> tuple[float, float]:
    """Sorts the best first; of equal scores the one that needs its constant columns least."""
    return -row.score, -np.inf if row.varying is None else -float(row.varying.mean())


def _apart(rows: Sequence[Outcome]) -> dict[str, str]:
    """Why a row is not ranked, for each that is not."""
    apart = {row.label: reason for row in rows if (reason := _unscored(row) or _led_by_constants(row, rows))}
    left = sorted((row for row in rows if row.label not in apart), key=_height)
    while len(left) > 1 and (reason := _won_by_constants(*left[:2])):
        apart[left.pop(0).label] = reason
    return apart


def _unscored(row: Outcome) -> str:
    """Why a row has no score that counts; empty if it has one."""
    if row.ran_away and not row.has_mass:
        return _run_away(row) + "; unranked"
    if row.evidence is None:
        return "not scored: every seed was frozen" if row.used.size and not row.used.any() else "not evaluated"
    if np.isnan(row.score) or row.score == np.inf:
        count = int((~np.isfinite(row.evidence)).sum())
        return f"unranked: the evidence of {count} test data is not a number"
    return ""


def _led_by_constants(row: Outcome, rows: Sequence[Outcome]) -> str:
    """Whether a row leads one that is better on the columns that vary, and by how much."""
    for other in rows:
        if other.ran_away or (leads := _leads(row, other)) is None:
            continue
        lead, honest = leads
        if _beyond_noise(lead) and _beyond_noise(-honest):
            return (
                f"leads {other.label} by {_nats(lead.mean())} nats only through the columns constant in training "
                f"({_parts(row)}); without them it is {_nats(-honest.mean())} behind; unranked"
            )
    return ""


def _won_by_constants(best: Outcome, next_best: Outcome) -> str:
    """Whether an unbounded pair has most of its lead from the columns constant in training."""
    if best.bounded or (leads := _leads(best, next_best)) is None:
        return ""
    lead, honest = leads
    given = lead - honest
    if not (_beyond_noise(lead) and _beyond_noise(given) and given.mean() > lead.mean() / 2):
        return ""
    most = f"most of its lead of {_nats(lead.mean())} nats, {_nats(given.mean())}, comes"
    every = f"all of its lead of {_nats(lead.mean())} nats comes"
    return f"{most if given.mean() < lead.mean() else every} from columns constant in training; unranked"


def _gift(row: Outcome, below: Outcome, *, best: bool) -> str:
    """What the columns constant in training add to the lead over the next row, if it is worth a remark."""
    if (leads := _leads(row, below)) is None:
        return ""
    lead, honest = (float(values.mean()) for values in leads)
    if not (lead > 0 and lead - honest > SHARE):
        return ""
    over = "" if best else f" over {below.label}"
    if honest > 0:
        return f"; {_nats(lead - honest)} of its lead{over} come from constant columns"
    return f"; all of its lead{over} comes from constant columns"


def _leads(row: Outcome, other: Outcome) -> tuple[Floats, Floats] | None:
    """(N,) paired leads with every column counted and with those that vary alone, or None."""
    if row.evidence is None or other.evidence is None or row.varying is None or other.varying is None:
        return None
    return row.evidence - other.evidence, row.varying - other.varying


def _beyond_noise(values: Floats) -> bool:
    """Whether a mean is positive by more than two standard errors and more than rounding; never with one datum."""
    mean = float(values.mean())
    return mean > NOISE and mean > 2 * _standard_error(values)


def _stray(row: Outcome) -> str:
    """A remark if one seed is worse than the others by more than they differ and than the data leave open."""
    if row.per_seed is None or len(row.per_seed) < 3 or not np.isfinite(row.per_seed).all():
        return ""
    means = row.per_seed.mean(1)
    worst = int(means.argmin())
    others = np.delete(row.per_seed, worst, axis=0)
    behind = others.mean(0) - row.per_seed[worst]
    enough = max(STRAY * np.ptp(others.mean(1)), _standard_error(others.mean(0)))
    if not (_beyond_noise(behind) and behind.mean() > enough):
        return ""
    seeds = row.read("seeds") or list(range(row.used.size))
    name = np.asarray(seeds)[row.used][worst]
    return f"; seed {name} is {_nats(behind.mean())} nats below the others"


def _density_ran_away(row: Outcome) -> str:
    """A remark where a mass is ranked whose density ran away."""
    return f"; its density {_run_away(row)}" if row.has_mass and row.ran_away else ""


def _early(row: Outcome) -> str:
    """A remark if the scored weights are those of the first two of several checks."""
    best, checks = row.get("optimization/best_step"), row.checks
    if row.evidence is None or best is None or checks.size < 3:
        return ""
    scored = np.asarray(best)[row.used]
    early = scored[(scored >= 0) & (scored <= float(checks[1]))]
    if not early.size:
        return ""
    who = "" if early.size == scored.size else f"{early.size} of {scored.size} seeds "
    steps = " and ".join(f"{step:,.0f}" for step in np.unique(early))
    return f"; {who}scored at step {steps} of {int(checks[-1]):,}: it only got worse after that"


def _run_away(run: Outcome) -> str:
    """What ran away, and how much of the score the columns constant in training gave."""
    text = "ran away"
    if run.last_scales is not None:
        names = [str(name) for name in run.summary.get("columns") or range(run.last_scales.size)]
        scales = np.nan_to_num(run.last_scales, nan=np.inf)
        fallen = np.flatnonzero(scales < COLLAPSED) if scales.min() < COLLAPSED else np.array([scales.argmin()])
        constant = sum(names[i] in run.constant_columns for i in fallen)
        shown = ", ".join(names[i] for i in fallen[:3]) + (f" and {len(fallen) - 3} more" if len(fallen) > 3 else "")
        which = (
            ""
            if not constant
            else "constant in training"
            if constant == len(fallen)
            else f"{constant} constant in training"
        )
        text += f": decoder scale {_power(scales.min())} on column{'s' * (len(fallen) > 1)} {shown}"
        text += f" ({which})" if which else ""
    elif (smallest := run.get("optimization/min_scale")) is not None and smallest.notnull().any():
        text += f": decoder scale {_power(float(smallest.min()))}"
    if np.isfinite(run.share_constant) and run.constant_columns:
        text += f"; {_parts(run)}"
    return text


def _difference(row: Outcome, best: Outcome) -> tuple[float, float]:
    """Mean and standard error of the paired difference to the best row."""
    if row is best:
        return 0.0, 0.0
    assert row.evidence is not None and best.evidence is not None  # noqa: PT018 (ranked rows have evidence)
    paired = row.evidence - best.evidence
    return float(paired.mean()), _standard_error(paired)


def _verdict(best: Outcome, difference: float, se: float) -> str:
    """How a ranked row stands to the best one."""
    apart = f"cannot be told apart from {best.label}"
    if best.score == -np.inf:
        return f"{apart}: both give some test datum no probability at all"
    if not np.isfinite(difference):
        return f"worse than {best.label}: gives some test datum no probability at all"
    if np.isnan(se):
        return f"{apart}: one test datum"
    if abs(difference) <= NOISE:
        return f"{apart} (difference of at most {NOISE} nats)"
    places = _places(se or abs(difference))
    if not abs(difference) > 2 * se:
        return f"{apart} (difference {_nats(difference, places)} ± {_nats(se, places)})"
    return f"worse than {best.label} by {_nats(-difference, places)} ± {_nats(se, places)}"


def _stacking_weights(ranked: Sequence[Outcome]) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of the mixture of pairs with the best held-out score, and their standard errors over the data.

    A datum's best pair is subtracted first: the weights stay the same, and exp no longer overflows. The errors are
    those of a bootstrap over data, of which the difference between pairs is the most part.
    """
    if len(ranked) < 2:
        return {row.label: 1.0 for row in ranked}, {}
    table = np.stack([row.evidence for row in ranked if row.evidence is not None])
    table = table[:, np.isfinite(table).any(0)]
    if not table.size:
        return {}, {}
    table = np.maximum(table - table.max(0), NEGLIGIBLE)
    labels, count = [row.label for row in ranked], table.shape[1]
    draws = np.random.default_rng(0).integers(count, size=(BOOTSTRAPS if count > 1 else 0, count))
    weights, *resampled = (_stacked(labels, table[:, rows]) for rows in (np.arange(count), *draws))
    errors = np.std([list(sample.values()) for sample in resampled], axis=0, ddof=1) if resampled else []
    return weights, dict(zip(labels, map(float, errors), strict=False))


def _stacked(labels: Sequence[str], table: Floats) -> dict[str, float]:
    """ArviZ's stacking weights of pointwise evidence (pairs, N), in the order of the labels."""
    from inspect import signature

    import arviz_stats

    # ArviZ 1 rounds unless told not to
    exactly = {"round_to": "none"} if "round_to" in signature(arviz_stats.compare).parameters else {}
    heldout = {label: _elpd(values) for label, values in zip(labels, table, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ArviZ 0 uses what pandas 3 deprecates
        weights = arviz_stats.compare(heldout, **exactly)["weight"]
    return {label: float(weights[label]) for label in labels}


def _power(value: float) -> str:
    """A scale as 3e-7."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def _places(value: float) -> int:
    """Decimals that show two significant digits of a positive value."""
    return max(1 - int(f"{value:.1e}".partition("e")[2]), 0)


def _nats(value: float, places: int = 1) -> str:
    """A number of nats, never a minus zero."""
    return f"{round(float(value), places) + 0.0:,.{places}f}"


def _parts(run: Outcome) -> str:
    """What the columns constant in training and the others gave."""
    rest = run.density - run.share_constant
    given = _nats(run.share_constant)
    return f"constant columns gave {'' if given.startswith('-') else '+'}{given} nats, the others {_nats(rest)}"


def _deviation(values: Floats) -> float:
    """The standard deviation of a sample; NaN for a sample of one or a value that is not finite."""
    return float(values.std(ddof=1)) if values.size > 1 and np.isfinite(values).all() else float("nan")


def _standard_error(values: Floats) -> float:
    """The standard error of the mean."""
    return float(_deviation(values) / np.sqrt(values.size))
