"""Let atheris look for files that break a reader.

python scripts/fuzz.py --seconds 60      # for each kind of file

Each kind of file that the zoo reads is begun with a sound one, which is changed again and again, led by the lines
that the reader comes to. A reader may return what it read or raise an error of zoo.errors that names the file.
Anything else, more than 2 GiB of memory or more than 20 seconds is a find, whose file is kept in tests/found.
"""

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

FOUND = Path(__file__).parent.parent / "tests" / "found"
MEMORY, SLOW, LONGEST = 2048, 20, 8192  # MiB, seconds, bytes
LED_BY = [
    "zoo.sources",
    "zoo.data",
    "zoo.checkpoint",
    "zoo.runs",
    "numpy.lib",
    "scipy.io",
    "xarray",
    "h5netcdf",
    "zipfile",
    "gzip",
]


def written(write: Callable[[Any], Any]) -> bytes:
    """What a function writes into a stream."""
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def sound_files() -> dict[str, bytes]:
    """A file of each kind with nothing wrong about it."""
    import numpy as np
    import pandas as pd
    import scipy.io
    import xarray

    rows = np.random.default_rng(0).normal(size=(12, 3)).round(2)
    images = np.arange(60, dtype=np.uint8).reshape(15, 2, 2)
    frame = pd.DataFrame(rows, columns=["a", "b,", 'c"'])
    dataset = xarray.Dataset({"x": (("row", "column"), rows)}, coords={"column": ["a", "b", "c"]})
    return {
        "rows.csv": frame.to_csv(index=False).encode(),
        "rows.tsv": frame.to_csv(sep="\t").encode(),
        "rows.npy": written(lambda stream: np.save(stream, rows)),
        "rows.npz": written(lambda stream: np.savez_compressed(stream, x=rows, y=np.arange(12))),
        "rows.nc": bytes(dataset.to_netcdf(engine="h5netcdf")),
        "rows3.nc": bytes(dataset.to_netcdf(engine="scipy")),
        "rows.parquet": written(frame.to_parquet),
        "rows.mat": written(lambda stream: scipy.io.savemat(stream, {"x": rows}, do_compression=True)),
        "train-images-idx3-ubyte": b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes() + images.tobytes(),
        "run.json": b'{"format": 3, "pair": "gmm", "options": {}, "seeds": [0], "sha256": {"run.json": ""}}',
        "fit.json": b'{"format": 3, "pair": "gmm", "options": {"components": 3}, "seeds": [0], "origin": ""}',
    }


def read(file: Path) -> None:
    """Read a file as the zoo would, and let pass the errors that are meant for people."""
    import zoo
    from zoo.checkpoint import begun

    readers: dict[str, Callable[[], object]] = {
        "run.json": lambda: zoo.load_run(file.parent),
        "fit.json": lambda: begun(file.parent),
    }
    try:
        readers.get(file.name, lambda: zoo.load_data(file))()
    except zoo.errors.ZooError as error:
        if str(file.parent) not in str(error):
            raise AssertionError(f"an error that does not name its file: {error}") from error


def hunt(name: str, folder: str, seconds: str) -> None:
    """Let atheris change one kind of file for some seconds; does not return."""
    import atheris

    with atheris.instrument_imports(include=LED_BY):
        import h5netcdf  # noqa: F401
        import numpy.lib.format  # noqa: F401
        import scipy.io  # noqa: F401
        import xarray  # noqa: F401

        import zoo.runs
        import zoo.sources  # noqa: F401
    file = Path(folder) / "now" / name
    file.parent.mkdir()

    def attempt(content: bytes) -> None:
        file.write_bytes(content)
        read(file)

    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOW}", f"-max_len={LONGEST}"]
    atheris.Setup(["fuzz", f"{folder}/corpus", f"-artifact_prefix={folder}/found-", *limits], attempt)
    atheris.Fuzz()


def main(
    seconds: Annotated[int, typer.Option(help="How long to look, for each kind of file.")] = 60,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
) -> None:
    kinds = sound_files()
    finds = 0
    for name in kind or kinds:
        with tempfile.TemporaryDirectory(prefix="zoo-fuzz-") as folder:
            corpus = Path(folder) / "corpus"
            corpus.mkdir()
            (corpus / "sound").write_bytes(kinds[name])
            for number, known in enumerate(sorted(FOUND.glob(f"*/{name}"))):
                (corpus / str(number)).write_bytes(known.read_bytes())
            command = [sys.executable, "-c", "import sys, fuzz; fuzz.hunt(*sys.argv[1:])", name, folder, str(seconds)]
            told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stderr
            tried = re.findall(r"^#(\d+)", told, re.MULTILINE)
            found = list(Path(folder).glob("found-*"))
            print(f"{name}: {tried[-1] if tried else 0} files tried, {len(found)} that broke the reader", flush=True)
            if not tried:
                print(told[-2000:])
                raise typer.Exit(1)
            for file in found:
                kept = FOUND / file.name.rpartition("-")[2][:12] / name
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(file.read_bytes())
                cause = [line for line in told.splitlines() if re.match(r"\S*(Error|Exception|Warning|ERROR)\b", line)]
                print(f"  kept as {kept}: {' '.join(cause[-2:])[:300]}", flush=True)
            finds += len(found)
    if finds:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
