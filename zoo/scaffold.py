"""The package that `zoo new` writes for a pair of your own."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from zoo.catalogue import list_pairs
from zoo.errors import OptionError, RunError

__all__ = ["write_package"]

PLACES = {  # where each template goes
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/{module}/__init__.py": "pair.py.txt",
    "tests/test_{module}.py": "test_pair.py.txt",
}


def write_package(name: str, out: Path) -> Path:
    """Write a package that registers one pair: its code, its test by the kit, and its entry point.

    It passes its test as written; its likelihood, a soft Laplace, is to be replaced.

    Args:
        name: the pair's name, lower-case words and numbers joined by hyphens.
        out: the folder to create; absent, or empty.

    Returns:
        The folder.

    Raises:
        OptionError: a name that a pair or its module cannot have.
        RunError: the folder holds something, or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise OptionError(f"NAME={name!r}: use lower-case words and numbers joined by hyphens, a letter first.")
    if name in list_pairs():
        raise OptionError(f"NAME={name!r}: a pair already has this name; choose another.")
    words = {
        "name": name,
        "package": f"vae-zoo-{name}",
        "module": f"vae_zoo_{name.replace('-', '_')}",
        "kind": "".join(word.capitalize() for word in name.split("-")),
        "title": name.replace("-", " ").capitalize(),
    }
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out} exists and is not empty; choose another place with --out.")
        for place, template in PLACES.items():
            path = out / place.format(**words)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (files("zoo") / "template" / template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}.") from error
    return out
