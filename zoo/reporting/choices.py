"""The options of one pair: validation and test scores, in a table and drawn against each option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.comparison import Family, Outcome
from zoo.comparison.difference import Difference, standard_error
from zoo.reporting.axes import CHARACTERS, legend_columns
from zoo.reporting.ink import DASH, INK, MINUS, PALETTE, WIDTH, hover
from zoo.reporting.reading import Floats
from zoo.reporting.tables import Cell, Table
from zoo.reporting.text import number, sentence, short
from zoo.words import listing, nats, places

__all__ = ["against", "numbers"]

COLUMNS = ("validation ELBO", "held out", "choice of validation")
DECADE = 10.0  # values whose largest is at least so many times the smallest get a logarithmic axis


def numbers(family: Family) -> Table:
    """The scores of each run on both parts, with standard errors over seeds and over data, in validation order."""
    said = {run.label: "tied" for run in family.tied} | {run.label: "left out" for run in family.left_out}
    if family.chosen:
        said[family.chosen.label] = "chosen"
    rows = []
    for run in family.candidates + family.left_out:
        on_test = np.zeros(0) if run.evidence is None else run.evidence
        rows.append((run.label, [_cell(run.validation), _cell(on_test), (said.get(run.label, ""), "")]))
    return Table(COLUMNS, rows)


def against(family: Family, setting: str) -> tuple[Figure, str]:
    """Held-out score and validation ELBO against one setting, a line for each combination of the others."""
    chosen, lines = family.candidates[0], _lines(family, setting)
    shown = dict(zip(lines, PALETTE, strict=False))
    axis = Axis.of([run.settings.get(setting) for run in family.runs])
    place = {run.label: axis.places[str(run.settings.get(setting))] for run in family.runs}
    columns = legend_columns([*shown])
    above = -(-len(shown) // columns) if any(shown) else 0
    figure = Figure(figsize=(WIDTH, 3.2 + 0.22 * above + 0.5 * axis.turned))
    axes = figure.subplots(2, 1, sharex=True)
    for ax, (part, point) in zip(axes, {"held out": _held_out, "validation ELBO": _validation}.items(), strict=True):
        for name, colour in shown.items():
            runs = sorted(lines[name], key=lambda run: place[run.label])
            y, errors = np.array([point(run, chosen) for run in runs]).T
            x = [place[run.label] for run in runs]
            ax.errorbar(x, y, errors, color=colour, lw=1.4, elinewidth=1, label=name)
            points = ax.scatter(x, y, s=20, color=colour, zorder=3)
            hover(
                points,
                *(
                    f"{run.setting or run.label}: {number(value)} nats per datum"
                    for run, value in zip(runs, y, strict=True)
                ),
            )
        ax.plot(place[chosen.label], point(chosen, chosen)[0], "o", color=INK, mfc="none", ms=10, mew=1.2)
        ax.set_ylabel(part)
        ax.locator_params(axis="y", nbins=4)
        ax.margins(x=0.08)
    axis.mark(axes[1])
    axes[1].set_xlabel(setting)
    figure.align_ylabels()
    if above:
        bars = axes[0].containers
        figure.legend(bars, [*shown], loc="outside upper left", ncols=columns,
                      handlelength=1.2, columnspacing=1.2)  # fmt: skip
    remarks = ["nats per datum; the ring is what validation chooses",
               "bars are one standard error, above of the difference to the ring, below over seeds"]  # fmt: skip
    if len(shown) < len(lines):
        remarks.append(f"the best {len(shown)} of {len(lines)} combinations")
    if family.left_out:
        remarks.append(f"not drawn: {listing([run.setting for run in family.left_out])}")
    return figure, sentence(remarks)


def _lines(family: Family, setting: str) -> dict[str, list[Outcome]]:
    """The runs that can be chosen, grouped by all settings but one, the best combination first."""
    others = [name for name in family.settings if name != setting]
    lines: dict[str, list[Outcome]] = {}
    for run in family.candidates:
        lines.setdefault(", ".join(f"{name}={run.settings.get(name)}" for name in others), []).append(run)
    return lines


@dataclass(frozen=True)
class Axis:
    """Positions of a setting's values on the axis, by their text: numbers at their value, others side by side."""

    places: dict[str, float]
    numeric: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> Axis:
        """The axis of these values."""
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numeric:
            return cls({str(value): float(value) for value in sorted(values)}, numeric)
        return cls({text: float(i) for i, text in enumerate(dict.fromkeys(map(str, values)))}, numeric)

    @property
    def log(self) -> bool:
        """Whether it is logarithmic."""
        least, most = min(self.places.values()), max(self.places.values())
        return self.numeric and 0 < DECADE * least <= most

    @property
    def turned(self) -> bool:
        """Whether its names are too long to stand side by side."""
        return not self.numeric and sum(map(len, self.places)) > CHARACTERS

    def mark(self, ax: Axes) -> None:
        """Set ticks at the values: as many numbers as fit, or all names, side by side or turned."""
        places, labels = np.array([*self.places.values()]), np.array([*self.places])
        if self.numeric:
            if self.log:
                ax.set_xscale("log")
            kept = _apart(np.log(places) if self.log else places, [len(label) for label in labels])
            ax.set_xticks(places[kept], labels[kept])
            ax.minorticks_off()
        else:
            ax.set_xticks(places, [short(label, 24) for label in labels])
            ax.set_xlim(-0.4, len(labels) - 0.6)
            ax.tick_params(axis="x", labelrotation=20 * self.turned)


def _apart(places: Floats, lengths: Sequence[int]) -> list[int]:
    """Those of the ascending places whose labels, of these lengths, do not touch."""
    kept = [0]
    for i in range(1, len(places)):
        share = (places[i] - places[kept[-1]]) / (places[-1] - places[0])
        if share * CHARACTERS > 1 + (lengths[i] + lengths[kept[-1]]) / 2:
            kept.append(i)
    return kept


def _held_out(run: Outcome, chosen: Outcome) -> tuple[float, float]:
    """Its score, and the standard error of its difference to the chosen run."""
    if run.by_datum is None or chosen.by_datum is None or not np.isfinite(run.score):
        return float("nan"), 0.0
    return run.score, float(np.nan_to_num(Difference.between(run.by_datum, chosen.by_datum).error))


def _validation(run: Outcome, chosen: Outcome) -> tuple[float, float]:  # noqa: ARG001 (both parts are asked alike)
    """Its validation ELBO, and the standard error over seeds."""
    return float(run.validation.mean()), float(np.nan_to_num(standard_error(run.validation)))


def _cell(values: Floats) -> Cell:
    """A mean with its standard error, if known."""
    if not values.size:
        return DASH, ""
    error = standard_error(values)
    told, beside = (nats(value, places(error)).replace("-", MINUS) for value in (float(values.mean()), error))
    return told, "" if np.isnan(error) else f"± {beside}"
