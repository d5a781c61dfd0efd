"""Whether a trained pair is bounded, by theory and computation, on its own training rows."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import torch
import xarray

from zoo import inference
from zoo.data import Data, noisy
from zoo.errors import OptionError, Unknown
from zoo.runs import Run
from zoo.splits import value_blocks
from zoo.wellposed import ceiling, witness

__all__ = ["wellposedness"]

PATH_ROWS, CEILING_ROWS = 50, 200  # training rows for the curve, and for rows x rows matrices
PATH_NUMBERS = 2**20  # decoder outputs for all rows of a path
SAMPLES = 1000


def wellposedness(run: Run, data: Data) -> xarray.Dataset:
    """The group ``wellposedness``: a witness and, if there is a floor, a ceiling and the gap to it.

    Computed on the first training rows without gaps, with noise drawn once, in nats over all of them, in the units as
    loaded.
    ``log_likelihood`` along ``sharpness`` is the path's, not the run's; ``train_evidence`` (chain) is the run's own, on
    the rows of the ceiling. ``attrs["absent"]`` says under "ceiling" why there is none.

    Raises:
        Unknown: no path is known, as for some user-defined pairs.
    """
    complete = (row for block in value_blocks(data.train) for row in block[~np.isnan(block).any(axis=1)])
    rows = [*islice(complete, CEILING_ROWS)]
    if not rows:
        raise Unknown("a path or a ceiling needs rows without gaps, and there are none in the training part")
    x = np.stack(rows)
    x = noisy(x, np.random.default_rng(0).random(x.shape), data.noise, data.resolution)
    on_path = max(2, min(PATH_ROWS, PATH_NUMBERS // inference.width(run.pair.model, torch.as_tensor(x[:1]))))
    try:
        found = witness(run.pair, x[:on_path])
    except OptionError as reason:
        raise Unknown(str(reason)) from reason
    along = {"log_likelihood": found.log_likelihood, "elbo": found.elbo, "penalized": found.penalized}
    group = xarray.Dataset(
        {name: ("sharpness", values, {"units": "nats"}) for name, values in along.items() if values.size},
        coords={"sharpness": found.sharpness},
        attrs={
            "rows": min(on_path, len(x)),
            "path": found.path,
            "needs": found.needs,
            "grows": int(found.grows),
            "gain": found.gain,
            "bound": found.bound if math.isfinite(found.bound) else math.nan,
        },
    )
    try:
        top = ceiling(run.pair, x)
    except (OptionError, Unknown) as reason:
        return group.assign_attrs(absent={"ceiling": str(reason)})
    group.attrs |= {
        "ceiling_rows": len(x),
        "ceiling": top.certified,
        "ceiling_reached": top.reached,
        "atoms": top.atoms,
    }
    evidence = run.log_evidence(x, samples=SAMPLES).sum(1)
    group["train_evidence"] = ("chain", evidence, {"units": "nats"})
    group["parsimony_gap"] = ("chain", (top.certified - evidence) / len(x), {"units": "nats per datum"})
    return group.assign_coords(chain=np.array(run.seeds))
