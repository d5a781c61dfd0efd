"""Kill, cut and flip: does anything get lost?

python scripts/faults.py      # some minutes

Processes that train are killed at random moments, by SIGKILL, SIGTERM or SIGINT, in two compile modes, and gone on with
until they are done; what comes out is compared, bit by bit, with a fit that nobody stopped. Then files of a run, of a
checkpoint and of data are cut short and have bits flipped: each has to be read right or refused with a clear error.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer

import zoo
from zoo.checkpoint import FIT
from zoo.errors import ZooError

HOW: dict[str, Any] = {"steps": 1500, "seeds": 2, "checks": 100, "progress": False, "on_divergence": "warn"}
VICTIM = """
import sys, zoo
data = zoo.load_data("iris")
zoo.fit(zoo.create("gaussian-constrained", data), data, checkpoint=sys.argv[1], compile=sys.argv[2], **{how!r})
"""


def killed(folder: Path, kills: int, rng: random.Random) -> tuple[int, int]:
    """How many kills there were, and how many fits did not end in the same bits."""
    data = zoo.load_data("iris")
    done, lost = 0, 0
    for mode in ("off", "capture"):
        how = HOW | {"steps": 400 if mode == "off" else HOW["steps"]}
        whole = zoo.fit(zoo.create("gaussian-constrained", data), data, compile=mode, **how)
        script = VICTIM.format(how=how)
        place, wanted, number = folder / mode, done + kills // 2, 0
        while done < wanted:
            process = subprocess.Popen(
                [sys.executable, "-c", script, f"{place}-{number}", mode], stderr=subprocess.DEVNULL
            )
            begun = place.with_name(f"{place.name}-{number}")
            while not (begun / FIT).is_file() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 3))
            if process.poll() is None:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                done += 1
            if process.wait() == 0:
                lost += bool(whole.differences(zoo.load_run(begun)))
                number += 1
        run = zoo.fit(zoo.create("gaussian-constrained", data), data, checkpoint=begun, compile=mode, **how)
        lost += bool(whole.differences(run))
    return done, lost


def damaged(folder: Path, files: int, rng: random.Random) -> tuple[Counter[str], int, list[str]]:
    """Which damaged files were read, how many were refused, and what went wrong with others."""
    data = zoo.load_data("iris")
    run = zoo.fit(zoo.create("gaussian-constrained", data), data, **HOW | {"steps": 50, "checks": 5})
    zoo.evaluate(run, data, samples=50)
    run.save(folder / "run")
    rows = np.column_stack([data.train.values, np.arange(len(data.train))])
    np.save(folder / "rows.npy", rows)
    np.savez(folder / "rows.npz", rows)
    np.savetxt(folder / "rows.csv", rows, delimiter=",", header="a,b,c,d,e", comments="")
    readers: dict[Path, Callable[[], object]] = {
        folder / "run" / name: lambda: zoo.load_run(folder / "run")
        for name in ("run.json", "run.nc", "weights.safetensors")
    }
    readers |= {
        folder / f"rows.{kind}": lambda kind=kind: zoo.load_data(folder / f"rows.{kind}")  # type: ignore[misc]
        for kind in ("npy", "npz", "csv")
    }
    read: Counter[str] = Counter()
    refused, wrong = 0, []
    for number in range(files):
        file, reader = rng.choice(list(readers.items()))
        whole = file.read_bytes()
        cut = rng.random() < 0.5
        content = bytearray(whole[: rng.randrange(len(whole))] if cut else whole)
        for _ in range(0 if cut else rng.randint(1, 8)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            reader()
            read[file.name] += 1
        except ZooError:
            refused += 1
        except Exception as error:
            wrong.append(
                f"{file.name}, number {number}, {'cut' if cut else 'flipped'}: {type(error).__name__}: {error}"
            )
        if file.read_bytes() != bytes(content):
            wrong.append(f"{file.name}, number {number}: reading changed it")
        file.write_bytes(whole)
    return read, refused, wrong


def main(kills: int = 50, files: int = 500, seed: int = 0) -> None:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="zoo-faults-"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        done, lost = killed(folder, kills, rng)
        print(f"killed {done} times in two compile modes; fits that did not end in the same bits: {lost}")
        read, refused, wrong = damaged(folder, files, rng)
        print(f"damaged files: {files}; refused with a clear error: {refused}; read all the same: "
              f"{', '.join(f'{count} {name}' for name, count in sorted(read.items()))}; "
              f"anything else: {len(wrong)}")  # fmt: skip
        for told in wrong[:20]:
            print("  " + told)
    finally:
        shutil.rmtree(folder)
    if lost or wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
