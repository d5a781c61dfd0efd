"""A study: pairs with their options, on one split of the data or several, trained, scored, compared and reported."""

from __future__ import annotations

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from zoo.cards import Card
from zoo.carrying import packed
from zoo.catalogue import card, create
from zoo.data import Data
from zoo.errors import DivergenceWarning, OptionError, ZooError, tell
from zoo.evaluation import checked_effort, evaluate
from zoo.names import alternatives
from zoo.options import MAX_SEED, count, location, switch
from zoo.parts import OBJECTIVES
from zoo.settings import Settings, checked_seeds, checked_settings
from zoo.sources import DataCall, load_data
from zoo.storage import InUse, digest, locked, write_file
from zoo.studies import PLAN, Split, Study, failure_file
from zoo.tasks import Ended, LoadedHere, Task, check_place
from zoo.words import did_you_mean
from zoo.workers import Executor, by_executor, by_workers, workers_for

__all__ = ["COMPARED", "Plan", "plan", "said", "study"]

UNSAFE = re.compile(r"[^\w.=-]+")  # characters to avoid in folder names
LONGEST = 100  # letters of a folder's name
MOST_SPLITS = 1000
COMPARED: dict[str, Any] = {"steps": "auto", "on_divergence": "warn"}  # a ranking compares settled pairs

EFFORT = {
    name: parameter.default
    for name, parameter in inspect.signature(evaluate).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
MOST_THREADS = 1024

Loader: TypeAlias = Callable[[Card, int], Data]
OnEnd: TypeAlias = Callable[[Task, Ended], None]


@dataclass(frozen=True)
class Plan:
    """The tasks of a study.

    Attributes:
        study: its results.
        tasks: one per pair and split.
    """

    study: Study
    tasks: tuple[Task, ...]

    @cached_property
    def datas(self) -> list[Data]:
        """The data of all tasks, each once."""
        return list({id(task.source.data): task.source.data for task in self.tasks}.values())

    def run(
        self,
        *,
        workers: int | Literal["auto"] = 1,
        executor: Executor | None = None,
        shard: str | None = None,
        progress: bool = True,
        tell: OnEnd | None = None,
    ) -> Study:
        """Run the tasks, and write the report once no task is left to others. Arguments: see :func:`study`.

        Args:
            workers: how many processes.
            executor: runs the tasks instead of local processes.
            shard: which tasks come first here.
            progress: show bars where a person is watching.
            tell: called with each task as it ends.
        """
        first, shards = _shard(shard)
        if executor is not None:
            if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
                raise OptionError(f"executor={executor!r}; give something with submit(function, argument).")
            if workers not in (1, "auto"):
                raise OptionError(f"workers={workers!r}, but the executor runs the tasks: leave one of them out.")
        if workers == "auto":
            from zoo.lazy import bytes_held  # which loads xarray

            largest = max(sum(map(bytes_held, (data.train, data.validation, data.test))) for data in self.datas)
            workers = workers_for(self.tasks, largest)
        else:
            workers = count("workers", workers, most=MOST_THREADS)
        tasks = [task for start in range(shards) for task in self.tasks[(first + start) % shards :: shards]]
        self.study.write_plan()
        elsewhere, trees = False, {}
        for task, ended in self._ends(tasks, workers, executor, switch("progress", progress)):
            for text in ended.warned:
                warnings.warn(text, DivergenceWarning, stacklevel=2)
            elsewhere |= ended.elsewhere
            if ended.tree is not None:
                trees[task.place] = ended.tree
            if ended.died:  # before it could record its failure
                with suppress(OSError):
                    write_file(failure_file(task.place), ended.failure.encode())
            if tell:
                tell(task, ended)
        if not elsewhere or shards == 1:
            try:
                with locked(self.study.out / PLAN):
                    self.study.write(trees)
            except InUse:  # another shard found everything done and is writing it
                pass
        return self.study

    def _ends(
        self, tasks: Sequence[Task], workers: int, executor: Executor | None, progress: bool
    ) -> Iterator[tuple[Task, Ended]]:
        if executor is None and workers == 1:
            return ((task, task.run(progress)) for task in tasks)
        own = packed()
        tasks = [replace(task, own=own) for task in tasks]
        return by_workers(tasks, workers, progress) if executor is None else by_executor(executor, tasks, progress)


def plan(
    names: str | Iterable[str],
    data: Any,
    out: Any,
    *,
    seeds: int | Iterable[int] = 4,
    repeats: int = 1,
    split_seed: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int = 1,
    ensembles: bool = False,
    overwrite: bool = False,
    check: Callable[[Path], None] | None = None,
    **arguments: Any,
) -> Plan:
    """The plan of a :func:`study`, after every check that is possible before the first step.

    Args:
        names: see :func:`study`.
        data: see :func:`study`.
        out: see :func:`study`.
        seeds: see :func:`study`.
        repeats: see :func:`study`.
        split_seed: see :func:`study`.
        options: options by pair name, besides those in the names.
        threads: see :func:`study`.
        ensembles: see :func:`study`.
        overwrite: see :func:`study`.
        check: raises RunError if a run cannot be saved in a place.
        **arguments: see :func:`study`.
    """
    settings, effort = _arguments(arguments)
    if not isinstance(names, Iterable):
        raise OptionError(f"study: names={names!r}; give the name of a pair, or several.")
    chosen = [one for name in ([names] if isinstance(names, str) else names) for one in alternatives(name)]
    if not chosen:
        raise OptionError("study: name at least one pair.")
    cards = {name: card(name) for name in chosen}
    options = {name: dict((options or {}).get(name, {})) for name in chosen}
    folder, told_seeds = location("out", out), checked_seeds(seeds)
    threads, overwrite = count("threads", threads, most=MOST_THREADS), switch("overwrite", overwrite)
    load, first = _loader(data, split_seed, count("repeats", repeats, most=MOST_SPLITS))
    splits = []
    for seed in range(first, first + repeats):
        own = folder / f"split-{seed}" if repeats > 1 else folder
        splits.append(Split(own, {name: own / _folder(name) for name in chosen}))
        named = Counter(splits[-1].places[name] for name in chosen)
        for name, place in splits[-1].places.items():
            if named[place] > 1:
                raise OptionError(f"{name} is named more than once: each pair has one run.")
            (check or partial(check_place, overwrite=overwrite, resume=True))(place)
    tasks = []
    for seed, split in zip(range(first, first + repeats), splits, strict=True):
        for name, place in split.places.items():
            of_pair = load(cards[name], seed)
            if not isinstance(of_pair, Data):
                raise OptionError(f"study: the data for {name} are of type {type(of_pair).__name__}, not zoo.Data.")
            try:
                create(name, of_pair, **options[name])
            except ZooError:
                raise
            except (Exception, SystemExit):  # a bug of that pair, which its task will report
                pass
            source = LoadedHere(of_pair)
            tasks.append(Task(name, options[name], source, told_seeds, settings, effort, place, overwrite, threads))
    return Plan(Study(folder, tuple(splits), switch("ensembles", ensembles)), tuple(tasks))


def study(
    names: str | Iterable[str],
    data: Any,
    out: Any,
    *,
    seeds: int | Iterable[int] = 4,
    repeats: int = 1,
    split_seed: int | None = None,
    workers: int | Literal["auto"] = 1,
    threads: int = 1,
    executor: Executor | None = None,
    shard: str | None = None,
    ensembles: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **arguments: Any,
) -> Study:
    """Train, score, compare and report pairs on the same data; repeat the call to continue a stopped study.

    Each pair on each split is a task, with the same result to the last bit wherever it runs. A failed task is a row of
    the report and does not stop the others.

    Args:
        names: pairs, ``PAIR[:GUIDE][OPTION=VALUE, ...]``; ``VALUE|VALUE`` gives one pair per value.
        data: a :class:`zoo.Data`; a name, file or array that :func:`zoo.load_data` takes; or a function from a card and
            the seed of a split to data.
        out: directory for the runs and the report.
        seeds: how many, counted from 0, or the seeds themselves.
        repeats: on how many splits of the data everything is repeated, each with its own runs and report.
        split_seed: seed of the first split; the others count on from it. None takes the data's.
        workers: number of processes. "auto" is one per core, if there is enough work and memory.
        threads: threads of torch in each process; changing it changes the last bits of results.
        executor: runs the tasks instead: anything with ``submit(function, argument)`` that returns something with
            ``result()``, such as ``dask.distributed.Client`` and ``concurrent.futures``. The workers have to see the
            same files.
        shard: "2/4" runs the second of four shares, then any task that no other process has taken: for four independent
            processes, any of which may die. The last one writes the report.
        ensembles: also rank the mixture of each pair's seeds.
        overwrite: start over where runs exist.
        progress: report progress on stderr.
        **arguments: arguments of :func:`zoo.fit` and :func:`zoo.evaluate`. By default ``steps`` is "auto" and
            ``on_divergence`` is "warn".

    Returns:
        A :class:`Study`: its ``table`` is the ranking, ``absent`` the reason for each pair that is not in it, and
        ``pages`` are the reports.

    Raises:
        UnknownPair: no such pair.
        OptionError: an unknown argument, or one of the wrong type or range.
        DataError: data that cannot be loaded, or that a pair does not model.
        RunError: a place that cannot be written, or holds something else.

    >>> import tempfile, zoo
    >>> names = "gmm-constrained[components=2|3]"
    >>> with tempfile.TemporaryDirectory() as out:
    ...     study = zoo.study(names, "iris", out, seeds=1, steps=20, samples=50, temperatures=0, progress=False)
    ...     print(len(study.runs), study.failures, study.pages[0].name)
    2 {} index.html
    """
    todo = plan(
        names,
        data,
        out,
        seeds=seeds,
        repeats=repeats,
        split_seed=split_seed,
        threads=threads,
        ensembles=ensembles,
        overwrite=overwrite,
        **arguments,
    )
    tell = said if switch("progress", progress) else None
    return todo.run(workers=workers, executor=executor, shard=shard, progress=progress, tell=tell)


def said(task: Task, ended: Ended) -> None:
    """One line on stderr on how a task ended."""
    outcome = "failed" if ended.failure else "with another process" if ended.elsewhere else "trained, scored and saved"
    told = task.place if task.place.parent.name.startswith("split-") else task.name
    tell(f"{told}: {outcome} ({ended.seconds:.0f} s)", "dim")


def _folder(name: str) -> str:
    """The folder of a pair's run: its name, made safe for file systems."""
    plain = UNSAFE.sub("-", name).rstrip("-")
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}-{digest(name.encode())[:8]}"


def _arguments(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of fit, and those of evaluate."""
    of_fit = [field.name for field in fields(Settings)]
    for name in given:
        if name not in of_fit and name not in EFFORT:
            known = [*of_fit, *EFFORT]
            raise OptionError(
                f"study: no argument is called {name!r}{did_you_mean(name, known, '.')} Those of fit and evaluate: "
                f"{', '.join(known)}."
            )
    settings = COMPARED | {name: value for name, value in given.items() if name in of_fit}
    if settings.get("objective") is not None:
        settings["objective"] = OBJECTIVES.spelled(settings["objective"])
    checked_settings(settings)
    return settings, checked_effort(**EFFORT | {name: value for name, value in given.items() if name in EFFORT})


def _loader(data: Any, split_seed: int | None, repeats: int) -> tuple[Loader, int]:
    """A function from a card and the seed of a split to data, loaded once each, and the seed of the first split."""
    seed = None if split_seed is None else count("split_seed", split_seed, least=0, most=MAX_SEED - MOST_SPLITS)
    if callable(data):
        return data, seed or 0
    loaded = data if isinstance(data, Data) else load_data(data) if seed is None else load_data(data, seed=seed)
    if repeats == 1 and (seed is None or loaded is not data):
        return lambda *_: loaded, seed or 0
    if not loaded.origin:
        raise OptionError(
            f"study: {loaded.name} came from memory and cannot be split again: give a file or a name, or a function "
            "from a card and the seed of a split to data."
        )
    call = DataCall.parse(loaded.origin)
    first = call.options.get("seed", 0) if seed is None else seed
    of_split = cache(lambda seed: replace(call, options=call.options | {"seed": seed}).load())
    return lambda _, seed: of_split(seed), first


def _shard(told: str | None) -> tuple[int, int]:
    """The number of the shard, counted from 0, and how many there are."""
    if told is None:
        return 0, 1
    which, _, of = str(told).partition("/")
    if (which + of).isascii() and which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of) <= MOST_SPLITS:
        return int(which) - 1, int(of)
    raise OptionError(f"shard={told!r}: write I/N, such as 1/4 for the first of four.")
