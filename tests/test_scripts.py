"""The scripts are examples: they have to run."""

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import zoo
from zoo.command_line import app

pytestmark = pytest.mark.usefixtures("quick_scores")
SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch, catalogue):
    """Imports a script by name; the pairs it registers are forgotten after the test."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_caps_in_the_docs_are_what_the_script_prints(capsys, script):
    script("caps").main()
    page = (SCRIPTS.parent / "docs" / "floors.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page.partition("<!-- caps -->\n")[2].partition("<!-- /caps -->")[0]


@pytest.fixture
def small_scores(monkeypatch):
    """Scores of few draws, of a script that asks for the usual ones."""
    monkeypatch.setattr(zoo, "evaluate", partial(zoo.evaluate, samples=50, temperatures=0))


def test_train(script, tmp_path, capsys):
    script("train").main("gmm-constrained", "iris", tmp_path / "run", steps=20, seeds=2)
    assert (tmp_path / "run/run.nc").is_file()
    assert "(2, 8, 4)" in capsys.readouterr().out


@pytest.mark.usefixtures("small_scores", "blank_pictures")
def test_compare_then_report(script, tmp_path, capsys):
    names = ["gmm-constrained", "gmm"]
    script("compare").main("iris", tmp_path / "all", names, steps=20, seeds=2)
    assert "best" in capsys.readouterr().out
    script("report").main(tmp_path / "report", [tmp_path / "all" / name for name in names])
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "report/index.html"))


@pytest.mark.usefixtures("small_scores", "blank_pictures")
def test_own_pair(script, tmp_path, capsys):
    script("own_pair").main("iris", tmp_path / "own", steps=20, seeds=2)
    assert "laplace" in capsys.readouterr().out
    assert (tmp_path / "own/index.html").is_file()


@pytest.mark.usefixtures("catalogue", "blank_pictures")
def test_own_pair_as_a_plugin(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zoo_plugin_own_pair", None)
    words = "compare soft-laplace gmm-constrained --data iris --steps 20 --seeds 1 --samples 100 --temperatures 0"
    arguments = [*words.split(), "--quiet", "--json", "--out", str(tmp_path), "--plugin", str(SCRIPTS / "own_pair.py")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert {row["pair"] for row in json.loads(result.stdout)["rows"]} == {"soft-laplace", "gmm-constrained"}


@pytest.mark.parametrize(
    ("claim", "verdict"), [("one_point", "holds"), ("squared_error", "holds"), ("elbo_too", "holds")]
)
def test_claims_that_take_seconds(script, claim, verdict):
    finding = getattr(script("claims"), claim)()
    assert finding.verdict == verdict
    assert all(len(row) == len(finding.columns) for row in finding.rows)


def test_ground_truth(script, monkeypatch):
    fit = zoo.fit
    monkeypatch.setattr(zoo, "fit", lambda *of, **how: fit(*of, **how | {"seeds": min(how["seeds"], 3)}))
    table = script("ground_truth").mixtures(["spherical"])
    assert (table["gap"].abs() < 0.01).all()
    known = script("ground_truth").known_pair()
    assert (known["largest gap"] < 1e-4).all()
    assert (known["90% covers"].sub(0.9).abs() < 0.02).all()
    assert (known["50% covers"].sub(0.5).abs() < 0.03).all()


def test_gaps(script, monkeypatch):
    gaps = script("gaps")
    scores = importlib.import_module("zoo.evaluation.imputation")
    monkeypatch.setattr(scores, "ROWS", 10)
    monkeypatch.setattr(scores, "WIDEST", 20)  # columns for the iterative imputer: on digits it takes seconds a run
    monkeypatch.setattr(gaps, "SIMULATED", gaps.SIMULATED[:3])
    monkeypatch.setattr(gaps, "OF_PIXELS", ["gaussian-constrained"])
    monkeypatch.setattr(gaps, "TABLES", gaps.TABLES[:1])
    monkeypatch.setattr(gaps, "EVIDENCE_DRAWS", 20)
    evidence, pixels, errors = dict(gaps.tables(600, 1, 10)).values()
    assert (evidence["all entries"] < evidence["truth"]).all()  # by Gibbs' inequality
    assert len(pixels) == 2 and np.isfinite(pixels[["importance", "gibbs", "pseudo-gibbs"]]).all(axis=None)
    assert list(errors["error"]) == ["RMSE of numbers"] * 2
    assert all(table.columns[-1] == "as promised" for table in (evidence, pixels, errors))


def test_scale_prints_figures_of_each_size_and_their_exponents(script, capsys, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)  # as a script finds its neighbours
    scale = script("scale")
    monkeypatch.setattr(scale, "measured", lambda size: {"fit": 2.0, "load": size.rows**1.5, "memory": 7.0 * size.rows})
    scale.main(rows=[10, 100, 1000, 10_000])
    told = capsys.readouterr().out
    assert "| | 10 | 100 | 1,000 | 10,000 | exponent |" in told
    assert "| fit, s | 2 | 2 | 2 | 2 | 0.00 |" in told
    assert "| peak memory, MiB | 70 | 700 | 7,000 | 7e+04 | 1.00 |" in told
    assert "Exponents above 1.1: load against rows 1.50." in told
    monkeypatch.setattr(scale, "measured", lambda size: {"steps": 1.2} if size.rows == 10**7 else {"steps": 1.0})
    scale.main(rows=[10**5, 10**7])
    assert "take 1.20 times what they take with 100,000: more than promised" in capsys.readouterr().out
    monkeypatch.setattr(scale, "measured", lambda size: "out of memory" if size.seeds > 1 else {"fit": 1.0})
    scale.main(seeds=[1, 64])
    assert "64: out of memory" in capsys.readouterr().out


def test_scale_measures_a_size(script, tmp_path, monkeypatch):
    scale = script("scale")
    for name, value in {"STEPS": 3, "FITS": 1, "SAMPLES": 10, "TEMPERATURES": 0, "SOME": 20}.items():
        monkeypatch.setattr(scale, name, value)
    figures = scale.of_table(scale.Size(rows=200, columns=3), tmp_path)
    assert list(figures) == ["load", "fit", "steps", "evaluate 20 rows", "evaluate"]
    table = np.load(tmp_path / "200x3.npy")
    assert table.dtype == np.float32 and np.isfinite(table).all()
