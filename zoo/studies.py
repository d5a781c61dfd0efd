"""The results of a study in a directory: a run, or a reason for its absence, per pair and split, and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.comparison import Answer, Contender, across_splits, answer_over, compare, contenders, outcomes, with_ensembles
from zoo.errors import RunError
from zoo.options import location
from zoo.storage import write_file

if TYPE_CHECKING:
    import pandas as pd
    import xarray

    from zoo.comparison import Outcome

__all__ = ["PLAN", "Split", "Study", "complete", "failure_file", "load_study"]

PLAN = "study.json"


@dataclass(frozen=True)
class Split:
    """The results of every pair on one split of the data.

    Attributes:
        folder: the folder of the runs and their report.
        places: the directory of each pair's run, by the pair's name as given.
    """

    folder: Path
    places: Mapping[str, Path]

    @property
    def runs(self) -> list[Path]:
        """The directories of complete runs, scored or not."""
        return [place for place in self.places.values() if complete(place)]

    @property
    def failures(self) -> dict[str, str]:
        """Why pairs failed, by name."""
        files = {name: failure_file(place) for name, place in self.places.items()}
        return {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.is_file()}

    @property
    def unfinished(self) -> list[str]:
        """The pairs without a run that have not failed."""
        failed = self.failures
        return [name for name, place in self.places.items() if not complete(place) and name not in failed]

    @property
    def absent(self) -> dict[str, str]:
        """Why pairs are not in the ranking, by name."""
        return self.failures | dict.fromkeys(self.unfinished, "not done yet: the same call continues")


@dataclass(frozen=True)
class Study:
    """The results of a study in a directory; ``load_study`` reads them again.

    Attributes:
        out: the directory.
        splits: the splits of the data the study ran on.
        ensembles: whether the mixture of each run's seeds is also ranked.
    """

    out: Path
    splits: tuple[Split, ...]
    ensembles: bool = False

    @property
    def runs(self) -> list[Path]:
        """The directories of all complete runs."""
        return [run for split in self.splits for run in split.runs]

    @property
    def failures(self) -> dict[str, str]:
        """Why pairs failed, by name; with several splits the name includes the folder."""
        return {self._named(split, name): why for split in self.splits for name, why in split.failures.items()}

    @property
    def unfinished(self) -> list[str]:
        """The pairs without a run that have not failed, named as in :attr:`failures`."""
        return [self._named(split, name) for split in self.splits for name in split.unfinished]

    @property
    def absent(self) -> dict[str, str]:
        """Why pairs are not in the ranking, named as in :attr:`failures`."""
        return {self._named(split, name): why for split in self.splits for name, why in split.absent.items()}

    def _named(self, split: Split, name: str) -> str:
        return f"{split.folder.name}/{name}" if len(self.splits) > 1 else name

    @cached_property
    def _judged(self) -> list[tuple[pd.DataFrame, dict[str, list[Contender]]]]:
        """The comparison of each split that has a run, and its contenders for an answer."""
        return [self._judge(outcomes(split.runs)) for split in self.splits if split.runs]

    def _judge(self, read: list[Outcome]) -> tuple[pd.DataFrame, dict[str, list[Contender]]]:
        return compare(read, ensembles=self.ensembles), contenders(with_ensembles(read) if self.ensembles else read)

    @property
    def tables(self) -> list[pd.DataFrame]:
        """The comparison of each split that has a run (:func:`zoo.compare`)."""
        return [table for table, _ in self._judged]

    @cached_property
    def answer(self) -> Answer:
        """Which pair to use and why, over all splits (:func:`zoo.answer`); ``print(study.answer)``."""
        return answer_over([of_split for _, of_split in self._judged], self.absent)

    @cached_property
    def table(self) -> pd.DataFrame | None:
        """The comparison, best first; with several splits, their summary; None without a run."""
        if len(self.splits) > 1:
            return across_splits(self.tables) if self.tables else None
        return self.tables[0] if self.tables else None

    @property
    def pages(self) -> list[Path]:
        """The page of each split's report."""
        return [page for split in self.splits if (page := split.folder / "index.html").is_file()]

    def write_plan(self) -> None:
        """Record where everything goes.

        Raises:
            RunError: the directory cannot be written.
        """
        out = self.out
        splits = [
            {
                "folder": str(split.folder.relative_to(out)),
                "places": {name: str(place.relative_to(out)) for name, place in split.places.items()},
            }
            for split in self.splits
        ]
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_file(out / PLAN, json.dumps({"splits": splits, "ensembles": self.ensembles}, indent=1).encode())
        except OSError as error:
            raise RunError(f"cannot write {out}: {error.strerror}.") from error

    def write(self, trees: Mapping[Path, xarray.DataTree]) -> None:
        """Write the report of each split, and the summary of several as ``across_splits.csv``.

        Runs whose trees are given, by their directory, are not read again.
        """
        from zoo.reporting import report  # a worker does not need its pictures

        judged = []
        for split in self.splits:
            if split.runs:
                read = outcomes([trees.get(run, run) for run in split.runs])  # for both uses: reading takes seconds
                report(read, split.folder, ensembles=self.ensembles, failures=split.absent)
                judged.append(self._judge(read))
        vars(self)["_judged"] = judged  # where the cached property stores them
        if len(self.splits) > 1 and self.table is not None:
            self.table.to_csv(self.out / "across_splits.csv")


def load_study(out: Any) -> Study:
    """The results of a study in a directory, finished or not.

    Raises:
        RunError: no study was begun there.
    """
    folder = location("out", out)
    try:
        there = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        splits = [
            Split(within(folder, split["folder"]), {name: within(folder, at) for name, at in split["places"].items()})
            for split in there["splits"]
        ]
        return Study(folder, tuple(splits), bool(there["ensembles"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{folder} is not the directory of a study: it has no readable {PLAN}.") from error


def within(folder: Path, place: str) -> Path:
    """A path relative to a folder; ValueError if it is elsewhere."""
    (folder / place).resolve().relative_to(folder.resolve())
    return folder / place


def complete(place: Path) -> bool:
    """Whether there is a run in a place; runs are written completely or not at all."""
    return any(place.glob("*.nc"))


def failure_file(place: Path) -> Path:
    """The file next to a run's directory that says why there is no run, or no score."""
    return place.with_name(f"{place.name}.failed.txt")
