"""The unit of work of a worker: all seeds of one pair on one split, trained, scored and saved."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from zoo.carrying import unpack
from zoo.catalogue import Pair, create
from zoo.checkpoint import FIT
from zoo.data import Data
from zoo.errors import DataError, DivergenceWarning, RunError, one_line
from zoo.evaluation import call_of, evaluate
from zoo.fitting import fit
from zoo.options import location
from zoo.ranks import launched
from zoo.runs import RECIPE, Run
from zoo.sources import DataCall
from zoo.storage import InUse, locked, write_file
from zoo.studies import failure_file

if TYPE_CHECKING:
    import xarray

__all__ = ["Ended", "LoadedAgain", "LoadedHere", "Task", "check_place", "in_worker", "train"]

_ONE_AT_A_TIME = threading.RLock()  # Pyro has one stack of handlers for all threads


@dataclass(frozen=True)
class LoadedHere:
    """Data that another process loads again if their call of ``load_data`` is known; otherwise they are sent."""

    data: Data

    def __reduce__(self) -> tuple[Any, ...]:
        if self.data.origin:
            return LoadedAgain, (self.data.origin, self.data.fingerprint)
        return LoadedHere, (self.data,)


@dataclass(frozen=True)
class LoadedAgain:
    """Data that are loaded on first use."""

    origin: str
    fingerprint: str

    @property
    def data(self) -> Data:
        """The data.

        Raises:
            DataError: they cannot be loaded, or differ from those of the plan.
        """
        loaded = _loaded(self.origin)
        if loaded.fingerprint != self.fingerprint:
            raise DataError(f"{self.origin} gives different data here than where the study was planned.")
        return loaded


@lru_cache(maxsize=1)
def _loaded(origin: str) -> Data:
    return DataCall.parse(origin).load()


class Ended(NamedTuple):
    """How a task ended: after how many seconds, and why it failed if it did.

    Another process may be working on it (``elsewhere``), or its own may have ``died`` before it could report. ``tree``
    is the run's if it was made in this process, so that it need not be read again.
    """

    seconds: float
    failure: str = ""
    elsewhere: bool = False
    died: bool = False
    warned: tuple[str, ...] = ()
    tree: xarray.DataTree | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One pair with its options on one split, and the place of its run: small enough to send anywhere.

    Attributes:
        name: the pair's name as given, with options in brackets.
        options: options given besides the name.
        source: the data.
        seeds: the seeds for :func:`zoo.fit`.
        settings: other arguments of :func:`zoo.fit`.
        effort: arguments of :func:`zoo.evaluate`.
        place: the directory of the run.
        overwrite: whether to replace an earlier run.
        threads: threads of torch; sums by another number of threads have other last bits.
        own: user-defined pairs and parts, from :func:`zoo.carrying.packed`.
    """

    name: str
    options: Mapping[str, Any]
    source: LoadedHere | LoadedAgain
    seeds: list[int]
    settings: Mapping[str, Any]
    effort: Mapping[str, Any]
    place: Path
    overwrite: bool = False
    threads: int = 1
    own: bytes = field(default=b"", repr=False)

    def run(self, progress: bool = False, failures: tuple[type[BaseException], ...] = (Exception, SystemExit)) -> Ended:
        """Do what has not been done; a failure is not raised but returned, and recorded next to the run."""
        started = time.perf_counter()
        failure, elsewhere, tree = "", False, None
        try:
            with _ONE_AT_A_TIME, locked(self.place, "task"), _threads(self.threads):
                failure_file(self.place).unlink(missing_ok=True)
                try:
                    tree = self._fulfil(progress)
                except failures as error:  # the other tasks must still run
                    failure = one_line(error)
                    with suppress(OSError):
                        write_file(failure_file(self.place), failure.encode())
        except InUse:
            elsewhere = True
        except RunError as error:
            failure = one_line(error)
        return Ended(time.perf_counter() - started, failure, elsewhere, tree=tree)

    def _fulfil(self, progress: bool) -> xarray.DataTree:
        unpack(self.own)
        data = self.source.data
        pair = create(self.name, data, **self.options)
        run = train(pair, self.seeds, self.settings, self.place, self.overwrite, progress)
        if not run.tree.attrs["repeat"].endswith(call_of(self.effort)):  # otherwise it was scored before
            evaluate(run, data, **self.effort)
            run.save(self.place)
        return run.tree


def in_worker(task: Task) -> Ended:
    """Run a task in a process without a terminal; its warnings are returned with the result."""
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DivergenceWarning)
        ended = task.run(failures=(Exception, SystemExit, KeyboardInterrupt))  # Ctrl-C is not pressed here
    told = dict.fromkeys(str(one.message) for one in warned if issubclass(one.category, DivergenceWarning))
    return ended._replace(warned=tuple(told), tree=None)


def train(
    pair: Pair,
    seeds: Any,
    settings: Mapping[str, Any],
    place: Path,
    overwrite: bool = False,
    progress: bool = True,
    again: str = "the same call",
) -> Run:
    """Train in a place, or continue what was begun there.

    A finished run is returned; with ``overwrite`` it stays until its successor is complete.

    Raises:
        RunError: the run cannot be saved; the message says that ``again`` continues it.
    """
    finished = (place / RECIPE).is_file()
    checkpoint = None if overwrite and finished else place
    run = fit(pair, pair.data, seeds=seeds, progress=progress, checkpoint=checkpoint, **settings)
    rank, _ = launched()  # only the first of several processes writes
    if rank == 0 and (checkpoint is None or not (place / RECIPE).is_file()):  # a full disk may have space again
        try:
            run.save(place)
        except RunError as error:
            raise RunError(f"{error} Once it can be, {again} continues.") from error
    return run


def check_place(
    place: Path, *, overwrite: bool, resume: bool, argument: str = "out", remedies: str = "pass overwrite=True, or "
) -> None:
    """Refuse a place where a run could not be saved, before hours are spent on training.

    Args:
        place: the directory.
        overwrite: whether to replace an earlier run. An unfinished fit may be replaced too.
        resume: whether to continue it.
        argument: the name of the place in messages.
        remedies: what else to do if a run is there.
    """
    if location(argument, place).is_file():
        raise RunError(f"{place} is a file: choose another {argument}.")
    finished, begun = ((place / name).is_file() for name in (RECIPE, FIT))
    if overwrite and begun and not finished:
        shutil.rmtree(place)
    if (
        place.is_dir()
        and any(place.iterdir())
        and not (overwrite and finished)
        and not (resume and (finished or begun))
    ):
        told = remedies if finished or begun else ""
        raise RunError(f"{place} exists: {told}choose another {argument}.")
    nearest = next(folder for folder in place.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise RunError(f"cannot write {place}: {nearest} is a file.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"cannot write {place}: no permission in {nearest}.")


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
