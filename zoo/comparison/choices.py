"""Which options the validation part chooses among runs of one pair; the test part chooses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.comparison.difference import NOISE, standard_error
from zoo.comparison.outcome import Outcome
from zoo.comparison.shrinkage import unsettled
from zoo.words import listing, nats, places

__all__ = ["Family", "families"]

NAMED = 3  # tied runs that a sentence names; the table shows all


@dataclass(frozen=True)
class Family:
    """Runs of one pair on the same data that differ in a setting: an option or the length of training.

    The chosen run has the highest validation ELBO of its scored weights, averaged over the scored seeds. How much the
    choice depends on the validation rows is unknown, since no run records its ELBO by row.
    """

    runs: tuple[Outcome, ...]

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings in which its runs differ."""
        first, *others = (run.settings for run in self.runs)
        return tuple(name for name in first if any(other.get(name) != first[name] for other in others))

    @cached_property
    def excluded(self) -> dict[str, str]:
        """Why a run cannot be chosen, by its label: its ELBO depends on when training stopped, or it has none."""
        return {run.label: why for run in self.runs if (why := _unfit(run))}

    @cached_property
    def candidates(self) -> list[Outcome]:
        """The runs that can be chosen, the highest validation ELBO first."""
        fit = [run for run in self.runs if run.label not in self.excluded]
        return sorted(fit, key=lambda run: -float(run.validation.mean()))

    @property
    def left_out(self) -> list[Outcome]:
        """The runs that cannot be chosen."""
        return [run for run in self.runs if run.label in self.excluded]

    @property
    def chosen(self) -> Outcome | None:
        """The run that validation chooses, if any can be chosen."""
        return self.candidates[0] if self.candidates else None

    @property
    def tied(self) -> list[Outcome]:
        """The runs within one standard error over seeds of the chosen one, at least 0.01 nats."""
        return [run for run in self.candidates[1:] if _behind(run, self.candidates[0]) <= 0]

    @property
    def best_on_test(self) -> Outcome | None:
        """The run with the highest score on the test part, among those whose score counts."""
        scored = [run for run in self.runs if run.score < np.inf and (run.has_mass or run.label not in self.excluded)]
        return max(scored, key=lambda run: run.score, default=None)

    @property
    def statement(self) -> str:
        """Which of its runs validation chooses, and how that run scores on the test part against the best there."""
        pair, count = self.runs[0].read("pair"), len(self.runs)
        not_chosen = "".join(
            f"; not {listing([run.setting for run in self.runs if self.excluded.get(run.label) == why])}, {why}"
            for why in dict.fromkeys(self.excluded.values())
        )
        if self.chosen is None:
            return f"{pair}: of {count}, validation chooses none{not_chosen}."
        return (
            f"{pair}: of {count}, validation chooses {self.chosen.setting}, by {self._evidence()}{self._ties()}"
            f"{not_chosen}. {self._on_test(self.chosen)}"
        )

    def _evidence(self) -> str:
        """The number that decides."""
        assert self.chosen is not None
        values = self.chosen.validation
        error = standard_error(values)
        spread = "of one seed" if values.size == 1 else f"± {nats(error, places(error))} over {values.size} seeds"
        told = "a lower bound on the log evidence, with a gap that may differ between runs"
        if self.chosen.has_mass and self.chosen.read("base_measure") != "mass":
            told += "; of its density, though masses are ranked"
        return f"its ELBO of {nats(float(values.mean()), places(error))} nats {spread} ({told})"

    def _ties(self) -> str:
        tied = listing([run.setting for run in self.tied], most=NAMED)
        return tied and f", tied with {tied}"

    def _on_test(self, chosen: Outcome) -> str:
        """How the chosen run scores against the one the test part would choose."""
        best = self.best_on_test
        if best is None or np.isnan(chosen.score):
            return "It has no score on the test part."
        here = f"On the test part it scores {nats(chosen.score, 2)}"
        if best is chosen:
            return f"{here}, the best of them there as well."
        return (
            f"{here}; the best there, {best.setting} with {nats(best.score, 2)}, chose itself on the test part and is "
            "optimistic."
        )


def families(runs: Iterable[Outcome]) -> list[Family]:
    """The runs of each pair on the same data, where several differ in a setting."""
    found: dict[tuple[object, ...], list[Outcome]] = {}
    for run in runs:
        found.setdefault((run.table, run.read("data_fingerprint"), run.read("pair")), []).append(run)
    return [family for same in found.values() if (family := Family(tuple(same))).settings]


def _unfit(run: Outcome) -> str:
    """Why its validation ELBO cannot decide a choice, or empty."""
    if run.ran_away or unsettled(run.tree):
        what = "ran away" if run.ran_away else "is not settled"
        return f"which {what}: its ELBO depends on when training stopped"
    if not run.validation.size or not np.isfinite(run.validation).all():
        return "which has no validation ELBO"
    return ""


def _behind(run: Outcome, best: Outcome) -> float:
    """How much more than noise a run is behind the best; one seed says nothing about the noise over seeds."""
    errors = [np.nan_to_num(standard_error(each.validation)) for each in (run, best)]
    return float(best.validation.mean() - run.validation.mean() - max(NOISE, np.hypot(*errors)))
