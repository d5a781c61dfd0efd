"""Train one pair, look at what it learned, and keep the run.

python scripts/train.py gaussian-constrained digits runs/constrained
"""

from pathlib import Path

import typer

import zoo


def main(name: str, source: str, out: Path, steps: int = 2000, seeds: int = 4) -> None:
    data = zoo.load_data(source)
    pair = zoo.create(name, data)
    run = zoo.fit(pair, data, seeds=seeds, steps=steps)
    zoo.evaluate(run, data)

    print(data)
    print(run.tree["heldout"]["log_evidence"].mean("obs").to_series())  # nats per datum, one row a seed
    print(f"New data have shape {run.sample(8).shape}: seeds, data, features.")
    print(f"Saved in {run.save(out)}.")


if __name__ == "__main__":
    typer.run(main)
