"""Kill, cut, flip, fill up and mistype: does anything get lost?

python scripts/faults.py      # some minutes

Processes that train are killed at random moments, by SIGKILL, SIGTERM or SIGINT, in every compile mode, and gone on
with until they are done; what comes out is compared, bit by bit, with a fit that nobody stopped. So are the workers of
studies, in a pool, as shards on one directory, and of a Dask cluster, and whoever sent them. Files of a run and of
data are cut short and have bits flipped: each has to be read right or refused with a clear error. Runs and reports are
written to a small file system with less and less space: what is there has to be whole, and once there is space again
the fit has to end in the same bits. Last, public functions are called with arguments that are wrong at random: each
call has to work, or to be refused with one clear error and nothing written.
"""

import contextlib
import json
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer

import zoo
from zoo.errors import RunError, ZooError

HOW: dict[str, Any] = {"steps": 1500, "seeds": 2, "checks": 100, "progress": False, "on_divergence": "warn"}
SMALL = "8m"  # of the file system that is filled
VICTIM = """
import sys, zoo
data = zoo.load_data("iris")
zoo.fit(zoo.create("gaussian-constrained", data), data, checkpoint=sys.argv[1], compile=sys.argv[2], **{how!r})
"""


def killed(folder: Path, kills: int, rng: random.Random) -> tuple[int, int]:
    """How many kills there were, and how many fits did not end in the same bits."""
    data = zoo.load_data("iris")
    done, lost = 0, 0
    for mode, steps, share in (("off", 400, 0.4), ("capture", 1500, 0.4), ("inductor", 3000, 0.2)):
        how, wanted, number = HOW | {"steps": steps}, done + round(share * kills), 0
        whole = zoo.fit(zoo.create("gaussian-constrained", data), data, compile=mode, **how)
        begun = folder / f"{mode}-{number}"
        while done < wanted:
            states = set(begun.glob("state-*"))
            command = [sys.executable, "-c", VICTIM.format(how=how), str(begun), mode]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            at_work = rng.random() < 0.8  # else wherever it is, before its first step too
            while at_work and process.poll() is None and set(begun.glob("state-*")) <= states:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.7 if at_work else 4))
            if process.poll() is None:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                done += 1
            if process.wait() == 0:
                lost += bool(whole.differences(zoo.load_run(begun)))
                number += 1
                begun = folder / f"{mode}-{number}"
        run = zoo.fit(zoo.create("gaussian-constrained", data), data, checkpoint=begun, compile=mode, **how)
        lost += bool(whole.differences(run))
    return done, lost


STUDY = """
import sys, zoo
from contextlib import nullcontext

def main(way, out):
    client = nullcontext()
    if way == "dask":
        from distributed import Client, LocalCluster
        client = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50))
    with client as executor:
        how = {"shard": way} if "/" in way else {"executor": executor} if executor else {"workers": 2}
        study = zoo.study(%(names)r, "iris", out, progress=False, **how, **%(how)r)
    sys.exit(bool(study.absent))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def killed_studies(folder: Path, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """How many processes of studies were killed, and what was lost."""
    names = ["gmm-constrained[components=2|3|5]", "gaussian-constrained"]
    how = {name: value for name, value in HOW.items() if name != "progress"} | {"samples": 100, "temperatures": 2}
    whole = zoo.study(names, "iris", folder / "one-process", progress=False, **how)
    script = folder / "study.py"
    script.write_text(STUDY % {"names": names, "how": how})
    done, lost, number = 0, [], 0
    for ways, share in ((["pool"], 0.4), (["1/2", "2/2"], 0.3), (["dask"], 0.3)):
        wanted = done + round(share * kills)
        while done < wanted:
            number += 1
            out = folder / f"study-{number}"
            running = {way: _begun(script, way, out) for way in ways}
            while running:
                time.sleep(rng.uniform(0.5, 8))
                for way, process in list(running.items()):
                    if process.poll() is not None:
                        running.pop(way)
                        if process.returncode and not any(other.poll() is None for other in running.values()):
                            running[way] = _begun(script, way, out)
                    elif done < wanted and rng.random() < 0.5:
                        everyone = [process.pid, *_descendants(process.pid)]
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(rng.choice(everyone), signal.SIGKILL)
                            done += 1
            left = zoo.load_study(out)
            if left.absent:
                lost.append(f"{'/'.join(ways)}: {left.absent}")
            for run, of_one in zip(left.runs, whole.runs, strict=not left.absent):
                here, there = zoo.load_run(run), zoo.load_run(of_one)
                same = here.tree["heldout"].to_dataset().equals(there.tree["heldout"].to_dataset())
                if here.differences(there) or not same:
                    lost.append(f"{run} has other bits than one process")
    return done, lost


def _begun(script: Path, way: str, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, script, way, out], stderr=subprocess.DEVNULL)


def _descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    try:
        children = [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]


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


def filled(folder: Path, times: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """What became of runs and reports on a small file system with ever other free space, and what went wrong."""
    place = folder / "small"
    place.mkdir()
    script = "import sys, faults; faults.fill(*sys.argv[1:])"
    mounted = f'mount -t tmpfs -o size={SMALL} tmpfs "$0" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, str(place)]
    child = [sys.executable, "-c", script, str(place), str(times), str(rng.random())]
    result = subprocess.run([*command, *child], cwd=Path(__file__).parent, capture_output=True, text=True)
    if result.returncode:
        return Counter(), [f"no small file system could be filled: {result.stderr.strip()[-300:]}"]
    outcomes, wrong = json.loads(result.stdout)
    return Counter(outcomes), wrong


def fill(folder: str, times: str, seed: str) -> None:
    """Train into a small file system and report there, with so much in it already, and print what happened."""
    logging.disable()
    place, ballast = Path(folder, "place"), Path(folder, "ballast")
    rng, data = random.Random(seed), zoo.load_data("iris")
    pair, how = zoo.create("gaussian-constrained", data), HOW | {"steps": 100, "checks": 10, "compile": "capture"}
    whole = zoo.fit(pair, data, **how)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(int(times)):
        free = int(10 ** rng.uniform(3, 6.7))
        with ballast.open("wb") as stream:
            stream.write(bytes(shutil.disk_usage(folder).free - free))
        try:
            run = zoo.fit(pair, data, checkpoint=place / "run", **how)
            if whole.differences(run):
                wrong.append(f"number {number}, {free} bytes: the run that was returned has other bits")
            outcomes["runs written" if (place / "run" / "run.json").is_file() else "runs kept in memory"] += 1
        except RunError:
            outcomes["fits refused at the start"] += 1
        try:
            zoo.report(whole, place / "report")
            outcomes["reports written"] += 1
        except RunError:
            outcomes["reports refused"] += 1
            if (place / "report" / "index.html").exists():
                wrong.append(f"number {number}, {free} bytes: half a report was left")
        ballast.unlink()
        again = zoo.fit(pair, data, checkpoint=place / "run", **how)
        if whole.differences(again) or whole.differences(zoo.load_run(place / "run")):
            wrong.append(f"number {number}, {free} bytes: with space again, the fit ended in other bits")
        shutil.rmtree(place)
    print(json.dumps([outcomes, wrong]))


def mistyped(folder: Path, times: int, rng: random.Random) -> tuple[int, int, list[str]]:
    """How many calls with wrong arguments worked all the same, how many were refused, and what went wrong."""
    data = zoo.load_data("iris")
    pair = zoo.create("gaussian-constrained", data)
    run = zoo.fit(pair, data, **HOW | {"seeds": 1, "steps": 5, "checks": 1})
    zoo.evaluate(run, data, samples=5, temperatures=0)
    saved, x, out = run.save(folder / "mistyped" / "run"), data.test.values, folder / "mistyped" / "out"
    fit = {"pair": pair, "data": data, **HOW, "seeds": 1, "steps": 2, "batch_size": 8, "compile": "off"}
    fit |= {"learning_rate": 0.01, "schedule": "cosine", "warmup": 0, "clip": None, "keep": "best", "patience": None}
    load: dict[str, Any] = {"source": x, "labels": None, "support": "auto", "levels": None, "image_shape": None}
    load |= {"scaling": "auto", "split": (0.6, 0.2, 0.2), "seed": 0, "binarize": None, "dequantize": False}
    options = {"floor": 0.1, "latent_dim": 2, "hidden": (4,), "activation": "tanh", "guide": "mean-field"}
    calls: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (zoo.list_pairs, {"pattern": "*", "support": None, "bounded": None}),
        (zoo.card, {"name": "gmm"}),
        (zoo.load_data, load),
        (zoo.create, {"name": "gaussian-constrained", "data": data, **options}),
        (zoo.fit, fit | {"checkpoint": out, "checkpoint_every": 1, "device": "cpu"}),
        (zoo.evaluate, {"run": run, "data": data, "samples": 2, "temperatures": 0, "reference": 0}),
        (zoo.compare, {"runs": [run], "ensembles": False}),
        (zoo.report, {"runs": [saved], "path": out, "ensembles": False, "failures": None}),
        (zoo.load_run, {"path": saved}),
        (zoo.witness, {"pair": pair, "x": x, "sharpness": (1.0,)}),
        (zoo.ceiling, {"pair": pair, "x": x, "iterations": 2, "tolerance": 0.1}),
        (run.save, {"path": out}),
        (run.encode, {"x": x}),
        (run.reconstruct, {"x": x, "samples": 2}),
        (run.log_evidence, {"x": x, "samples": 2}),
        (run.sample, {"n": 2, "seed": 0}),
    ]
    odd: list[Any] = [None, True, -1, 0, 1, 2.5, 10**30, math.nan, math.inf, "", "odd", "\0", "x" * 300, b"odd"]
    odd += [[], {}, (), {1, 2}, {"a": 1}, [None], ["a", "b"], [1, 2], object(), len, 1j]
    odd += [np.zeros((2, 3)), np.full((5, 4), math.nan)]
    odd += [np.ones((1, 4)), np.ones((4, 1)), np.array(["a"]), folder / "nowhere", folder, os.devnull, pair, data, run]
    worked, refused, wrong = 0, 0, []
    for number in range(times):
        function, arguments = rng.choice(calls)
        name = rng.choice(list(arguments))
        value = rng.choice(odd)
        try:
            function(**arguments | {name: value})
            worked += 1
        except ZooError as error:
            refused += 1
            if out.exists():
                wrong.append(f"{number}: {function.__qualname__}({name}={value!r}) was refused and left {out}: {error}")
        except Exception as error:
            wrong.append(f"{number}: {function.__qualname__}({name}={value!r}): {type(error).__name__}: {error}")
        shutil.rmtree(out, ignore_errors=True)
    return worked, refused, wrong


def main(
    kills: int = 50, workers: int = 15, files: int = 500, fills: int = 50, mistakes: int = 3000, seed: int = 0
) -> None:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="zoo-faults-"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(folder)  # an argument may be taken for a path
    warnings.simplefilter("ignore")
    try:
        done, lost = killed(folder, kills, rng) if kills else (0, 0)
        print(f"killed {done} times in three compile modes; fits that did not end in the same bits: {lost}", flush=True)
        ended, losses_of_studies = killed_studies(folder, workers, rng) if workers else (0, [])
        print(f"killed {ended} processes of studies, in pools, as shards, by Dask; losses: {len(losses_of_studies)}",
              flush=True)  # fmt: skip
        read, refused, damages = damaged(folder, files, rng)
        print(f"damaged files: {files}; refused with a clear error: {refused}; read all the same: "
              f"{told(read)}; anything else: {len(damages)}", flush=True)  # fmt: skip
        outcomes, losses = filled(folder, fills, rng)
        print(f"filled a small file system {fills} times: {told(outcomes)}; losses: {len(losses)}", flush=True)
        worked, refused, surprises = mistyped(folder, mistakes, rng)
        print(f"bad inputs: {mistakes}; refused with a clear error: {refused}; "
              f"right all the same: {worked}; anything else: {len(surprises)}")  # fmt: skip
        wrong = losses_of_studies + damages + losses + surprises
        for line in wrong[:20]:
            print("  " + line)
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
    if lost or wrong:
        raise typer.Exit(1)


def told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    typer.run(main)
