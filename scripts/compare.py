"""Train pairs on the same data and rank them by held-out log evidence.

python scripts/compare.py digits comparison gaussian-learned gaussian-constrained gmm-constrained
"""

from pathlib import Path

import typer

import zoo


def main(source: str, out: Path, names: list[str], steps: int = 2000, seeds: int = 4) -> None:
    data = zoo.load_data(source)
    runs = []
    for name in names:
        run = zoo.fit(zoo.create(name, data), data, seeds=seeds, steps=steps, on_divergence="warn")
        zoo.evaluate(run, data)
        run.save(out / name)
        runs.append(run)

    print(zoo.compare(runs)[["rank", "log_evidence", "se", "difference", "verdict"]])
    print(zoo.report(runs, out))


if __name__ == "__main__":
    typer.run(main)
