"""What tests/test_ranks.py has two processes do."""

import json
import shutil
import warnings
from contextlib import suppress
from datetime import timedelta

import pytest
import torch
from programs import break_at
from torch import distributed

import zoo
from zoo.engine import Engine
from zoo.errors import DivergenceWarning
from zoo.objectives import ELBO, IWAE, Penalized
from zoo.portions import DividedEngine
from zoo.ranks import ranks_of

SIZE, STEPS, BATCH = 2, 12, 17  # an odd number of rows: the parts are 8 and 9
ENGINES = {
    "plain": ("gaussian-constrained", ELBO(), "off"),
    "recorded": ("gaussian-constrained", ELBO(), "capture"),
    "draws before rows": ("gaussian-constrained", IWAE(samples=3), "capture"),
    "a log prior": ("gaussian-map", Penalized(), "off"),
    "enumerated": ("gmvae", ELBO(), "off"),
}
HOW = {"steps": 30, "checks": 6, "progress": False, "compile": "capture"}
FITS = {
    "seeds": ("gaussian-constrained", HOW | {"seeds": [0, 3, 5], "patience": 1, "learning_rate": 0.1}),
    "alike": ("gaussian-constrained", HOW | {"seeds": [0, 3]}),
    "rows": ("gaussian-constrained", HOW | {"seeds": [7]}),
    "settled": ("gaussian-shared[optimal=True]", HOW | {"seeds": [4, 1]}),
    "broken": ("gaussian-learned", HOW | {"seeds": [0, 1], "learning_rate": 1e4, "on_divergence": "warn"}),
}


def doubles(data):
    """Training data, in the last row of which there is a number whose square is none."""
    x = torch.as_tensor(data.scaled("train")).double()
    x[-1, 0] = 1e200
    return x


def engine(data, name, ranks=None):
    """An engine of two seeds, of which one process does all, or some rows."""
    pair, objective, mode = ENGINES[name]
    pair = zoo.create(pair, data)
    how = {
        "objective": objective,
        "schedule": lambda step: (1e-2, min(1.0, step / 5)),
        "batch_size": BATCH,
        "clip": 1.0,
    }
    made = Engine if ranks is None else DividedEngine
    return made(pair, [0, 3], doubles(data), mode=mode, ranks=ranks, **how)


def work(rank, folder):
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=SIZE, timeout=timedelta(seconds=60)
    )
    warnings.simplefilter("error" if rank else "ignore", DivergenceWarning)  # the first process alone warns
    data = zoo.load_data("iris")
    told = {}
    for name in ENGINES:
        ranks = ranks_of("", [0], torch.device("cpu"))
        e = engine(data, name, ranks)
        statistics = torch.stack([e.step(step) for step in range(STEPS)])
        rows = [e._portion.of(e.inputs(step)).rows.tolist() for step in range(STEPS)]
        told[name] = {"mode": e.mode, "rows": rows}
        told[name] |= {key: value.tolist() for key, value in {"theta": e.state.theta, "trace": statistics}.items()}
    for name, (pair, how) in FITS.items():
        heard = told[f"heard-{name}"] = []

        def listen(check, heard=heard):
            heard.append({"step": check.step, "elbo": check.elbo.tolist(), "alive": check.alive.tolist()})
            if len(heard) == 2:
                raise OSError("nobody listens any more")

        zoo.fit(zoo.create(pair, data), data, on_check=listen, **how).save(folder / f"{name}-{rank}")
    pair = zoo.create("gaussian-constrained", data)
    for seeds in ([0, 3], [7]):
        place = folder / f"stopped-{len(seeds)}"
        with pytest.MonkeyPatch.context() as patch:
            break_at(patch, 19, KeyboardInterrupt)
            with suppress(KeyboardInterrupt):
                zoo.fit(pair, data, checkpoint=place, **HOW, seeds=seeds)
        distributed.barrier()
        if rank == 0:
            (folder / f"left-{len(seeds)}").symlink_to(place)
            shutil.copytree(place / "so-far", folder / f"so-far-{len(seeds)}")
            told[f"left-{len(seeds)}"] = sorted(path.name for path in place.iterdir())
        distributed.barrier()
        zoo.fit(pair, data, checkpoint=place, **HOW, seeds=seeds)
        again = zoo.fit(pair, data, checkpoint=place, **HOW, seeds=seeds)
        told[f"finished-{len(seeds)}"] = again.differences(zoo.load_run(place))
    for name, how in {"another call": {"seeds": [rank]}, "another fit": {"seeds": [8, 9], "checkpoint": place}}.items():
        try:
            zoo.fit(pair, data, **HOW, **how)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()
