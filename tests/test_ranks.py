"""One fit over two processes, which talk by gloo: the numbers of one process, each row once, nothing lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from programs import forked
from two_processes import BATCH, ENGINES, FITS, SIZE, STEPS, doubles, engine, work
from typer.testing import CliRunner

import zoo
from zoo.command_line import app
from zoo.errors import OptionError, Unknown
from zoo.noise import Tape, of_rows
from zoo.objectives import ELBO, FreeBits, terms, traces
from zoo.portions import DividedEngine
from zoo.ranks import Ranks, share

ALONE = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes told, and the folder of what they wrote."""
    folder = tmp_path_factory.mktemp("together")
    processes = [forked(work, rank, folder) for rank in range(SIZE)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, "what it met it printed"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(SIZE)], folder


@pytest.mark.parametrize("name", ENGINES)
def test_rows_divided_take_the_steps_of_one_process(name, iris, together):
    alone, (ours, theirs) = engine(iris, name), (told[name] for told in together[0])
    assert ours["mode"] == theirs["mode"] == alone.mode == ENGINES[name][2]
    expected = torch.stack([alone.step(step) for step in range(STEPS)])
    broken = expected[:, -1].isnan()
    assert broken.any(0).all() and not broken[0].any(), "each seed meets the row that breaks it, and not at once"
    for told in (ours, theirs):
        torch.testing.assert_close(
            torch.tensor(told["trace"], dtype=torch.float64), expected, rtol=1e-10, atol=1e-10, equal_nan=True
        )
        torch.testing.assert_close(
            torch.tensor(told["theta"], dtype=torch.float64), alone.state.theta, rtol=1e-10, atol=1e-10
        )
    assert ours["theta"] == theirs["theta"]
    for step in range(STEPS):
        parts = [torch.tensor(told["rows"][step]) for told in (ours, theirs)]
        assert [part.shape[1] for part in parts] == [BATCH // 2, BATCH - BATCH // 2]
        assert torch.equal(torch.cat(parts, 1), alone.inputs(step).rows)


@pytest.mark.parametrize("name", FITS)
def test_the_run_of_two_processes_is_that_of_one(name, iris, together):
    pair, how = FITS[name]
    ours, theirs = (zoo.load_run(together[1] / f"{name}-{rank}") for rank in range(SIZE))
    assert ours.differences(theirs) == []
    assert ours.tree.attrs["machine"].endswith(", 2 processes")
    with pytest.warns() if name == "broken" else nullcontext():
        alone = zoo.fit(zoo.create(pair, iris), iris, **how)
    for attribute in ("faults", "seeds", "repeat", "parameters", "compile"):
        assert ours.tree.attrs[attribute] == alone.tree.attrs[attribute]
    assert bool(json.loads(ours.tree.attrs["faults"])) == (name == "broken")
    if name != "rows":
        assert ours.differences(alone) == []
        return
    for group in ("optimization", "validation"):
        for variable, values in alone.tree[group].data_vars.items():
            np.testing.assert_allclose(ours.tree[group][variable], values, rtol=1e-4, atol=1e-5, err_msg=variable)


@pytest.mark.parametrize("name", ["seeds", "rows"])
def test_the_first_process_alone_tells_of_checks_and_of_all_seeds(name, together):
    """Also once its listener has failed, as it does at the second check, all go on."""
    (ours, theirs), folder = together
    run = zoo.load_run(folder / f"{name}-0")
    heard, optimization = ours[f"heard-{name}"], run.tree["optimization"]
    assert theirs[f"heard-{name}"] == [] and len(heard) == 2 < run.tree["validation"].sizes["check"]
    first = optimization["elbo"][:, : heard[0]["step"]].mean("step")
    np.testing.assert_allclose(heard[0]["elbo"], first, rtol=1e-5)
    assert len(heard[0]["alive"]) == len(run.seeds)


def test_seeds_in_two_processes_stop_each_at_a_step_of_its_own(together):
    stopped = zoo.load_run(together[1] / "seeds-0").tree["optimization"]["stopped_at"].values
    assert len({*stopped}) > 1 and (stopped > 0).any()


@pytest.mark.parametrize("seeds", [[0, 3], [7]])
def test_a_fit_of_two_processes_goes_on_to_the_same_bits(seeds, together):
    told, folder = together
    states = [name for name in told[0][f"left-{len(seeds)}"] if name.startswith("state-")]
    assert [name[:15] for name in states] == ["state-000000010", "state-000000015"]
    assert all(of[f"finished-{len(seeds)}"] == [] for of in told)
    whole = zoo.load_run(folder / f"{'rows' if len(seeds) < SIZE else 'alike'}-0")
    so_far = zoo.load_run(folder / f"so-far-{len(seeds)}").tree
    assert so_far.attrs["interrupted_at"] == 15
    elbo = whole.tree["optimization/elbo"].isel(step=slice(15))
    assert so_far["optimization/elbo"].identical(elbo) and so_far["validation"].sizes["check"] == 3
    assert zoo.load_run(folder / f"stopped-{len(seeds)}").differences(whole) == []


def test_processes_that_are_asked_for_different_fits_say_so(together):
    for told in together[0]:
        assert told["another call"].startswith("RunError: process 1 of 2 was asked for another fit than process 0")
    assert together[0][0]["another fit"].startswith("OptionError:")
    assert all("holds another fit: seeds [7], not [8, 9]" in told["another fit"] for told in together[0])


def divided(pair, x, **settings):
    how = {"objective": ELBO(), "schedule": lambda _: (1e-3, 1.0), "batch_size": 16, "mode": "off"}
    return DividedEngine(pair, [0], x, ranks=Ranks(rank=1, size=2, divides_rows=True), **how | settings)


def of_the_worst(model, guide, x, kl_weight=1.0):
    """The likelihood of the row that has the least, which tells nobody that it is no mean over rows."""
    p, q = traces(model, guide, x)
    return terms(p, q, len(x)).loss_of(p.nodes["x"]["log_prob"].min(), kl_weight)


def test_a_batch_that_is_no_sum_of_rows_is_not_divided(iris, catalogue):
    x = doubles(iris)[:-1]
    pair = zoo.create("gaussian-constrained", iris)
    assert divided(pair, x)._portion.rows == slice(8, 16)
    with pytest.raises(
        OptionError, match="over 2 processes, since the objective is not a mean over its rows: give at least"
    ):
        divided(pair, x, objective=FreeBits())
    with pytest.raises(OptionError, match="since it has 1 row:"):
        divided(pair, x, batch_size=1)
    with pytest.raises(OptionError, match="since the loss, or what it records, is not a mean over its rows"):
        divided(pair, x, objective=of_the_worst)


def test_noise_belongs_to_rows_by_the_dimension_that_grows():
    whole, part = Tape(), Tape()
    for tape, size in ((whole, 5), (part, 2)):
        tape.uniform((size, 2), torch.zeros(0))
        tape.normal((3, size, 1), torch.zeros(0))
        tape.normal((4,), torch.zeros(0))  # of all rows together
        tape.normal((2 * size,), torch.zeros(0))
    found = of_rows(whole, part, slice(3, 5))
    assert found["uniform"].tolist() == [6, 7, 8, 9]
    assert found["normal"].tolist() == [3, 4, 8, 9, 13, 14, 15, 16, 17, 18, 25, 26, 27, 28]
    part.normal((1,), torch.zeros(0))
    with pytest.raises(Unknown, match="which random numbers belong to which row"):
        of_rows(whole, part, slice(3, 5))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_even_and_leave_nothing_out(size):
    parts = [share(7, rank, size) for rank in range(size)]
    assert [i for part in parts for i in range(7)[part]] == list(range(7))
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def test_torchrun_is_for_training(tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path)])
    assert refused.exit_code == 2 and "torchrun is for `zoo train`" in refused.stderr
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not CliRunner().invoke(app, ["evaluate", str(tmp_path)]).stderr
    monkeypatch.setenv("WORLD_SIZE", "1")
    words = f"train gmm --data iris --steps 5 --seeds 1 --quiet --out {tmp_path / 'run'}"
    trained = CliRunner().invoke(app, words.split())
    assert trained.exit_code == 0 and trained.stdout.endswith(f"{tmp_path / 'run'}\n")


def started_by_torchrun(rank, port, *words):
    """One of two processes, with what torchrun would tell it, and without torchrun, which stops all for one."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": SIZE, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    env = os.environ | ALONE | {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "none"}
    command = [sys.executable, "-m", "zoo.command_line", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "rank", "kind"),
    [(1, 0, signal.SIGKILL), (1, 1, signal.SIGINT), (2, 1, signal.SIGKILL), (2, 0, signal.SIGINT)],
)
def test_a_process_that_ends_is_missed_in_one_line_and_torchrun_goes_on(seeds, rank, kind, iris, tmp_path):
    place = tmp_path / "run"
    words = f"train gaussian-constrained --data iris --steps 1000 --quiet --compile off --seeds {seeds} --out {place}"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [started_by_torchrun(one, port, *words.split()) for one in range(SIZE)]
    while len(list(place.glob("state-*"))) < 2 and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    processes[rank].send_signal(kind)
    told = [process.communicate(timeout=60) for process in processes]
    other = 1 - rank
    assert processes[other].returncode == 2 and processes[rank].returncode != 0
    (line,) = [line for line in told[other][1].splitlines() if line.startswith("error:")]
    assert "the processes cannot continue together; one of them may have ended (" in line
    assert "Traceback" not in told[other][1]
    so_far = place / "so-far"
    assert so_far.is_dir() == (kind == signal.SIGINT and rank == 0)
    again = f"`torchrun ... -m zoo.command_line train --resume {place}` continues."
    interrupted = f"interrupted: {so_far} is the run as it stood; {again}"
    assert (interrupted in told[rank][1]) == (kind == signal.SIGINT and rank == 0)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(SIZE)]
    again = [*torchrun, "-m", "zoo.command_line", "train", "--resume", place]
    done = subprocess.run(again, env=os.environ | ALONE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line[:20] for line in done.stdout.splitlines()] == ["Best validation ELBO", str(place)[:20]]
    run = zoo.load_run(place)
    alone = zoo.fit(zoo.create(run.pair.name, iris), iris, progress=False, **run.settings, seeds=seeds)
    if seeds == SIZE:
        assert run.differences(alone) == []
    else:
        for name, weight in alone.weights.items():
            torch.testing.assert_close(run.weights[name], weight, rtol=1e-2, atol=1e-3)
