"""Which rows are ranked, and a sentence about each."""

from collections.abc import Sequence

import numpy as np

from zoo.comparison.difference import FEW, NOISE, Difference, Score, decisive_row, most_rows, standard_error
from zoo.comparison.improvement import goes_on
from zoo.comparison.outcome import COLLAPSED, Outcome
from zoo.comparison.shrinkage import unsettled
from zoo.words import listing, nats, places, plus_minus, scale

__all__ = ["first", "gift", "height", "listed_apart", "remarks", "verdict"]

STRAY = 2.0  # times the range of the other seeds: a seed further below them is named
SHARE = 0.05  # nats: the verdict mentions constant columns that gave at least as much of a lead
FAR = 10.0  # standard deviations of the training part: an entry beyond is named


def height(row: Outcome) -> tuple[float, float]:
    """Sorts the best first; among equal scores, the row that owes least to constant columns."""
    return -row.score, -np.inf if row.varying is None else -float(row.varying.values.mean())


def listed_apart(rows: Sequence[Outcome]) -> dict[str, str]:
    """Why a row is not ranked, for each that is not."""
    rules = (_unscored, _unsettled, _led_by_constants)
    reasons = {row.label: next(filter(None, (rule(row, rows) for rule in rules)), "") for row in rows}
    apart = {label: reason for label, reason in reasons.items() if reason}
    left = sorted((row for row in rows if row.label not in apart), key=height)
    while len(left) > 1 and (reason := _won_by_constants(*left[:2])):
        apart[left.pop(0).label] = reason
    return apart


def _unscored(row: Outcome, rows: Sequence[Outcome]) -> str:  # noqa: ARG001 (all rules are asked alike)
    """Why a row has no score that counts; empty if it has one."""
    if row.ran_away and not row.has_mass:
        return _run_away(row) + "; unranked"
    if row.evidence is None:
        return "not scored: every seed was frozen" if row.used.size and not row.used.any() else "not evaluated"
    if np.isnan(row.score) or row.score == np.inf:
        count = int((~np.isfinite(row.evidence)).sum())
        return f"unranked: the evidence of {count} test data is not a number"
    return ""


def _unsettled(row: Outcome, rows: Sequence[Outcome]) -> str:
    """Why the score of an unbounded density depends on when it stopped, if bounded ones are in the table."""
    if row.has_mass or not any(other.bounded and other.evidence is not None for other in rows):
        return ""
    return f"{why}; unranked" if (why := unsettled(row.tree)) else ""


def _led_by_constants(row: Outcome, rows: Sequence[Outcome]) -> str:
    """Whether a row leads one that is better on the columns that vary, and by how much."""
    for other in rows:
        if other.ran_away or (leads := _leads(row, other)) is None:
            continue
        lead, _, behind = leads
        if lead.beyond_noise and behind.beyond_noise:
            return (
                f"leads {other.label} by {nats(lead.mean)} nats only through the columns constant in training "
                f"({_parts(row)}); without them it is {nats(behind.mean)} behind; unranked"
            )
    return ""


def _won_by_constants(best: Outcome, next_best: Outcome) -> str:
    """Whether an unbounded pair owes most of its lead to the columns constant in training."""
    if best.bounded or (leads := _leads(best, next_best)) is None:
        return ""
    lead, given, _ = leads
    if not (lead.beyond_noise and given.beyond_noise and given.mean > lead.mean / 2):
        return ""
    most = f"most of its lead of {nats(lead.mean)} nats, {nats(given.mean)}, comes"
    every = f"all of its lead of {nats(lead.mean)} nats comes"
    return f"{most if given.mean < lead.mean else every} from columns constant in training; unranked"


def gift(row: Outcome, below: Outcome, *, best: bool) -> str:
    """How much the columns constant in training add to the lead over the next row, if worth a remark."""
    if (leads := _leads(row, below)) is None:
        return ""
    lead, given, behind = (each.mean for each in leads)
    if not (lead > 0 and given > SHARE):
        return ""
    over = "" if best else f" over {below.label}"
    if behind < 0:
        return f"; {nats(given)} of its lead{over} come from constant columns"
    return f"; all of its lead{over} comes from constant columns"


def _leads(row: Outcome, other: Outcome) -> tuple[Difference, Difference, Difference] | None:
    """How far a row leads another, how much constant columns give, and how far it is behind without them; or None."""
    if row.by_datum is None or other.by_datum is None or row.varying is None or other.varying is None:
        return None
    return (
        Difference.between(row.by_datum, other.by_datum),
        Difference.between(row.by_datum - row.varying, other.by_datum - other.varying),
        Difference.between(other.varying, row.varying),
    )


def _stray(row: Outcome) -> str:
    """A remark if one seed is worse than the others by more than their range and the error over data."""
    if row.per_seed is None or len(row.per_seed) < 3 or not np.isfinite(row.per_seed).all():
        return ""
    worst = int(row.per_seed.mean(1).argmin())
    others = np.delete(row.per_seed, worst, axis=0)
    behind = Difference.between(Score.of_seeds(others), Score.of_seeds(row.per_seed[[worst]]))
    enough = max(STRAY * np.ptp(others.mean(1)), standard_error(others.mean(0)))
    if not (behind.beyond_noise and behind.mean > enough):
        return ""
    seeds = row.read("seeds") or list(range(row.used.size))
    name = np.asarray(seeds)[row.used][worst]
    return f"seed {name} is {nats(behind.mean)} nats below the others"


def _late(row: Outcome) -> str:
    """A remark if training ended while a scored seed was still improving, and how to train longer."""
    count, of = int(row.improving.sum()), int(row.used.sum())
    if not count:
        return ""
    who = "" if count == of else f"{count} of {of} seeds "
    return f"{who}still improving: train longer ({goes_on(row.tree.attrs)})"


def _matter_of_time(row: Outcome) -> str:
    """A remark if a ranked score depends on when training stopped."""
    return "" if row.has_mass else unsettled(row.tree)


def _scaled_units(row: Outcome) -> str:
    """A remark if columns were scaled one by one and the pair's constraint is in scaled units."""
    shared = (row.read("card") or {}).get("in_scaled_units", "")
    if not shared or row.summary.get("scaling") != "column" or row.evidence is None:
        return ""
    return f'{shared} in scaled units: scaling="scalar" leaves the columns in proportion'


def _density_ran_away(row: Outcome) -> str:
    """A remark if a mass is ranked but its density ran away."""
    return f"its density {_run_away(row)}" if row.has_mass and row.ran_away else ""


def _early(row: Outcome) -> str:
    """A remark if the scored weights come from the first two of several checks."""
    best, checks = row.get("optimization/best_step"), row.checks
    if row.evidence is None or best is None or checks.size < 3:
        return ""
    scored = np.asarray(best)[row.used]
    early = scored[(scored >= 0) & (scored <= float(checks[1]))]
    if not early.size:
        return ""
    who = "" if early.size == scored.size else f"{early.size} of {scored.size} seeds "
    steps = " and ".join(f"{step:,.0f}" for step in np.unique(early))
    return f"{who}scored at step {steps} of {int(checks[-1]):,}: it only got worse after that"


def _run_away(run: Outcome) -> str:
    """What ran away, and how much of the score the columns constant in training gave."""
    text = "ran away"
    if run.last_scales is not None:
        names = [str(name) for name in run.summary.get("columns") or range(run.last_scales.size)]
        scales = np.nan_to_num(run.last_scales, nan=np.inf)
        fallen = np.flatnonzero(scales < COLLAPSED) if scales.min() < COLLAPSED else np.array([scales.argmin()])
        constant = sum(names[i] in run.constant_columns for i in fallen)
        shown = listing([names[i] for i in fallen], most=3)
        which = (
            ""
            if not constant
            else "constant in training"
            if constant == len(fallen)
            else f"{constant} constant in training"
        )
        text += f": decoder scale {scale(scales.min())} on column{'s' * (len(fallen) > 1)} {shown}"
        text += f" ({which})" if which else ""
    elif (smallest := run.get("optimization/min_scale")) is not None and smallest.notnull().any():
        text += f": decoder scale {scale(float(smallest.min()))}"
    if np.isfinite(run.share_constant) and run.constant_columns:
        text += f"; {_parts(run)}"
    return text


def _parts(run: Outcome) -> str:
    """How much the columns constant in training and the others gave."""
    rest = run.density - run.share_constant
    given = nats(run.share_constant)
    return f"constant columns gave {'' if given.startswith('-') else '+'}{given} nats, the others {nats(rest)}"


def verdict(row: Outcome, best: Outcome, behind: Difference) -> str:
    """How a ranked row compares with the best, which it is ``behind``."""
    if best.score == -np.inf:
        return f"cannot be told apart from {best.label}: both give some test datum no probability at all"
    if not np.isfinite(behind.mean):
        return f"worse than {best.label}: gives some test datum no probability at all"
    if np.isnan(behind.over_data):
        return f"cannot be told apart from {best.label}: one test datum"
    if behind.beyond_noise:
        return f"worse than {best.label} by {plus_minus(behind.mean, behind.error)}"
    return _by_most_rows(row, best, behind) or _alike(best, behind)


def _alike(best: Outcome, behind: Difference) -> str:
    """The verdict on a row that cannot be told apart from the best, with the interval the data leave open."""
    told = plus_minus(-behind.mean, behind.error)
    if behind.reach < NOISE:
        open_still = f"less than {NOISE} nats is rounding"
    else:
        decimals = places(behind.error)
        low, high = (nats(-behind.mean + side * behind.reach, decimals) for side in (-1, 1))
        open_still = f"95 % interval {low} to {high}"
    return f"cannot be told apart from {best.label} (difference {told}; {open_still})"


def first(best: Outcome, others: Sequence[tuple[Outcome, Difference]]) -> str:
    """The verdict on the row with the highest mean: not simply best if a single datum puts it there."""
    contested = [row.label for row, behind in others if _by_most_rows(row, best, behind).startswith("better")]
    if not contested:
        return "best"
    are = "is" if len(contested) == 1 else "are"
    return f"the highest mean, by one row: on most rows {listing(contested)} {are} better"


def _by_most_rows(row: Outcome, best: Outcome, behind: Difference) -> str:
    """The verdict by a trimmed mean if one datum decides the mean; empty if none does or it adds nothing."""
    if behind.beyond_noise or not np.isfinite(behind.error):
        return ""
    assert row.by_datum is not None and best.by_datum is not None  # noqa: PT018 (ranked rows have evidence)
    if (most := most_rows(row.by_datum, best.by_datum)) is None:
        return ""
    there = nats(row.by_datum.values[most.decided_by] - best.by_datum.values[most.decided_by])
    decided = (
        f"the mean difference, {plus_minus(-behind.mean, behind.error)}, is decided by row {row.obs[most.decided_by]}"
    )
    if most.word == "alike":
        return f"{_alike(best, behind)}; {decided}"
    return (
        f"{most.word} than {best.label} on {most.rows:,} of {most.of:,} test rows, by "
        f"{plus_minus(most.by.mean, most.by.error)} in the trimmed mean; {decided} ({there} nats there)"
    )


def remarks(row: Outcome, verdict: str) -> str:
    """What else to know about a row, unless its verdict says so already."""
    said = (
        _subset,
        _unrepeated,
        _stray,
        _early,
        _late,
        _density_ran_away,
        _matter_of_time,
        _scaled_units,
        _impossible,
        _one_datum,
    )
    return "".join(f"; {text}" for remark in said if (text := remark(row)) and text not in verdict)


def _subset(row: Outcome) -> str:
    """How much of the test part was scored, if not all."""
    rows, of = row.scored_rows
    return f"scored on {rows:,} of {of:,} test rows" if row.evidence is not None and rows < of else ""


def _unrepeated(row: Outcome) -> str:
    """A remark if there is a single seed, so that the spread over seeds is unknown."""
    return "seeds were not repeated" if row.by_seed is not None and len(row.by_seed) == 1 else ""


def _named(row: Outcome, at: int) -> str:
    """A test datum, with the column where it is far from the training part, if any."""
    column, distance = row.far_away(at)
    where = f" (column {column}: {distance:,.3g} standard deviations from the training mean)" if distance > FAR else ""
    return f"row {row.obs[at]}{where}"


def _impossible(row: Outcome) -> str:
    """A datum without any probability in single precision, which makes the mean minus infinity."""
    lost = np.flatnonzero(np.isneginf([] if row.evidence is None else row.evidence))
    if not len(lost):
        return ""
    more = f", and {len(lost) - 1} more," if len(lost) > 1 else ""
    return f"{_named(row, int(lost[0]))}{more} scored minus infinity, and so did the mean"


def _one_datum(row: Outcome) -> str:
    """A datum that decides the mean evidence of a row, and the column where it is far from the training part."""
    evidence = row.evidence
    if evidence is None or len(evidence) < FEW or (at := decisive_row(evidence)) is None:
        return ""
    cost = evidence.mean() - np.delete(evidence, at).mean()
    if abs(cost) < 1:
        return ""
    median = nats(float(np.median(evidence)))
    return f"{_named(row, at)} moves its mean by {nats(cost)} nats; its median is {median}"
