"""ArviZ's conventions for a run's tree: what every group carries, and the rules it obeys; without torch.

>>> import xarray
>>> group = xarray.Dataset({"component": (("chain", "draw", "component"), [[[0.4, 0.6]]])})
>>> tree = finish(xarray.DataTree.from_dict({"posterior": group}))
>>> sorted(tree["posterior"].data_vars), sorted(tree["posterior"].coords), tree["posterior"].attrs["creation_library"]
(['component_index'], ['chain', 'component', 'draw'], 'zoo')
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray

from zoo.errors import OptionError

__all__ = ["ANNEALED", "BAD_K", "DRAWN", "EXACT", "GROUPS", "IMPORTANCE", "check_tree", "finish"]

EXACT, IMPORTANCE, ANNEALED = range(3)  # how a score of ``heldout`` was estimated
BAD_K = 0.7  # Pareto k above which importance weights cannot be trusted: Vehtari et al. (2024)
DRAWN = ("posterior", "prior", "posterior_predictive", "prior_predictive", "sample_stats")  # have chain and draw
GROUPS = (
    *("optimization", "validation", "constant_data", "observed_data", *DRAWN, "heldout", "calibration", "spread"),
    *("wellposedness", "reconstruction", "imputation", "reference_posterior", "prior_sbc"),
)
ON_REQUEST = {"imputation": "hide=0.1", "reference_posterior": "reference=4", "prior_sbc": "sbc=1000"}
# netCDF turns a list of one name into a string, which ArviZ 1.3 reads letter by letter: so avoid such lists
SAMPLED_ALONG = (("chain", "draw"), ("chain", "step"), ("chain", "check"))
SEEDS = (
    "a seed of the fit, not a Markov chain: latents of different seeds are rotated and permuted against each other, "
    "so neither R-hat nor a mean over seeds says anything about them"
)
CHAINS = "a Markov chain of the sampler; the seed of the fit is the dimension seed"
CREATED = ("created_at", "creation_library", "creation_library_version", "creation_library_language")
INFERRED = ("inference_library", "inference_library_version")
MATCHING = {"prior": "posterior", "log_prior": "posterior", "log_likelihood": "observed_data"}
PREDICTED = ("posterior_predictive", "prior_predictive")


def finish(tree: xarray.DataTree) -> xarray.DataTree:
    """Give a tree and its groups the attributes, coordinates and names of ArviZ's schema; existing ones stay.

    Every group gets ``arviz_base.make_attrs`` and the dimensions of its draws, every dimension gets a coordinate, and a
    variable with the name of a dimension is renamed. At the root, ``not_asked`` says as JSON text which call would add
    a missing group, and ``absent`` why a group cannot exist.

    Args:
        tree: a run's tree, changed in place.

    https://python.arviz.org/en/stable/schema/schema.html
    """
    about = dict(tree.attrs)
    makers = _makers(about)
    created = {"created_at": about["created"]} if "created" in about else {}
    tree.attrs = _attributes(makers) | created | about
    if "pair" in about:
        absent = json.loads(about.get("absent", "{}"))
        missing = [name for name in GROUPS if name not in tree.children and name not in absent]
        calls = {name: ", ".join(filter(None, ["run, data", ON_REQUEST.get(name)])) for name in missing}
        tree.attrs |= {
            "name": about["pair"],
            "not_asked": json.dumps({name: f"zoo.evaluate({call})" for name, call in calls.items()}),
        }
    for group in tree.children.values():
        of_run = "pair" in about
        group.dataset = _finished(group.to_dataset(inherit=False), makers, of_run=of_run)
    return tree


def _finished(group: xarray.Dataset, makers: dict[str, Any], *, of_run: bool) -> xarray.Dataset:
    clashes = {name: f"{name}_index" for name, of in group.variables.items() if name in group.dims and of.ndim != 1}
    group = group.rename_vars(clashes).reset_coords([*clashes.values()])
    group = group.assign_coords({dim: np.arange(size) for dim, size in group.sizes.items() if dim not in group.coords})
    told = dict(makers)
    if along := next((dims for dims in SAMPLED_ALONG if set(dims) <= set(group.dims)), None):
        told["sample_dims"] = list(along)
    if of_run and "chain" in group.dims:
        told["chain"] = CHAINS if "seed" in group.dims else SEEDS
    return group.assign_attrs(_attributes(told) | group.attrs)


def _attributes(told: dict[str, Any]) -> dict[str, Any]:
    from arviz_base import make_attrs

    attrs: dict[str, Any] = make_attrs(told)
    return attrs


def _makers(about: Mapping[Any, Any]) -> dict[str, Any]:
    """What made a tree, by the versions it was trained with; Pyro may be missing where a run is read."""
    versions = json.loads(about.get("versions", "{}"))
    return {
        "creation_library": "zoo",
        "creation_library_version": versions.get("vae-zoo") or _installed("vae-zoo"),
        "inference_library": "pyro",
        "inference_library_version": versions.get("pyro-ppl") or _installed("pyro-ppl"),
    }


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


# -- the rules ---------------------------------------------------------------------------------------------------------


def check_tree(tree: xarray.DataTree) -> None:
    """Check a tree against ArviZ's schema and, if it is a run's, against the zoo's promises about its groups.

    Args:
        tree: the tree of a run, of :func:`zoo.to_arviz`, or any other.

    Raises:
        AssertionError: rules are broken; the message lists them, each with group, variable and remedy.
        OptionError: the argument is not a tree.

    https://python.arviz.org/en/stable/schema/schema.html

    >>> check_tree(xarray.DataTree.from_dict({"posterior": xarray.Dataset({"z": ("draw", [0.0, 1.0])})}))
    Traceback (most recent call last):
        ...
    AssertionError: 3 rules of ArviZ's schema are broken:
    - posterior: the dimension draw has no coordinate: assign_coords(draw=range(2))
    - posterior: draws have the dimensions chain and draw, or sample, and not ('draw',): expand_dims("chain")
    - posterior: without the attributes created_at, creation_library, creation_library_version, ...
    """
    if not isinstance(tree, xarray.DataTree):
        given = type(tree).__name__
        raise OptionError(f"check_tree: tree is of type {given}; give an xarray.DataTree, such as run.tree.")
    broken = [fault for name, group in tree.children.items() for fault in _faults_of_group(name, group)]
    broken += [*_faults_between(tree), *(_faults_of_run(tree) if "pair" in tree.attrs else ())]
    if broken:
        rules = "1 rule of ArviZ's schema is" if len(broken) == 1 else f"{len(broken)} rules of ArviZ's schema are"
        raise AssertionError("\n- ".join([f"{rules} broken:", *broken]))


def _faults_of_group(name: str, group: xarray.DataTree) -> Iterator[str]:
    for dim, size in group.sizes.items():
        if dim not in group.indexes:
            yield f"{name}: the dimension {dim} has no coordinate: assign_coords({dim}=range({size}))"
    for variable, of in group.variables.items():
        if variable in group.dims and of.dims != (variable,):
            yield f'{name}: the variable {variable} has the name of a dimension: call it "{variable}_index"'
    dims = tuple(map(str, group.dims))
    if name in DRAWN and "sample" not in dims and not {"chain", "draw"} <= {*dims}:
        yield f'{name}: draws have the dimensions chain and draw, or sample, and not {dims}: expand_dims("chain")'
    if lacking := [attr for attr in (*CREATED, *INFERRED) if attr not in group.attrs]:
        yield f"{name}: without the attributes {', '.join(lacking)}: arviz_base.make_attrs gives them"
    for attr, value in group.attrs.items():
        if value is None or isinstance(value, dict | bool):
            yield f"{name}: netCDF holds no attribute {attr}={value!r}: make it JSON text"
    along = group.attrs.get("sample_dims", [])
    if isinstance(along, str) or not {*along} <= {*dims}:
        yield f"{name}: sample_dims={along!r} is not a list of dimensions of this group, which has {dims}"
    if "name" in group.attrs:
        yield f"{name}: only the root may have the attribute name"


def _faults_between(tree: xarray.DataTree) -> Iterator[str]:
    groups = tree.children
    for attr in ("sample_dims", "sampled_variables"):
        if attr in tree.attrs:
            yield f"/: the attribute {attr} belongs to a group, not the root"
    for name, other in MATCHING.items():
        if name in groups and other in groups:
            for variable in groups[name].data_vars.keys() - groups[other].data_vars.keys():
                yield f"{name}: there is no variable {variable} in {other}: both must have the same"
    for name in PREDICTED if "observed_data" in groups else ():
        observed = groups["observed_data"].data_vars
        for variable, of in (groups[name].data_vars if name in groups else {}).items():
            if variable not in observed:
                yield f"{name}: there is no variable {variable} in observed_data: both must have the same"
                continue
            for dim in observed[variable].dims:
                if not (dim in of.dims and np.array_equal(of[dim], observed[variable][dim])):
                    yield f"{name}: {variable} does not have the {dim} of observed_data: give both the same labels"


def _faults_of_run(tree: xarray.DataTree) -> Iterator[str]:
    if tree.attrs.get("name") != tree.attrs["pair"]:
        yield f"/: the attribute name is {tree.attrs.get('name')!r}, and not the pair: zoo.tree.finish(tree)"
    told = {name for attr in ("absent", "not_asked") for name in json.loads(tree.attrs.get(attr, "{}"))}
    for name in GROUPS:
        if name not in tree.children and name not in told:
            yield f"/: neither absent nor not_asked says why there is no group {name}: zoo.tree.finish(tree)"
    for name, group in tree.children.items():
        if "chain" in group.dims and "chain" not in group.attrs:
            yield f"{name}: no attribute says what a chain is: zoo.tree.finish(tree)"
