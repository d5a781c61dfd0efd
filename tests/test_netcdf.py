"""Trees as netCDF files: what is written here xarray reads, by h5netcdf, which was written by others, and back."""

import h5netcdf
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
from synthetic_runs import synthetic_run

from zoo.netcdf import MADE_BY, file_of, read_checked_tree


def everything():
    """A tree with whatever a variable, a dimension or an attribute may be."""
    rng = np.random.default_rng(0)
    one = xarray.Dataset(
        {
            "z": (
                ("chain", "obs"),
                rng.normal(size=(2, 3)),
                {"units": "nats", "weights": np.array([1.0, 2.0]), "n": 3},
            ),
            "a": ("obs", np.array([1.5, np.nan, -np.inf], np.float32), {"of": ["one", "two"]}),
            "count": ("obs", np.array([3, -1, 2**40])),
            "small": ("row", np.array([1, 2], np.int8)),
            "whether": (("obs",), [True, False, True]),
            "name": ("obs", ["São Paulo", "", "a" * 300]),
            "mixed": ("obs", np.array(["x", "yy", ""], object)),
            "nothing": (("obs", "none"), np.empty((3, 0))),
            "one": ((), 2.5),
            "word": ((), "text"),
            "when": ("obs", pd.date_range("2020-01-01", periods=3, unit="ns")),
        },
        {"obs": ["r", "s", "t"], "chain": [3, 8], "label": ("obs", ["u", "v", "w"]), "none": np.empty(0)},
        {"title": "ξ", "empty": "", "lists": ["chain", "step"], "of one": ["chain"], "float": 0.1, "nan": np.nan},
    )
    two = xarray.Dataset({"z": ("obs", np.arange(4))}, {"obs": range(4)})
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs={"pair": "gmm"}), "one": one, "two": two, "b/c": two})


def facts(tree):
    """All that one reads of a tree, in its order; numbers by their bytes."""
    return [
        (
            node.path,
            told(node.attrs),
            [(name, of.dims, of.dtype.str, of.values.tolist(), told(of.attrs)) for name, of in items],
        )
        for node in tree.subtree
        for items in [sorted_by_kind(node.to_dataset(inherit=False))]
    ]


def sorted_by_kind(dataset):
    return [*dataset.coords.variables.items(), *dataset.data_vars.variables.items()]


def told(attrs):
    return [(name, type(value), str(value)) for name, value in attrs.items()]


@pytest.mark.parametrize("tree", [everything(), synthetic_run(seeds=2, steps=20, obs=5)], ids=["everything", "a run"])
def test_others_read_what_is_written_and_it_is_read_as_they_read_it(tree, tmp_path):
    ours, theirs = tmp_path / "ours.nc", tmp_path / "theirs.nc"
    ours.write_bytes(file_of(tree))
    tree.to_netcdf(theirs, engine="h5netcdf")
    expected = xarray.load_datatree(theirs, engine="h5netcdf")
    xarray.testing.assert_identical(xarray.load_datatree(ours, engine="h5netcdf"), expected)
    for read in (xarray.load_datatree(ours, engine="h5netcdf"), read_checked_tree(ours), read_checked_tree(theirs)):
        assert str(facts(read)) == str(facts(expected))
    again = read_checked_tree(ours)
    (tmp_path / "again.nc").write_bytes(file_of(again))
    xarray.testing.assert_identical(read_checked_tree(tmp_path / "again.nc"), again)


def test_dimensions_are_scales_with_numbers_of_their_own_as_netcdf_asks(tmp_path):
    (tmp_path / "a.nc").write_bytes(file_of(everything()))
    with h5netcdf.File(tmp_path / "a.nc") as file:
        sizes = {name: {dim: len(of) for dim, of in group.dimensions.items()} for name, group in file.groups.items()}
        assert {**sizes["one"]} == {"obs": 3, "chain": 2, "none": 0, "row": 2}
        assert sizes["two"] == {"obs": 4}
        assert [*file["one"].variables] == [*everything()["one"].variables], "in the order of their making"
        assert file["one/z"].dimensions == ("chain", "obs")
    with h5py.File(tmp_path / "a.nc") as file:
        assert file["one/row"].attrs["NAME"] == b"This is a netCDF dimension but not a netCDF variable.         2"
        assert h5py.h5ds.is_scale(file["one/obs"].id) and not h5py.h5ds.is_scale(file["one/z"].id)
        scales = [item for group in ("one", "two", "b/c") for item in file[group].values() if item.is_scale]
        numbers = [int(item.attrs["_Netcdf4Dimid"]) for item in scales]
        assert sorted(numbers) == [*range(len(scales))] and len(scales) == 6
        assert file.attrs[MADE_BY].decode().startswith("version=2,vae-zoo=1,hdf5=")
        assert file["one/a"].fillvalue != file["one/a"].fillvalue, "missing numbers of a grown file would be NaN"


@pytest.mark.parametrize("value", [True, None, {"a": 1}, np.array([True])])
def test_what_no_attribute_can_be_is_refused(value):
    tree = everything()
    tree["one"].attrs["wrong"] = value
    with pytest.raises(TypeError):
        file_of(tree)
