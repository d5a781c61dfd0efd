"""The rooms of the house: who imports whom, late imports included."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for folder in ("zoo", "models", "guides")
    for file in (ROOT / folder).rglob("*.py")
}
ON_FIRST_USE = {("zoo.catalogue", "zoo.pairs")}  # the registry loads the pairs that register themselves in it


def imported(module: str) -> Iterator[str]:
    """What a module imports when it runs, by full name."""
    file = MODULES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def graph() -> dict[str, set[str]]:
    """The modules that each module imports; a name within a module counts as that module."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        found[module] = set()
        for name in imported(module):
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name not in ("", "zoo", module) and (module, name) not in ON_FIRST_USE:
                found[module].add(name)
    return found


def test_imports_form_no_circle():
    order = [*TopologicalSorter(graph()).static_order()]
    assert order.index("zoo.runs") < order.index("zoo.fitting") < order.index("zoo.planning")


@pytest.mark.parametrize("room", ["models", "guides"])
def test_programs_import_neither_the_zoo_nor_each_other(room):
    other = {"models": "guides", "guides": "models"}[room]
    names = {name for module in MODULES if module.split(".")[0] == room for name in imported(module)}
    assert any(name.startswith("pyro") for name in names)
    assert not {name for name in names if name.split(".")[0] in ("zoo", other)}


@pytest.mark.parametrize("room", ["comparison", "reporting"])
def test_pages_are_made_without_torch(room):
    names = {name for module in MODULES if module.startswith(f"zoo.{room}.") for name in imported(module)}
    assert any(name.startswith("xarray") for name in names)
    assert not {name for name in names if name.split(".")[0] in ("torch", "pyro")}
