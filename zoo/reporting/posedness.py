"""Whether a pair's likelihood has an upper bound: the path that shows it, and what happened in the run."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import COLLAPSED, Outcome
from zoo.reporting.axes import name_axes
from zoo.reporting.ink import INK, canvas, hover
from zoo.reporting.reading import Floats, names
from zoo.reporting.text import number, sentence

__all__ = ["facts", "path"]

NAMED = 4  # columns named
NAMES = {"log_likelihood": "log likelihood", "elbo": "ELBO", "penalized": "penalised likelihood"}


def path(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """The log likelihood of training rows along the path, with ELBO, penalised likelihood, bound and ceiling."""
    along = _along(run)
    if "log_likelihood" not in along or not np.isfinite(along["log_likelihood"]).any():
        return None
    about, sharpness = run.tree["wellposedness"].attrs, np.asarray(run.tree["wellposedness"]["sharpness"], np.float64)
    figure, ax = canvas(2.7)
    styles = {"log_likelihood": "-", "elbo": (0, (4, 2)), "penalized": (0, (1, 1.6))}
    for name, values in along.items():
        line = ax.plot(sharpness, values, color=colour, lw=1.8, ls=styles[name])
        hover(line, NAMES[name])
        points = ax.scatter(sharpness, values, s=9, color=colour, zorder=3)
        hover(
            points,
            *(f"{NAMES[name]}: {number(y)} nats at sharpness {x:g}" for x, y in zip(sharpness, values, strict=True)),
        )
    seen = np.concatenate([values[np.isfinite(values)] for values in along.values()])
    low, high = float(seen.min()), float(seen.max())
    remarks = []
    for name, value in (("bound", _number(about, "bound")), ("ceiling", _ceiling(run))):
        if np.isfinite(value) and value <= high + max(high - low, 1.0):
            ax.axhline(value, color=INK, lw=1, ls=(0, (5, 3)) if name == "bound" else (0, (1, 2)))
            ax.annotate(f"{name} {number(value)}", (1, value), (0, 3), xycoords=("axes fraction", "data"),
                        textcoords="offset points", ha="right", va="bottom")  # fmt: skip
        elif np.isfinite(value):
            remarks.append(f"the {name}, {number(value)}, lies above the view")
    name_axes(ax, "sharpness", f"nats, {about.get('rows', 'all')} training rows")
    return figure, sentence(remarks)


def facts(run: Outcome) -> Iterator[tuple[str, str]]:
    """What is claimed about a pair, what the path shows and what the run did, as terms with sentences."""
    yield "claim", _claim(run)
    if preset := _preset(run):
        yield "preset", preset
    if shown := _shown(run):
        yield "path", shown
    if seen := _seen(run):
        yield "this run", seen
    if told := _columns(run):
        yield "columns", told
    if gap := _gap(run):
        yield "ceiling", gap
    card = run.read("card") or {}
    if not run.bounded and not np.isfinite(run.bound) and card.get("remedies"):
        yield "instead", ", ".join(map(str, card["remedies"]))


def _claim(run: Outcome) -> str:
    card = run.read("card") or {}
    bound, condition, what = (card.get(name, "") for name in ("bound", "bounded_if", "bounds"))
    if str(run.read("base_measure")) == "mass":
        return "Bounded: a probability is at most 1, so log P(x) ≤ 0."
    if run.bounded:
        here = f" in scaled units, {number(run.bound)} nats per datum in the data's" if np.isfinite(run.bound) else ""
        return f"Bounded: log p(x) ≤ {bound}{here}.{_cap(run)}" if bound else "Bounded."
    if not condition:
        return "The likelihood is not bounded."
    if what in ("", "likelihood"):
        held = f" So it is here: log p(x) ≤ {number(run.bound)} nats per datum." if np.isfinite(run.bound) else ""
        return f"The likelihood is bounded only {condition}.{held}{_cap(run)}"
    return f"The likelihood is not bounded; the {what} is, {condition}."


def _preset(run: Outcome) -> str:
    """The preset whose options the run has, if any."""
    options = run.read("options") or {}
    for name, sets, clamp, *_ in (run.read("card") or {}).get("presets", ()):
        if sets.items() <= options.items():
            return f"{name}: {clamp}"
    return ""


def _cap(run: Outcome) -> str:
    """The highest log density of one value, averaged over columns, in scaled units."""
    scale = run.get("constant_data/scale")
    if scale is None or not np.isfinite(run.bound) or str(run.read("base_measure")) != "density":
        return ""
    log_scale = np.log(np.asarray(scale, np.float64))
    return f" No value scores more than {number(run.bound / len(log_scale) + log_scale.mean())} nats in scaled units."


def _shown(run: Outcome) -> str:
    """What the path does, and how high the likelihood is at its end."""
    values = _along(run).get("log_likelihood")
    if values is None:
        return ""
    about, sharpness = run.tree["wellposedness"].attrs, np.asarray(run.tree["wellposedness"]["sharpness"], np.float64)
    needs = f" (for which it needs {about['needs']})" if about.get("needs") else ""
    start = f"Where {about.get('path', 'its variance vanishes')}{needs}, the log likelihood"
    reached = f"{number(values[-1])} nats at sharpness {sharpness[-1]:g}"
    if about.get("grows"):
        gain = _number(about, "gain")
        told = f", and the steered part gained {number(gain)} at the last doubling" if np.isfinite(gain) else ""
        return f"{start} reaches {reached}{told}: it has no limit."
    bound = _number(about, "bound")
    below = f" and stays below {number(bound)}, its bound for these rows" if np.isfinite(bound) else ""
    there = "" if np.isfinite(bound) else " on this path, which is no proof of a bound"
    return f"{start} reaches at most {number(float(np.nanmax(values)))} nats{below}: it does not run away{there}."


def _seen(run: Outcome) -> str:
    """Whether the watch fired, and the smallest scale."""
    parts, at, scale = [], run.get("optimization/ran_away_at"), run.get("optimization/min_scale")
    if at is not None:
        fired = np.sort(np.asarray(at)[np.asarray(at) >= 0]).astype(int)
        steps = ", ".join(f"{step:,}" for step in np.unique(fired))
        parts.append(
            f"the watch for a likelihood that runs away fired in {fired.size} of {at.size} seeds, at step {steps}"
            if fired.size
            else f"the watch for a likelihood that runs away fired in none of {at.size} seeds"
        )
    if scale is not None and (finite := np.asarray(scale)[np.isfinite(np.asarray(scale))]).size:
        parts.append(f"smallest decoder scale {number(float(finite.min()))}")
    return sentence(parts)


def _columns(run: Outcome) -> str:
    """On which columns it happened, and whether they are constant or have few values."""
    parts, scales = [], run.last_scales
    if scales is not None and np.isfinite(scales).any():
        called = names(run, scales.size)
        order = [i for i in np.argsort(np.nan_to_num(scales, nan=np.inf)) if scales[i] < COLLAPSED]
        kinds = [
            f"{sum(told(i) for i in order)} of them {kind}"
            for kind, told in (
                ("constant in training", lambda i: called[i] in run.constant_columns),
                ("with values that repeat", lambda i: called[i] not in run.constant_columns and i in _repeating(run)),
            )
            if any(told(i) for i in order)
        ]
        first = ", ".join(called[i] for i in order[:NAMED]) + ("…" if len(order) > NAMED else "")
        least = int(np.nanargmin(scales))
        parts.append(
            f"scales below {COLLAPSED} at the last check in {len(order)} of {scales.size} columns ({first})"
            + "".join(f", {kind}" for kind in kinds)
            + _datum(run, least)
            if order
            else f"no column has a scale below {COLLAPSED} at the last check; the smallest, on {called[least]}, is "
            f"{number(float(scales[least]))}"
        )
    if run.constant_columns:
        gave = run.share_constant
        given = f", which give {number(gave)} nats of held-out evidence per datum" if np.isfinite(gave) else ""
        parts.append(f"constant in training: {len(run.constant_columns)} columns{given}")
    if not run.bounded and run.summary.get("support") in ("binary", "ordinal", "count"):
        parts.append("the values are discrete, and an unbounded density gains most where values repeat")
    return sentence(parts)


def _datum(run: Outcome, column: int) -> str:
    """The row where a column's scale is smallest at the last check, if scales differ by row."""
    obs, scale = run.get("validation/scale_obs"), run.get("validation/column_scale")
    if obs is None or scale is None:
        return ""
    last = np.nan_to_num(np.asarray(scale.isel(check=-1, feature=column), np.float64), nan=np.inf)
    row = int(obs.isel(check=-1, feature=column)[int(last.argmin())])
    return f", the least at row {row} of the data" if row >= 0 else ""


def _repeating(run: Outcome) -> set[int]:
    """Columns where fewer than half of the held-out values are distinct."""
    x = run.get("observed_data/x")
    values = np.zeros((0, 0)) if x is None else np.asarray(x, np.float64)
    return {i for i, column in enumerate(values.T) if len(np.unique(column)) < len(column) / 2}


def _gap(run: Outcome) -> str:
    """How far the run is below the highest value any distribution of the latents could reach."""
    if not _along(run) or "ceiling" not in (about := run.tree["wellposedness"].attrs):
        return ""
    rows, atoms = about.get("ceiling_rows", "?"), about.get("atoms", "?")
    parts = [
        f"no decoder with this floor lifts {rows} training rows above {number(about['ceiling'])} nats, "
        f"certified; {number(_number(about, 'ceiling_reached'))} is reached with {atoms} atoms"
    ]
    evidence, gap = (run.get(f"wellposedness/{name}") for name in ("train_evidence", "parsimony_gap"))
    if evidence is not None and gap is not None and run.used.any():
        mean, below = (float(np.nanmean(np.asarray(values, np.float64)[run.used])) for values in (evidence, gap))
        parts.append(f"the run has {number(mean)}, {number(below)} nats per datum below")
    return sentence(parts)


def _along(run: Outcome) -> dict[str, Floats]:
    """The curves that a run has."""
    found = {name: run.get(f"wellposedness/{name}") for name in ("log_likelihood", "elbo", "penalized")}
    return {name: np.asarray(values, np.float64) for name, values in found.items() if values is not None}


def _ceiling(run: Outcome) -> float:
    """The ceiling, if it was computed on the rows whose path is drawn."""
    about = run.tree["wellposedness"].attrs
    return _number(about, "ceiling") if about.get("ceiling_rows") == about.get("rows") else float("nan")


def _number(attrs: Mapping[Any, Any], name: str) -> float:
    """A number among the attributes, NaN if absent."""
    return float(attrs.get(name, np.nan))
