"""Load and train on a table larger than memory, and print how much of it was taken, and what a step took.

The table is written first, as large as is asked for: factors, noise, and no two rows that are equal. What is measured
runs in a process of its own. Its peak is what the operating system says was resident at most, torch included. Steps are
timed beside those on as many rows as fit into 16 MB, in the same process, both with the file in the page cache as far
as the machine lets it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

ROWS_AT_ONCE = 2**15
FACTORS = 8

MEASURED = """
import json, resource, sys, time
import numpy as np
import zoo

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def fitted(data):
    pair = zoo.create("gaussian-constrained", data)
    run = zoo.fit(pair, data, seeds=2, steps=int(sys.argv[2]), checks=1, compile="capture", progress=False)
    return run.tree.attrs["train_seconds"] / int(sys.argv[2])

few = np.load(sys.argv[1], mmap_mode="r")
small = zoo.Data.from_array(np.array(few[: 2**22 // few.shape[1]]))
resident, alone = fitted(small), peak()
started = time.perf_counter()
data = zoo.load_data(sys.argv[1])
seconds, loaded = time.perf_counter() - started, peak()
streamed = fitted(data)
told = {"before": alone, "load_seconds": seconds, "loaded": loaded, "peak": peak()}
print(json.dumps(told | {"resident_step": resident, "streamed_step": streamed, "data": repr(data)}))
"""


def write_table(path: Path, rows: int, features: int) -> None:
    """A table (rows, features) in single precision whose rows differ."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(FACTORS, features)).astype(np.float32)
    block = rng.normal(size=(ROWS_AT_ONCE, FACTORS)).astype(np.float32) @ weights
    block += rng.normal(size=block.shape).astype(np.float32)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    del table  # which has written the header, and a file of that size
    with path.open("r+b") as file:
        file.seek(-4 * rows * features, 2)
        for number, start in enumerate(range(0, rows, ROWS_AT_ONCE)):
            file.write((block[: rows - start] * np.float32(1 + number / 4096)).data)


def main(
    gigabytes: Annotated[float, typer.Option(help="Of the table.")] = 20.0,
    features: Annotated[int, typer.Option(help="Columns.")] = 512,
    steps: Annotated[int, typer.Option(help="Of training.")] = 300,
    most: Annotated[float, typer.Option(help="Gigabytes of memory it may take.")] = 2.0,
) -> None:
    """Measure, and fail where more memory was taken than may be."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, rows = Path(folder) / "table.npy", int(gigabytes * 1e9 / 4 / features)
        started = time.perf_counter()
        write_table(path, rows, features)
        typer.echo(f"{rows:,} rows of {features} written in {time.perf_counter() - started:.0f} s")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEASURED, str(path), str(steps)],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
    told = json.loads(done.stdout.splitlines()[-1])
    typer.echo(told["data"])
    typer.echo(f"loaded in {told['load_seconds']:.0f} s; a step takes {1e3 * told['streamed_step']:.2f} ms,")
    typer.echo(f"and {1e3 * told['resident_step']:.2f} ms on {2**22 // features:,} rows in memory")
    for name, what in (("before", "before"), ("loaded", "after loading"), ("peak", "after training")):
        typer.echo(f"at most {told[name] / 1e9:.2f} GB resident {what}")
    if told["peak"] > most * 1e9:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
