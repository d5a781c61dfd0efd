"""What the README says is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

pytestmark = pytest.mark.usefixtures("quick_scores")
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_catalogue_table_is_the_catalogue():
    told = README.partition("<!-- catalogue -->\n")[2].partition("<!-- /catalogue -->")[0]
    command = [sys.executable, "-m", "zoo.command_line", "list", "--markdown"]
    assert told == subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(import zoo\n.*?)```", README, re.S)[1]
    names = {}
    for slow, quick in {
        "seeds=4, steps=1000": "seeds=1, steps=50, progress=False",
        "samples=1000": "samples=50, temperatures=0",
    }.items():
        assert slow in code
        code = code.replace(slow, quick)
    exec(compile(code, "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert "bill_length_mm" in out and "mixed (real=constrained)" in out and "report/index.html" in out
    assert zoo.load_run("runs/constrained").pair.options.real == "constrained"
    assert not names["whole"].isna().any(axis=None)


def test_the_pair_of_ones_own_is_the_script():
    told = re.search(r"```python\n(@dataclass.*?)```", README, re.S)[1]
    script = (ROOT / "scripts" / "own_pair.py").read_text(encoding="utf-8")
    assert told.strip() in script, "copy it from scripts/own_pair.py"


def test_every_command_named_is_one():
    from typer.main import get_command

    from zoo.command_line import app

    commands = set(get_command(app).commands)
    assert set(re.findall(r"\bzoo (\w+) [\w<-]", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)))) <= commands
    assert set(re.findall(r"`zoo (\w+)[ `]", README)) <= commands
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake (\w+)\b[`# ]", README)) <= targets


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
