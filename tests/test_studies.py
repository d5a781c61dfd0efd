"""Studies: the same bits by whatever workers, shards or executors, with processes killed in the middle."""

import dataclasses
import json
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import likelihoods
import loky
import numpy as np
import pandas as pd
import pytest
from pictures import draw_nothing
from programs import forked, score_quickly
from typer.testing import CliRunner

import zoo
from zoo import catalogue, lazy, planning, tables, workers
from zoo.command_line import app
from zoo.errors import OptionError, RunError, UnknownPair
from zoo.pairs import VAEOptions
from zoo.storage import locked
from zoo.studies import failure_file
from zoo.tasks import LoadedAgain, LoadedHere

NAMES = ["gmm-constrained[components=2|3]", "own-mortal"]
HOW = {"seeds": 2, "steps": 30, "checks": 10, "samples": 20, "temperatures": 0, "compile": "off", "progress": False}
MARKS = "ZOO_TEST_MARKS"


class Mortal(likelihoods.StudentT):
    """A model whose process is killed, once and in the middle, if there is a folder for the mark that it was."""

    def likelihood(self, z):
        marks = os.environ.get(MARKS)
        if marks is not None:
            type(self).calls = getattr(type(self), "calls", 0) + 1
            if type(self).calls == 50 and not Path(marks, "died").exists():
                Path(marks, "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().likelihood(z)


@pytest.fixture(scope="module", autouse=True)
def cheaply():
    """Quick scores, blank pictures and a pair of one's own, all through the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "_ENTRIES", dict(catalogue.entries()))
        likelihoods.register(Mortal, name="mortal", support="real", bounded=True, bound="b")
        score_quickly(patch)
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process makes of the study."""
    return zoo.study(NAMES, "iris", tmp_path_factory.mktemp("whole"), **HOW)


def same_bits(study, whole):
    assert study.failures == {}
    theirs = {run.name: run for run in whole.runs}
    for place in study.runs:
        run, of_one = (zoo.load_run(folder) for folder in (place, theirs[place.name]))
        assert run.differences(of_one) == []
        here, there = (of.tree["heldout"].to_dataset() for of in (run, of_one))
        assert here.equals(there)
    assert study.pages[0].is_file()


def test_workers_end_in_the_same_bits_though_one_is_killed(whole, tmp_path, monkeypatch):
    monkeypatch.setenv(MARKS, str(tmp_path))
    study = zoo.study(NAMES, "iris", tmp_path / "study", workers=2, **HOW)
    assert (tmp_path / "died").exists()
    assert len(study.runs) == 3
    same_bits(study, whole)


class Plain:
    """An executor, and what it gives, with nothing but what they need."""

    def __init__(self, function=None, argument=None):
        self.call = function, argument

    def submit(self, function, argument):
        return type(self)(function, argument)

    def result(self):
        function, argument = self.call
        return function(argument)


class Deadly(Plain):
    """Processes that the task of one pair kills: whatever else was submitted to them is lost with it."""

    broken = False

    def submit(self, function, task):
        type(self).broken |= task.name == "own-mortal"
        return super().submit(function, task)

    def result(self):
        if self.broken:
            raise loky.process_executor.TerminatedWorkerError("SIGKILL(-9)")
        return super().result()


def test_what_kills_its_process_fails_alone(tmp_path, monkeypatch):
    pools = []

    @contextmanager
    def pool(processes, _):
        pools.append(processes)
        yield type("Pool", (Deadly,), {})()

    monkeypatch.setattr(workers, "_pool", pool)
    study = zoo.study(["own-mortal", "gmm-constrained"], "iris", tmp_path, workers=2, **HOW)
    assert list(study.failures) == ["own-mortal"]
    assert "its process died" in study.failures["own-mortal"]
    assert [run.name for run in study.runs] == ["gmm-constrained"]
    assert "own-mortal" in study.pages[0].read_text()
    assert pools == [2, 2, 1, 1], "two pools were lost, then each task had one of its own"


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_whatever_a_pair_raises_is_a_row(error, tmp_path):
    @zoo.register("own-raising", title="t", summary="s", formula="f", support="real", bounded=False, reference="r")
    def build(data: zoo.Data, options: VAEOptions):
        raise error("boom")

    names = ["own-raising", "gmm-constrained"]
    if error is not KeyboardInterrupt:  # which from a pair of this process is no other than the user's own
        here = zoo.study(names, "iris", tmp_path / "here", **HOW)
        assert list(here.failures) == ["own-raising"]
        assert "boom" in here.failures["own-raising"]
        assert [run.name for run in here.runs] == ["gmm-constrained"]
        return
    todo = planning.plan("gmm-constrained", "iris", tmp_path, **{n: v for n, v in HOW.items() if n != "progress"})
    (task,) = todo.tasks
    ended = workers.in_worker(dataclasses.replace(task, name="own-raising"))
    assert "boom" in ended.failure


def test_threads_and_things_that_only_have_a_result(whole, tmp_path):
    plain = zoo.study("gmm-constrained[components=2]", "iris", tmp_path / "plain", executor=Plain(), **HOW)
    same_bits(plain, whole)
    with ThreadPoolExecutor(2) as executor:
        same_bits(zoo.study(NAMES[0], "iris", tmp_path / "threads", executor=executor, **HOW), whole)


@pytest.mark.slow  # a cluster starts, dies and starts again; executors are tested without one above
def test_dask_with_a_worker_killed(whole, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv(MARKS, str(tmp_path))
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    command = ["compare", "gmm-constrained", "--data", "iris", "--steps", "20", "--samples", "20", "--quiet"]
    with cluster, distributed.Client(cluster) as client:
        typed = [*command, "--dask", cluster.scheduler_address, "--out", str(tmp_path / "typed")]
        assert CliRunner().invoke(app, typed).exit_code == 0
        study = zoo.study(["gmm-constrained[components=2]", NAMES[1]], "iris", tmp_path, executor=client, **HOW)
    assert (tmp_path / "died").exists()
    same_bits(study, whole)


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("zoo.command_line.DASK_SECONDS", 0.2)
    command = ["compare", "gmm", "--data", "iris", "--dask", "tcp://127.0.0.1:9", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "error: --dask tcp://127.0.0.1:9: no scheduler answers there" in result.stderr
    assert not (tmp_path / "out").exists()


def test_shards_share_the_tasks_and_leave_none(whole, tmp_path, monkeypatch):
    done, out = [], tmp_path / "study"
    fit = zoo.fit
    monkeypatch.setattr("zoo.tasks.fit", lambda pair, *a, **k: (done.append(pair.options), fit(pair, *a, **k))[1])
    held = out / "gmm-constrained-components=3"
    with locked(held, "task"):  # by a process that is at it
        study = zoo.study(NAMES, "iris", out, shard="1/2", **HOW)
    assert len(done) == 2
    assert study.pages == []
    assert (study.failures, study.unfinished) == ({}, ["gmm-constrained[components=3]"])
    assert zoo.load_study(out) == study
    study = zoo.study(NAMES, "iris", out, shard="2/2", **HOW)  # the other has died
    assert [getattr(options, "components", None) for options in done[2:] if options not in done[:2]] == [3]
    same_bits(study, whole)


def test_a_task_that_another_process_is_at_is_not_done_twice(tmp_path):
    with locked(tmp_path / "gmm-constrained", "task"):
        study = zoo.study("gmm-constrained", "iris", tmp_path, **HOW)
    assert list(study.absent) == study.unfinished == ["gmm-constrained"]


def compare_in_a_terminal(place, said):
    """The command as a shell starts it: in a process group of its own, which Ctrl-C interrupts."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
    sys.stderr = said.open("w", buffering=1)
    words = "compare gmm-constrained gaussian-identity --data iris --steps 3000 --compile off --quiet --workers 2"
    app([*words.split(), "--out", str(place)])


def test_an_interruption_stops_the_workers_and_loses_nothing(tmp_path):
    place, said = tmp_path / "study", tmp_path / "said"
    running = forked(compare_in_a_terminal, place, said)
    while len([*place.glob("*/state-*")]) < 2 and running.is_alive():
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    running.join(60)
    assert running.exitcode == 130
    assert "To continue, add --resume to the same command" in said.read_text()
    states = {*place.glob("*/state-*")}
    assert states
    time.sleep(0.5)
    assert {*place.glob("*/state-*")} == states, "no worker goes on"
    assert not [*place.glob("*/run.json")]


def test_a_failure_is_told_until_it_is_mended(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("zoo.tasks.evaluate", lambda *_, **__: 1 / 0)
        study = zoo.study("gmm-constrained", "iris", tmp_path, **HOW)
    assert "ZeroDivisionError" in study.failures["gmm-constrained"]
    assert zoo.load_study(tmp_path).failures == study.failures
    study = zoo.study("gmm-constrained", "iris", tmp_path, **HOW)
    assert study.failures == {}
    assert not failure_file(study.runs[0]).exists()


def test_splits_are_those_of_the_seeds_that_follow(tmp_path):
    study = zoo.study("gmm-constrained", zoo.load_data("iris", seed=4), tmp_path, repeats=2, **HOW)
    found = [json.loads(zoo.load_run(run).tree.attrs["fit"])["data"] for run in study.runs]
    assert found == [zoo.load_data("iris", seed=seed).fingerprint for seed in (4, 5)]
    assert [split.folder.name for split in study.splits] == ["split-4", "split-5"]
    assert study.table["splits"].tolist() == [2]
    assert (tmp_path / "across_splits.csv").is_file()


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ({"names": []}, OptionError, "at least one pair"),
        ({"names": "gmmm"}, UnknownPair, "gmm"),
        ({"names": ["gmm", "gmm"]}, OptionError, "gmm is named more than once"),
        ({"names": "gmm[components=0|1]"}, OptionError, "components=0"),
        ({"stepz": 5}, OptionError, "no argument is called 'stepz'; did you mean 'steps'?"),
        ({"samples": 0}, OptionError, "samples=0"),
        ({"learning_rate": -1}, OptionError, "learning_rate=-1"),
        ({"shard": "3/2"}, OptionError, "write I/N"),
        ({"workers": 0}, OptionError, "workers=0"),
        ({"threads": 0}, OptionError, "threads=0"),
        ({"data": np.eye(30) + 0.5, "repeats": 2}, OptionError, "came from memory"),
        ({"seeds": [1, 1]}, OptionError, "seeds="),
        ({"names": None}, OptionError, "names=None"),
        ({"executor": "abc"}, OptionError, "submit(function, argument)"),
        ({"executor": ThreadPoolExecutor}, OptionError, "submit(function, argument)"),
        ({"executor": Plain(), "workers": 2}, OptionError, "leave one of them out"),
        ({"data": lambda *_: 1}, OptionError, "are of type int, not zoo.Data"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(how, error, told, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.tasks.fit", lambda *_, **__: pytest.fail("training began"))
    with pytest.raises(error, match=re.escape(told)):
        zoo.study(**{"names": "gmm", "data": "iris", "out": tmp_path / "out", "progress": False} | how)
    assert not (tmp_path / "out").exists()


def test_another_fit_is_refused_and_something_else_is_left_alone(tmp_path):
    zoo.study("gmm-constrained", "iris", tmp_path, **HOW)
    study = zoo.study("gmm-constrained", "iris", tmp_path, **HOW | {"steps": 25})
    assert "steps 30, not 25" in study.failures["gmm-constrained"]
    study = zoo.study("gmm-constrained", "iris", tmp_path, overwrite=True, **HOW | {"steps": 25})
    assert study.failures == {}
    (tmp_path / "gmm").mkdir()
    (tmp_path / "gmm" / "thesis.tex").touch()
    with pytest.raises(RunError, match="choose another out"):
        zoo.study("gmm", "iris", tmp_path, **HOW)
    with pytest.raises(RunError, match="not the directory of a study"):
        zoo.load_study(tmp_path / "gmm")
    for wrong in ("[" * 100_000, "[]", '{"splits": [{"folder": ".", "places": {"a": "../.."}}], "ensembles": false}'):
        (tmp_path / "study.json").write_text(wrong)
        with pytest.raises(RunError, match="not the directory of a study"):
            zoo.load_study(tmp_path)


def test_the_page_is_the_one_that_saved_runs_give(tmp_path):
    study = zoo.study(["gmm-constrained", "gaussian-identity"], "iris", tmp_path, **HOW)
    assert zoo.report(study.runs, tmp_path / "again").read_text() == study.pages[0].read_text()
    pd.testing.assert_frame_equal(zoo.load_study(tmp_path).table, study.table)


def test_a_long_name_gets_a_folder_of_its_own(iris, tmp_path):
    names = [f"gaussian-identity[hidden=({'2, ' * 150}{last},)]" for last in (2, 3)]
    folders = [task.place.name for task in planning.plan(names, iris, tmp_path).tasks]
    assert len({*folders}) == 2
    assert max(map(len, folders)) < 150


def test_workers_are_as_many_as_pay(iris, monkeypatch, tmp_path):
    def tasks(names, **how):
        return planning.plan(names, iris, tmp_path, **how).tasks

    many = tasks("gmm-constrained[components=1|2|3|4|5]", steps=2000)
    monkeypatch.setattr(workers.loky, "cpu_count", lambda: 4)
    monkeypatch.setattr(workers, "free_memory", lambda: 64 * 2**30)
    assert workers.workers_for(many, 0) == 4
    assert workers.workers_for(many[:3], 0) == 3
    assert workers.workers_for(many[:2], 0) == 1, "4000 steps end before workers have started"
    assert workers.workers_for(many, 10 * 2**30) == 1, "each would hold the data"
    assert workers.workers_for(tasks("gmm[components=1|2]"), 0) == 2, "until they settle"


def test_a_table_in_a_file_takes_no_more_memory_than_is_read_at_once(monkeypatch, tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 10))
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(tables, "LARGE", 1000)
    monkeypatch.setattr(lazy, "BLOCK", 500)
    in_file, in_memory = zoo.load_data(tmp_path / "x.npy"), zoo.Data.from_array(x)
    assert lazy.bytes_held(in_file.train) == 8 * 500
    assert lazy.bytes_held(in_memory.train) == in_memory.train.nbytes == in_file.train.nbytes
    told = []
    monkeypatch.setattr(planning, "workers_for", lambda _, held: told.append(held) or 1)
    monkeypatch.setattr(planning.Plan, "_ends", lambda *_: iter(()))
    monkeypatch.setattr(planning.Study, "write", lambda *_: None)
    for number, data in enumerate((in_file, in_memory)):
        planning.plan(["gmm"], data, tmp_path / str(number)).run(workers="auto")
    assert told == [3 * 8 * 500, x.nbytes]


def test_data_cross_to_another_process_as_their_call_or_whole(iris):
    import pickle

    again = pickle.loads(pickle.dumps(LoadedHere(iris)))
    assert isinstance(again, LoadedAgain)
    assert again.data.fingerprint == iris.fingerprint
    own = zoo.Data.from_array(iris.train.values)
    assert pickle.loads(pickle.dumps(LoadedHere(own))).data.fingerprint == own.fingerprint
    with pytest.raises(zoo.errors.DataError, match="different data here"):
        _ = LoadedAgain(iris.origin, "f00d").data
