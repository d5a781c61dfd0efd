"""What pictures and tables read from a run: scored seeds, names of columns, the shape of images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.comparison import Outcome

__all__ = ["Floats", "image_shape", "names", "per_seed", "scored", "seeds", "used_seeds"]

Floats = NDArray[np.float64]


def scored(run: Outcome, path: str, *dims: str, seed: str = "chain", **where: Any) -> Floats | None:
    """A variable for the scored seeds, seeds first, or None; ``where`` selects by label."""
    values = run.get(path)
    if values is None or not run.used.any():
        return None
    return np.asarray(values.sel(where).transpose(seed, *dims), np.float64)[run.used]


def per_seed(run: Outcome, name: str) -> NDArray[np.int64] | None:
    """A number per seed of the optimization group, or None."""
    values = run.get(f"optimization/{name}")
    return None if values is None else np.asarray(values).astype(np.int64)


def seeds(run: Outcome) -> list[int]:
    """The numbers of the seeds."""
    numbers = run.read("seeds") or []
    return [int(seed) for seed in numbers] if len(numbers) == run.used.size else list(range(run.used.size))


def used_seeds(run: Outcome) -> list[int]:
    """The numbers of the scored seeds."""
    return [seed for seed, used in zip(seeds(run), run.used, strict=True) if used]


def names(run: Outcome, count: int) -> list[str]:
    """The names of the columns."""
    found = [str(name) for name in run.summary.get("columns") or ()]
    return found if len(found) == count else [str(i) for i in range(count)]


def image_shape(run: Outcome) -> tuple[int, int] | None:
    """Height and width of a picture, if the data are grey pictures."""
    shape = run.summary.get("image_shape")
    return (int(shape[0]), int(shape[1])) if shape and len(shape) == 2 else None
