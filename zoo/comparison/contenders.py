"""The pairs of one table on every split: what a recommendation needs of each, without its DataTree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.comparison.choices import families
from zoo.comparison.difference import Difference, Majority, Score, most_rows, standard_error
from zoo.comparison.improvement import goes_on
from zoo.comparison.outcome import Outcome
from zoo.comparison.shrinkage import unsettled
from zoo.comparison.table import by_table
from zoo.comparison.verdicts import listed_apart
from zoo.words import plus_minus

__all__ = ["Candidate", "Contender", "candidates", "contenders"]


@dataclass(frozen=True)
class Contender:
    """One pair on one split.

    Attributes:
        score: log-likelihood of each held-out row, nats, if it has one.
        fault: why the score cannot be relied on, however high; completes "the pair is ..."; or empty.
        missing: why there is no score; or empty.
        longer: how to train it longer, if it was still improving when training ended; or empty.
        passed_over: whether validation prefers the same pair with other settings.
        bad_k: how many rows have importance weights that cannot be trusted, None if unknown.
        annealed: how many of those rows were scored by annealing instead.
        remedies: names of well-posed pairs to use instead.
    """

    label: str
    score: Score | None
    row_names: tuple[str, ...]
    fault: str
    missing: str
    longer: str
    checked: bool
    passed_over: bool
    seeds: int
    exact: bool
    bad_k: int | None
    annealed: int | None
    remedies: tuple[str, ...]

    @classmethod
    def of(cls, run: Outcome, *, apart: bool, passed_over: bool) -> Contender:
        """The contender of a run; ``apart`` if the run is not ranked."""
        scored = run.by_datum is not None and not np.isnan(run.score) and run.score != np.inf
        return cls(
            label=run.label,
            score=run.by_datum if scored else None,
            row_names=tuple(map(str, run.obs)),
            fault=_fault(run, apart),
            missing="" if scored else _missing(run),
            longer=goes_on(run.tree.attrs) if run.improving.any() else "",
            checked=bool(run.improving.size),
            passed_over=passed_over,
            seeds=int(run.used.sum()),
            exact=run.exact,
            bad_k=run.bad_k,
            annealed=run.annealed,
            remedies=tuple(map(str, (run.read("card") or {}).get("remedies", ()))),
        )


def contenders(runs: Iterable[Outcome]) -> dict[str, list[Contender]]:
    """The pairs of one split, by the table they are ranked in."""
    return {table: [*_contenders(rows)] for table, rows in by_table(runs).items()}


def _contenders(rows: Sequence[Outcome]) -> Iterable[Contender]:
    with np.errstate(invalid="ignore", over="ignore"):  # a seed may hold infinities
        apart = listed_apart(rows)
    chosen = [(family, family.chosen) for family in families(row for row in rows if not row.ensemble)]
    passed_over = {run.label for family, best in chosen if best for run in family.runs if run is not best}
    for row in rows:
        yield Contender.of(row, apart=row.label in apart, passed_over=row.label in passed_over)


def _fault(run: Outcome, apart: bool) -> str:
    """Why a score cannot be relied on."""
    if run.ran_away:
        return "unstable here" if run.bounded else "ill-posed here and ran away: a variance shrank towards zero"
    if run.evidence is not None and not run.has_mass and unsettled(run.tree):
        return "ill-posed here: a variance was still shrinking when training stopped"
    if run.score == -np.inf:
        return "unusable here: it gives some held-out row no probability at all"
    if apart and np.isfinite(run.score):
        return "ahead only through columns that are constant in training"
    return ""


def _missing(run: Outcome) -> str:
    """Why there is no score."""
    if run.evidence is None:
        return "every seed met a loss that was not finite" if run.used.size and not run.used.any() else "not evaluated"
    return f"the scores of {int((~np.isfinite(run.evidence)).sum())} held-out rows are not finite"


@dataclass(frozen=True)
class Candidate:
    """One pair on every split that has a run of it, by the number of the split."""

    label: str
    on: Mapping[int, Contender]

    @property
    def first(self) -> Contender:
        """The pair on the first of its splits."""
        return next(iter(self.on.values()))

    @cached_property
    def scored(self) -> dict[int, float]:
        """Its mean log-likelihood on each split that has one."""
        return {split: float(one.score.values.mean()) for split, one in self.on.items() if one.score is not None}

    @property
    def mean(self) -> float:
        """The mean over splits of its mean log-likelihood."""
        return float(np.mean([*self.scored.values()])) if self.scored else float("nan")

    @property
    def height(self) -> str:
        """The height in words; with a single split, with its error over rows."""
        score = self.first.score
        if len(self.on) > 1 or score is None:
            return plus_minus(self.mean)
        return plus_minus(self.mean, standard_error(score.values))

    @property
    def fault(self) -> str:
        """Why its scores cannot be relied on, on at least one split; or empty."""
        faults = [one.fault for one in self.on.values() if one.fault]
        if not faults:
            return ""
        return faults[0] + (f" on {len(faults)} of {len(self.on)} splits" if len(faults) < len(self.on) else "")

    @property
    def longer(self) -> str:
        """How to train it longer, if it was still improving on some split when training ended; or empty."""
        return next(filter(None, (one.longer for one in self.on.values())), "")

    @property
    def passed_over(self) -> bool:
        """Whether validation prefers other settings, on most splits."""
        return 2 * sum(one.passed_over for one in self.on.values()) > len(self.on)

    def common(self, other: Candidate) -> list[int]:
        """The splits on which both have a score."""
        return [split for split in self.scored if split in other.scored]

    def behind(self, best: Candidate) -> Difference:
        """How far it is behind another pair: over the rows of one split, or over several splits."""
        (split, one), *others = self.on.items()
        reference = best.on.get(split)
        if not others and len(best.on) == 1 and reference and reference.score and one.score:
            return Difference.between(reference.score, one.score)
        return Difference.over_splits(
            np.array([best.scored[split] - self.scored[split] for split in self.common(best)])
        )

    def on_most_rows(self, best: Candidate) -> Majority | None:
        """How it compares with another pair where one row of the only split decides the difference of their means."""
        if len(self.on) > 1 or self.first.score is None or best.first.score is None:
            return None
        return most_rows(self.first.score, best.first.score)


def candidates(splits: Sequence[Mapping[str, Sequence[Contender]]]) -> dict[str, list[Candidate]]:
    """The pairs of every table over all splits, the highest mean first and pairs without a mean last."""
    found: dict[str, dict[str, dict[int, Contender]]] = {}
    for split, tables in enumerate(splits):
        for table, rows in tables.items():
            for one in rows:
                found.setdefault(table, {}).setdefault(one.label, {})[split] = one
    return {
        table: sorted(
            (Candidate(label, on) for label, on in rows.items()),
            key=lambda pair: -np.nan_to_num(pair.mean, nan=-np.inf),
        )
        for table, rows in found.items()
    }
