"""Pairs and parts from elsewhere: packages that register them, and how a run records where they came from."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoints, PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path
from typing import Any

__all__ = ["GROUP", "PACKAGE", "how_to_get", "load_installed", "origin"]

GROUP = "vae_zoo.pairs"  # each of these entry points names a module that registers pairs or parts
PACKAGE = "package "
_loaded: set[str] = set()


def load_installed() -> None:
    """Import the modules that installed packages name in the entry points ``vae_zoo.pairs``, once.

    A module that fails gives a warning of one line and is skipped.
    """
    for point in _points():
        if point.value in _loaded:
            continue
        _loaded.add(point.value)  # before the import, which asks for the catalogue too
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            told = (str(error) or type(error).__name__).splitlines()[0]
            warnings.warn(
                f"the pairs of {package} are left out: {point.value} cannot be imported ({told})", stacklevel=2
            )


@cache
def _points() -> EntryPoints:
    """The entry points, read once, since every look-up in the catalogue needs them."""
    return entry_points(group=GROUP)


@cache
def _packages() -> Mapping[str, list[str]]:
    """Installed packages by the modules they bring, read once: that opens a file of each."""
    return packages_distributions()


def origin(thing: Any) -> str:
    """What registered a function or class: "package NAME VERSION", a file, or nothing for the zoo's own.

    >>> from zoo.objectives import ELBO
    >>> origin(ELBO)
    ''
    """
    root = thing.__module__.partition(".")[0]
    if root == "zoo":
        return ""
    if names := _packages().get(root):
        return f"{PACKAGE}{names[0]} {version(names[0])}"
    try:
        file = inspect.getsourcefile(thing)
    except TypeError:
        file = None
    return str(Path(file).resolve()) if file and Path(file).is_file() else ""


def how_to_get(origins: Iterable[str]) -> str:
    """What to do if something that these registered is missing, as far as that is known.

    >>> how_to_get(["package vae-zoo-laplace 0.1.0", "/home/ada/own.py"])
    'install vae-zoo-laplace 0.1.0, which is not here; run /home/ada/own.py first, which registers it'
    """
    told = []
    for one in origins:
        name, _, of_version = one.removeprefix(PACKAGE).partition(" ")
        if not one.startswith(PACKAGE):
            told.append(f"run {one} first, which registers it")
        else:
            try:
                if (here := version(name)) != of_version:
                    told.append(f"install {name} {of_version}: here is {here}")
            except PackageNotFoundError:
                told.append(f"install {name} {of_version}, which is not here")
    return "; ".join(told)
