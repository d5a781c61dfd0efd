"""The command line, called as a person calls it: what is printed where, and with which exit status."""

import inspect
import json
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st
from programs import break_at
from typer.testing import CliRunner

import zoo
from zoo.catalogue import options_of
from zoo.command_line import ALONE, Loading, Training, _assignment, app
from zoo.errors import DivergenceWarning, OptionError, RunError
from zoo.sources import DataCall

pytestmark = pytest.mark.usefixtures("quick_scores")
RESUME = "To continue, add --resume to the same command."
QUICK = ["--steps", "20", "--seeds", "2", "--compile", "off", "--quiet"]
NOTE = "data: 1 of 150 rows is equal to an earlier one: equal rows were kept in one part.\n"  # on iris
RAISES = r'raise RuntimeError("no such luck\nTrace Shapes:")'
BROKEN = """
import zoo
from zoo.guides import ExactPosterior
from zoo.models import GaussianMixture
from zoo.pairs import MixtureOptions

class Broken(GaussianMixture):
    def forward(self, x):
        raise RuntimeError("no such luck\\nTrace Shapes:")

@zoo.register("broken", title="Broken", summary="", formula="", support="real", bounded=False, reference="")
def broken(data: zoo.Data, options: MixtureOptions):
    model = Broken(options.components, data.features, options.covariance)
    return model, ExactPosterior(model)
"""

OWN = BROKEN.replace("broken", "own").replace(RAISES, "return super().forward(x)")


def call(*arguments, status=0):
    """What the command prints on stdout and on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    unforeseen = None if isinstance(result.exception, SystemExit) else result.exception
    assert (result.exit_code, unforeseen) == (status, None), result.output
    return result.stdout, result.stderr


@pytest.fixture
def forbid_training(monkeypatch):
    monkeypatch.setattr("zoo.tasks.fit", lambda *_, **__: pytest.fail("training began"))


@pytest.fixture
def broken(tmp_path, catalogue, monkeypatch):
    """A plugin whose pair fails while it is trained."""
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    monkeypatch.setitem(sys.modules, "zoo_plugin_broken", None)  # whatever is put there is taken away again
    return path


@pytest.fixture(scope="module")
def gmm(tmp_path_factory):
    """The directory of a run."""
    place = tmp_path_factory.mktemp("runs") / "gmm"
    call("train", "gmm-constrained", "--data", "iris", "--out", place, *QUICK)
    return place


def test_what_has_to_be_known_of_the_data_is_told_quietly_too(tmp_path):
    rows = [f"{i}.5,{i * i}.25" for i in range(20)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b", *rows, *rows]))
    arguments = ["gmm-constrained", "--data", tmp_path / "x.csv", "--split", "rows", *QUICK, "--json"]
    out, err = call("train", *arguments, "--out", tmp_path / "run")
    for told in (" ".join(json.loads(out)["notes"]), " ".join(err.split())):
        assert "also occur in the training part" in told
    out, _ = call("evaluate", tmp_path / "run", "--samples", 100, "--json")
    assert "also occur in the training part" in " ".join(json.loads(out)["notes"])


def test_list_shows_every_pair_and_filters():
    out, _ = call("list")
    assert all(name in out and zoo.card(name).summary in out for name in zoo.list_pairs())
    cards = json.loads(call("list", "g*", "--unbounded", "--support", "binary", "--json")[0])
    assert [card["name"] for card in cards] == zoo.list_pairs("g*", bounded=False, support="binary")
    assert "no pair matches 'nothing*'" in call("list", "nothing*")[1]


def test_parts_of_a_pair_are_those_that_serve_it():
    told = json.loads(call("parts", "gmm", "--json")[0])
    assert [part["name"] for part in told["guide"]] == ["enumeration"] and told["prior"] == []
    told = json.loads(call("parts", "gaussian-constrained", "--json")[0])
    guides, priors = ({part["name"] for part in told[sort]} for sort in ("guide", "prior"))
    assert {"mean-field", "spline"} <= guides and not {"enumeration", "exact"} & guides and "vamp" in priors
    assert "Nearest: gmm" in call("parts", "gmn", status=2)[1]


@pytest.mark.parametrize("name", zoo.list_pairs())
def test_show_tells_every_option(name):
    out, _ = call("show", name)
    assert zoo.card(name).title in out
    assert zoo.card(name).formula in out
    words = " ".join(out.split())  # long lines are broken
    assert f"objective {zoo.card(name).objective}," in words
    assert ("not what was maximised" in words) == (zoo.card(name).objective != "elbo")
    assert zoo.card(name).in_scaled_units in words
    told = json.loads(call("show", name, "--json")[0])["options"]
    assert {option: entry["default"] for option, entry in told.items()} == {
        f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(options_of(name))
    }
    assert all(option in out and entry["type"] in out for option, entry in told.items())


def test_in_a_comparison_only_pairs_of_real_numbers_get_dequantized_data():
    from zoo.command_line import Loading

    asked = Loading(data="digits", dequantize=True)
    given = {name: asked.for_pair(zoo.card(name)).dequantize for name in ("gmm", "gaussian-binned", "bernoulli")}
    assert given == {"gmm": True, "gaussian-binned": False, "bernoulli": False}


def test_looking_around_imports_neither_torch_nor_xarray():
    code = (
        "import sys; from zoo.command_line import app\n"
        "for words in ['list'], ['show', 'gmm'], ['data'], ['train', '--help'], ['--version']:\n"
        "    app(words, standalone_mode=False)\n"
        "assert not {'torch', 'pyro', 'xarray', 'pandas', 'arviz'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert zoo.__version__ in ended.stdout


@pytest.mark.parametrize("command", ["list", "show", "data", "train", "evaluate", "compare", "report"])
def test_every_command_has_help(command):
    assert "Usage" in call(command, "--help")[0]


TRAIN_GMM = ["train", "gmm", "--out", "new", "--data"]
COMPARE = ["compare", "gmm", "gmm-constrained", "--out", "new", "--data", "iris"]
MISTAKES = {
    "unknown pair": (["show", "gmn"], "Nearest: gmm"),
    "unknown pair to train": (["train", "gmn", "--data", "iris", "--out", "new"], "Nearest: gmm"),
    "unknown guide": (["train", "gmm:flow", "--data", "iris", "--out", "new"], "choose from mean-field"),
    "options twice": (
        [
            "train",
            "gmm",
            "--data",
            "iris",
            "--out",
            "new",
            "--objective",
            "iwae[samples=3]",
            "--objective-set",
            "samples=4",
        ],
        "either in brackets or with --objective-set, not both",
    ),
    "a how without a what": (
        ["train", "gmm", "--data", "iris", "--out", "new", "--objective-set", "samples=4"],
        "name the objective too",
    ),
    "unknown data": ([*TRAIN_GMM, "digit"], "did you mean 'digits'"),
    "missing file": ([*TRAIN_GMM, "no/where.csv"], "no such folder"),
    "wrong support": (["train", "bernoulli", "--data", "digits", "--out", "new"], "binarize"),
    "ill-typed option": ([*TRAIN_GMM, "iris", "--set", "components=few"], "components='few'"),
    "unknown option": ([*TRAIN_GMM, "iris", "--set", "component=3"], "did you mean 'components'?"),
    "no assignment": ([*TRAIN_GMM, "iris", "--set", "components"], "OPTION=VALUE"),
    "ill setting": ([*TRAIN_GMM, "iris", "--steps", "0"], "steps=0"),
    "no number of steps": ([*TRAIN_GMM, "iris", "--steps", "2e3"], "steps='2e3': input should be a valid integer"),
    "no schedule to restart": ([*COMPARE, "--schedule", "constant"], "give a number of steps"),
    "two kinds of seeds": ([*TRAIN_GMM, "iris", "--seeds", "2", "--seed", "3"], "leave one of them out"),
    "missing plugin": ([*TRAIN_GMM, "iris", "--plugin", "none.py"], "no such Python file"),
    "a seed twice": ([*TRAIN_GMM, "iris", "--seed", "2", "--seed", "2"], "different whole numbers"),
    "an enormous seed": ([*TRAIN_GMM, "iris", "--seed", "9" * 23], "2**63"),
    "no seeds": ([*COMPARE, "--seeds", "0"], "--seeds=0; give an integer from 1"),
    "an enormous seed for all": ([*COMPARE, "--seed", "9" * 23], "2**63"),
    "a negative split seed": ([*TRAIN_GMM, "iris", "--split-seed", "-1"], "seed=-1"),
    "no samples": ([*COMPARE, "--samples", "0"], "samples=0"),
    "not a run": (["evaluate", "none"], "no run at none"),
    "no runs to report": (["report", "none", "--out", "new"], "no run at none"),
    "a pair twice": ([*COMPARE, "--set", "gmm.components=2"][:2] + COMPARE[1:], "more than once"),
    "an ill setting for all": ([*COMPARE, "--schedule", "linear"], "schedule='linear'"),
    "an option of no pair": ([*COMPARE, "--set", "latent_dim=3"], "no pair has an option 'latent_dim'"),
    "an option of another pair": ([*COMPARE, "--set", "bernoulli.latent_dim=3"], "bernoulli is not among"),
    "nothing to binarize": ([*COMPARE, "--binarize", "threshold"], "none of gmm, gmm-constrained is one"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.usefixtures("forbid_training")
def test_a_mistake_is_one_line_and_status_2(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, err = call(*arguments, status=2)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not (tmp_path / "new").exists()


def test_markup_in_a_message_is_printed_as_it_is():
    assert "'[bold]x'" in call("show", "[bold]x", status=2)[1]


def test_errors_of_a_plugin_name_file_and_line(tmp_path):
    for text, line in (
        ("import zoo\n\n1 / 0\n", 3),
        ("import zoo\ndef\n", 2),
        ("import zoo\nzoo.register('A b')\n", 2),
    ):
        path = tmp_path / "own.py"
        path.write_text(text)
        assert f"own.py, line {line})" in call("list", "--plugin", path, status=2)[1]


def test_train_evaluate_report(tmp_path):
    run, page = tmp_path / "run", tmp_path / "report"
    options = ["--set", "hidden=(8,4)", "--set", "floor=0.5", "--set", "activation=relu", "--split-seed", "5"]
    out, _ = call("train", "gaussian-constrained", "--data", "iris", "--out", run, *options, *QUICK, "--json")
    told = json.loads(out)
    assert told["run"] == str(run)
    assert len(told["validation_elbo"]) == 2
    attributes = xarray.load_datatree(run / "run.nc").attrs
    assert attributes["data_call"] == "load_data('iris', seed=5)"
    assert "data = zoo.load_data('iris', seed=5)" in attributes["repeat"]
    assert json.loads(attributes["options"])["hidden"] == [8, 4]

    rows = json.loads(call("evaluate", run, "--samples", 100, "--temperatures", 2, "--json")[0])["rows"]
    held_out = xarray.load_datatree(run / "run.nc")["heldout"]
    assert held_out.attrs["samples"] == 100
    assert rows[0]["log_evidence"] == pytest.approx(float(held_out["log_mass"].mean()))

    assert call("report", run, "--out", page)[0].strip() == str(page / "index.html")
    assert (page / "index.html").is_file()


def test_evaluate_refuses_other_data_than_trained_on(tmp_path):
    call("train", "gmm-constrained", "--data", "iris", "--out", tmp_path / "run", *QUICK)
    assert "not what the run was trained on" in call("evaluate", tmp_path / "run", "--data", "wine", status=2)[1]


def test_a_seed_repeats_its_numbers_and_needs_no_company(tmp_path):
    def trace(name, *more):
        run = tmp_path / name
        words = ["--data", "iris", "--out", run, "--steps", 15, "--quiet", "--seed", 7, *more]
        call("train", "gaussian-learned", *words)
        weights = (run / "weights.safetensors").read_bytes()
        return weights, xarray.load_datatree(run / "run.nc")["optimization"].to_dataset().sel(chain=7)

    (weights, alone), (same_weights, again), (_, beside) = trace("a"), trace("b"), trace("c", "--seed", 5)
    assert weights == same_weights
    assert alone.equals(again)
    xarray.testing.assert_allclose(alone, beside, rtol=1e-4)
    assert not alone.equals(trace("d", "--split-seed", 1)[1])


def test_a_run_is_replaced_only_if_asked(tmp_path, monkeypatch):
    arguments = ["train", "gmm-constrained", "--data", "iris", "--out", tmp_path / "run", *QUICK]
    call(*arguments)
    written = (tmp_path / "run/run.json").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("zoo.tasks.fit", lambda *_, **__: pytest.fail("training began"))
        assert "--overwrite" in call(*arguments, status=2)[1]
        compared = ["compare", "run", "--out", tmp_path, "--data", "iris", "--overwrite"]
        (tmp_path / "gmm").mkdir()
        (tmp_path / "gmm/thesis.tex").write_text("years of work")
        compared[1] = "gmm"
        assert "choose another --out" in call(*compared, status=2)[1]
    assert (tmp_path / "run/run.json").stat().st_mtime_ns == written
    call(*arguments, "--overwrite")
    assert (tmp_path / "run/run.json").stat().st_mtime_ns > written


@pytest.mark.usefixtures("forbid_training")
def test_a_place_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "file" / "a" / "run"):
        err = call("train", "gmm", "--data", "iris", "--out", out, status=2)[1]
        assert str(out) in err
        assert f"{tmp_path / 'file'} is a file" in err
    err = call("compare", "gmm", "--data", "iris", "--out", tmp_path / "file", status=2)[1]
    assert f"{tmp_path / 'file'} is a file" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_under_a_file_is_refused(tmp_path, gmm):
    (tmp_path / "ok.csv").touch()
    err = call("report", gmm, "--out", tmp_path / "ok.csv" / "sub", status=2)[1]
    assert (
        err == f"error: cannot write a report to {tmp_path}/ok.csv/sub: {tmp_path}/ok.csv is a file; name a directory\n"
    )


def test_samples_of_an_evaluation_are_checked(gmm):
    assert "samples=0" in call("evaluate", gmm, "--samples", 0, status=2)[1]


def test_a_run_in_which_every_seed_broke_is_saved_and_says_so(tmp_path, monkeypatch):
    fit = zoo.fit

    def broken_fit(*arguments, **settings):
        run = fit(*arguments, **settings)
        validation = run.tree["validation"].to_dataset()
        run.tree["validation"] = xarray.DataTree(validation.assign(elbo=validation["elbo"] * float("nan")))
        return run

    monkeypatch.setattr("zoo.tasks.fit", broken_fit)
    arguments = ["train", "gmm-constrained", "--data", "iris", *QUICK]
    _, err = call(*arguments, "--out", tmp_path / "a", status=1)
    assert err.startswith(f"{NOTE}error: every seed of gmm-constrained broke")
    assert err.count("\n") == 2
    assert (tmp_path / "a/run.json").is_file()
    out, _ = call(*arguments, "--out", tmp_path / "b", "--json", status=1)
    assert json.loads(out)["validation_elbo"] == [None, None]


def test_a_file_is_found_again_from_another_directory(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    rows = "".join(f"{i % 7 + 0.5},{i % 5 + 0.25}\n" for i in range(60))
    (tmp_path / "a" / "own.csv").write_text("x,y\n" + rows)
    call("train", "gmm-constrained", "--data", "own.csv", "--out", "run", *QUICK)
    monkeypatch.chdir(tmp_path)
    call("evaluate", "a/run", "--samples", 10)
    (tmp_path / "a" / "own.csv").rename(tmp_path / "moved.csv")
    err = call("evaluate", "a/run", status=2)[1]
    assert f"{tmp_path}/a/own.csv: no such file" in err
    assert "--data" in err
    call("evaluate", "a/run", "--data", "moved.csv")


def test_a_pair_of_a_plugin_says_where_it_comes_from(tmp_path, catalogue, monkeypatch):
    monkeypatch.setitem(sys.modules, "zoo_plugin_own", None)
    (tmp_path / "own.py").write_text(OWN)
    arguments = ["--data", "iris", "--out", tmp_path / "run", "--plugin", tmp_path / "own.py", *QUICK]
    call("train", "own", *arguments)
    repeat = xarray.load_datatree(tmp_path / "run/run.nc").attrs["repeat"]
    assert repeat.startswith(f"# first run {tmp_path}/own.py, which registers what follows\nimport zoo\n")
    compile(repeat, "repeat", "exec")
    del catalogue["own"]
    told = " ".join(call("evaluate", tmp_path / "run", status=2)[1].split())
    assert f"run {tmp_path / 'own.py'} first, which registers it" in " ".join(told.split()) and "--plugin" in told
    call("evaluate", tmp_path / "run", "--plugin", tmp_path / "own.py")


@pytest.mark.usefixtures("blank_pictures")
def test_pairs_of_an_earlier_comparison_are_left_alone(tmp_path):
    options = ["--data", "iris", "--out", tmp_path, "--overwrite", "--samples", 10, *QUICK]
    call("compare", "gmm", *options)
    call("compare", "gmm-constrained", *options)
    assert (tmp_path / "gmm/run.json").is_file()
    assert not list((tmp_path / "figures").glob("*-gmm.*"))


@pytest.mark.usefixtures("blank_pictures")
def test_compare_goes_on_when_a_pair_fails(tmp_path, broken):
    names = ["broken", "gaussian-identity:full-rank"]
    options = ["--set", "hidden=4,", "--set", "gaussian-identity:full-rank.scale=0.5", "--samples", 100]
    options += ["--temperatures", 0]
    arguments = ["--data", "iris", "--out", tmp_path / "all", "--plugin", broken, *QUICK]
    out, err = call("compare", *names, *arguments, *options, status=1)
    assert "RuntimeError: no such luck" in out and "Trace Shapes" not in out
    assert "error: broken failed: RuntimeError: no such luck" in err
    assert "Traceback" not in err
    assert f"{tmp_path}/all/index.html\n" in out
    assert "RuntimeError: no such luck" in (tmp_path / "all/index.html").read_text()
    run = xarray.load_datatree(tmp_path / "all/gaussian-identity-full-rank/run.nc")
    told = json.loads(run.attrs["options"])
    assert (told["guide"], told["hidden"], told["scale"]) == ("full-rank", [4], 0.5)
    assert run.attrs["on_divergence"] == "warn"
    assert "heldout" in run

    out, _ = call("compare", "broken", *arguments, "--json", status=1)
    assert json.loads(out)["rows"] == []
    assert "no such luck" in json.loads(out)["failures"]["broken"]


@pytest.mark.usefixtures("blank_pictures")
def test_compare_binarizes_for_binary_pairs_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("levels.npy", np.random.default_rng(0).integers(0, 5, (90, 6)))
    options = ["--binarize", "stochastic", "--dequantize", "--samples", 20, "--temperatures", 0, "--out", "runs"]
    out, _ = call("compare", "bernoulli", "gmm-constrained", "--data", "levels.npy", *options, *QUICK, "--json")
    rows = json.loads(out)["rows"]
    assert "Training draws again at every step" in " ".join(json.loads(out)["notes"])
    assert {row["pair"]: (row["table"], row["scored_as"]) for row in rows} == {
        "bernoulli": ("mass, levels (binarized stochastically)", "mass, lower bound"),
        "gmm-constrained": ("mass, levels (dequantized)", "binned mass, exact"),
    }
    calls = [xarray.load_datatree(Path("runs", row["pair"], "run.nc")).attrs["data_call"] for row in rows]
    assert sorted(calls) == [
        f"load_data('{tmp_path}/levels.npy', binarize='stochastic')",
        f"load_data('{tmp_path}/levels.npy', dequantize=True)",
    ]


@pytest.mark.usefixtures("blank_pictures")
def test_compare_repeats_on_several_splits(tmp_path):
    options = ["--data", "iris", "--repeats", 2, "--samples", 50, "--out", tmp_path, *QUICK]
    out, _ = call("compare", "gmm", "gmm-constrained", *options, "--ensembles", "--json")
    told = json.loads(out)
    assert [row["splits"] for row in told["rows"]] == [2] * 4
    assert {row["pair"] for row in told["rows"]} >= {"gmm-constrained", "gmm-constrained (ensemble of 2)"}
    pages = [tmp_path / f"split-{seed}" / "index.html" for seed in range(2)]
    assert all("ensemble of 2" in page.read_text() for page in pages)
    written = pd.read_csv(tmp_path / "across_splits.csv")
    assert list(written["pair"]) == [row["pair"] for row in told["rows"]]
    again, _ = call("report", tmp_path, "--out", tmp_path / "again")
    assert "ensemble of 2" in Path(again.strip()).read_text()
    runs = [zoo.load_run(tmp_path / f"split-{seed}" / "gmm-constrained") for seed in range(2)]
    assert len({run.tree.attrs["data_fingerprint"] for run in runs}) == 2


@pytest.mark.usefixtures("blank_pictures")
def test_compare_says_what_validation_chooses_and_what_arviz_warns_of(tmp_path):
    options = ["gmm[components=2|3]", "--data", "iris", "--samples", 50, "--out", tmp_path, *QUICK]
    out, _ = call("compare", *options)
    assert out.count("gmm: of 2, validation chooses components=") == 1
    assert out.count("30 test data: with fewer than 100, intervals") == 1
    told = json.loads(call("compare", *options, "--resume", "--json")[0])
    assert [len(texts) for texts in told["cautions"].values()] == [1]
    (chosen,) = (row for row in told["rows"] if row["chosen"])
    assert chosen["validation"] == max(row["validation"] for row in told["rows"])
    assert chosen["choice"] in out


def test_an_interruption_says_what_was_kept(tmp_path, monkeypatch):
    fit = zoo.fit

    def interrupted(pair, *arguments, **settings):
        if pair.name == "gmm":
            raise KeyboardInterrupt
        return fit(pair, *arguments, **settings)

    monkeypatch.setattr("zoo.tasks.fit", interrupted)
    arguments = ["--data", "iris", "--out", tmp_path, *QUICK]
    _, err = call("compare", "gmm-constrained", "gmm", *arguments, status=130)
    assert err == f"{NOTE}interrupted: {tmp_path / 'gmm-constrained'} finished; no report was written. {RESUME}\n"
    assert (tmp_path / "gmm-constrained/run.json").is_file()
    _, err = call("train", "gmm", *arguments[:2], "--out", tmp_path / "x", status=130)
    assert err.endswith("\ninterrupted: nothing was written.\n")


def test_train_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    command = ["train", "gmm-constrained", "--data", "iris", *QUICK, "--json"]
    whole, _ = call(*command, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, 15, KeyboardInterrupt)
        _, err = call(*command, "--out", tmp_path / "run", status=130)
    so_far, go_on = tmp_path / "run" / "so-far", f"`zoo train --resume {tmp_path / 'run'}`"
    assert err == f"{NOTE}interrupted: {so_far} is the run as it stood; {go_on} continues.\n"
    assert f"{go_on} to continue it" in call(*command, "--out", tmp_path / "run", status=2)[1]
    call("evaluate", so_far, "--samples", 20)
    assert "is an interrupted run: finish it with" in call("repeat", so_far, "--out", tmp_path / "again", status=2)[1]
    for wrong in (["gmm"], ["--steps", 30], ["--overwrite"], ["--support", "real"], ["--out", tmp_path]):
        assert "no option but --data and --plugin" in call("train", "--resume", tmp_path / "run", *wrong, status=2)[1]
    for _ in range(2):  # a finished run is reported again
        resumed, _ = call("train", "--resume", tmp_path / "run", "--quiet", "--json")
        assert json.loads(resumed)["validation_elbo"] == json.loads(whole)["validation_elbo"]
    assert zoo.load_run(tmp_path / "run").differences(zoo.load_run(tmp_path / "whole")) == []
    assert "holds no unfinished fit" in call("train", "--resume", tmp_path / "none", status=2)[1]


def test_a_run_that_was_begun_elsewhere_finds_its_data_and_its_pair(tmp_path, catalogue, monkeypatch):
    table, plugin = tmp_path / "iris.csv", tmp_path / "own.py"
    pd.DataFrame(zoo.load_data("iris").train.values).to_csv(table, index=False)
    plugin.write_text(OWN)
    monkeypatch.setitem(sys.modules, "zoo_plugin_own", None)
    run, command = tmp_path / "run", ["train", "own", "--data", table, "--split-seed", 3, "--plugin", plugin, *QUICK]
    call(*command, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, 15, KeyboardInterrupt)
        call(*command, "--out", run, status=130)
    moved = table.rename(tmp_path / "moved.csv")
    assert "say where they are with --data" in call("train", "--resume", run, "--plugin", plugin, status=2)[1]
    call("train", "--resume", run, "--data", moved, "--plugin", plugin, "--quiet")
    assert zoo.load_run(run).differences(zoo.load_run(tmp_path / "whole")) == []
    call("repeat", run, "--out", tmp_path / "again", "--plugin", plugin)


def test_repeat_trains_the_same_bits_again(tmp_path):
    options = ["--warmup", 5, "--batch-size", 32, "--seed", 7, "--set", "latent_dim=3", "--clip", 2.0]
    call(
        "train",
        "gaussian-constrained:full-rank",
        "--data",
        "iris",
        "--out",
        tmp_path / "a",
        *options,
        *QUICK[:2],
        "--quiet",
    )
    out, _ = call("repeat", tmp_path / "a", "--out", tmp_path / "b", "--quiet")
    assert out == f"{tmp_path / 'b'} is {tmp_path / 'a'} to the last bit.\n"
    told = call("repeat", tmp_path / "a", "--out", tmp_path / "b", "--quiet", status=2)[1]
    assert told == f"error: {tmp_path / 'b'} exists: choose another --out.\n"
    first, again = zoo.load_run(tmp_path / "a"), zoo.load_run(tmp_path / "b")
    assert first.differences(again) == []
    assert (
        first.settings["warmup"] == 5 and first.settings["patience"] is None and first.settings["same_batches"] is False
    )
    again.weights["model.decoder.0.weight"][0, 0, 0] += 1e-6
    assert first.differences(again) == ["model.decoder.0.weight"]
    again.tree.attrs["learning_rate"] = 1e-4
    again.save(tmp_path / "c")
    _, err = call("repeat", tmp_path / "c", "--out", tmp_path / "d", "--quiet", status=1)
    assert f"{tmp_path / 'd'} is not {tmp_path / 'c'}: " in err
    assert "differ." in err
    data = zoo.Data.from_array(zoo.load_data("iris").train.values)
    zoo.fit(zoo.create("gmm", data), data, steps=2, progress=False).save(tmp_path / "e")
    assert (
        "does not record how its data were loaded"
        in call("repeat", tmp_path / "e", "--out", tmp_path / "f", status=2)[1]
    )


def test_a_comparison_trains_until_pairs_settle_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []

    def fit(*arguments, **settings):
        asked.append((settings["steps"], settings["on_divergence"]))
        raise RunError("enough is known")

    monkeypatch.setattr("zoo.tasks.fit", fit)
    command = ["compare", "gmm", "--data", "iris", "--quiet", "--out"]
    call(*command, tmp_path / "a", status=1)
    call(*command, tmp_path / "b", "--steps", "70", "--on-divergence", "stop", status=1)
    assert asked == [("auto", "warn"), (70, "stop")]


@pytest.mark.usefixtures("short_rounds")
def test_training_until_it_settles_is_gone_on_with_and_repeated(tmp_path, monkeypatch):
    command = ["train", "gmm", "--data", "iris", "--steps", "auto", "--seeds", "2", "--compile", "off", "--quiet"]
    call(*command, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, 8, KeyboardInterrupt)
        call(*command, "--out", tmp_path / "run", status=130)
    call("train", "--resume", tmp_path / "run", "--quiet")
    assert zoo.load_run(tmp_path / "run").differences(zoo.load_run(tmp_path / "whole")) == []
    call("repeat", tmp_path / "run", "--out", tmp_path / "again", "--quiet")


@pytest.mark.usefixtures("blank_pictures")
def test_compare_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    command = ["compare", "gmm-constrained", "gmm", "--data", "iris", "--samples", 50, *QUICK, "--json"]
    whole, _ = call(*command, "--out", tmp_path / "whole")
    monkeypatch.setattr("zoo.tasks.evaluate", counted := Counted(zoo.evaluate))
    with monkeypatch.context() as patch:
        fit = zoo.fit
        patch.setattr(
            "zoo.tasks.fit",
            lambda pair, *a, **k: (
                break_at(patch, 15, KeyboardInterrupt) if pair.name == "gmm" else None,
                fit(pair, *a, **k),
            )[1],
        )
        call(*command, "--out", tmp_path / "run", status=130)
    assert counted.calls == 1
    resumed, _ = call(*command, "--out", tmp_path / "run", "--resume")
    assert counted.calls == 2  # the first pair is neither trained nor scored again
    rows, again = (json.loads(out)["rows"] for out in (whole, resumed))
    assert again == rows


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        return self.function(*arguments, **named)


def test_a_divergence_is_one_line_and_other_warnings_are_untouched(tmp_path, monkeypatch):
    fit = zoo.fit

    def diverging(*arguments, **settings):
        for seed in (0, 1):
            warnings.warn(f"seed {seed} runs away", DivergenceWarning, stacklevel=1)
        warnings.warn("of another kind", RuntimeWarning, stacklevel=1)
        return fit(*arguments, **settings)

    monkeypatch.setattr("zoo.tasks.fit", diverging)
    with pytest.warns(RuntimeWarning, match="of another kind"):
        _, err = call("train", "gmm-constrained", "--data", "iris", "--out", tmp_path / "run", *QUICK)
    assert err == NOTE + "warning: seed 0 runs away\nwarning: seed 1 runs away\n"


@pytest.mark.parametrize(("kind", "function"), [(Training, zoo.fit), (Loading, zoo.load_data)])
def test_defaults_are_those_of_the_library(kind, function):
    named = {"split_seed": "seed"} if kind is Loading else {}
    # an option that is None is not passed on, so the library's own default holds
    ours = {
        named.get(f.name, f.name): f.default
        for f in fields(kind)
        if f.name not in ("data", "seed", "seeds") and (kind is Training or f.default is not None)
    }
    theirs = inspect.signature(function).parameters
    settings = Training().settings(**ALONE) | {"seeds": Training().chosen_seeds} if kind is Training else ours
    assert settings == {name: theirs[name].default for name in settings}


def test_all_validation_rows_are_none_to_the_library():
    rows = [Training(validation_rows=text).settings(**ALONE)["validation_rows"] for text in ("all", "500")]
    assert rows == [None, 500]
    with pytest.raises(OptionError, match="validation_rows='few': input should be a valid integer"):
        Training(validation_rows="few").settings(**ALONE)


literals = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.text(), st.dictionaries(st.sampled_from(["labels", "binarize", "seed"]), literals))
def test_a_data_call_survives_being_written_down(source, options):
    data_call = DataCall(source, options)
    assert DataCall.parse(str(data_call)) == data_call


@given(st.from_regex(r"[a-z_.]+", fullmatch=True), literals.filter(lambda x: not isinstance(x, str)))
def test_values_are_python_literals(name, value):
    assert _assignment(f"{name}={value!r}") == (name, value)


@pytest.mark.parametrize("text", ["conv", "1e", "8, ", "a=b", ""])
def test_anything_else_is_text(text):
    assert _assignment(f"x={text}")[1] in (text.strip(), (8,))


@pytest.mark.usefixtures("blank_pictures")
def test_a_table_as_people_have_it_goes_from_file_to_report(tmp_path, short_rounds):
    """Text, yes and no, counts, decimals, a date, and one entry in ten missing: only the date has to be named."""
    rng = np.random.default_rng(0)
    age, n = rng.integers(18, 80, 200), 200
    table = pd.DataFrame(
        {
            "visited": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"),
            "age": age,
            "income": np.exp(rng.normal(10, 0.5, n) + 0.01 * age).round(2),
            "children": rng.poisson(1.4, n),
            "city": rng.choice(["Bonn", "Rome", "São Paulo, SP"], n, p=[0.5, 0.3, 0.2]),
            "owner": np.where(rng.random(n) < 1 / (1 + np.exp((40 - age) / 10)), "yes", "no"),
            "weight": rng.normal(70, 9, n).round(1),
        }
    )
    gone = rng.random(table.shape) < 0.1
    gone[:, 0] = False
    file, place = tmp_path / "people.csv", tmp_path / "out"
    table.mask(gone).to_csv(file, index=False)
    words = ["compare", "mixed", "mixed[real=constrained]", "--data", file, "--out", place]
    _, err = call(*words, status=2)
    assert "column 'visited' holds dates" in err and "--drop visited" in err
    quick = ["--seeds", 1, "--samples", 50, "--temperatures", 0, "--compile", "off", "--workers", 1, "--quiet"]
    out, _ = call(*words, "--drop", "visited", *quick)
    assert "mass, people" in out
    assert str(place / "index.html") in out
    page = (place / "index.html").read_text(encoding="utf-8")
    assert "3 real, 1 ordinal, 1 categorical, 1 binary" in page
    assert "counting: every value is a cell" in page
    assert "Names: error rate" in page
    for name in ("mixed", "mixed-real=constrained"):
        scores = zoo.load_run(place / name).tree["heldout"]["log_mass"]
        assert np.isfinite(scores).all() and (scores <= 0).all()
