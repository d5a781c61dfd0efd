"""A fit on disk, so that a stopped fit continues where it was, bit for bit."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.torch
from torch import Tensor

from zoo.errors import OptionError, RunError
from zoo.ranks import Ranks
from zoo.storage import digest, locked, write_file

__all__ = ["FIT", "SO_FAR", "Checkpoint", "begun", "steps_taken"]

log = logging.getLogger("zoo")

FORMAT = 5
KEPT = 2  # states on disk: if the newest is damaged, the previous one is still there
DIGITS = 16  # of the digest of a state, in its name
FIT, STATE = "fit.json", re.compile(rf"state-(\d+)-[0-9a-f]{{{DIGITS}}}\.safetensors")
SO_FAR = "so-far"  # the run that an interruption leaves, next to the states


class Checkpoint:
    """The directory of one fit while it is being trained; a context manager that keeps other processes out.

    Args:
        path: the directory; created if absent.
        identity: everything that determines the numbers of the fit, ready for JSON.
        origin: the call that loads the data, if there is one; a different call may resume with the same data.
        ranks: the processes; the first one reads and writes, and tells the others.

    Raises:
        RunError: another process writes there, the place cannot be written, or holds something else.
        OptionError: another fit was begun there; the message shows what differs.
    """

    def __init__(self, path: Path, identity: dict[str, Any], origin: str = "", ranks: Ranks | None = None) -> None:
        self.path = path
        self.ranks = ranks or Ranks()
        self.origin = origin
        self.identity = json.loads(json.dumps({"format": FORMAT} | identity))
        self._begun = self._failing = False

    def __enter__(self) -> Checkpoint:
        self._lock = locked(self.path)
        self.ranks.first(self._lock.__enter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not self.ranks.leads:
            return
        with suppress(OSError):
            if error is not None and self._begun and not self._states():  # nothing to continue from
                (self.path / FIT).unlink(missing_ok=True)
                self.path.rmdir()
        self._lock.__exit__(kind, error, where)

    def begin(self) -> dict[str, Tensor] | None:
        """The last state of this fit, or None if it has to start; then the place is marked as its own."""
        return self.ranks.first(self._begin)

    def _begin(self) -> dict[str, Tensor] | None:
        if (self.path / FIT).is_file():
            self.refuse_another(begun(self.path)[0])
            self._begun = True
            return self.latest()
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(f"{self.path} exists and holds no checkpoint: choose another place.")
        self._begun = True
        try:
            self.path.mkdir(exist_ok=True)
            write_file(self.path / FIT, json.dumps(self.identity | {"origin": self.origin}, indent=1).encode())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}.") from error
        return None

    def refuse_another(self, there: dict[str, Any]) -> None:
        """Raise OptionError if the place holds another fit."""
        differing = [name for name in {**self.identity, **there} if self.identity.get(name) != there.get(name)]
        if differing:
            told = "; ".join(f"{name} {there.get(name)!r}, not {self.identity.get(name)!r}" for name in differing)
            raise OptionError(f"{self.path} holds another fit: {told}. Choose another place, or ask for that one.")

    def save(self, step: int, state: dict[str, Tensor]) -> None:
        """Write the state after a step, and keep only the previous one besides."""
        if not self.ranks.leads:
            return
        content = safetensors.torch.save(state)
        try:
            write_file(self.path / f"state-{step:09d}-{digest(content)[:DIGITS]}.safetensors", content)
        except OSError as error:
            if not self._failing:  # say it once, and again after a success
                log.warning("no checkpoint from step %d on: cannot write %s (%s)", step, self.path, error.strerror)
            self._failing = True
            return
        self._failing = False
        for old in self._states()[KEPT:]:
            old.unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        """The newest first."""
        return sorted(
            (file for file in self.path.iterdir() if STATE.fullmatch(file.name) and file.is_file()), reverse=True
        )

    def latest(self) -> dict[str, Tensor] | None:
        """The last state that can be read, if there is one."""
        for file in self._states():
            try:
                content = file.read_bytes()
            except OSError as error:
                log.warning("%s cannot be read (%s): continuing from the previous checkpoint", file, error.strerror)
                continue
            if digest(content)[:DIGITS] in file.name:
                state: dict[str, Tensor] = safetensors.torch.load(content)
                return state
            log.warning("%s cannot be read (it is damaged): continuing from the previous checkpoint", file)
        return None


def steps_taken(path: Path) -> int:
    """The step of the newest state in a place; 0 if there is none."""
    try:
        found = [STATE.fullmatch(name.name) for name in path.iterdir()]
    except OSError:
        return 0
    return max((int(state[1]) for state in found if state), default=0)


def begun(path: Path) -> tuple[dict[str, Any], str]:
    """The identity of the fit in a place, and the call that loads its data.

    Raises:
        RunError: no fit was begun there, or its record is damaged.
    """
    file = path / FIT
    if not file.is_file():
        raise RunError(f"{path} holds no unfinished fit: there is no {FIT}.")
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error}. Remove its directory to start again.") from error
    if not isinstance(there, dict):
        raise RunError(f"{file} is damaged: it is not a JSON object. Remove its directory to start again.")
    return there, str(there.pop("origin", ""))
