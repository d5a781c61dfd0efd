"""Exact linear dependencies, held against tables whose null space is known."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import Data
from zoo.dependencies import MOST_COLUMNS, dependencies

RNG = np.random.default_rng(0)
N = 300
CELSIUS = np.round(RNG.normal(12, 9, N), 1)
FAHRENHEIT = 1.8 * CELSIUS + 32
OTHERS = RNG.normal(size=(N, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]])


def shares(decimals=None):
    parts = RNG.gamma([2.0, 0.5, 5.0, 1.0], size=(N, 4))
    parts = 100 * parts / parts.sum(axis=1, keepdims=True)
    return parts if decimals is None else parts.round(decimals)


def table(*columns):
    return np.column_stack([OTHERS, *columns])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (table(CELSIUS, FAHRENHEIT), ((2, 3),)),
        (table(CELSIUS, FAHRENHEIT).astype(np.float32), ((2, 3),)),
        (table(CELSIUS, FAHRENHEIT.astype(np.float32)), ((2, 3),)),
        (table(CELSIUS + 10_000, 3 * CELSIUS).astype(np.float32), ((2, 3),)),  # off by 3e-5 of its deviation
        (np.array([[float(str(v)) for v in row] for row in table(CELSIUS, FAHRENHEIT).astype(np.float32)]), ((2, 3),)),
        (table(CELSIUS, FAHRENHEIT.round(1)), ()),
        (table(CELSIUS, FAHRENHEIT.round()), ()),
        (table(shares()), ((2, 3, 4, 5),)),
        (table(shares()).astype(np.float32), ((2, 3, 4, 5),)),
        (table(shares(1)), ()),
        (table(shares(), CELSIUS, FAHRENHEIT), ((2, 3, 4, 5), (6, 7))),
        (table(CELSIUS, OTHERS.sum(axis=1)), ((0, 1, 3),)),
        (table(np.full(N, 0.1), np.full(N, 3.0)), ()),  # constants are told as such
        (table(CELSIUS, FAHRENHEIT + 1e-3 * CELSIUS**2), ()),
        (table(np.exp(3 * OTHERS[:, 0]), 2 * np.exp(3 * OTHERS[:, 0])), ((2, 3),)),
        (table(1.7e9 + np.rint(100 * CELSIUS), CELSIUS + RNG.normal(size=N)), ()),  # seconds, close to a function
        (table(OTHERS[:, 0] + 1e-3 * RNG.normal(size=N)), ()),
        (np.eye(4)[RNG.integers(4, size=N)], ((0, 1, 2, 3),)),
    ],
)
def test_what_depends_on_what(x, expected):
    assert tuple(columns for columns, _ in dependencies(np.asarray(x, dtype=float)).sets) == expected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (table(CELSIUS, FAHRENHEIT.round(1)), ((2, 3),)),
        (table(shares(2)), ((2, 3, 4, 5),)),
        (table(shares(1)), ((2, 3, 4, 5),)),
        (table(CELSIUS, FAHRENHEIT.round(1) + 0.1 * RNG.integers(-3, 4, N)), ()),
        (table(CELSIUS, FAHRENHEIT + 0.2 * RNG.normal(size=N)), ()),
        (table(CELSIUS, (CELSIUS + 0.2 * RNG.normal(size=N)).round(1)), ()),
        (RNG.integers(0, 9, size=(N, 12)).astype(float), ()),
    ],
)
def test_what_depends_on_what_but_for_its_decimals(x, expected):
    assert dependencies(x).sets == ()
    assert tuple(columns for columns, _ in dependencies(x, decimals=True).sets) == expected
    told = [note for note in Data.from_array(x).notes if "up to the rounding of their decimals" in note]
    assert len(told) == len(expected)


@given(sizes=st.lists(st.integers(2, 5), min_size=1, max_size=3), free=st.integers(0, 3), seed=st.integers(0, 999))
def test_planted_sets_are_found_in_any_order_of_the_columns(sizes, free, seed):
    rng = np.random.default_rng(seed)
    blocks = []
    for size in sizes:
        basis = rng.normal(size=(80, size - 1)) * 10.0 ** rng.uniform(-4, 4, size - 1)
        weights = rng.choice([-1, 1], size - 1) * rng.uniform(0.2, 3, size - 1) / basis.std(axis=0)
        blocks += [np.column_stack([basis, rng.normal() + basis @ weights])]
    x = np.column_stack([*blocks, rng.normal(size=(80, free))])
    owner = np.array([*np.repeat(np.arange(len(sizes)), sizes), *[-1] * free])
    order = rng.permutation(x.shape[1])
    expected = {tuple(np.flatnonzero(owner[order] == k).tolist()) for k in range(len(sizes))}
    found = dependencies(x[:, order])
    assert {columns for columns, _ in found.sets} == expected
    assert {superfluous for _, superfluous in found.sets} == {1}


def test_the_rank_is_that_of_the_singular_values():
    x = RNG.integers(0, 3, (60, 8)).astype(float)
    x[:, [5, 6]] = x[:, [0, 1]] @ [[1, 2], [1, -1]]
    x[:, 7] = x[:, 2] + x[:, 3] - x[:, 5]
    centred = x - x.mean(axis=0)
    found = dependencies(x)
    assert sum(superfluous for _, superfluous in found.sets) == 8 - np.linalg.matrix_rank(centred)
    for columns, superfluous in found.sets:
        assert superfluous == len(columns) - np.linalg.matrix_rank(centred[:, columns])
    # every column that takes part, and no other, can be left out without loss of rank
    free = [j for j in range(8) if np.linalg.matrix_rank(np.delete(centred, j, axis=1)) == 5]
    assert found.columns == tuple(free)


def test_data_tell_them_and_keep_them():
    data = Data.from_array(
        table(CELSIUS, FAHRENHEIT, shares()), names=["u", "v", "celsius", "fahrenheit", "a", "b", "c", "rest"]
    )
    assert data.dependent_columns == ("celsius", "fahrenheit", "a", "b", "c", "rest")
    assert any("fahrenheit is a linear function of celsius in the training part" in note for note in data.notes)
    assert any("a, b, c and rest are linearly dependent in the training part" in note for note in data.notes)
    back = Data.from_outline(json.loads(json.dumps(data.outline())))
    assert back.dependent_columns == data.dependent_columns
    assert data.summary()["dependent_columns"] == list(data.dependent_columns)
    outline = data.outline()
    del outline["dependent_columns"]  # as runs of old have it
    assert Data.from_outline(outline).dependent_columns == ()
    kelvin = Data.from_array(table(CELSIUS, FAHRENHEIT, CELSIUS + 273.15))
    assert any("x2, x3 and x4 are linear functions of one another" in note for note in kelvin.notes)


def test_they_are_looked_for_in_the_training_part_alone():
    x = table(CELSIUS, FAHRENHEIT)
    split = np.array(["train"] * 200 + ["validation"] * 50 + ["test"] * 50)
    x[250, 3] += 1
    assert Data.from_array(x, split=split).dependent_columns == ("x2", "x3")
    x[0, 3] += 1
    assert Data.from_array(x, split=split).dependent_columns == ()


def test_noise_leaves_none():
    x = RNG.integers(0, 5, (80, 2))
    x = np.column_stack([x, x.sum(axis=1)])
    assert Data.from_array(x).dependent_columns == ("x0", "x1", "x2")
    assert Data.from_array(x, dequantize=True).dependent_columns == ()
    assert Data.from_array(x, levels=range(9), binarize="stochastic").dependent_columns == ()


@pytest.mark.parametrize(("shape", "told"), [((10, 20), "more rows than columns"), ((400, 300), str(MOST_COLUMNS))])
def test_what_is_not_looked_into_is_told_once(shape, told):
    data = Data.from_array(RNG.normal(size=shape))
    assert data.dependent_columns == ()
    assert len(data.notes) == 1
    assert told in data.notes[0]


def test_many_rows_are_looked_at_in_part_and_then_whole():
    x = RNG.normal(size=(100_000, 64))
    assert dependencies(x).sets == ()
    x[:, 40] = x[:, 7] - x[:, 9]
    assert dependencies(x).columns == (7, 9, 40)


def test_many_sets_are_told_in_few_notes():
    x = RNG.normal(size=(200, 10))
    data = Data.from_array(np.column_stack(list(itertools.chain(*((column, 2 * column + 1) for column in x.T)))))
    assert len(data.dependent_columns) == 20
    assert len(data.notes) == 4
    assert "in 7 more sets" in data.notes[-1]
