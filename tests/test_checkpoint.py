"""A fit that was stopped goes on to the same bits, and nothing that is on disk is lost or misread."""

import json
import multiprocessing
import os
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
from programs import break_at, forked

import zoo
from zoo.checkpoint import FIT, Checkpoint
from zoo.engine import Engine
from zoo.errors import DivergenceWarning, OptionError, RunError

PAIRS = ["gaussian-constrained", "gmm", "gaussian-shared"]
HOW = {"steps": 60, "seeds": [0, 3], "checks": 6, "progress": False, "compile": "capture"}


class Stopped(Exception):
    """Stands for whatever ends a process."""


def same(run, other):
    assert run.differences(other) == []


@pytest.mark.parametrize("mode", ["off", "capture"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_fit_that_was_stopped_ends_in_the_same_bits(name, mode, iris, tmp_path, monkeypatch):
    options = {"optimal": True} if name == "gaussian-shared" else {}
    pair, how = zoo.create(name, iris, **options), HOW | {"compile": mode}
    whole = zoo.fit(pair, iris, **how)
    for number in (7, 41):  # before the first state and after several
        with monkeypatch.context() as patch:
            break_at(patch, number, Stopped)
            with pytest.raises(Stopped):
                zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    resumed = zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    same(resumed, whole)
    same(zoo.load_run(tmp_path / "run"), whole)


def test_buffers_of_the_best_weights_are_kept_too(iris, tmp_path, monkeypatch):
    """Steps so large that the best is behind when the fit is stopped."""
    pair, how = zoo.create("gaussian-shared", iris, optimal=True), HOW | {"learning_rate": 0.3, "compile": "off"}
    whole = zoo.fit(pair, iris, **how)
    assert whole.tree["optimization"]["best_step"].max() < 40
    with monkeypatch.context() as patch:
        break_at(patch, 55, Stopped)
        with pytest.raises(Stopped):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    same(zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how), whole)


@pytest.mark.usefixtures("short_rounds")
def test_rounds_that_were_broken_off_end_in_the_same_bits(iris, tmp_path, monkeypatch):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    how = HOW | {"steps": "auto", "seeds": 4, "learning_rate": 0.1}
    whole = zoo.fit(pair, iris, **how)
    assert 75 in whole.tree["optimization"]["settled_at"] and whole.tree["optimization"].sizes["step"] == 155
    for number in (3, 15, 36, 74, 120):  # in a round, where one begins, before and after the first seed has settled
        with monkeypatch.context() as patch:
            break_at(patch, number, Stopped)
            with pytest.raises(Stopped):
                zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    same(zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how), whole)
    same(zoo.load_run(tmp_path / "run"), whole)


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_states_may_be_written_at_any_step(every, iris, whole_learned, tmp_path, monkeypatch):
    pair = zoo.create("gaussian-learned", iris)
    with monkeypatch.context() as patch:
        break_at(patch, 29, Stopped)
        with pytest.raises(Stopped):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", checkpoint_every=every, **HOW)
    assert len(list((tmp_path / "run").glob("state-*"))) == (0 if every == 1000 else 2)
    resumed = zoo.fit(pair, iris, checkpoint=tmp_path / "run", checkpoint_every=every, **HOW)
    same(resumed, whole_learned)


@pytest.fixture(scope="module")
def whole_learned(iris):
    return zoo.fit(zoo.create("gaussian-learned", iris), iris, **HOW)


def test_a_seed_that_was_stopped_stays_so(iris, tmp_path, monkeypatch):
    pair = zoo.create("gaussian-constrained", iris)
    how = HOW | {"patience": 1, "learning_rate": 0.2}
    whole = zoo.fit(pair, iris, **how)
    assert (whole.tree["optimization"]["stopped_at"] > 0).any()
    with monkeypatch.context() as patch:
        break_at(patch, 35, Stopped)
        with suppress(Stopped):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    same(zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how), whole)


def test_a_finished_fit_is_returned_and_trained_no_more(iris, tmp_path, monkeypatch):
    pair = zoo.create("gmm", iris)
    first = zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW)
    break_at(monkeypatch, 0, Stopped)
    same(zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW), first)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", "run.nc", "weights.safetensors"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("finished", [True, False])
def test_another_fit_is_refused_with_the_difference(finished, iris, tmp_path, monkeypatch):
    pair = zoo.create("gmm", iris, components=3)
    with monkeypatch.context() as patch:
        if not finished:
            break_at(patch, 15, Stopped)
        with suppress(Stopped):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    other = zoo.load_data("iris", seed=1)
    for changed, told in (
        ({"steps": 61}, "steps 60, not 61"),
        ({"seeds": [0, 4]}, r"seeds \[0, 3\], not \[0, 4\]"),
        ({"batch_size": 16}, "batch_size 128, not 16"),
        ({"validation_rows": None}, "validation_rows 4096, not None"),
    ):
        with pytest.raises(OptionError, match=told):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW | changed)
    with pytest.raises(OptionError, match="components"):
        zoo.fit(zoo.create("gmm", iris, components=4), iris, checkpoint=tmp_path / "run", **HOW)
    with pytest.raises(OptionError, match="data"):
        zoo.fit(zoo.create("gmm", other, components=3), other, checkpoint=tmp_path / "run", **HOW)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_damaged_state_leaves_the_one_before_it(iris, tmp_path, monkeypatch, caplog):
    pair = zoo.create("gaussian-constrained", iris)
    with monkeypatch.context() as patch:
        break_at(patch, 45, Stopped)
        with pytest.raises(Stopped):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW)
    older, newest = sorted((tmp_path / "run").glob("state-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = zoo.fit(pair, iris, checkpoint=tmp_path / "run", **HOW)
    assert f"{newest.name} cannot be read" in caplog.text
    assert older.name != newest.name
    same(resumed, zoo.fit(pair, iris, **HOW))


def test_a_damaged_description_is_an_error_and_stays(iris, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FIT).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        zoo.fit(zoo.create("gmm", iris), iris, checkpoint=tmp_path / "run", **HOW)
    assert (tmp_path / "run" / FIT).read_text() == "{"


def test_places_that_cannot_be_trained_in(iris, tmp_path):
    pair = zoo.create("gmm", iris)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for place in ("full", "file"):
        with pytest.raises(RunError, match="holds no checkpoint"):
            zoo.fit(pair, iris, checkpoint=tmp_path / place, **HOW)
    (tmp_path / "dangling").symlink_to("nowhere")
    for place in ("file/run", "dangling"):
        with pytest.raises(RunError, match="cannot write"):
            zoo.fit(pair, iris, checkpoint=tmp_path / place, **HOW)
    (tmp_path / "dangling").unlink()
    with pytest.raises(OptionError, match="checkpoint_every=0"):
        zoo.fit(pair, iris, checkpoint=tmp_path / "run", checkpoint_every=0, **HOW)
    with pytest.raises(OptionError, match="name a directory"):
        zoo.fit(pair, iris, checkpoint_every=5, **HOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_the_second_process_is_refused(iris, tmp_path):
    with Checkpoint(tmp_path / "run", {}):
        reader, writer = multiprocessing.Pipe()
        pid = os.fork()
        if not pid:
            try:
                with Checkpoint(tmp_path / "run", {}):
                    writer.send("let in")
            except RunError as error:
                writer.send(str(error))
            os._exit(0)
        os.waitpid(pid, 0)
        assert "another process is writing" in reader.recv()
    with Checkpoint(tmp_path / "run", {}):
        pass


def test_a_run_is_not_saved_where_another_is_trained(iris, tmp_path):
    run = zoo.fit(zoo.create("gmm", iris), iris, **HOW)
    with Checkpoint(tmp_path / "run", {}) as place:  # a lock is of the opened file, so here it stands for a process
        place.begin()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RunError, match="another process is writing"):
            run.save(tmp_path / "run")
        assert sorted(tmp_path.rglob("*")) == before
    same(zoo.load_run(run.save(tmp_path / "new")), run)


def test_an_interruption_says_how_to_go_on(iris, tmp_path, monkeypatch):
    break_at(monkeypatch, 25, KeyboardInterrupt)
    with pytest.raises(
        KeyboardInterrupt, match=r"the first 20 steps and, in .*so-far, the run they made: the same call"
    ):
        zoo.fit(zoo.create("gmm", iris), iris, checkpoint=tmp_path / "run", **HOW)
    with pytest.raises(RunError, match=r"begun but not finished.*so-far"):
        zoo.load_run(tmp_path / "run")


@pytest.mark.parametrize("mode", ["off", "capture"])
@pytest.mark.usefixtures("quick_scores")
def test_an_interruption_leaves_the_run_as_it_stood(mode, iris, tmp_path, monkeypatch):
    pair, how = zoo.create("gaussian-constrained", iris), HOW | {"compile": mode}
    with monkeypatch.context() as patch:
        break_at(patch, 25, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how)
    run, whole = zoo.load_run(tmp_path / "run" / "so-far"), zoo.fit(pair, iris, **how)
    assert run.tree.attrs["interrupted_at"] == 20
    assert run.tree["optimization"]["stopped_at"].values.tolist() == [20, 20]
    elbo = run.tree["optimization"]["elbo"]
    assert elbo.sizes["step"] == 20
    assert elbo.identical(whole.tree["optimization"]["elbo"].isel(step=slice(20)))
    zoo.evaluate(run, iris, samples=20, temperatures=0)
    assert np.isfinite(zoo.compare([run])["log_evidence"]).all()
    same(zoo.fit(pair, iris, checkpoint=tmp_path / "run", **how), whole)
    assert not (tmp_path / "run" / "so-far").exists()


def train_and_wait(*arguments, **how):
    """Train, in a process of its own, until somebody ends it: step 60 takes a minute."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
    step = Engine.step
    Engine.step = lambda self, at: (time.sleep(60 * (at == 60)), step(self, at))[1]
    zoo.fit(*arguments, **how)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_killed_loses_nothing(kind, iris, tmp_path):
    pair, how = zoo.create("gaussian-constrained", iris), HOW | {"steps": 100}
    victim = forked(train_and_wait, pair, iris, checkpoint=tmp_path / "run", checkpoint_every=5, **how)
    while len(list((tmp_path / "run").glob("state-*"))) < 2 and victim.is_alive():
        time.sleep(0.001)
    os.kill(victim.pid, kind)
    victim.join()
    assert victim.exitcode != 0 and not (tmp_path / "run" / "run.json").exists(), "it was killed in the middle"
    resumed = zoo.fit(pair, iris, checkpoint=tmp_path / "run", checkpoint_every=5, **how)
    same(resumed, zoo.fit(pair, iris, **how))


def test_what_was_seen_of_a_runaway_is_kept(iris, tmp_path, monkeypatch):
    data = zoo.Data.from_array(np.pad(iris.train.values, ((0, 0), (0, 20))), name="iris and constants")
    pair = zoo.create("gaussian-learned", data, latent_dim=2, hidden=(32,), activation="relu")
    # which of the seeds run away differs between processors
    how = HOW | {"steps": 400, "seeds": 4, "checks": 30, "on_divergence": "warn", "learning_rate": 0.05}
    how["schedule"] = "constant"
    with pytest.warns(DivergenceWarning, match="runs away"):
        whole = zoo.fit(pair, data, **how)
    at = int(whole.tree["optimization"]["ran_away_at"].where(lambda step: step >= 0).min())
    with monkeypatch.context() as patch:
        break_at(patch, at - 14, Stopped)  # some of the checks that make the alarm are behind
        with pytest.raises(Stopped):
            zoo.fit(pair, data, checkpoint=tmp_path / "run", **how)
    with pytest.warns(DivergenceWarning, match="runs away"):
        same(zoo.fit(pair, data, checkpoint=tmp_path / "run", **how), whole)
    assert json.loads(zoo.load_run(tmp_path / "run").tree.attrs["fit"])["steps"] == 400
