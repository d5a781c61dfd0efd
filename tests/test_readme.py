"""What the README and CONTRIBUTING say is so; their examples run with those of the documentation, in test_docs.py."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short_and_counts_the_pairs():
    import zoo

    assert len(README.splitlines()) < 150
    own = [name for name in zoo.list_pairs() if zoo.catalogue.package_of(name) == ""]
    assert f"each of the {len(own)} pairs" in README


def test_every_target_named_is_one():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    pages = [README, *(file.read_text(encoding="utf-8") for file in (ROOT / "docs").rglob("*.md"))]
    named = re.findall(r"(?:^|`)make (\w+)\b", "\n".join(pages), re.M)
    assert {"demo", "test", "docs"} <= set(named) <= targets


def test_every_hook_is_documented():
    """What the code asks a model for by name, and what is registered by type, is in the table and in the docstring."""
    from zoo.models import VAE

    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "zoo").rglob("*.py"))
    asked = {*re.findall(r'(?:hasattr|getattr)\([\w.]*model, "(\w+)"', code), *re.findall(r"\bmodel\.(\w+)\(", code)}
    registered = set(re.findall(r"@singledispatch\ndef ([a-z]\w+)", code))
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    of_torch = {"parameters", "named_parameters", "modules", "double", "to", "eval", "likelihood", "decoder"}
    hooks = asked - of_torch
    assert {"initialise", "settle", "log_evidence", "log_prior"} <= hooks
    assert {"columns_log_prob", "distribution_function", "paths"} <= registered
    assert [name for name in hooks if f"`{name}(" not in table or f"``{name}(" not in VAE.__doc__] == []
    assert [name for name in registered if name not in table] == []
