"""Train pairs on the same data, as many at a time as there are cores, and rank them by held-out log evidence.

python scripts/compare.py digits comparison gaussian-learned "gaussian-constrained[floor=0.1|0.01]" gmm-constrained

If it is stopped, the same command continues.
"""

from pathlib import Path

import typer

import zoo


def main(source: str, out: Path, names: list[str], steps: int = 2000, seeds: int = 4) -> None:
    study = zoo.study(names, source, out, seeds=seeds, steps=steps, workers="auto")
    if study.table is not None:
        print(study.table[["rank", "log_evidence", "se", "difference", "verdict"]])
    for name, reason in study.failures.items():
        print(f"{name} failed: {reason}")
    print(*study.pages)


if __name__ == "__main__":
    typer.run(main)
