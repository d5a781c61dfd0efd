"""A table that comes back with its gaps filled, and nothing else changed."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import zoo
from zoo.command_line import app
from zoo.errors import DataError
from zoo.frames import coded, filled
from zoo.rewriting import fill_file
from zoo.supports import Column

CITY = Column(name="city", support="categorical", categories=("Bonn", "Rome"), resolution=1.0)
OWNER = Column(name="owner", support="binary", categories=("no", "yes"), resolution=1.0)
WEIGHT = Column(name="weight", support="real", resolution=0.1)
PEOPLE = """name;weight;city;owner;children
Ann;70,5;Bonn;yes;2
Bob;;Rome;No;0
"Smith; Cy";81,0;;yes;
Dee;64,25;Rome;;1
"""


@pytest.fixture(scope="module")
def run():
    """Of a table of each kind of column, with a column that is left out."""
    rng = np.random.default_rng(0)
    weight = rng.normal(70, 9, 200).round(1)
    frame = pd.DataFrame(
        {
            "weight": weight,
            "city": np.where(weight > 70, "Rome", "Bonn"),
            "owner": np.where(rng.random(200) < 0.5, "yes", "no"),
            "children": rng.poisson(1.5, 200),
        }
    )
    data = zoo.load_data(frame.mask(rng.random(frame.shape) < 0.1), missing_values=[-9])
    return zoo.fit(zoo.create("mixed", data, hidden=(8,)), data, seeds=2, steps=60, compile="off", progress=False)


def test_a_file_comes_back_as_it_was_but_for_its_gaps(run, tmp_path):
    source, out = tmp_path / "people.csv", tmp_path / "whole.csv"
    source.write_text(PEOPLE)
    assert fill_file(run, source, out, draws=5, sweeps=3) == {"weight": 1, "city": 1, "owner": 1, "children": 1}
    before, after = (path.read_text().splitlines() for path in (source, out))
    was, now = ([line.replace('"Smith; Cy"', "Cy").split(";") for line in lines] for lines in (before, after))
    gaps = {(i, j) for i, row in enumerate(was) for j, cell in enumerate(row) if not cell}
    assert {(i, j) for i, row in enumerate(now) for j, cell in enumerate(row) if cell != was[i][j]} == gaps
    assert after[3].startswith('"Smith; Cy";')
    weight, owner = now[2][1], now[4][3]
    assert weight.replace(",", ".") == f"{float(weight.replace(',', '.')):.1f}"  # as many decimals, and their comma
    assert owner in ("yes", "No")  # as that word is written there


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".parquet"])
def test_every_kind_of_file_holds_the_same_values(run, ending, tmp_path):
    frame = run.pair.data  # an outline is enough: the columns
    table = pd.DataFrame(
        {"weight": [70.5, None], "city": [None, "Rome"], "owner": ["yes", None], "children": [None, 2.0]}
    )
    source, out = tmp_path / "people.parquet", tmp_path / f"whole{ending}"
    table.to_parquet(source)
    fill_file(run, source, out, draws=5, sweeps=3)
    readers = {".parquet": pd.read_parquet, ".tsv": lambda path: pd.read_csv(path, sep="\t")}
    whole = readers.get(ending, pd.read_csv)(out)
    pd.testing.assert_frame_equal(whole, run.fill_gaps(table, 5, sweeps=3), check_dtype=False)
    assert not frame.coded(whole).__array__().dtype.hasobject
    assert (out.read_bytes()[:2] == b"\x1f\x8b") == ending.endswith(".gz")
    if ending.endswith(".gz"):
        assert gzip.decompress(out.read_bytes()).decode().startswith("weight,city")


def test_row_names_and_missing_headers_stay(iris, tmp_path):
    run = zoo.fit(zoo.create("gmm", iris, components=2), iris, seeds=1, steps=5, progress=False)
    names = ",".join(iris.names)
    for text in (f",{names}\na,5.1,3.5,1.4,0.2\nb,4.9,,1.4,0.2\n", f"{names}\n5.1,3.5,1.4,0.2\n4.9,,1.4,0.2\n"):
        (tmp_path / "in.csv").write_text(text)
        fill_file(run, tmp_path / "in.csv", tmp_path / "out.csv", draws=5, sweeps=3)
        head, first, second = (tmp_path / "out.csv").read_text().splitlines()
        assert [head, first] == text.splitlines()[:2]
        assert second.startswith(text.splitlines()[2].partition(",,")[0])


def test_what_was_missing_in_training_is_so_still(run):
    table = pd.DataFrame({"weight": [70.5, 60.0], "city": ["Rome", "Bonn"], "owner": "yes", "children": [-9, 1]})
    whole = run.fill_gaps(table, 5, sweeps=3)
    assert whole["children"].tolist()[1] == 1
    assert whole["children"][0] >= 0
    assert pd.api.types.is_integer_dtype(whole["children"])


def test_an_array_comes_back_as_one(iris, tmp_path):
    run = zoo.fit(zoo.create("gmm", iris, components=2), iris, seeds=1, steps=5, progress=False)
    x = iris.test.values.copy()
    x[0, 2] = np.nan
    np.save(tmp_path / "in.npy", x)
    fill_file(run, tmp_path / "in.npy", tmp_path / "out.npy")
    whole = np.load(tmp_path / "out.npy")
    assert np.isfinite(whole).all()
    assert np.array_equal(whole[~np.isnan(x)], x[~np.isnan(x)])


def test_categories_are_written_as_in_the_frame():
    frame = pd.DataFrame({"city": pd.Categorical(["Rome", None]), "owner": ["YES", None], "other": [1, 2]})
    values = np.array([[1.0, 1.0], [0.0, 0.0]])
    whole = filled([CITY, OWNER], frame, values, np.array([[False, False], [True, True]]))
    assert whole["city"].tolist() == ["Rome", "Bonn"]
    assert whole["owner"].tolist() == ["YES", "no"]
    assert whole["other"].tolist() == [1, 2]
    assert frame["owner"].tolist()[1] is None or pd.isna(frame["owner"][1])  # the caller's own is left alone


WRONG = {
    "column": (
        {"weight": [1.0], "City": ["Rome"]},
        r"no column 'city', which the pair was trained on; did you mean 'City'\?",
    ),
    "category": (
        {"weight": [1.0], "city": ["Oslo"]},
        r"'Oslo' in row 0 \(counted from 0\), column 'city'.*'Bonn', 'Rome'",
    ),
    "number": (
        {"weight": [70.0] * 9 + ["heavy"], "city": ["Rome"] * 10},
        "column 'weight', row 9 .*'heavy' is not a number; write a number there, or leave it empty to fill it in",
    ),
    "words": ({"weight": ["heavy"], "city": ["Rome"]}, "column 'weight'"),
    "date": ({"weight": ["2020-01-01"] * 3, "city": ["Rome"] * 3}, "column 'weight' holds dates"),
}


@pytest.mark.parametrize(("table", "said"), WRONG.values(), ids=WRONG)
def test_a_table_of_other_values_is_refused_by_column(table, said):
    with pytest.raises(DataError, match=said):
        coded([WEIGHT, CITY], pd.DataFrame(table))


def test_a_frame_is_read_as_it_was_when_it_was_loaded():
    penguins = zoo.load_data("penguins")
    for part in ("train", "test"):
        values = getattr(penguins, part).values
        np.testing.assert_array_equal(penguins.coded(penguins.frame(part)), values)


def test_the_command_fills_a_file_and_says_how_much(run, tmp_path):
    run.save(tmp_path / "run")
    (tmp_path / "people.csv").write_text(PEOPLE)
    words = ["impute", tmp_path / "run", "--data", tmp_path / "people.csv", "--out", tmp_path / "whole.csv"]
    call = [str(word) for word in [*words, "--draws", 5, "--sweeps", 3]]
    first = CliRunner().invoke(app, [*call, "--json"])
    assert first.exit_code == 0
    assert json.loads(first.stdout)["filled"] == {"weight": 1, "city": 1, "owner": 1, "children": 1}
    again = CliRunner().invoke(app, call)
    assert again.exit_code == 2
    assert "exists: use --overwrite" in " ".join(again.stderr.split())
    third = CliRunner().invoke(app, [*call, "--overwrite"])
    assert third.exit_code == 0
    assert third.stdout.strip() == str(tmp_path / "whole.csv")
    assert "filled: 1 in weight, 1 in city" in third.stderr


@pytest.mark.parametrize("name", ["whole.xlsx", "whole.npy.gz"])
def test_a_file_that_is_not_written_here_is_refused_before_anything_is_computed(name, tmp_path):
    found = CliRunner().invoke(app, ["impute", "no run", "--data", "no file", "--out", str(tmp_path / name)])
    assert found.exit_code == 2
    assert ".csv, .tsv, .parquet, .npy" in found.stderr


def differing(before, after):
    """The cells that differ of two files of the same lines."""
    was, now = (text.split(b"\n") for text in (before, after))
    assert len(was) == len(now)
    pairs = [(a.split(b","), b.split(b",")) for a, b in zip(was, now, strict=True)]
    assert all(len(a) == len(b) for a, b in pairs)
    return [(one, other) for a, b in pairs for one, other in zip(a, b, strict=True) if one != other]


@pytest.mark.parametrize(
    "text",
    [
        b"weight,city,owner,children\r\n70.5,Rome,yes,1\r\n,Bonn,no,2\r\n",
        b"\xef\xbb\xbfweight,city,owner,children\n70.5,Rome,yes,1\n,Bonn,no,2\n",
        b"weight,city,owner,children\n70.5,  Rome,yes,1\n,Bonn  ,no,2\n",
        b"weight,city,owner,children,note,note,\n70.5,Rome,yes,1,a,b,c\n,Bonn,no,2,a,,d\n",
        b"weight,city,owner,children,note\n70.5,Rome,yes,1,NA\n,Bonn,no,2,None\n",
        "weight,city,owner,children,größe\n70.5,Rome,yes,1,ä\n,Bonn,no,2,ß\n".encode("latin-1"),
    ],
    ids=["CRLF", "BOM", "spaces", "names", "other words", "latin-1"],
)
def test_nothing_but_the_gap_differs_byte_by_byte(run, text, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(text)
    if b"\xe4" in text:
        with pytest.raises(DataError, match="encoding="):
            fill_file(run, source, out)
        return
    fill_file(run, source, out, draws=5, sweeps=3)
    ((was, now),) = differing(text, out.read_bytes())
    assert was == b"" and float(now)


def test_true_is_written_as_it_stands_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    told = np.where(rng.random(200) < 0.5, "TRUE", "FALSE")
    frame = pd.DataFrame({"told": told, "b": rng.normal(size=200).round(3)}).mask(rng.random((200, 2)) < 0.1)
    frame.to_csv(tmp_path / "in.csv", index=False)
    data = zoo.load_data(tmp_path / "in.csv")
    run = zoo.fit(zoo.create("mixed", data, hidden=(8,)), data, seeds=1, steps=20, compile="off", progress=False)
    fill_file(run, tmp_path / "in.csv", tmp_path / "out.csv", draws=5, sweeps=3)
    assert set(pd.read_csv(tmp_path / "out.csv", dtype=str)["told"]) == {"TRUE", "FALSE"}
    whole = run.fill_gaps(data.frame("train"), 5, sweeps=3)
    assert all(value == float(f"{value:.3f}") for value in whole["b"])  # and no 0.30000000000000004


def test_the_names_of_the_rows_of_a_frame_are_written(run, tmp_path):
    table = pd.DataFrame({"weight": [70.5, None], "city": ["Bonn", "Rome"], "owner": ["yes", "no"], "children": [1, 2]})
    table.set_axis(pd.Index(["i0", "i1"], name="key")).to_parquet(tmp_path / "in.parquet")
    fill_file(run, tmp_path / "in.parquet", tmp_path / "out.csv", draws=5, sweeps=3)
    assert pd.read_csv(tmp_path / "out.csv")["key"].tolist() == ["i0", "i1"]


def test_an_array_for_words_is_refused_before_anything_is_drawn(run, tmp_path):
    (tmp_path / "in.csv").write_text(PEOPLE)
    with pytest.raises(DataError, match="an array cannot hold words, and column 'city' does"):
        fill_file(run, tmp_path / "in.csv", tmp_path / "out.npy", draws=10**9)


def test_rows_without_any_entry_are_filled_too(run, monkeypatch):
    monkeypatch.setattr(zoo.runs, "MOST_DRAWN", 1)  # each row by itself
    table = pd.DataFrame(
        {"weight": [None, 70.0], "city": [None, "Rome"], "owner": [None, "yes"], "children": [None, 2]}
    )
    assert run.fill_gaps(table, 5, sweeps=3).notna().all(axis=None)


@pytest.mark.parametrize("weight", [1e9, 1e14, 1e300])
def test_a_number_that_is_far_out_is_no_hindrance_or_is_named(run, weight):
    table = pd.DataFrame({"weight": [weight, 70.0], "city": [None, "Rome"], "owner": "yes", "children": [1, 2]})
    if weight < 1e15:
        assert run.fill_gaps(table, 5, sweeps=3)["city"].notna().all()
    else:
        with pytest.raises(DataError, match=r"x holds 1e\+300 in row 0 \(counted from 0\), column 'weight'"):
            run.fill_gaps(table, 5, sweeps=3)
