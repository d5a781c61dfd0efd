"""zoo score, embed and sample: tables in files, and what is written of their rows."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import zoo
from zoo.command_line import app


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, saved, of a table of each kind of column."""
    rng = np.random.default_rng(0)
    weight = rng.normal(70, 9, 200).round(1)
    frame = pd.DataFrame(
        {"weight": weight, "city": np.where(weight > 70, "Rome", "Bonn"), "children": rng.poisson(1.5, 200)}
    )
    folder = tmp_path_factory.mktemp("table")
    frame.to_csv(folder / "train.csv", index=False)
    data = zoo.load_data(folder / "train.csv")
    run = zoo.fit(zoo.create("mixed", data, hidden=(8,)), data, seeds=2, steps=60, compile="off", progress=False)
    run.save(folder / "run")
    (folder / "people.csv").write_text('name;weight;city;children;id\nAnn;70,5;Rome;2;007\n"Smith; Cy";81;;0;008\n')
    return folder


def call(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_score_writes_a_row_for_each_beside_what_names_it(place, tmp_path):
    out = tmp_path / "scores.csv"
    code, said, told = call("score", place / "run", "--data", place / "people.csv", "--out", out, "--samples", 50)
    assert (code, said.strip()) == (0, str(out)) and told.startswith("scored: 2 rows")
    written = pd.read_csv(out, sep=";", decimal=",", dtype={"id": str})
    assert list(written)[:5] == ["name", "id", "log_evidence", "seed_sd", "rank"]
    assert written["name"].tolist() == ["Ann", "Smith; Cy"] and written["id"].tolist() == ["007", "008"]
    run = zoo.load_run(place / "run")
    ours = run.score(pd.DataFrame({"weight": [70.5, 81], "city": ["Rome", None], "children": [2, 0]}), samples=50)
    pd.testing.assert_frame_equal(written.iloc[:, 2:], ours, atol=1e-6, check_dtype=False)


def test_json_and_other_training_rows(place, tmp_path):
    few = tmp_path / "few.csv"
    pd.read_csv(place / "train.csv")[:3].to_csv(few, index=False)
    words = ("score", place / "run", "--data", few, "--out", tmp_path / "s.parquet", "--columns", 1, "--samples", 50)
    code, said, _ = call(*words, "--training", few, "--json")
    assert code == 0 and json.loads(said) == {"out": str(tmp_path / "s.parquet"), "rows": 3, "odd": 0}
    assert sorted(pd.read_parquet(tmp_path / "s.parquet")["rank"]) == [0.5, 0.75, 1.0]
    assert call(*words)[0] == 2  # it is there


def test_embed_keeps_names_labels_and_columns_of_others(place, tmp_path):
    run = zoo.load_run(place / "run")
    code, *_ = call("embed", place / "run", "--data", place / "people.csv", "--out", tmp_path / "z.parquet")
    written = pd.read_parquet(tmp_path / "z.parquet")
    latents = [f"z{number}" for number in range(run.encode([[70.5, 1, 2]]).shape[2])]
    assert code == 0 and list(written) == ["name", "id", *latents]
    code, *_ = call("embed", place / "run", "--data", place / "train.csv", "--out", tmp_path / "z.npy")
    expected = run.embed(pd.read_csv(place / "train.csv"))
    assert code == 0
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected)


def test_labels_of_a_data_set_by_name_are_kept(tmp_path, iris):
    run = zoo.fit(zoo.create("gmm-constrained", iris, components=2), iris, seeds=1, steps=5, progress=False)
    run.save(tmp_path / "run")
    code, *_ = call("embed", tmp_path / "run", "--data", "iris", "--out", tmp_path / "z.csv")
    written = pd.read_csv(tmp_path / "z.csv")
    assert code == 0 and list(written) == ["label", "component0", "component1"] and len(written) == 150


def test_sample_writes_a_table_like_the_one_that_was_trained_on(place, tmp_path):
    code, said, _ = call("sample", place / "run", "-n", 5, "--seed", 3, "--out", tmp_path / "new.csv")
    assert code == 0 and said.strip() == str(tmp_path / "new.csv")
    written, ours = pd.read_csv(tmp_path / "new.csv"), zoo.load_run(place / "run").sample_frame(5, seed=3)
    pd.testing.assert_frame_equal(written, ours, check_dtype=False)
    assert zoo.load_data(tmp_path / "new.csv", split=(0.4, 0.3, 0.3)).names == ("weight", "city", "children")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("score", "--data", "people.csv", "--out", "s.npy"), "an array cannot hold words, and column 'name'"),
        (("sample", "--out", "s.npy"), "an array cannot hold words, and column 'city'"),
        (("embed", "--data", "people.csv", "--out", "z.xlsx"), "choose a name that ends in .csv"),
        (("embed", "--data", "people.csv", "--out", "z.csv", "--seed", "7"), "this run's seeds are 0, 1"),
        (("score", "--data", "odd.csv", "--out", "s.csv"), "'Oslo'"),
        (("score", "--data", "twice.csv", "--out", "s.csv", "--samples", "9"), "already has a column 'rank'"),
        (("score", "--data", "people.csv", "--out", "s.csv", "--training", "far.csv"), "far.csv: x holds 7e+30"),
        (("score", "--data", "same.csv", "--out", "s.csv"), "same.csv: more than one column is called 'city'"),
    ],
)
def test_mistakes_are_one_line(place, tmp_path, words, told, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text((place / "people.csv").read_text())
    (tmp_path / "odd.csv").write_text("weight,city,children\n70,Oslo,1\n71,Rome,2\n")
    (tmp_path / "twice.csv").write_text("weight,city,children,rank\n70,Bonn,1,1\n71,Rome,2,2\n")
    (tmp_path / "far.csv").write_text("weight,city,children\n7e30,Bonn,1\n")
    (tmp_path / "same.csv").write_text("weight,city,children,city\n70,Bonn,1,Rome\n71,Rome,2,Bonn\n")
    code, said, error = call(words[0], place / "run", *words[1:])
    assert (code, said) == (2, "") and error.startswith("error: ") and told in error
    assert not (tmp_path / words[words.index("--out") + 1]).exists()


def test_a_directory_of_runs_names_them(place, tmp_path):
    code, _, error = call("score", place, "--data", place / "people.csv", "--out", tmp_path / "s.csv")
    assert code == 2 and error.strip().endswith(f"the runs in it are {place / 'run'}: choose one.")
