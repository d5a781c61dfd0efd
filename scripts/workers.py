"""Does a study take half the time by two workers, and end in the same bits?

python scripts/workers.py 1 2 --out workers      # minutes

The pairs of `make demo` on handwritten digits, trained until they settle, scored and reported by as many workers as are
asked for, one number after the other, in one run.
"""

import shutil
import time
from pathlib import Path

import typer

import zoo

NAMES = ["gaussian-learned", "gaussian-constrained", "gaussian-identity", "gaussian-binned", "bernoulli", "gmm"]


def load(card: zoo.Card, seed: int) -> zoo.Data:
    return zoo.load_data("digits", seed=seed, binarize="threshold" if card.support == "binary" else None)


def main(
    workers: list[int], out: Path = Path("workers"), seeds: int = 2, samples: int = 1000, temperatures: int = 20
) -> None:
    seconds, studies = [], []
    for number in workers:
        folder = out / f"{number}-workers"
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        study = zoo.study(NAMES, load, folder, seeds=seeds, workers=number, samples=samples, temperatures=temperatures)
        studies.append(study)
        seconds.append(time.perf_counter() - started)
        differing = []
        for run, of_first in zip(study.runs, studies[0].runs, strict=True):
            here, there = zoo.load_run(run), zoo.load_run(of_first)
            same = here.tree["heldout"].to_dataset().identical(there.tree["heldout"].to_dataset())
            differing += [run.name] if here.differences(there) or not same else []
        print(
            f"{number} workers: {seconds[-1]:.0f} s, {seconds[-1] / seconds[0]:.2f} of {workers[0]}; "
            f"runs with other bits: {', '.join(differing) or 'none'}; absent: {len(study.absent)}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
