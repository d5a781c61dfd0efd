"""How time and memory grow with rows, columns, seeds and runs: sizes, figures, and the exponents fitted to them.

python scripts/scale.py                             # minutes
python scripts/scale.py --rows 1000 --rows 10000    # these numbers of rows, and nothing else

Tables are written as .npy files in single precision: noise around a curved surface of four dimensions. Each size is
loaded, fitted (300 steps of `gaussian-constrained`, 50 checks) and evaluated (all test rows, K = 100) in a process of
its own, whose peak memory is told; a report is of runs that differ in their evidence. "Steps" are the steps and checks
alone, the fastest of five fits, without loading, scaling and starting from the data. An exponent is the slope of the
logarithm of a figure in that of the size, over the larger half of the sizes; the work is linear, or less, in all of
them.
"""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

ROWS, COLUMNS, SEEDS = 10_000, 20, 2  # of what does not grow
WIDE_ROWS = 1000  # of tables whose columns grow
STEPS, SAMPLES, TEMPERATURES, FITS = 300, 100, 10, 5
SLOW = 60.0  # seconds of a fit, which is then not repeated
MOST_EVALUATED, SOME = 10**6, 10_000  # rows of tables whose whole test part is scored; of a subset that is scored
STEEP = 1.1
AGREE = 0.1  # by which the steps may take longer in the larger of the two
FEW, MANY = 10**5, 10**7
AT_ONCE = 2**24  # numbers that are drawn together

Figures = dict[str, float]


@dataclass(frozen=True)
class Size:
    """What one process measures: a table to fit and evaluate, or that many runs to report."""

    rows: int = ROWS
    columns: int = COLUMNS
    seeds: int = SEEDS
    runs: int = 0


def written(size: Size, folder: Path) -> Path:
    """A table of that size in a file, which is never whole in memory."""
    import numpy as np

    rng, path = np.random.default_rng(0), folder / f"{size.rows}x{size.columns}.npy"
    loadings = rng.normal(size=(4, size.columns))
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size.rows, size.columns))
    for start in range(0, size.rows, at_once := max(1, AT_ONCE // size.columns)):
        z = rng.normal(size=(min(at_once, size.rows - start), 4))
        x[start : start + len(z)] = np.tanh(z @ loadings) + 0.3 * rng.normal(size=(len(z), size.columns))
    x.flush()
    return path


def timed(figures: Figures, name: str, action: Callable[[], Any]) -> Any:
    """The result of a call, after recording its seconds."""
    started = time.perf_counter()
    found = action()
    figures[name] = time.perf_counter() - started
    return found


def of_table(size: Size, folder: Path) -> Figures:
    """Seconds of loading, fitting, only its steps, and evaluating."""
    import zoo

    figures: Figures = {}
    path = written(size, folder)
    data = timed(figures, "load", lambda: zoo.load_data(path, max_bytes=2**50))
    pair = zoo.create("gaussian-constrained", data)

    def fit() -> zoo.Run:
        return zoo.fit(pair, data, seeds=size.seeds, steps=STEPS, progress=False)

    runs = [timed(figures, "fit", fit)]
    while len(runs) < FITS and figures["fit"] < SLOW:
        runs.append(timed(figures, "fit", fit))
    figures["steps"] = min(float(run.tree.attrs["train_seconds"]) for run in runs)
    evaluate = partial(zoo.evaluate, runs[-1], data, samples=SAMPLES, temperatures=TEMPERATURES)
    if len(data.test) > SOME:
        timed(figures, f"evaluate {SOME:,} rows", partial(evaluate, rows=SOME))
    if size.rows <= MOST_EVALUATED:
        timed(figures, "evaluate", evaluate)
    return figures


def of_report(size: Size, folder: Path) -> Figures:
    """Seconds of a report of many runs, which are one run whose evidence differs."""
    import numpy as np

    import zoo

    data = zoo.load_data("iris")
    run = zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=size.seeds, steps=STEPS, progress=False)
    tree, rng = zoo.evaluate(run, data, samples=SAMPLES, temperatures=TEMPERATURES), np.random.default_rng(0)
    trees = []
    for _ in range(size.runs):
        heldout = tree["heldout"].to_dataset()
        other = tree.copy(deep=True)
        other["heldout"] = heldout.map(lambda x: x + 0.1 * rng.normal(size=x.shape) if "evidence" in x.name else x)
        trees.append(other)
    figures: Figures = {}
    timed(figures, "compare", lambda: zoo.compare(trees))
    timed(figures, "report", lambda: zoo.report(trees, folder / "report"))
    return figures


def measure(size: Size) -> None:
    """Print the figures of one size, in the process that is measured."""
    with tempfile.TemporaryDirectory() as folder:
        figures = (of_report if size.runs else of_table)(size, Path(folder))
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB; in Linux in KiB
    print(json.dumps(figures))


def measured(size: Size) -> Figures | str:
    """The figures of one size from a process of its own, or why there are none."""
    command = [sys.executable, __file__, "--one", json.dumps(asdict(size))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or [f"the process ended with status {done.returncode}"]
        return "out of memory" if done.returncode == -9 else told[0]
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def exponent(figures: Mapping[int, float]) -> float:
    """The slope of log figure in log size by least squares over the larger half of the sizes, NaN for one size."""
    larger = [*figures.items()][len(figures) // 2 if len(figures) > 2 else 0 :]
    if len(larger) < 2:
        return math.nan
    x, y = ([math.log(value) for value in of] for of in zip(*larger, strict=True))
    return statistics.linear_regression(x, y).slope


@dataclass(frozen=True)
class Sweep:
    """What grows, what stays fixed, and the sizes."""

    title: str
    beside: str
    numbers: Sequence[int]
    size: Callable[[int], Size]

    def told(self, numbers: Sequence[int]) -> dict[str, dict[int, float]]:
        """Measure some sizes and print them as a table with exponents; the figures by name and number."""
        print(f"\n**{self.title}** ({self.beside})\n", flush=True)
        by_name: dict[str, dict[int, float]] = {}
        for number in numbers:
            figures = measured(self.size(number))
            if isinstance(figures, str):
                print(f"{number:,}: {figures}\n", flush=True)
                continue
            for name, value in figures.items():
                by_name.setdefault(name, {})[number] = value
        print(f"| | {' | '.join(f'{number:,}' for number in numbers)} | exponent |\n|---|{'---|' * (len(numbers) + 1)}")
        for name, values in by_name.items():
            cells = [f"{values[number]:,.4g}" if number in values else "" for number in numbers]
            unit = "peak memory, MiB" if name == "memory" else f"{name}, s"
            print(f"| {unit} | {' | '.join(cells)} | {exponent(values):.2f} |", flush=True)
        return by_name


SWEEPS = {
    "rows": Sweep(
        "Rows", f"{COLUMNS} columns, {SEEDS} seeds", [10**power for power in range(3, 8)], lambda n: Size(rows=n)
    ),
    "columns": Sweep(
        "Columns",
        f"{WIDE_ROWS:,} rows, {SEEDS} seeds",
        [20, 200, 2000, 20_000],
        lambda n: Size(rows=WIDE_ROWS, columns=n),
    ),
    "seeds": Sweep("Seeds", f"{ROWS:,} rows, {COLUMNS} columns", [1, 4, 16, 64], lambda n: Size(seeds=n)),
    "runs": Sweep("Runs in a report", "iris", [6, 25, 100], lambda n: Size(runs=n)),
}


def machine() -> str:
    """Processor, cores, memory and torch's version."""
    from benchmark import processor  # loads torch, which a process that is measured does by itself

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "as many as cores")
    return f"{processor()}, {cores} cores, OMP_NUM_THREADS {threads}, {memory:.0f} GiB, torch {version('torch')}"


Numbers = Annotated[list[int] | None, typer.Option(help="These sizes; may be repeated.")]


def main(
    rows: Numbers = None,
    columns: Numbers = None,
    seeds: Numbers = None,
    runs: Numbers = None,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    if one:
        measure(Size(**json.loads(one)))
        return
    chosen = {"rows": rows, "columns": columns, "seeds": seeds, "runs": runs}
    if not any(chosen.values()):
        chosen = {name: [*sweep.numbers] for name, sweep in SWEEPS.items()}
    print(machine())
    found = {name: SWEEPS[name].told(numbers) for name, numbers in chosen.items() if numbers}
    slopes = {
        f"{figure} against {name}": exponent(values)
        for name, figures in found.items()
        for figure, values in figures.items()
    }
    steep = ", ".join(f"{told} {slope:.2f}" for told, slope in slopes.items() if slope > STEEP)
    print(f"\nExponents above {STEEP}: {steep}." if steep else f"\nNo exponent is above {STEEP}.")
    steps = found.get("rows", {}).get("steps", {})
    if FEW in steps and MANY in steps:
        ratio = steps[MANY] / steps[FEW]
        held = "as promised" if ratio <= 1 + AGREE else "more than promised"
        print(f"{STEPS} steps with {MANY:,} rows take {ratio:.2f} times what they take with {FEW:,}: {held}.")


if __name__ == "__main__":
    typer.run(main)
