"""User-defined pairs and parts, sent to a process that has not run the file or cell that registers them."""

from __future__ import annotations

import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING
from functools import cache
from typing import ClassVar

import cloudpickle

from zoo.catalogue import Entry, adopt, entries, options_of
from zoo.errors import OptionError
from zoo.parts import GUIDES, OBJECTIVES, PRIORS, Part
from zoo.plugins import PACKAGE

__all__ = ["packed", "unpack"]

PARTS = {of.sort: of for of in (GUIDES, PRIORS, OBJECTIVES)}


def packed() -> bytes:
    """Everything registered by neither the zoo nor an installed package, which every process has.

    Raises:
        OptionError: a pair or part holds something that cannot be sent, such as an open file.
    """
    pairs = [entry for entry in entries().values() if _is_own(entry.build.__module__, entry.origin)]
    parts = [(sort, part) for sort, of in PARTS.items() for part in of if _is_own(part.kind.__module__, part.origin)]
    for entry in pairs:  # a text annotation names something only its own file has
        entry.build.__annotations__["options"] = options_of(entry.card.name)
    modules = {entry.build.__module__ for entry in pairs} | {part.kind.__module__ for _, part in parts}
    with _by_value(modules):
        try:
            content = io.BytesIO()
            if pairs or parts:
                _Pickler(content).dump((pairs, parts))
            return content.getvalue()
        except Exception as error:  # a user's class may raise anything when pickled
            named = ", ".join([entry.card.name for entry in pairs] + [part.name for _, part in parts])
            told = (str(error) or type(error).__name__).splitlines()[0]
            raise OptionError(
                f"{named} cannot be sent to another process ({told}): use workers=1, or make it a package "
                "with `zoo new`."
            ) from error


@cache
def unpack(content: bytes) -> None:
    """Register what :func:`packed` holds, except what is registered here already."""
    pairs: list[Entry]
    parts: list[tuple[str, Part]]
    pairs, parts = pickle.loads(content) if content else ([], [])
    for entry in pairs:
        adopt(entry)
    for sort, part in parts:
        PARTS[sort].adopt(part)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """One object marks dataclass fields without a default; it must keep its identity."""

    dispatch_table: ClassVar = ChainMap({type(MISSING): lambda _: "MISSING"}, cloudpickle.Pickler.dispatch_table)


def _is_own(module: str, origin: str) -> bool:
    return module.partition(".")[0] != "zoo" and not origin.startswith(PACKAGE)


@contextmanager
def _by_value(modules: set[str]) -> Iterator[None]:
    """Definitions in these modules are pickled by value, not by name, like those of a notebook."""
    chosen = [sys.modules[name] for name in modules - {"__main__"} if name in sys.modules]
    for module in chosen:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in chosen:
            cloudpickle.unregister_pickle_by_value(module)
