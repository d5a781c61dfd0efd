"""A run's tree as a netCDF file, which anything that reads netCDF-4 opens.

A run has a hundred small variables. h5netcdf, through which xarray writes and reads them, looks each of them up a dozen
times for every step that it takes with it; here each is touched once, which takes a tenth of the time.

Of netCDF-4 a tree needs little: a group of HDF5 for each of its groups, which keep the order in which things were
made, and for each dimension a scale, which is the variable of its name, and is attached to all others that have it.

https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html#netcdf_4_spec
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray
from xarray import conventions

from zoo.errors import DataError
from zoo.storage import RECIPE, check_opens, check_promise, digest, regular

__all__ = ["file_of", "read_checked_tree", "read_tree"]

MADE_BY = "_NCProperties"
OURS = "version=2,vae-zoo=1,"  # what is written here, to be read here
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."  # the name of its scale, and then its size
HIDDEN = {MADE_BY, "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid"}


# -- writing -----------------------------------------------------------------------------------------------------------


def file_of(tree: xarray.DataTree) -> bytes:
    """The netCDF file of a tree; in memory, since HDF5 brings the process down on a disk that fills up meanwhile.

    Raises:
        TypeError: an attribute or a variable is of a kind that netCDF has not.
    """
    buffer, numbers = io.BytesIO(), itertools.count()
    with h5py.File(buffer, "w", track_order=True) as file:
        made_by = f"{OURS}hdf5={h5py.version.hdf5_version},h5py={h5py.__version__}"
        file.attrs[MADE_BY] = np.bytes_(made_by)
        for node in tree.subtree:
            group = file if node is tree else file.create_group(node.path, track_order=True)
            _write(node.to_dataset(inherit=False), group, numbers)
    return buffer.getvalue()


def _write(dataset: xarray.Dataset, group: h5py.Group, numbers: Iterator[int]) -> None:
    variables, attributes = conventions.cf_encoder(*conventions.encode_dataset_coordinates(dataset))
    _describe(group, attributes)
    made = {name: _variable(group, name, variable) for name, variable in variables.items()}
    for name, size in {dim: size for variable in variables.values() for dim, size in variable.sizes.items()}.items():
        if name not in made:
            made[name] = group.create_dataset(name, (size,), ">f4", track_order=True)
        made[name].make_scale(name if name in variables else f"{NO_VARIABLE}{size:10}")
        made[name].attrs["_Netcdf4Dimid"] = np.int32(next(numbers))
    for name, variable in variables.items():
        if variable.dims != (name,):
            for axis, dim in enumerate(variable.dims):
                made[name].dims[axis].attach_scale(made[dim])


def _variable(group: h5py.Group, name: str, variable: xarray.Variable) -> h5py.Dataset:
    values, fill = variable.to_numpy(), variable.attrs.pop("_FillValue", None)
    text = values.dtype.kind in "UO"
    kind = h5py.string_dtype() if text else values.dtype
    made = group.create_dataset(
        name, values.shape, kind, values.astype(object) if text else values, fillvalue=fill, track_order=True
    )
    if fill is not None:
        made.attrs.create("_FillValue", [fill], dtype=kind)
    _describe(made, variable.attrs)
    return made


def _describe(item: h5py.Group | h5py.Dataset, attributes: Mapping[Any, Any]) -> None:
    for name, value in attributes.items():
        if np.asarray(value).dtype.kind == "b":
            raise TypeError(f"{item.name}: netCDF holds no attribute {name}={value!r}")
        item.attrs[name] = value if isinstance(value, str | list) else np.atleast_1d(value)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_tree(file: Path) -> xarray.DataTree:
    """The groups of a netCDF file, in memory.

    HDF5 meets no damaged file here: that of a run is held against its checksum, any other is opened elsewhere first.

    Raises:
        DataError: it is damaged, or promises more than it can hold, or than the memory can.
        OSError: it cannot be read.
    """
    recipe = regular(file).with_name(RECIPE)
    if recipe.is_file():
        _check_digest(file, recipe)
    else:
        check_opens(file)
    return read_checked_tree(file)


def _check_digest(file: Path, recipe: Path) -> None:
    try:
        expected = json.loads(recipe.read_text(encoding="utf-8"))["sha256"][file.name]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{recipe.name} beside it is damaged: it has no checksum of it") from error
    if digest(file.read_bytes()) != expected:
        raise DataError(f"it is damaged: its checksum is another than {recipe.name} has")


def read_checked_tree(file: Path) -> xarray.DataTree:
    """As :func:`read_tree`, of a file that is known to be what was written.

    Raises:
        DataError: it promises more than it can hold, or than the memory can.
        OSError: it cannot be read.
    """
    with h5py.File(file) as opened:
        if bytes(opened.attrs.get(MADE_BY, b"")).startswith(OURS.encode()):
            groups = dict(_groups(opened))
            check_promise(sum(item.nbytes for items in groups.values() for item in items.values()), file)
            return xarray.DataTree.from_dict({name: _dataset(opened[name], items) for name, items in groups.items()})
    with xarray.open_datatree(file, engine="h5netcdf") as tree:  # of other programs, and of the zoo before 0.3
        check_promise(sum(group.to_dataset(inherit=False).nbytes for group in tree.subtree), file)
        return tree.load()


def _groups(group: h5py.Group) -> Iterator[tuple[str, dict[str, h5py.Dataset]]]:
    """The name of a group with what is stored in it, and then those of the groups within."""
    items = dict(group)
    yield group.name, {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
    for item in items.values():
        if isinstance(item, h5py.Group):
            yield from _groups(item)


def _dataset(group: h5py.Group, items: Mapping[str, h5py.Dataset]) -> xarray.Dataset:
    told = {name: str(item.attrs.get("NAME", "")) for name, item in items.items()}
    variables = {name: _read(name, item) for name, item in items.items() if NO_VARIABLE not in told[name]}
    return xarray.decode_cf(xarray.Dataset(variables, attrs=_description(group))).load()


def _read(name: str, item: h5py.Dataset) -> xarray.Variable:
    if item.is_scale:
        dims = [name]
    else:
        scales = [h5py.h5r.get_name(axis[0], item.id) for axis in item.attrs.get("DIMENSION_LIST", [])]
        dims = [scale.decode().rpartition("/")[-1] for scale in scales]
    text = h5py.check_string_dtype(item.dtype) is not None
    values, encoding = (item.asstr()[()], {"dtype": str}) if text else (item[()], None)
    return xarray.Variable(dims, values, _description(item), encoding)


def _description(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    values = {name: item.attrs[name] for name in item.attrs if name not in HIDDEN}
    return {name: _plain(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _plain(values: np.ndarray[Any, Any]) -> Any:
    """An attribute as xarray has it: netCDF has no other numbers than lists of one, and text in lists."""
    if values.size == 1:
        return values[0]
    return values.tolist() if values.dtype == object else values
