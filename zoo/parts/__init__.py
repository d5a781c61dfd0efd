"""Guides, priors and objectives: the named parts of a pair, each a small frozen dataclass.

>>> OBJECTIVES.make("iwae[samples=5]")
IWAE(samples=5, gradient='total')
>>> OBJECTIVES.spelled(OBJECTIVES.make("iwae[samples=5]"))
'iwae'
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar, cast

from zoo.errors import OptionError
from zoo.names import parse_part
from zoo.options import checked
from zoo.plugins import load_installed, origin
from zoo.words import did_you_mean

__all__ = ["GUIDES", "OBJECTIVES", "PRIORS", "Part", "Parts", "register_guide", "register_objective", "register_prior"]

C = TypeVar("C", bound=type[Any])


@dataclass(frozen=True)
class Part:
    """The record of a guide, a prior or an objective.

    Attributes:
        name: chosen as ``NAME[OPTION=VALUE, ...]``.
        kind: the frozen dataclass of its options.
        summary: one line to help choose.
        reference: authors, year and title of the source.
        link: where to read it.
        origin: what registered it (:func:`zoo.plugins.origin`); empty for the zoo's own.
    """

    name: str
    kind: type[Any]
    summary: str
    reference: str = ""
    link: str = ""
    origin: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults."""
        return {field.name: field.default for field in fields(self.kind)}


class Parts:
    """The registered parts of one sort.

    Args:
        sort: what they are, in a word.
        home: the module that registers the zoo's own, imported on first use.
        methods: methods that each must have.
    """

    def __init__(self, sort: str, home: str, methods: tuple[str, ...] = ()) -> None:
        self.sort, self.home, self.methods = sort, home, methods
        self._parts: dict[str, Part] = {}

    def register(self, name: str, *, summary: str, reference: str = "", link: str = "") -> Callable[[C], C]:
        """Add a part under a name; decorates a frozen dataclass whose fields, its options, all have defaults.

        What else the class needs is in :mod:`zoo.parts.guides`, :mod:`zoo.parts.priors` and :mod:`zoo.objectives`.

        Raises:
            OptionError: a malformed or taken name, or a class that is not a frozen dataclass with defaults.
        """

        def add(kind: C) -> C:
            if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
                raise OptionError(f"{self.sort} {name!r}: use lower-case words and numbers joined by hyphens.")
            if not (is_dataclass(kind) and cast(Any, kind).__dataclass_params__.frozen):
                raise OptionError(f"{self.sort} {name!r}: make {kind.__name__} a dataclass: @dataclass(frozen=True).")
            if lacking := [method for method in self.methods if not hasattr(kind, method)]:
                raise OptionError(f"{self.sort} {name!r}: {kind.__name__} has no method {', '.join(lacking)}.")
            try:
                kind()
            except TypeError as error:
                raise OptionError(f"{self.sort} {name!r}: give every option a default ({error}).") from error
            taken = self._parts.get(name)
            # the same class again: a notebook cell or plugin was run twice
            if taken and (taken.kind.__module__, taken.kind.__qualname__) != (kind.__module__, kind.__qualname__):
                raise OptionError(
                    f"the {self.sort} {name!r} is already {taken.kind.__qualname__}: choose another name."
                )
            self._parts[name] = Part(name, kind, summary, reference, link, origin(kind))
            return kind

        return add

    def __iter__(self) -> Any:
        """Every part, in the order of registration."""
        self._load()
        return iter(self._parts.values())

    def adopt(self, part: Part) -> None:
        """Add a part that another process registered, unless its name is taken."""
        self._load()
        self._parts.setdefault(part.name, part)

    def _load(self) -> None:
        import_module(self.home)
        load_installed()

    def part(self, told: Any) -> Part:
        """The record of a part by its name, ignoring options, or by an instance.

        Raises:
            OptionError: there is no such part.
        """
        self._load()
        if not isinstance(told, str):
            found = next((part for part in self._parts.values() if part.kind is type(told)), None)
            if found is None:
                raise OptionError(
                    f"{self.sort}={told!r}: give a name, or an instance registered with zoo.register_{self.sort}; "
                    f"there are {', '.join(self._parts)}."
                )
            return found
        name, _ = parse_part(told)
        if name not in self._parts:
            hint = did_you_mean(name, self._parts, ";")
            raise OptionError(f"{self.sort}={told!r}{hint} choose from {', '.join(self._parts)}.")
        return self._parts[name]

    def make(self, told: Any) -> Any:
        """The part that a text names, ``NAME[OPTION=VALUE, ...]``; an instance passes.

        Raises:
            OptionError: no such name, no such option, or a value of the wrong type or range.
        """
        part = self.part(told)
        if not isinstance(told, str):
            return told
        _, options = parse_part(told)
        return checked(part.kind, options, f"{self.sort} {part.name}")

    def spelled(self, told: Any, *, whole: bool = False) -> str:
        """The text that names a part, with the options that differ from their defaults, or with all."""
        part, made = self.part(told), self.make(told)
        values = {name: getattr(made, name) for name in part.options}
        changed = {name: value for name, value in values.items() if whole or value != part.options[name]}
        return part.name + (f"[{', '.join(f'{n}={v}' for n, v in changed.items())}]" if changed else "")


GUIDES = Parts("guide", "zoo.parts.guides", ("serves", "build"))
PRIORS = Parts("prior", "zoo.parts.priors", ("build",))
OBJECTIVES = Parts("objective", "zoo.objectives")
register_guide, register_prior, register_objective = GUIDES.register, PRIORS.register, OBJECTIVES.register


def __getattr__(name: str) -> Any:
    if name in ("guides", "priors"):  # these register themselves here
        return import_module(f"zoo.parts.{name}")
    raise AttributeError(f"module 'zoo.parts' has no attribute {name!r}")
