"""What a fit tells at its checks, and what comes of a listener that fails."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest

import zoo
from zoo.checkpoint import SO_FAR
from zoo.checks import Teller
from zoo.errors import OptionError

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture(scope="module")
def pair(iris):
    return zoo.create("gmm-constrained", iris, components=2)


def fit(pair, iris, **more):
    return zoo.fit(pair, iris, seeds=[7, 3], steps=40, compile="off", progress=False, **more)


def test_each_check_is_told_as_it_is_recorded(pair, iris):
    seen = []
    run = fit(pair, iris, on_check=seen.append)
    validation, steps = run.tree["validation"], run.tree["optimization"]
    assert [check.step for check in seen] == validation["step"].values.tolist()
    assert all(check.seeds == (7, 3) and check.steps == 40 and check.alive.all() for check in seen)
    told = np.stack([check.validation_elbo for check in seen], axis=1)
    np.testing.assert_array_equal(told, validation["elbo"])
    np.testing.assert_array_equal(seen[-1].best_elbo, validation["elbo"].max("check"))
    first = 0
    for check in seen:
        np.testing.assert_allclose(check.elbo, steps["elbo"][:, first : check.step].mean("step"), rtol=1e-5)
        first = check.step
    assert 0 < seen[0].seconds < seen[-1].seconds
    assert run.differences(fit(pair, iris)) == []


def test_a_listener_that_fails_is_told_of_and_costs_no_training(pair, iris, caplog):
    steps = []

    def fails(check):
        steps.append(check.step)
        if len(steps) == 2:
            raise ConnectionError("the server is down")

    run = fit(pair, iris, on_check=fails)
    assert len(steps) == 2 and run.tree["optimization"].sizes["step"] == 40
    assert f"on_check failed at step {steps[1]} and is not called again" in caplog.text
    assert "the server is down" in caplog.text


def test_the_processes_of_a_fit_go_on_putting_checks_together_when_the_first_ones_listener_failed():
    teller = Teller(MagicMock(side_effect=OSError))
    teller(MagicMock(step=3))
    teller(MagicMock(step=4))
    assert teller.wanted and not Teller(None).wanted


def test_a_listener_that_interrupts_leaves_all_that_was_computed(pair, iris, tmp_path):
    def interrupts(check):
        if check.step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the first 20 steps"):
        fit(pair, iris, on_check=interrupts, checkpoint=tmp_path)
    assert (tmp_path / SO_FAR).is_dir()
    seen = []
    run = fit(pair, iris, on_check=seen.append, checkpoint=tmp_path)
    assert seen[0].step > 20 and run.differences(fit(pair, iris)) == []


def test_what_is_no_function_is_refused_before_training(pair, iris):
    with pytest.raises(OptionError, match="on_check=3 is not a function"):
        fit(pair, iris, on_check=3)


def module(monkeypatch, name, **content):
    """A stand-in for a package that is not installed."""
    stand_in = ModuleType(name)
    stand_in.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, stand_in)


@pytest.fixture
def quick_fit(monkeypatch, tmp_path):
    """The fits of the examples, cut short, in a folder of their own."""
    whole = zoo.fit
    monkeypatch.setattr(
        zoo, "fit", lambda *of, **more: whole(*of, **{**more, "steps": 20, "compile": "off", "progress": False})
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("quick_fit")
def test_the_example_for_tensorboard_writes_curves(monkeypatch):
    """By a stand-in: the package is not among those of the tests."""
    writer = MagicMock()
    writer.return_value.__enter__.return_value = writer
    module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=writer)
    runpy.run_path(str(EXAMPLES / "tensorboard_log.py"))
    curves = {call.args[0] for call in writer.add_scalar.call_args_list}
    assert curves == {f"{kind}/seed {seed}" for kind in ("elbo", "validation elbo") for seed in (0, 1)}
    assert writer.add_scalar.call_args_list[-1].args[2] == 20


@pytest.mark.usefixtures("quick_fit")
def test_the_example_for_mlflow_logs_metrics_and_the_run(monkeypatch):
    """By a stand-in: the package is not among those of the tests."""
    mlflow = MagicMock()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    runpy.run_path(str(EXAMPLES / "mlflow_log.py"))
    metrics, step = mlflow.log_metrics.call_args.args[0], mlflow.log_metrics.call_args.kwargs["step"]
    assert metrics.keys() == {"validation_elbo_0", "validation_elbo_1"} and step == 20
    assert zoo.load_run(mlflow.log_artifacts.call_args.args[0]).seeds == (0, 1)


@pytest.mark.usefixtures("quick_fit")
def test_the_plain_example_prints_a_line_a_check(capsys):
    runpy.run_path(str(EXAMPLES / "plain_log.py"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["step"] == 20 and lines[-1]["validation_elbo"].keys() == {"0", "1"}


@pytest.mark.slow
def test_a_notebook_shows_the_bar_to_its_end():
    """In a kernel, where the packages of a notebook are installed: the tests need none of them."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    code = "import zoo\ndata = zoo.load_data('iris')\npair = zoo.create('gmm-constrained', data)\n"
    cell = nbformat.v4.new_code_cell(f"{code}run = zoo.fit(pair, data, seeds=1, steps=60, compile='off')")
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, timeout=120).execute()
    assert "60/60" in json.dumps(book.metadata["widgets"])
