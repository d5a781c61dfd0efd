"""Whatever is handed to a public function by mistake comes back as one error that says what it was."""

import math
import os
import threading
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.catalogue import options_of
from zoo.errors import ZooError

NO_RUN_IS = [[], [3], ["nowhere"], 3, None]
NO_COUNT_IS = [0, -1, 2.5, "3", math.nan, math.inf, None, True, 10**30]
NO_PAIR_IS = ["", "gmmm", "gmm:", "gmm:none", 3, None, ["gmm"]]
NO_DATA_ARE = [None, 3, "iris", [[1.0, 2.0]], np.zeros((3, 4))]
NO_TABLE_IS = [None, 3, "iris", [], [[]], [1.0, 2.0], np.zeros((3, 5)), np.zeros((2, 3, 4)), [["a"] * 4], len]
NO_TABLE_IS += [np.full((3, 4), bad) for bad in (math.nan, math.inf, -math.inf, 1j)]
SETTINGS = {
    "steps": [0, -5, 2.5, "many", None, math.nan, 10**30],
    "batch_size": [0, -1, "all", 1.5, 10**30],
    "learning_rate": [0, -1e-3, math.nan, math.inf, "fast"],
    "schedule": ["linear", 3, None],
    "objective": ["mse", 3],
    "warmup": [-1, 0.5, "all"],
    "clip": [0, -1, math.nan, math.inf],
    "same_batches": ["perhaps", 2],
    "checks": [0, -1, None],
    "keep": ["worst", None],
    "patience": [0, -1, 1.5],
    "compile": ["on", None, True],
    "precision": ["double", 16, None],
    "device": ["abacus", "cuda:99", 3],
    "on_divergence": ["panic", None],
    "seeds": [0, -1, 1.5, "3", [], [1, 1], [-1], [2**63], [0.5], None, True, 10**9],
    "checkpoint_every": [0, -1, 2.5, "3"],
}
OPTIONS = {
    "latent_dim": [0, -1, 1.5, "two", None],
    "hidden": [(0,), (-1,), "400", 3.5, (1.5,)],
    "activation": ["relux", 3, None],
    "network": ["transformer", 3],
    "floor": [0, -1, math.nan, math.inf, "small", None],
    "guide": ["none", 3],
    "nonsense": [1],
}
LOADING = {
    "support": ["integers", 3],
    "scaling": ["minmax", 3, None],
    "split": [(0.5, 0.5), (1, 0, 0), (math.nan,) * 3, "abc", 3, None],
    "seed": [-1, 1.5, "3", None],
    "binarize": ["maybe", math.nan, [0.5]],
    "levels": [[], [1, 1, 2], "abc", 3, [math.nan, 1]],
    "image_shape": [(3, 3), (0, 4), "ab", 3, (2.5, 2)],
    "labels": [[1, 2], 3, "none"],
    "max_bytes": [0, -1, 2.5, "3", math.nan, math.inf, True, 10**30],
}


def of(table):
    return [pytest.param(name, value, id=f"{name}={value!r}") for name, values in table.items() for value in values]


@pytest.fixture(scope="module")
def run(iris):
    return zoo.fit(zoo.create("gaussian-constrained", iris), iris, seeds=1, steps=2, compile="off", progress=False)


def refused(function, *arguments, **named):
    with pytest.raises(ZooError) as caught:
        function(*arguments, **named)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("value", NO_PAIR_IS, ids=repr)
def test_names(value, iris):
    refused(zoo.create, value, iris)
    if "gmm:" not in str(value):  # a card is that of all guides
        refused(zoo.card, value)


@pytest.mark.parametrize("value", NO_DATA_ARE, ids=repr)
def test_data(value, run):
    for call in (lambda: zoo.create("gmm", value), lambda: zoo.fit(run.pair, value), lambda: zoo.evaluate(run, value)):
        assert "data" in refused(call)


@pytest.mark.parametrize(("name", "value"), of(SETTINGS))
def test_arguments_of_fit(name, value, run, iris, tmp_path):
    place = tmp_path / "run" if name == "checkpoint_every" else None
    assert name in refused(zoo.fit, run.pair, iris, progress=False, checkpoint=place, **{name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), of(OPTIONS))
def test_options_of_a_pair(name, value, iris):
    assert name in refused(zoo.create, "gaussian-constrained", iris, **{name: value})


@pytest.mark.parametrize(("name", "value"), of(LOADING))
def test_arguments_of_load_data(name, value):
    assert name in refused(zoo.load_data, "iris", **{name: value})


@pytest.mark.parametrize("value", [3, ["a"], list("aabc"), "abcde"], ids=repr)
def test_columns(value, iris):
    assert "names" in refused(zoo.Data.from_array, iris.test.values, names=value)


@pytest.mark.parametrize("value", NO_TABLE_IS, ids=repr)
def test_tables(value, run):
    for call in (run.encode, run.reconstruct, run.log_evidence):
        assert refused(call, value).startswith("x ")
    if not (isinstance(value, np.ndarray) and value.dtype == float and value.shape[-1] == 4):  # NaN scales to NaN
        assert refused(run.pair.view.inward, value).startswith("x ")
        assert refused(run.pair.view.outward, value).startswith("x ")
    refused(zoo.witness, run.pair, value)
    refused(zoo.ceiling, run.pair, value)


@pytest.mark.parametrize("value", NO_COUNT_IS, ids=repr)
def test_counts(value, run, iris):
    x = iris.test.values
    assert "samples" in refused(run.log_evidence, x, samples=value)
    assert "samples" in refused(run.reconstruct, x, samples=value)
    assert "n=" in refused(run.sample, value)
    assert "samples" in refused(zoo.evaluate, run, iris, samples=value)
    assert "iterations" in refused(zoo.ceiling, run.pair, x, iterations=value)
    if value != 0:
        assert "reference" in refused(zoo.evaluate, run, iris, reference=value)
        assert "seed" in refused(run.sample, 2, seed=value)
        assert "seed" in refused(run.pair.replica, value)


@pytest.mark.parametrize("value", NO_RUN_IS, ids=repr)
def test_runs(value, iris, tmp_path):
    refused(zoo.compare, value)
    refused(zoo.report, value, tmp_path / "report")
    refused(zoo.load_run, value)
    refused(zoo.elpd, value)
    refused(zoo.evaluate, value, iris)
    refused(zoo.fit, value, iris)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    ["", "nowhere.csv", "/", ".", "s3://a/b.csv", "~nobody-here/x.csv", 3, None, b"iris", len, {}, set()],
    ids=repr,
)
def test_sources(value):
    refused(zoo.load_data, value)


@pytest.mark.parametrize("name", ["weights.safetensors", "run.nc", "run.json"])
def test_a_pipe_in_a_run_is_not_waited_for(name, run, tmp_path):
    run.save(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    told = []
    asking = threading.Thread(target=lambda: told.append(refused(zoo.load_run, tmp_path / "run")), daemon=True)
    asking.start()
    asking.join(20)
    assert told and (name in told[0])


NO_PLACE_IS = [None, 3, True, b"run", "", "a\0b", "\udcff", "x" * 300, "s3://a/run", "~nobody-here/run", [], len]
NO_SWITCH_IS = [None, "yes", 2, [], np.ones(2)]


@pytest.mark.parametrize("value", NO_PLACE_IS, ids=repr)
def test_places(value, run, iris):
    assert "path" in refused(run.save, value)
    assert "path" in refused(zoo.report, run, value)
    assert "path" in refused(zoo.load_run, value)
    if value is not None:
        assert "checkpoint" in refused(zoo.fit, run.pair, iris, progress=False, checkpoint=value)


@pytest.mark.parametrize("value", NO_SWITCH_IS, ids=repr)
def test_switches(value, run, iris, tmp_path):
    assert "progress" in refused(zoo.fit, run.pair, iris, progress=value)
    assert "ensembles" in refused(zoo.compare, run, ensembles=value)
    assert "ensembles" in refused(zoo.report, run, tmp_path, ensembles=value)
    assert "dequantize" in refused(zoo.load_data, "iris", dequantize=value)
    if value is not None:
        assert "bounded" in refused(zoo.list_pairs, bounded=value)


@pytest.mark.parametrize("value", [None, 3, "gmm", [], np.zeros((3, 4))], ids=repr)
def test_pairs(value, iris):
    for function in (zoo.witness, zoo.ceiling):
        assert "pair" in refused(function, value, iris.test)
    assert "pair" in refused(zoo.fit, value, iris)
    if not isinstance(value, str):
        assert "pattern" in refused(zoo.list_pairs, value)
    if value is not None:
        assert "support" in refused(zoo.list_pairs, support=value)


@pytest.mark.parametrize("value", [(), 3, None, "a", (1.0, -1.0), (math.nan,), (math.inf,)], ids=repr)
def test_sharpness(value, run, iris):
    assert "sharpness" in refused(zoo.witness, run.pair, iris.test, sharpness=value)


@pytest.mark.parametrize("value", [None, "small", -1.0, math.nan, math.inf], ids=repr)
def test_tolerance(value, run, iris):
    assert "tolerance" in refused(zoo.ceiling, run.pair, iris.test, tolerance=value)


def test_numpy_s_numbers_are_numbers(run, iris):
    one, two = np.int64(1), np.array(2)
    assert zoo.evaluate(run, iris, samples=two, temperatures=two)["heldout"].sizes["chain"] == 1
    assert run.sample(two, seed=one).shape == (1, 2, 4)
    assert zoo.fit(run.pair, iris, seeds=two, steps=one, progress=False).seeds == (0, 1)


numbers = st.integers(-3, 64) | st.floats() | st.booleans() | st.none()
cells = numbers | st.text(max_size=5)
values = cells | st.lists(cells, max_size=3) | st.dictionaries(st.text(max_size=3), cells, max_size=2)
settings_of_pairs = [(name, field.name) for name in zoo.list_pairs() for field in fields(options_of(name))]


@settings(max_examples=200)
@given(chosen=st.sampled_from(settings_of_pairs), value=values)
def test_any_value_of_any_option_makes_a_pair_or_an_error(chosen, value, iris):
    name, option = chosen
    with suppress(ZooError):
        pair = zoo.create(name, iris, **{option: value})
        assert zoo.create(name, iris, **{option: getattr(pair.options, option)}).options == pair.options


@settings(max_examples=200)
@given(
    x=st.lists(st.lists(cells, max_size=4), max_size=8) | st.lists(st.lists(st.floats(), min_size=2, max_size=2)),
    named=st.dictionaries(st.sampled_from(list(LOADING)), values, max_size=2),
)
def test_any_table_and_any_argument_makes_data_or_an_error(x, named):
    with suppress(ZooError):
        data = zoo.load_data(x, **named)
        assert sum(len(part) for part in (data.train, data.validation, data.test)) == len(x)
        assert np.isfinite(data.scaled("train")).all()
