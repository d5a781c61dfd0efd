"""Which pair to use, in one plain sentence, and the case for and against every pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zoo.comparison.cautions import FEW_DATA
from zoo.comparison.contenders import Candidate, Contender, candidates, contenders
from zoo.comparison.difference import Majority
from zoo.comparison.outcome import Source, outcomes, with_ensembles
from zoo.options import switch
from zoo.words import listing, plus_minus

__all__ = ["Answer", "Reason", "Recommendation", "answer", "answer_over"]

NAMED = 3  # pairs that a sentence names; the lines below it name all
UNDERTRAINED = "undertrained: still improving when training ended"


@dataclass(frozen=True)
class Reason:
    """Why one or several pairs are placed where they are."""

    pairs: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{listing(self.pairs)}, {self.text}"


@dataclass(frozen=True)
class Recommendation:
    """Which pair of one table to use.

    Attributes:
        table: the name of the table, as in :func:`zoo.compare`.
        sentences: the recommendation, and what you must know with it.
        best: the pair to use, if any.
        close: pairs the data do not tell apart from it.
        worse: pairs that predict worse, beyond noise.
        avoid: pairs whose score cannot be relied on.
        certainty: how sure this is: rows, splits, seeds, training and importance weights.
    """

    table: str
    sentences: tuple[str, ...]
    best: tuple[Reason, ...]
    close: tuple[Reason, ...]
    worse: tuple[Reason, ...]
    avoid: tuple[Reason, ...]
    certainty: str

    @property
    def sentence(self) -> str:
        """The recommendation as one text."""
        return " ".join(self.sentences)

    @property
    def lines(self) -> dict[str, tuple[Reason, ...]]:
        """The reasons, by heading."""
        every = {"Best": self.best, "Close seconds": self.close, "Worse": self.worse, "Avoid": self.avoid}
        return {name: reasons for name, reasons in every.items() if reasons}

    def __str__(self) -> str:
        told = [f"  {name}: {'; '.join(map(str, reasons))}." for name, reasons in self.lines.items()]
        return "\n".join([self.sentence, *told, f"  How sure: {self.certainty}"])


@dataclass(frozen=True)
class Answer:
    """Which pair to use, for each table of a comparison, and which pairs could not be judged; ``str`` gives a text.

    Tables ranked by probability come first, tables ranked by density after them.
    """

    recommendations: tuple[Recommendation, ...]
    unjudged: tuple[Reason, ...]

    def __str__(self) -> str:
        parts = [str(each) for each in self.recommendations] or ["No pair has a score yet."]
        if self.unjudged:
            parts.append(f"Could not be judged: {'; '.join(map(str, self.unjudged))}.")
        return "\n\n".join(parts)


def answer(
    runs: Source | Iterable[Source], *, ensembles: bool = False, failures: Mapping[str, str] | None = None
) -> Answer:
    """Which pair to use on these data and why, in plain words, from the same differences as :func:`zoo.compare`.

    The recommended pair has the highest held-out log-likelihood, in nats a row, among those whose score can be relied
    on. If a pair has several settings, the ones validation prefers count. A pair is worse if the difference exceeds its
    95 % interval over rows and seeds, and a close second otherwise. Avoid a pair that ran away, whose score depends on
    when training stopped, that is ahead only through columns that are constant in training, or that gives a held-out
    row no probability.

    Args:
        runs: runs, DataTrees, or paths of a run's directory or netCDF file: one or several.
        ensembles: whether the mixture of each run's seeds is also a candidate.
        failures: pairs without a run, with the reason.

    Raises:
        RunError: see :func:`compare`.

    >>> import numpy as np, xarray as xr
    >>> def run(pair, values):
    ...     about = dict(pair=pair, base_measure="density", data="toy", data_fingerprint="f00d")
    ...     heldout = xr.Dataset({"log_evidence": (("chain", "obs"), values)})
    ...     return xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})
    >>> level, seeds = -np.arange(200.0), np.array([[0.1], [-0.1]])
    >>> print(answer([run("plain", level + seeds - 4), run("better", level - seeds)]).recommendations[0].sentence)
    Use better: it predicts held-out rows of toy best, by 4.00 ± 0.14 nats a row over the next, plain.
    """
    read = outcomes(runs)
    return answer_over([contenders(with_ensembles(read) if switch("ensembles", ensembles) else read)], failures or {})


def answer_over(splits: Sequence[Mapping[str, Sequence[Contender]]], failures: Mapping[str, str]) -> Answer:
    """The same for several splits of the data; differences are paired by split."""
    tables = candidates(splits)
    unscored = [pair for rows in tables.values() for pair in rows if not pair.scored and not pair.fault]
    reasons = {pair.label: pair.first.missing for pair in unscored}
    reasons |= {name: why.strip().partition("\n")[0].rstrip(".") for name, why in failures.items()}
    judged = {table: [pair for pair in rows if pair not in unscored] for table, rows in tables.items()}
    order = sorted((table for table in judged if judged[table]), key=lambda table: _place(table, judged[table]))
    data = Counter(table.partition(", ")[2] for table in order)
    return Answer(
        tuple(_recommend(table, _data(table, data), judged[table], len(splits)) for table in order), _reasons(reasons)
    )


def _place(table: str, rows: Sequence[Candidate]) -> tuple[bool, int]:
    """Sorts masses first, and among them the table with the most pairs."""
    return not table.startswith("mass,"), -len(rows)


def _data(table: str, shared: Mapping[str, int]) -> str:
    """The data of a table in words, with the measure where another table has the same data."""
    measure, _, data = table.partition(", ")
    return f"{data}, scored by {measure}" if shared[data] > 1 else data


def _recommend(table: str, data: str, rows: Sequence[Candidate], splits: int) -> Recommendation:
    """The recommendation for one table, whose rows come with the highest mean first."""
    sound = [pair for pair in rows if not pair.fault]
    faulty = [pair for pair in rows if pair.fault]
    best = next((pair for pair in sound if not pair.passed_over), next(iter(sound), None))
    others = [pair for pair in sound if pair is not best]
    apart = [pair for pair in others if best and not pair.common(best)]
    worse = [pair for pair in others if best and pair not in apart and _is_worse(pair, best)]
    close = [pair for pair in others if pair not in apart and pair not in worse]
    sentences = [
        _use(best, close, worse, faulty, data) if best else _use_none(faulty, data),
        *(_on_most_rows(pair, best) for pair in close if best),
        *(_faults(faulty, best) if best else ()),
    ]
    if best and best.longer:
        sentences.append(f"{best.label} is undertrained: train it longer before you rely on it ({best.longer}).")
    return Recommendation(
        table,
        tuple(filter(None, sentences)),
        _reasons({best.label: _late(best, f"held-out log-likelihood {best.height} nats a row")} if best else {}),
        _reasons({pair.label: _late(pair, _behind(pair, best)) for pair in close if best}),
        _reasons({pair.label: _late(pair, _behind(pair, best)) for pair in worse if best}),
        _reasons(
            {pair.label: pair.fault for pair in faulty}
            | {pair.label: f"not comparable with {best.label}: no split has a score of both" for pair in apart if best}
        ),
        " ".join(_certainty(best, rows, splits)),
    )


def _reasons(told: Mapping[str, str]) -> tuple[Reason, ...]:
    """Reasons; pairs with the same reason share one."""
    shared: dict[str, tuple[str, ...]] = {}
    for pair, text in told.items():
        shared[text] = (*shared.get(text, ()), pair)
    return tuple(Reason(pairs, text) for text, pairs in shared.items())


def _is_worse(pair: Candidate, best: Candidate) -> bool:
    most = pair.on_most_rows(best)
    return pair.behind(best).beyond_noise or (most is not None and most.word == "worse")


def _late(pair: Candidate, text: str) -> str:
    return f"{text} ({UNDERTRAINED})" if pair.longer else text


def _behind(pair: Candidate, best: Candidate) -> str:
    """How far a pair is from the best one, in words."""
    behind, most = pair.behind(best), pair.on_most_rows(best)
    if most and most.word == "worse" and not behind.beyond_noise:
        return f"worse on {most.rows:,} of {most.of:,} rows, {_trimmed(most)}"
    told = f"{plus_minus(abs(behind.mean), behind.error)} nats a row {'behind' if behind.mean >= 0 else 'ahead'}"
    return f"{told}, though validation prefers other settings" if pair.passed_over and behind.mean < 0 else told


def _trimmed(most: Majority) -> str:
    return f"by {plus_minus(most.by.mean, most.by.error)} nats in the trimmed mean"


def _use(
    best: Candidate, close: Sequence[Candidate], worse: Sequence[Candidate], faulty: Sequence[Candidate], data: str
) -> str:
    """The recommendation, and why; what may be as good, but scores less than what is worse, is not recommended."""
    surely = [pair for pair in worse if pair.behind(best).beyond_noise]  # and not on most rows alone
    vague = [pair for pair in close if any(other.mean > pair.mean for other in surely)]
    if close := [pair for pair in close if pair not in vague]:
        who = [best.label, *(pair.label for pair in close)]
        rest = f" than the other{'s' * (len(worse) > 1)}" if worse else ""
        if len(who) > NAMED:
            why = f"predicts held-out rows of {data} better{rest}, but" if worse else "has the highest score, but"
            return f"Use {best.label}: it {why} the data do not tell it apart from {len(close)} more.{_vague(vague)}"
        why = f"they predict held-out rows of {data} better{rest}, and the" if worse else "the"
        return f"Use {listing(who, 'or')}: {why} data do not tell them apart.{_vague(vague)}"
    if worse:
        lead, most = worse[0].behind(best), worse[0].on_most_rows(best)
        if most and not lead.beyond_noise:
            told = f"{most.rows:,} of {most.of:,} held-out rows of {data} better than the next, {worse[0].label}"
            return f"Use {best.label}: it predicts {told}, {_trimmed(most)}.{_vague(vague)}"
        by = f"by {plus_minus(lead.mean, lead.error)} nats a row over {'the next, ' * (not vague)}{worse[0].label}"
        return f"Use {best.label}: it predicts held-out rows of {data} best, {by}.{_vague(vague)}"
    if faulty:
        return f"Use {best.label}: it is the only pair on {data} whose score can be relied on."
    return f"{best.label} is the only pair scored on {data}: there is nothing to compare it with."


def _vague(pairs: Sequence[Candidate]) -> str:
    """What is to be said of pairs whose scores are too uncertain for a judgement."""
    if not pairs:
        return ""
    whose = "whose score is" if len(pairs) == 1 else "whose scores are"
    return f" Nothing can be said of {listing([pair.label for pair in pairs], most=NAMED)}, {whose} too uncertain."


def _use_none(faulty: Sequence[Candidate], data: str) -> str:
    """The sentence if no score can be relied on."""
    remedies = list(dict.fromkeys(name for pair in faulty for name in pair.first.remedies))[:NAMED]
    instead = f" Try {listing(remedies, 'or')} instead." if remedies else ""
    return f"Use none of these on {data}: {' '.join(_faults(faulty, None))}{instead}"


def _faults(faulty: Sequence[Candidate], best: Candidate | None) -> Iterator[str]:
    """A sentence per fault; pairs that score higher than the best get their own."""
    shared: dict[tuple[str, bool], list[str]] = {}
    for pair in faulty:
        shared.setdefault((pair.fault, best is not None and pair.mean > best.mean), []).append(pair.label)
    for (fault, higher), names in shared.items():
        several = len(names) > 1
        high = f"score{'s' * (not several)} higher but " if higher else ""
        yield f"{listing(names, most=NAMED)} {high}{'are' if several else 'is'} {fault}."


def _on_most_rows(pair: Candidate, best: Candidate) -> str:
    """A sentence if a single row puts the best first and another pair is better on most rows."""
    most = pair.on_most_rows(best)
    if most is None or most.word != "better":
        return ""
    return (
        f"{pair.label} predicts {most.rows:,} of {most.of:,} rows better; row {pair.first.row_names[most.decided_by]} "
        f"alone puts {best.label} first."
    )


def _certainty(best: Candidate | None, rows: Sequence[Candidate], splits: int) -> Iterator[str]:
    """How sure a recommendation is, in short sentences."""
    scored = [one for pair in rows for one in pair.on.values() if one.score is not None]
    count = len(scored[0].row_names) if scored else 0
    seeds = sorted({one.seeds for one in scored})
    repeated = " to ".join(f"{end}" for end in sorted({seeds[0], seeds[-1]})) if seeds else "no"
    a_pair = f"{repeated} seed{'s' * (repeated != '1')} a pair"
    if splits > 1:
        first = [max(on, key=lambda label: on[label]) for on in _by_split(rows, splits) if on]
        won = f"; {best.label} is first on {first.count(best.label)} of them" if best else ""
        yield f"{splits} splits with {count:,} held-out rows each, {a_pair}{won}."
    else:
        yield f"{count:,} held-out row{'s' * (count != 1)} of one split, {a_pair}."
    if len(rows) > 1:
        over = "rows and seeds" if seeds[-1:] > [1] else "rows alone, since no seed was repeated"
        yield f"± is one standard error over {'splits' if splits > 1 else over}."
    late = [pair for pair in rows if pair.longer and not pair.fault]
    if others := [pair for pair in late if pair is not best]:  # the recommendation says it about the best
        named, many = listing([pair.label for pair in others], most=NAMED), len(others) > 1
        state, whom = ("are undertrained", "them") if many else ("is undertrained", "it")
        yield f"{named} {state} and may yet improve: train {whom} longer ({others[0].longer})."
    elif best and not late and all(one.checked for one in scored):
        yield f"{'No pair was still' if len(rows) > 1 else 'It was no longer'} improving when training ended."
    if best:
        yield from _weights(best)
    if splits == 1 and 0 < count < FEW_DATA and len(rows) > 1:
        yield f"With fewer than {FEW_DATA} rows small differences may not last: repeat on more splits (--repeats 5)."


def _by_split(rows: Sequence[Candidate], splits: int) -> list[dict[str, float]]:
    """The mean of each sound pair on each split."""
    sound = [pair for pair in rows if not pair.fault]
    return [{pair.label: pair.scored[split] for pair in sound if split in pair.scored} for split in range(splits)]


def _weights(best: Candidate) -> Iterator[str]:
    """Whether the importance weights behind the best score can be trusted."""
    one = best.first
    if one.exact:
        yield f"The score of {best.label} is exact."
    elif one.bad_k:
        mended = one.annealed is not None and one.annealed >= one.bad_k
        then = "so annealed importance sampling scored them" if mended else "so their scores are rough"
        yield (
            f"For {one.bad_k:,} of the {len(one.row_names):,} rows plain importance sampling of {best.label} cannot be "
            f"trusted (Pareto k above 0.7), {then}."
        )
    elif one.bad_k == 0:
        yield f"Importance sampling of {best.label} can be trusted (Pareto k below 0.7)."
