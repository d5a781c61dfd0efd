"""The data room, held against scipy, numpy and arithmetic of its own."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zoo.data import PARTS, Data, ScalingKind, noisy
from zoo.errors import DataError, OptionError

numbers = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 3))
tables = st.tuples(st.integers(5, 30), st.integers(1, 4)).flatmap(lambda shape: arrays(float, shape, elements=numbers))


def corrupt(data, x, u, scale=1.0):
    return noisy(x, u, data.noise, float(data.resolution[0]) / scale)


def all_rows(data):
    return np.concatenate([getattr(data, part)["obs"].values for part in PARTS])


@given(x=tables, kind=st.sampled_from(get_args(ScalingKind)), seed=st.integers(0, 9))
def test_scaling_there_and_back(x, kind, seed):
    data = Data.from_array(x, scaling=kind, seed=seed)
    ahead = np.stack([x, x + 1])
    assert np.allclose(data.unscale(data.scale(ahead)), ahead, rtol=1e-9, atol=1e-6)
    assert np.all(data.scaling.scale > 0)
    assert np.array_equal(data.scaled("test"), data.scale(data.test.values))
    train = data.scaled("train")
    varies = data.train_std > 0
    if kind == "column":
        assert np.allclose(train.mean(axis=0), 0, atol=1e-6)
        assert np.allclose(train.std(axis=0)[varies], 1)
        assert np.all(train[:, ~varies] == 0)
    if kind == "scalar" and np.ptp(data.train.values) > 0:
        assert np.allclose([train.mean(), train.std()], [0, 1], atol=1e-6)


@given(x=tables, kind=st.sampled_from(get_args(ScalingKind)))
def test_change_of_variables_is_that_of_a_normal(x, kind):
    data = Data.from_array(x, scaling=kind)
    center, scale = data.scaling.center, data.scaling.scale
    in_units = scipy.stats.norm(center, scale).logpdf(data.test.values).sum(axis=1)
    in_scaled = scipy.stats.norm(0, 1).logpdf(data.scaled("test")).sum(axis=1)
    assert np.allclose(in_scaled - data.scaling.log_volume, in_units, rtol=1e-9, atol=1e-6)


@given(x=tables, seed=st.integers(0, 99), labelled=st.booleans())
def test_split_is_a_partition(x, seed, labelled):
    labels = np.arange(len(x)) % 3 if labelled else None
    data = Data.from_array(x, seed=seed, labels=labels)
    rows = all_rows(data)
    assert sorted(rows.tolist()) == list(range(len(x)))
    for part in PARTS:
        values = getattr(data, part)
        assert np.array_equal(values.values, x[values["obs"].values])
        if labelled:
            assert np.array_equal(values["label"].values, labels[values["obs"].values])


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5).filter(lambda s: sum(s) >= 10),
    seed=st.integers(0, 99),
)
def test_every_class_is_divided_in_proportion(sizes, seed):
    labels = np.repeat([f"class {i}" for i in range(len(sizes))], sizes)
    data = Data.from_array(np.random.default_rng(0).normal(size=(len(labels), 2)), labels=labels, seed=seed)
    for part in PARTS:
        values = getattr(data, part)
        found = Counter(values["label"].values.tolist())
        for i, size in enumerate(sizes):
            assert abs(found[f"class {i}"] - size * len(values) / len(labels)) < 2


def test_every_row_has_the_same_chance_of_being_tested():
    seeds = range(400)
    x = np.random.default_rng(1).normal(size=(20, 1))
    tested = Counter(row for seed in seeds for row in Data.from_array(x, seed=seed).test["obs"].values.tolist())
    counts = [tested[row] for row in range(20)]
    assert sum(counts) == 4 * len(seeds)
    # draws without replacement vary less than multinomial ones, so this is on the safe side
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_a_split_of_ones_own():
    split = ["test", "train", "validation", "train"]
    data = Data.from_array([[0.5], [1.5], [2.5], [3.5]], split=split)
    assert [getattr(data, part)["obs"].values.tolist() for part in PARTS] == [[1, 3], [2], [0]]


@pytest.mark.parametrize(
    "split",
    [
        (0.8, 0.2),
        (0.5, 0.5, 0.5),
        (1.0, 0.0, 0.0),
        (1.2, -0.4, 0.2),
        "abc",
        ["train", "exam", "test", "test"],
    ],
)
def test_bad_splits(split):
    with pytest.raises(DataError, match=r"split|every part needs a row"):
        Data.from_array([[0.5], [1.5], [2.5], [3.5]], split=split)


def test_statistics_come_from_the_training_part_alone():
    x = np.random.default_rng(0).normal(size=(50, 3))
    first = Data.from_array(x)
    moved = x.copy()
    moved[np.concatenate([first.validation["obs"], first.test["obs"]])] += 1e6
    second = Data.from_array(moved)
    assert np.array_equal(first.scaling.center, second.scaling.center)
    assert np.array_equal(first.scaling.scale, second.scaling.scale)
    assert np.allclose(first.train_std, x[first.train["obs"]].std(axis=0))


@pytest.mark.parametrize(
    ("values", "support", "count"),
    [
        ([0, 1, 1, 0], "binary", None),
        ([0, 0, 0, 0], "binary", None),
        ([1, 2, 3, 4], "ordinal", 4),
        ([-2, 0, 2, 4], "ordinal", 4),
        ([0, 51, 102, 255], "ordinal", 6),
        ([0, 1, 2, 31], "ordinal", 32),
        ([0, 1, 2, 32], "count", None),
        ([7, 7, 7, 7], "count", None),
        ([-1, 0, 1, 40], "real", None),
        ([0.0, 0.5, 0.25, 1.0], "unit", None),
        ([0.0, 0.5, 0.25, 1.5], "real", None),
        ([2.0**60, 0, 0, 1], "count", None),
    ],
)
def test_inferred_support_of_a_table(values, support, count):
    data = Data.from_array(np.array(values, dtype=float).reshape(-1, 1))
    assert data.support == support
    assert (data.levels and len(data.levels)) == count


def test_images_may_have_256_levels():
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 5))
    x[0, 0, :2] = 0, 255
    data = Data.from_array(x)
    assert (data.support, data.levels, data.image_shape) == ("ordinal", tuple(map(float, range(256))), (4, 5))
    assert data.names[:6] == ("pixel_0_0", "pixel_0_1", "pixel_0_2", "pixel_0_3", "pixel_0_4", "pixel_1_0")
    assert data.scaling.kind == "scalar"
    assert np.array_equal(data.train.values[0], x[data.train["obs"].values[0]].ravel())
    assert Data.from_array(x[:, None]).image_shape == (1, 4, 5)
    assert Data.from_array(x.reshape(20, 20)).support == "count"


@pytest.mark.parametrize(
    ("support", "value"), [("binary", 2), ("unit", 1.5), ("count", -1), ("count", 0.5), ("ordinal", 0.5)]
)
def test_a_declared_support_names_the_first_offender(support, value):
    x = np.ones((10, 3))
    x[:, 0] = 0
    x[4, 1] = x[6, 0] = value
    with pytest.raises(DataError, match=r"column 'b', row 4 \(counted from 0\).*2 such values, in a, b.*auto"):
        Data.from_array(x, names=["a", "b", "c"], support=support)


def test_declared_levels():
    x = np.array([0.0, 0.25, 0.5, 0.25])[:, None]
    data = Data.from_array(x, levels=[0, 0.25, 0.5, 0.75, 1])
    assert (data.support, data.levels) == ("ordinal", (0, 0.25, 0.5, 0.75, 1))
    tenths = np.array([0.1, 0.30000000000000004, 0.7, 0.2])[:, None]
    assert Data.from_array(tenths, levels=np.arange(11) / 10).support == "ordinal"
    with pytest.raises(DataError, match="'x0', row 1"):
        Data.from_array(x, levels=[0, 0.5, 1])
    with pytest.raises(DataError, match="'x0', row 3"):
        Data.from_array([[0.0], [1.0], [2.0], [3.0]], levels=range(3))
    for levels in ([1], [1, 0], [0, 1, 3], [], [[0, 1]]):
        with pytest.raises(DataError, match="equally spaced"):
            Data.from_array(x, levels=levels)
    with pytest.raises(DataError, match="leave one of them out"):
        Data.from_array(x, levels=[0, 0.25, 0.5], support="real")


def test_scaling_chosen():
    ratings, image = np.arange(20).reshape(10, 2) % 5, np.arange(40).reshape(10, 2, 2) / 3
    assert Data.from_array(ratings).scaling.kind == "scalar"
    assert Data.from_array(image).scaling.kind == "scalar"
    assert Data.from_array(image.reshape(10, 4)).scaling.kind == "column"
    coins = Data.from_array(ratings % 2)
    assert (coins.scaling.kind, coins.scaling.log_volume) == ("none", 0.0)
    assert np.array_equal(coins.scaled("train"), coins.train.values)


def test_constant_columns_are_kept_and_reported():
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[:, 1] = 0.1  # whose mean over many rows is not 0.1 in floating point
    data = Data.from_array(x, names=["a", "b", "c"])
    assert data.constant_columns == ("b",)
    assert data.varying_in_test == ()
    assert data.train_std[1] == 0
    assert data.scaling.scale[1] == 1
    assert np.all(data.scaled("train")[:, 1] == 0)
    assert "1 of 3 columns is constant in the training part (b)" in data.notes[0]
    x[data.test["obs"].values[0], 1] = 5
    data = Data.from_array(x, names=["a", "b", "c"])
    assert (data.constant_columns, data.varying_in_test) == (("b",), ("b",))
    assert "not in the test part: b" in data.notes[1]


def test_one_value_throughout():
    data = Data.from_array(np.full((10, 2), 0.1), scaling="scalar")
    assert (data.scaling.scale.tolist(), data.scaling.log_volume) == ([1, 1], 0)


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_values_that_cannot_be_squared(value):
    with pytest.raises(DataError, match=r"'x1'.*another unit"):
        Data.from_array(np.random.default_rng(0).normal(size=(10, 2)) * [1, value])


def test_threshold():
    x = np.arange(40).reshape(20, 2) % 5
    data = Data.from_array(x, name="ratings", binarize="threshold")
    assert (data.name, data.support, data.levels) == ("ratings (binarized by threshold)", "binary", None)
    assert (data.noise, data.scaling.kind) == (None, "none")
    assert np.array_equal(data.train.values, x[data.train["obs"]] >= 2)
    assert np.array_equal(Data.from_array(x, binarize=0.75).test.values, x[data.test["obs"]] >= 3)
    grey = Data.from_array(x / 5, binarize="threshold")
    assert np.array_equal(grey.test.values, x[data.test["obs"]] / 5 >= 0.5)


def test_stochastic_binarization():
    x = np.random.default_rng(0).integers(0, 5, (4000, 2))
    data = Data.from_array(x, support="binary", binarize="stochastic", seed=3)
    assert (data.support, data.noise, data.scaling.kind) == ("binary", "binarize", "none")
    assert np.array_equal(data.train.values, x[data.train["obs"]] / 4)
    for part in (data.validation, data.test):
        assert set(np.unique(part.values)) == {0, 1}
    intensity = x[data.test["obs"]] / 4
    for level in np.unique(intensity):
        ones = data.test.values[intensity == level]
        assert abs(ones.mean() - level) < 0.08
    again = Data.from_array(x, binarize="stochastic", seed=3)
    assert np.array_equal(again.test, data.test)
    assert any("seed 3" in note for note in data.notes)
    u = np.random.default_rng(1).random(data.train.shape)
    drawn = corrupt(data, data.train.values, u)
    assert np.array_equal(drawn, u < data.train.values)
    assert np.allclose(drawn.std(axis=0), data.train_std, atol=0.01)


def test_dequantization():
    x = np.arange(4000).reshape(2000, 2) % 5 * 2
    x[:, 1] = 4
    data = Data.from_array(x, support="real", dequantize=True)
    assert (data.support, data.levels, data.noise, data.resolution[0]) == (
        "real",
        (0.0, 2.0, 4.0, 6.0, 8.0),
        "dequantize",
        2.0,
    )
    assert data.constant_columns == ()
    assert np.abs(data.test.values - x[data.test["obs"]]).max() <= 1
    u = np.random.default_rng(1).random(data.train.shape)
    drawn = corrupt(data, data.train.values, u)
    assert np.array_equal(drawn, x[data.train["obs"]] + (u - 0.5) * 2)
    assert np.allclose(drawn.std(axis=0), data.train_std, rtol=0.03)
    scaled = corrupt(data, data.scaled("train"), u, data.scaling.scale)
    assert np.allclose(data.unscale(scaled), drawn)
    assert np.isclose(data.scaled("train").var() + 4 / 12 / data.scaling.scale[0] ** 2, 1)
    assert "lower bound on the log mass" in data.notes[0]


def test_dequantized_density_bounds_the_mass():
    # the note's claim, for a normal density and the mass it gives each cell
    spacing, dims = 2.0, 3
    data = Data.from_array(np.arange(60).reshape(20, dims) % 5 * 2, dequantize=True)
    x = np.array([2.0, 4.0, 8.0])
    noisy = corrupt(data, x, np.random.default_rng(0).random((100_000, dims)))
    normal = scipy.stats.norm(3, 1.5)
    log_mass = np.log(normal.cdf(x + 1) - normal.cdf(x - 1)).sum()
    score = normal.logpdf(noisy).sum(axis=1).mean()
    assert score < log_mass - dims * np.log(spacing) < score + 1


def test_noise_is_arithmetic_on_tensors():
    torch = pytest.importorskip("torch")
    grey = Data.from_array([[0.2], [0.4], [0.6], [0.8]], binarize="stochastic")
    levels = Data.from_array([[1], [2], [3], [4]], dequantize=True)
    plain = Data.from_array([[1], [2], [3], [4]])
    x = torch.tensor([[0.25], [0.75]])
    u = torch.tensor([[0.5], [0.5]])
    for dtype in (torch.float32, torch.float64):
        assert corrupt(grey, x.to(dtype), u.to(dtype)).dtype == dtype
        assert corrupt(levels, x.to(dtype), u.to(dtype)).dtype == dtype
    assert corrupt(grey, x, u).tolist() == [[0], [1]]
    assert corrupt(levels, x, u - 0.5, scale=2.0).tolist() == [[0.0], [0.5]]
    assert corrupt(plain, x, u) is x


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"binarize": "threshold"}, r"real.*name their levels"),
        ({"dequantize": True}, r"real.*name the levels"),
        ({"binarize": "threshold", "dequantize": True}, "exclude each other"),
        ({"support": "unit", "binarize": "half"}, "'half' must be"),
        ({"scaling": "robust"}, "'scalar'"),
        ({"support": "integer"}, "'ordinal'"),
        ({"image_shape": (3, 3)}, "multiply to 4 columns"),
        ({"names": ["a", "a", "b", "c"]}, "4 different names"),
        ({"names": ["a"]}, "4 different names"),
        ({"image_shape": "ab"}, "image_shape='ab'"),
        ({"image_shape": ""}, "image_shape=''"),
        ({"image_shape": 4}, "image_shape=4"),
        ({"image_shape": (2.0, 2.0)}, "image_shape="),
        ({"image_shape": (-2, -2)}, "image_shape="),
        *(({"seed": seed}, "seed=.*0 to 9223372036854775807") for seed in (-1, "a", 1.5, None, True, 2**63)),
        ({"levels": "ab"}, "levels='ab'"),
        ({"split": 0.5}, "split=0.5"),
        ({"support": "unit", "binarize": [0.5]}, "binarize="),
        ({"labels": [1, 2]}, r"labels must be \(10,\)"),
        ({"labels": "target"}, r"labels must be \(10,\).*target"),
        ({"labels": [1.0] * 7 + [np.nan] * 3}, "label of row 7"),
        ({"labels": ["a"] * 9 + [None]}, "label of row 9"),
    ],
)
def test_bad_options(options, match):
    x = np.linspace(0, 1 if options.get("support") == "unit" else 3, 40).reshape(10, 4)
    with pytest.raises((DataError, OptionError), match=match):
        Data.from_array(x, **options)


def test_part_by_name():
    with pytest.raises(DataError, match="'train', 'validation', 'test'"):
        Data.from_array([[0.5], [1.5], [2.5]]).scaled("tests")


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (scipy.sparse.eye_array(4, format="csr"), r"x is sparse.*x\.toarray\(\)"),
        (np.ma.masked_equal([[3, 2], [3, 4], [3, 6]], 3), r"no entry of x0 was observed .*drop=\['x0'\]"),
        (
            np.array([["2020-01-01"]] * 4, dtype="datetime64[ns]"),
            r"column 'x0' holds dates or times.*drop=\['x0'\] \(--drop x0\)",
        ),
        ([["1,5", "2"]] * 4, "column 'x0', row 0.*'1,5' is not a number but one with a decimal comma.*; write 1.5"),
        ([[1, 2], [3]], "rows of x do not form an array"),
    ],
)
def test_what_is_no_table_of_numbers_is_told_by_name(x, match):
    with pytest.raises(DataError, match=match):
        Data.from_array(x)


BIG = 2**53 + np.arange(1, 40, 2)


@pytest.mark.parametrize(
    "x",
    [
        np.stack([np.linspace(0, 1, 20).astype(int), BIG], axis=1),
        pd.DataFrame({"x0": np.linspace(0, 1, 20), "x1": BIG}),
        pd.DataFrame({"x0": np.linspace(0, 1, 20), "x1": pd.array(-BIG, dtype="Int64")}),
        [[0.5, int(n)] for n in BIG],
        [[0.5, 10**400], [1.5, 2], [2.5, 3]],
    ],
)
def test_integers_that_would_be_rounded_are_refused(x):
    if isinstance(x, list):  # NumPy takes a list of numbers for floats unless it is told otherwise
        x = np.array(x, dtype=object)
    with pytest.raises(DataError, match=r"column 'x1', row 0 .* is beyond what float64 holds exactly") as raised:
        Data.from_array(x)
    assert len(str(raised.value)) < 250


def test_large_integers_that_float64_holds_are_taken():
    x = np.stack([(BIG - 1) * 2**10, np.arange(20)], axis=1)
    train = Data.from_array(x).train
    assert train.values.astype(np.int64).tolist() == x[train["obs"]].tolist()


def test_masked_arrays_without_masked_entries_pass():
    assert Data.from_array(np.ma.array([[1.5], [2.5], [3.5]])).features == 1


@given(
    x=tables,
    bad=st.sampled_from([np.inf, -np.inf, "n/a", "12 kg", 1j, np.datetime64("2020-01-01")]),
    as_frame=st.booleans(),
    data=st.data(),
)
def test_a_bad_value_is_found_wherever_it_is(x, bad, as_frame, data):
    row, j = data.draw(st.integers(0, len(x) - 1)), data.draw(st.integers(0, x.shape[1] - 1))
    names = [f"column {k}" for k in range(x.shape[1])]
    table = x.astype(object)
    table[row, j] = bad
    given_as = pd.DataFrame(table, columns=names) if as_frame else table
    with pytest.raises(DataError) as raised:
        Data.from_array(given_as, names=None if as_frame else names)
    assert f"column 'column {j}', row {row} (counted from 0)" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "x",
    [
        [], [[]], np.zeros((0, 3)), np.zeros((3, 0)), [1.0, 2.0], 5.0, "text", None, np.zeros((2,) * 5),
        [[1, 2, 3]], [[1], [2]], [[1, 2], [3]], np.ma.masked_equal([[1, 2], [3, 4], [5, 6]], 3),
        np.array([["2020-01-01"]] * 4, dtype="datetime64[ns]"),
        np.ones((4, 1), dtype="timedelta64[ns]"), np.ones((4, 1), dtype=complex),
    ],
)  # fmt: skip
def test_what_is_no_table(x):
    with pytest.raises(DataError):
        Data.from_array(x)


def test_fingerprint_follows_what_matters():
    x = np.arange(60).reshape(30, 2) % 7
    base = Data.from_array(x)
    same = [
        Data.from_array(x.astype(np.float32), name="another name"),
        Data.from_array(np.asfortranarray(x)),
        Data.from_array(pd.DataFrame(x, columns=["x0", "x1"])),
        Data.from_array(np.where(x == 0, -0.0, x)),
    ]
    assert {data.fingerprint for data in same} == {base.fingerprint}
    changed = x.copy()
    changed[17, 1] += 1
    different = [
        Data.from_array(changed),
        Data.from_array(x, names=["a", "b"]),
        Data.from_array(x, seed=1),
        Data.from_array(x, split=(0.6, 0.2, 0.2)),
        Data.from_array(x, support="count"),
        Data.from_array(x, levels=range(8)),
        Data.from_array(x, scaling="column"),
        Data.from_array(x, image_shape=(1, 2)),
        Data.from_array(x, binarize="threshold"),
        Data.from_array(x, binarize="stochastic"),
        Data.from_array(x, dequantize=True),
    ]
    assert len({data.fingerprint for data in [base, *different]}) == 1 + len(different)
    assert len(base.fingerprint) == hashlib.sha256().digest_size * 2


def test_fingerprint_is_the_same_in_another_process():
    make = 'Data.from_array(np.arange(60).reshape(30, 2) % 7, binarize="stochastic", labels=list("abc") * 10)'
    code = f"import numpy as np; from zoo.data import Data; print({make}.fingerprint)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == eval(make).fingerprint


@given(x=tables, kind=st.sampled_from(get_args(ScalingKind)), image=st.booleans())
def test_outline_survives_json(x, kind, image):
    assume(not image or x.shape[1] > 1)
    data = Data.from_array(x, scaling=kind, image_shape=(1, x.shape[1]) if image else None)
    back = Data.from_outline(json.loads(json.dumps(data.outline(), allow_nan=False)))
    assert back.outline() == data.outline()
    assert back.scaling.center.tolist() == data.scaling.center.tolist()
    assert [len(getattr(back, part)) for part in PARTS] == [0, 0, 0]
    assert (back.columns, back.features, back.image_shape) == (data.columns, data.features, data.image_shape)
    assert back.constant_columns == data.constant_columns
    assert back.scaling.log_volume == data.scaling.log_volume
    assert np.array_equal(back.scale(x), data.scale(x))
    told, kept = data.summary(), back.summary()
    assert json.loads(json.dumps(told)) == told
    assert {**kept, **{part: told[part] for part in PARTS}} == told


def test_outline_keeps_the_noise():
    data = Data.from_array(np.arange(40).reshape(20, 2) % 5, dequantize=True)
    back = Data.from_outline(json.loads(json.dumps(data.outline())))
    u = np.random.default_rng(0).random((3, 2))
    assert np.array_equal(corrupt(back, np.ones((3, 2)), u), corrupt(data, np.ones((3, 2)), u))


def test_nothing_global_changes_and_torch_stays_out():
    state = np.random.get_state()[1].copy()
    Data.from_array(np.arange(40).reshape(20, 2) % 5, binarize="stochastic")
    assert np.array_equal(np.random.get_state()[1], state)
    code = "import sys, zoo.sources; print(sorted({'torch', 'pyro', 'xarray', 'pandas'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("ask", ["nearest", "as_frame", "scale"])
def test_rows_of_another_width_are_refused(ask, iris):
    with pytest.raises(DataError, match=r"x has shape \(1, 2\): its last axis must be the 4 columns"):
        getattr(iris, ask)([[1.0, 2.0]])
