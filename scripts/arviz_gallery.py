"""Ten of ArviZ's plots from saved runs, with only ArviZ and xarray: neither the zoo nor torch is imported.

    python scripts/arviz_gallery.py FOLDER RUN.nc RUN.nc ...

takes the files of two or more runs on the same data, with latents z, scored with ``zoo.evaluate(..., sbc=200)``. Counts
are shown by ``plot_ppc_rootogram``. It ends with an error if a plot cannot be drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import arviz_plots as azp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray
from arviz_stats import compare
from arviz_stats.utils import ELPDData

mpl.use("agg")


def scores(tree: xarray.DataTree) -> Any:
    """The held-out evidence of a run, of the mean over seeds, as ArviZ compares it."""
    heldout = tree["heldout"].to_dataset()
    values = heldout["log_evidence"].mean("chain")
    kind = {"kind": "held-out"} if "kind" in signature(ELPDData).parameters else {}  # ArviZ 0 wants it
    return ELPDData(
        elpd=float(values.sum()),
        se=float(values.std() * values.size**0.5),
        p=0.0,
        n_samples=1,
        n_data_points=values.size,
        scale="log",
        warning=False,
        good_k=0.7,
        elpd_i=values,
        pareto_k=heldout["pareto_k"].max("chain"),
        **kind,
    )


def by_latent(tree: xarray.DataTree) -> xarray.DataTree:
    """Three latents of the first datum and one seed: latents of different seeds are not to be pooled."""
    groups = {"posterior": tree["posterior"].to_dataset().isel(obs=0, drop=True), "prior": tree["prior"].to_dataset()}
    return xarray.DataTree.from_dict(
        {name: group[["z"]].isel(chain=[0], latent=slice(3)) for name, group in groups.items()}
    )


def stacked(tree: xarray.DataTree) -> xarray.DataTree:
    """Predictions and data with one dimension of all entries: ``plot_ppc_pit`` takes no two."""
    groups = {name: tree[name].to_dataset()[["x"]] for name in ("posterior_predictive", "observed_data")}
    flat = {name: of.stack(entry=("obs", "feature")).reset_index("entry", drop=True) for name, of in groups.items()}
    numbered = {name: of.assign_coords(entry=np.arange(of.sizes["entry"])) for name, of in flat.items()}
    return xarray.DataTree.from_dict(numbered)


def draw_all(folder: Path, paths: list[str]) -> None:
    trees = {Path(path).parent.name: xarray.load_datatree(path, engine="h5netcdf") for path in paths}
    first, *_ = trees.values()
    latents, entries, elpds = by_latent(first), stacked(first), {name: scores(tree) for name, tree in trees.items()}
    counts = entries.map_over_datasets(lambda of: of.astype(int))  # whose kind the rootogram goes by
    whole = np.all(np.mod(entries["observed_data/x"], 1) == 0)
    plots: dict[str, Callable[[], Any]] = {
        "forest": lambda: azp.plot_forest({name: by_latent(tree) for name, tree in trees.items()}, combined=True),
        "dist": lambda: azp.plot_dist(latents),
        "pair": lambda: azp.plot_pair(latents),
        "ridge": lambda: azp.plot_ridge(latents),
        "prior_posterior": lambda: azp.plot_prior_posterior(latents),
        "ppc_dist": lambda: azp.plot_ppc_dist(entries, kind="ecdf"),
        "ppc_pit": lambda: azp.plot_ppc_pit(entries),
        "compare": lambda: azp.plot_compare(compare(elpds)),
        "khat": lambda: azp.plot_khat(elpds[next(iter(elpds))]),
        "ecdf_pit": lambda: azp.plot_ecdf_pit(first),
        **({"ppc_rootogram": lambda: azp.plot_ppc_rootogram(counts)} if whole else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in plots.items():
        draw().savefig(folder / f"{name}.png")
        plt.close("all")
        print(folder / f"{name}.png")


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]), sys.argv[2:])
