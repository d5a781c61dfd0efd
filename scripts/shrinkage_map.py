"""Where a learned variance shrinks: held-out coverage by rows, latents, width of the network and steps.

python scripts/shrinkage_map.py

Two moons in four dimensions, as in claim 7 of `make claims`: gaussian-learned, trained to the end, and how many
held-out entries are within the central 90 % that the other three columns of their row predict. Below 80 it has shrunk.
"""

from itertools import product
from typing import Any

import numpy as np
import typer
from sklearn.datasets import make_moons

import zoo

ROWS, LATENTS, WIDTHS, STEPS = (40, 150, 1000), (2, 8), (16, 256), (500, 4000)
TEST = 400
SHRUNK = 80.0  # per cent of nominal 90


def moons(rows: int) -> zoo.Data:
    """So many training rows, a quarter as many for validation, and the same test rows always."""
    rng = np.random.default_rng(0)
    of_validation = rows // 4
    parts = [("test", TEST), ("train", rows), ("validation", of_validation)]
    total = TEST + rows + of_validation
    points, side = make_moons(2 * total, noise=0.05, random_state=0)
    points, side = points[:total], side[:total]
    spread = np.where(side[:, None] == 1, 0.3, 0.05)  # one moon is six times as noisy as the other
    x = points @ rng.normal(size=(2, 4)) + spread * rng.normal(size=(total, 4))
    split: Any = [part for part, count in parts for _ in range(count)]
    return zoo.Data.from_array(x, name=f"two moons, {rows} rows", split=split, resolution=None)


def covered(name: str, data: zoo.Data, seeds: int, **choice: Any) -> tuple[float, float, float]:
    """Per cent of held-out entries within nominal 90 %, of columns not to be trusted, and the gap of train and test."""
    steps = choice.pop("steps")
    pair = zoo.create(name, data, activation="relu", **choice)
    run = zoo.fit(pair, data, seeds=seeds, steps=steps, keep="last", progress=False, on_divergence="warn")
    tree = zoo.evaluate(run, data, samples=2000, temperatures=0, reference=0)
    left_out = tree["calibration"].sel(kind="leave-one-out")
    seen = float(np.nanmean(run.log_evidence(data.train.values[:TEST], samples=500)))
    held_out = float(tree["heldout/log_evidence"].mean())
    return (
        100 * float(left_out["coverage"].sel(level=0.9).mean()),
        100 * float(tree["calibration/bad_k"].mean()),
        seen - held_out,
    )


def main(name: str = "gaussian-learned", seeds: int = 2) -> None:
    print("| rows | latents | width | steps | within 90 % | bad weights | train - test, nats | shrunk |")
    print("|---|---|---|---|---|---|---|---|")
    for rows in ROWS:
        data = moons(rows)
        for latents, width, steps in product(LATENTS, WIDTHS, STEPS):
            within, bad, gap = covered(name, data, seeds, latent_dim=latents, hidden=(width,), steps=steps)
            told = "yes" if within < SHRUNK else "no"
            print(
                f"| {rows} | {latents} | {width} | {steps} | {within:.1f} % | {bad:.0f} % | {gap:,.1f} | {told} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
