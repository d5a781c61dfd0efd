"""The cost of scoring a trained pair, compared with its fit and with other tools.

python scripts/scoring_benchmark.py --out benchmark

Evidence alone: the test part of digits under one Gaussian VAE of learned variance, D-H-L = 64-128-8, by torch by hand
with all draws of some rows at once (the fastest of three numbers of rows), by Pyro's ``vectorized_importance_weights``,
and by pythae's ``get_nll`` where it is installed, which scores squared error with half the outputs. Rounds are
interleaved, and medians are divided by that of torch by hand. Then the whole: fit, evaluation, report and command line,
each once.
"""

import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import typer
from benchmark import Problem, networks, picture, processor, pythae_model
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor

import zoo

HALF_LOG_TAU = 0.9189385332
ROWS_AT_ONCE = (1, 8, 32)
PARTS = ("weigh", "heldout", "calibration", "spread", "wellposedness", "record")


def torch_by_hand(problem: Problem, samples: int, rows: int) -> Tensor:
    """The loop a good engineer writes: some rows at a time, vectorised over all draws."""
    encoder, decoder = networks(problem)
    found = []
    with torch.no_grad():
        for x in problem.x.split(rows):
            m, log_s2 = encoder(x).unbind(-2)
            e = torch.randn(samples, *m.shape)
            z = m + (log_s2 / 2).exp() * e
            mu, log_sigma2 = decoder(z).unbind(-2)
            log_x = -((x - mu).square() * (-log_sigma2).exp() + log_sigma2).sum(-1) / 2
            log_ratio = (e.square() + log_s2 - z.square()).sum(-1) / 2
            found.append((log_x + log_ratio).logsumexp(0) - problem.features * HALF_LOG_TAU)
    return torch.cat(found)


def products_alone(problem: Problem, samples: int) -> None:
    """The floor: nothing but the decoder's matrix products."""
    _, decoder = networks(problem)
    first, second = (layer.weight.detach() for layer in decoder.modules() if isinstance(layer, torch.nn.Linear))
    z = torch.randn(samples, problem.latent_dim)
    for _ in problem.x:
        torch.mm(torch.mm(z, first.T), second.T)


def pyro_alone(problem: Problem, samples: int) -> None:
    """Pyro's importance weights, one row at a time, since its trace holds all draws."""
    encoder, decoder = networks(problem)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), problem.latent_dim), 1.0).to_event(1))
            mean, log_variance = decoder(z).unbind(-2)
            pyro.sample("x", dist.Normal(mean, (log_variance / 2).exp()).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            mean, log_variance = encoder(x).unbind(-2)
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))

    with torch.no_grad(), pyro.validation_enabled(False):
        for x in problem.x.split(1):
            vectorized_importance_weights(model, guide, x, num_samples=samples, max_plate_nesting=1, normalized=False)


def in_pythae(problem: Problem, samples: int) -> None:
    """Pythae's estimate, whose importance draws are of one datum at a time."""
    with torch.no_grad():
        pythae_model(problem).get_nll(problem.x, n_samples=samples, batch_size=samples)


def evidence(data: zoo.Data, run: zoo.Run, samples: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds of each, its median and its ratio to torch by hand."""
    problem = Problem(torch.as_tensor(data.scaled("test"), dtype=torch.float32), data.features, 128, 8)
    contestants: dict[str, Callable[[], Any]] = {
        f"torch by hand, {rows} row(s) at a time": partial(torch_by_hand, problem, samples, rows)
        for rows in ROWS_AT_ONCE
    }
    contestants["matrix products alone"] = partial(products_alone, problem, samples)
    contestants["zoo"] = lambda: run.log_evidence(data.test.values, samples=samples)
    contestants["Pyro's vectorized_importance_weights"] = partial(pyro_alone, problem, samples)
    if find_spec("pythae"):
        contestants["pythae's get_nll (squared error)"] = partial(in_pythae, problem, samples)
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, score in contestants.items():
            started = time.perf_counter()
            score()
            taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    by_hand = min(seconds for name, seconds in medians.items() if name.startswith("torch"))
    return [
        {"name": name, "samples": samples, "seconds": seconds, "against_torch_by_hand": seconds / by_hand}
        for name, seconds in medians.items()
    ]


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """The share of an evaluation's time that each part of it takes, and recording programs within them."""
    stats = pstats.Stats(profile).get_stats_profile().func_profiles
    total = stats["evaluate"].cumtime
    return {name: stats[name].cumtime / total for name in PARTS if name in stats}


def whole(steps: int) -> list[dict[str, Any]]:
    """Seconds of what a user waits for."""
    found: list[dict[str, Any]] = []

    def note(what: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        found.append({"name": what, "seconds": time.perf_counter() - started})
        typer.echo(f"{what:60s} {found[-1]['seconds']:7.1f} s")
        return result

    def command(*words: str) -> None:
        subprocess.run([str(Path(sys.executable).with_name("zoo")), *words], check=True, capture_output=True)

    note("cold start: zoo list", lambda: command("list"))
    data = zoo.load_data("digits")
    for name in ("gaussian-constrained", "categorical"):
        pair = zoo.create(name, data)
        fit = partial(zoo.fit, pair, data, seeds=4, steps=steps, progress=False)
        run = note(f"{name}: fit of 4 seeds, {steps} steps", fit)
        note(
            f"{name}: evaluate, K = 1000, 20 temperatures",
            partial(zoo.evaluate, run, data, samples=1000, temperatures=20),
        )
        found[-1]["against_fit"] = found[-1]["seconds"] / found[-2]["seconds"]
        typer.echo(f"{'':60s} {found[-1]['against_fit']:7.2f} of its fit")
        profile = cProfile.Profile()
        profile.runcall(zoo.evaluate, run, data, samples=1000, temperatures=20)
        found[-1]["shares"] = shares(profile)
        typer.echo("  ".join(f"{part} {share:.0%}" for part, share in found[-1]["shares"].items()))
    with tempfile.TemporaryDirectory() as folder:
        note("report of one run", lambda: zoo.report(run, Path(folder) / "report"))
        note(
            "zoo compare, two pairs on iris, 2 seeds, 1000 steps",
            lambda: command(
                "compare", "gaussian-constrained", "gmm-constrained", "--data", "iris", "--seeds", "2",
                "--steps", "1000", "--samples", "1000", "--out", f"{folder}/iris",
            ),
        )  # fmt: skip
    return found


def main(out: Path = Path("benchmark"), rounds: int = 3, steps: int = 2000) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    data = zoo.load_data("digits")
    pair = zoo.create("gaussian-learned", data, latent_dim=8, hidden=(128,), activation="relu")
    run = zoo.fit(pair, data, seeds=1, steps=20, progress=False)
    rows = [row for samples in (1000, 5000) for row in evidence(data, run, samples, rounds)]
    for row in rows:
        ratio = f"{row['against_torch_by_hand']:5.2f} of torch by hand"
        typer.echo(f"K = {row['samples']:4d}  {row['name']:40s} {row['seconds']:7.2f} s  {ratio}")
    waited = whole(steps)
    about = {"machine": processor(), "evidence": rows, "whole": waited}
    out.mkdir(parents=True, exist_ok=True)
    titles = {row["samples"]: f"evidence of 360 rows of digits, 64-128-8, K = {row['samples']}" for row in rows}
    panels = {
        title: {row["name"]: row["seconds"] for row in rows if row["samples"] == samples}
        for samples, title in titles.items()
    }
    panels["the whole"] = {f"zoo: {row['name']}": row["seconds"] for row in waited}
    picture(panels, "seconds", out / "scoring.png")
    (out / "scoring.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    typer.echo(out / "scoring.json")


if __name__ == "__main__":
    typer.run(main)
