"""What one run says about itself, read from its DataTree."""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from zoo.comparison.difference import Floats, Score
from zoo.comparison.improvement import ended_early
from zoo.errors import RunError
from zoo.options import location
from zoo.storage import read_tree, runs_within
from zoo.tree import ANNEALED, BAD_K

__all__ = ["COLLAPSED", "HasTree", "Outcome", "Source", "outcomes", "with_ensembles"]

COLLAPSED = 1e-3  # a decoder scale below this, in scaled units, has run away


class HasTree(Protocol):
    """Anything that carries the record of a run, such as a ``Run``."""

    @property
    def tree(self) -> xr.DataTree:
        """The record of the run."""
        ...


Source: TypeAlias = xr.DataTree | HasTree | str | Path


@dataclass(frozen=True)
class Outcome:
    """What one run says about itself: attributes read from JSON, evidence averaged over the seeds that count.

    ``label`` is the pair's name and ``title`` the name for tables. Both are unique among the runs read together, since
    they include the ``setting`` in which a run differs from others of its pair. An ``ensemble`` is scored as the
    mixture of its seeds.
    """

    label: str
    title: str
    tree: xr.DataTree
    setting: str = ""
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
    def settings(self) -> dict[str, Any]:
        """Its options, and the training settings that tell two runs of a pair apart."""
        trained = {name: self.read(name) for name in ("guide", "data", "steps", "learning_rate")}
        return trained | dict(self.read("options") or {})

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
        """Whether it is ranked by log mass, its data being discrete."""
        return bool(self.read("mass_fingerprint")) and self.get("heldout/log_mass") is not None

    @property
    def table(self) -> tuple[str, str]:
        """What two runs must share to be ranked together."""
        if self.has_mass:
            return "mass", str(self.read("mass_fingerprint"))
        return str(self.read("base_measure")), str(self.read("data_fingerprint"))

    @property
    def measure(self) -> str:
        """The base measure of the score: counting on columns with cells, length on the others."""
        counted = int(self.summary.get("resolved") or 0)
        if counted in (0, self.features):
            return "counting: every value is a cell" if counted else "length"
        return f"counting in {counted} columns, length in {self.features - counted}"

    @property
    def scored_as(self) -> str:
        """What kind of score it is: a density or some kind of mass, exact or a lower bound."""
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
        """The options that are a variance or standard deviation in scaled units, expressed in the data's units."""
        options = self.read("options") or {}
        scale = self.get("constant_data/scale")
        if scale is None or (self.read("card") or {}).get("support") != "real":  # on a log scale they have no units
            return {}
        told = {}
        for name, deviation in (("floor", lambda floor: floor**0.5), ("scale", float)):
            if options.get(name) is not None and str(self.read("base_measure")) == "density":
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
    def improving(self) -> NDArray[np.bool_]:
        """(S,) which seeds that are scored were still improving when training ended."""
        elbo, settled = self.get("validation/elbo"), self.get("optimization/settled_at")
        if elbo is None or self.evidence is None:
            return np.zeros(0, bool)
        away = self.get("optimization/ran_away_at")
        broken = ~self.used if away is None else ~self.used | (np.asarray(away) >= 0)
        values = np.asarray(elbo.transpose("chain", "check"), np.float64)
        return ended_early(
            self.checks, values, settled_at=None if settled is None else np.asarray(settled), broken=broken
        )

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """(S,) which seeds are scored: those that never met a non-finite loss."""
        frozen = self.get("optimization/frozen_at")
        evidence = self.get("heldout/log_evidence")
        if frozen is None:
            return np.ones(0 if evidence is None else evidence.sizes["chain"], bool)
        return np.asarray(~(frozen >= 0))

    @cached_property
    def validation(self) -> Floats:
        """(S,) validation ELBO of the scored weights, nats per datum, by scored seed; (0,) for none or a mixture."""
        elbo, kept = self.get("validation/elbo"), self.get("optimization/best_step")
        if elbo is None or self.ensemble:
            return np.zeros(0)
        of_kept = elbo if kept is None else elbo.where(self.tree["validation"]["step"] == kept)
        return np.asarray(of_kept.max("check"), np.float64)[self.used]

    def pointwise(self, name: str) -> Floats | None:
        """(S, N) values of the group ``heldout`` for the scored seeds, or None."""
        values = self.get(f"heldout/{name}")
        if values is None or not self.used.any() or not values.size:
            return None
        return np.asarray(values.transpose("chain", "obs"), np.float64)[self.used]

    @cached_property
    def by_seed(self) -> Floats | None:
        """(S, N) the score of each datum by each scored seed, or None."""
        return self.pointwise("log_mass" if self.has_mass else "log_evidence")

    @cached_property
    def by_datum(self) -> Score | None:
        """The score of each datum, averaged over seeds, or by their mixture for an ensemble; or None."""
        return None if self.by_seed is None else Score.of_seeds(self.by_seed, ensemble=self.ensemble)

    @property
    def per_seed(self) -> Floats | None:
        """(S, N) the scores that are averaged: one row per seed, or one for the mixture of an ensemble; or None."""
        return self.evidence[None] if self.ensemble and self.evidence is not None else self.by_seed

    @property
    def evidence(self) -> Floats | None:
        """(N,) the values of :attr:`by_datum`."""
        return None if self.by_datum is None else self.by_datum.values

    @property
    def bad_k(self) -> int | None:
        """How many data have a Pareto k above 0.7, in the worst seed; None where a k is unknown."""
        k = self.pointwise("mass_k" if self.has_mass else "pareto_k")
        return None if k is None or np.isnan(k).any() else int((k > BAD_K).sum(1).max())

    @property
    def annealed(self) -> int | None:
        """How many data were annealed, in the seed with the most of them; None where that is not recorded."""
        method = self.pointwise("mass_method" if self.has_mass else "method")
        return None if method is None else int((method == ANNEALED).sum(1).max())

    @cached_property
    def varying(self) -> Score | None:
        """The score from the columns that vary in training, where the score is a density."""
        values = None if self.has_mass or self.ensemble else self.pointwise("log_evidence_varying")
        return None if values is None else Score.of_seeds(values)

    @cached_property
    def density(self) -> float:
        """Mean log evidence under the pair's own measure: not the score of a density fitted to discrete data."""
        values = self.pointwise("log_evidence")
        return float("nan") if values is None else float(values.mean())

    @cached_property
    def share_constant(self) -> float:
        """Nats per datum that the columns constant in training give the density, NaN where there are none."""
        values = self.pointwise("log_evidence_varying")
        return float("nan") if values is None else self.density - float(values.mean())

    @cached_property
    def score(self) -> float:
        """Mean log evidence, NaN without one; -inf if some datum has no probability at all."""
        return float("nan") if self.evidence is None else float(self.evidence.mean())

    @cached_property
    def obs(self) -> NDArray[Any]:
        """(N,) the source row of each test datum, or its number where that is not recorded."""
        values = self.get("heldout/log_evidence")
        if values is None or "obs" not in values.coords:
            return np.arange(0 if self.evidence is None else self.evidence.size)
        return np.asarray(values["obs"])

    @property
    def scored_rows(self) -> tuple[int, int]:
        """How many test rows were scored, and how many there are."""
        return self.obs.size, int(self.summary.get("test") or self.obs.size)

    def far_away(self, at: int) -> tuple[str, float]:
        """The column where a test datum is furthest from the training mean, in training standard deviations."""
        column, distance = (self.get(f"heldout/{name}") for name in ("farthest_column", "farthest"))
        if column is None or distance is None:
            return "", 0.0
        names = self.summary.get("columns") or range(self.features)
        return str(names[int(column[at])]), float(distance[at])

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
    """Read runs, paths or DataTrees, and give each a unique name.

    The names of two runs of one pair include the options in which they differ: ``gmm (components=10)``.
    """
    single = isinstance(runs, str | Path | xr.DataTree) or hasattr(runs, "tree")
    try:
        sources = cast(list[Source], [runs] if single else list(cast(Iterable[Source], runs)))
    except TypeError:
        raise RunError(f"runs={runs!r}: give runs, DataTrees, or paths of runs' directories") from None
    trees = [_tree(source) for source in sources]
    if not trees:
        raise RunError("no runs to compare: pass at least one run, DataTree or path of a run's directory")
    pairs = [str(tree.attrs["pair"]) for tree in trees]
    titles = [str(tree.attrs.get("title", pair)) for tree, pair in zip(trees, pairs, strict=True)]
    plain = [Outcome(pair, title, tree) for pair, title, tree in zip(pairs, titles, trees, strict=True)]
    suffixes, named = [], []
    for run in plain:
        own = run.settings
        twins = [twin.settings for twin in plain if twin.label == run.label]
        differing = [key for key in own if any(other.get(key) != own[key] for other in twins)]
        named.append(", ".join(str(own[key]) if key == "data" else f"{key}={own[key]}" for key in differing))
        suffixes.append(f" ({named[-1]})" if named[-1] else "")
    numbered = [pair + suffix for pair, suffix in zip(pairs, suffixes, strict=True)]
    total = Counter(numbered)
    numbers = [f" #{numbered[:i].count(name) + 1}" * (total[name] > 1) for i, name in enumerate(numbered)]
    suffixes = [suffix + number for suffix, number in zip(suffixes, numbers, strict=True)]
    settings = [(setting + number).strip() for setting, number in zip(named, numbers, strict=True)]
    shared = {
        title for title in titles if len({pair for pair, of in zip(pairs, titles, strict=True) if of == title}) > 1
    }
    return [
        Outcome(pair + suffix, title + f" ({pair})" * (title in shared) + suffix, tree, setting)
        for pair, title, suffix, tree, setting in zip(pairs, titles, suffixes, trees, settings, strict=True)
    ]


def with_ensembles(runs: Iterable[Outcome]) -> list[Outcome]:
    """Each run, followed by the mixture of its scored seeds if there are several."""
    return [outcome for run in runs for outcome in (run, *_ensemble(run))]


def _ensemble(run: Outcome) -> list[Outcome]:
    if run.by_seed is None or len(run.by_seed) < 2:
        return []
    suffix = f" (ensemble of {len(run.by_seed)})"
    return [replace(run, label=run.label + suffix, title=run.title + suffix, ensemble=True)]


def _tree(source: Source) -> xr.DataTree:
    """The DataTree of a run, from memory or disk."""
    if isinstance(source, xr.DataTree):
        tree, where = source, "the DataTree"
    elif isinstance(source, str | Path):
        path, where = location("runs", source), str(source)
        files = sorted(path.glob("*.nc")) if path.is_dir() else [path] if path.is_file() else []
        if len(files) != 1:
            found = f"{len(files)} .nc files" if path.is_dir() else "nothing"
            found += runs_within(path)
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
