"""Which rows go where, held against pandas and arithmetic of its own."""

import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.command_line import Loading
from zoo.data import PARTS, Data
from zoo.errors import DataError
from zoo.splits import split_rows, subsample
from zoo.tables import Rows, row_keys

RNG = np.random.default_rng(0)


def rows_of(data):
    return {part: getattr(data, part)["obs"].values for part in PARTS}


def standing_in_training(data, part):
    """By pandas, from the values alone."""
    train, other = (pd.DataFrame(getattr(data, p).values) for p in ("train", part))
    return int(other.merge(train.drop_duplicates(), how="left", indicator=True)["_merge"].eq("both").sum())


def with_copies(n=400, copies=120, columns=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns)) @ rng.normal(size=(columns, columns))
    return rng.permutation(np.concatenate([x, x[rng.integers(n, size=copies)]]))


FEW = settings(max_examples=25)


def test_a_subsample_is_of_different_rows_in_order_each_as_likely_as_any_other(digits):
    for most in (None, len(digits.test), 10**6):
        assert subsample(digits.test, most) is digits.test
    some = subsample(digits.test, 100)
    assert some.identical(digits.test.sel(obs=some["obs"])) and len(set(some["obs"].values)) == 100
    assert (np.diff(some["obs"]) > 0).all()
    assert some.identical(subsample(digits.test, 100)), "whatever was drawn in between"
    place = np.flatnonzero(np.isin(digits.test["obs"], some["obs"]))
    assert scipy.stats.kstest(place / len(digits.test), "uniform").pvalue > 0.05


def told(data):
    return " ".join(data.notes)


def log_kernel(x, train, width=1e-3):
    """The mean log density of x under a kernel estimate from the training part."""
    squared = ((x[:, None] - train[None]) ** 2).sum(axis=2) / width**2
    peak = -x.shape[1] * np.log(width * np.sqrt(2 * np.pi))
    return float(np.mean(scipy.special.logsumexp(-squared / 2, axis=1) - np.log(len(train)) + peak))


def test_no_test_row_is_trained_on():
    # a narrow kernel stands for a learned pair that remembers: row by row it scores by what it has seen
    x, truth = with_copies(), None
    by_rows, grouped = Data.from_array(x, split="rows"), Data.from_array(x)
    truth = scipy.stats.multivariate_normal(x.mean(axis=0), np.cov(x.T))
    remembered = {}
    for data in (by_rows, grouped):
        seen = [np.any(np.all(row == data.train.values, axis=1)) for row in data.test.values]
        gain = [log_kernel(row[None], data.train.values) - truth.logpdf(row) for row in data.test.values]
        remembered[data.fingerprint] = (sum(seen), sum(np.array(gain) > 0))
    assert remembered[by_rows.fingerprint] == (standing_in_training(by_rows, "test"),) * 2
    assert remembered[by_rows.fingerprint][0] > 20
    assert remembered[grouped.fingerprint] == (0, 0)
    assert standing_in_training(grouped, "validation") == 0
    assert "120 of 520 rows are equal to an earlier one: equal rows were kept in one part" in told(grouped)
    assert "also occur in" not in told(grouped)


@FEW
@given(seed=st.integers(0, 999), columns=st.integers(1, 4), copies=st.integers(1, 80))
def test_rows_that_also_stand_in_training_are_counted(seed, columns, copies):
    x = with_copies(100, copies, columns, seed)
    data = Data.from_array(x, split="rows", seed=seed)
    for part in ("test", "validation"):
        found, note = standing_in_training(data, part), f"{len(getattr(data, part))} {part} rows"
        assert (f"{found} of {note}" in told(data)) == bool(found)
    assert ('split="grouped" keeps equal rows together' in told(data)) == ("also occur" in told(data))
    parts = np.random.default_rng(seed).choice(PARTS, len(x))
    given_parts = Data.from_array(x, split=parts.tolist())
    assert [rows_of(given_parts)[part].tolist() for part in PARTS] == [
        np.flatnonzero(parts == p).tolist() for p in PARTS
    ]
    found = standing_in_training(given_parts, "test")
    assert (f"{found} of {len(given_parts.test)} test rows" in told(given_parts)) == bool(found)


@pytest.mark.parametrize("labels", [None, np.arange(200) % 3])
@pytest.mark.parametrize("x", [RNG.normal(size=(200, 3)), RNG.normal(size=(200, 3)).astype(np.float32)])
def test_without_copies_the_split_is_that_of_rows(x, labels):
    grouped, by_rows = (Data.from_array(x, split=split, labels=labels, seed=3) for split in ("grouped", "rows"))
    assert grouped.fingerprint == by_rows.fingerprint
    assert grouped.notes == by_rows.notes == ()


def test_the_split_of_data_sets_without_copies_has_not_changed():
    # as it was before copies were looked for
    for name, digest in (("wine", "765ad8f484472218"), ("digits", "ee2f0130a2d384f4")):
        data = zoo.load_data(name)
        rows = np.concatenate([part["obs"].values for part in (data.train, data.validation, data.test)])
        assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest().startswith(digest)


group_sizes = st.lists(st.integers(1, 30), min_size=4, max_size=60)


@FEW
@given(
    sizes=group_sizes,
    seed=st.integers(0, 99),
    copies=st.booleans(),
    fractions=st.sampled_from(["grouped", (0.5, 0.2, 0.3)]),
)
def test_groups_stay_together(sizes, seed, copies, fractions):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(groups), 2))
    if copies:
        x[-1] = x[0]  # which joins two groups
    data = Data.from_array(x, groups=groups, seed=seed, split=fractions)
    rows = rows_of(data)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(x)))
    seen = Counter(group for part in PARTS for group in set(groups[rows[part]].tolist()))
    assert set(seen.values()) == {1}
    assert f"Each of {len(sizes)} groups is in one part" in told(data)
    if copies:
        assert sum(0 in index for index in rows.values()) == 1
        assert any({0, len(x) - 1} <= set(index.tolist()) for index in rows.values())


@FEW
@given(seed=st.integers(0, 999), most=st.integers(1, 8), fractions=st.sampled_from(["grouped", (0.5, 0.2, 0.3)]))
def test_sizes_are_those_of_the_fractions_to_within_two_groups(seed, most, fractions):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, size=100)
    groups = np.repeat(np.arange(100), sizes)
    data = Data.from_array(rng.normal(size=(len(groups), 1)), groups=groups, seed=seed, split=fractions)
    wanted = (0.7, 0.1, 0.2) if fractions == "grouped" else fractions
    for part, fraction, off in zip(PARTS, wanted, (4, 2, 2), strict=True):
        assert abs(len(getattr(data, part)) - fraction * len(groups)) <= off * max(sizes)


@FEW
@given(seed=st.integers(0, 999), classes=st.integers(2, 4))
def test_labels_stratify_whole_groups(seed, classes):
    rng = np.random.default_rng(seed)
    group_label = rng.integers(classes, size=200)
    sizes = rng.integers(1, 4, size=200)
    groups, labels = np.repeat(np.arange(200), sizes), np.repeat(group_label, sizes)
    data = Data.from_array(rng.normal(size=(len(groups), 1)), groups=groups, labels=labels, seed=seed)
    for part in PARTS:
        found = Counter(group_label[list(set(groups[rows_of(data)[part]].tolist()))].tolist())
        total = sum(found.values())
        for k in range(classes):
            # in groups, as in rows where every row is a group of its own
            assert abs(found[k] - np.sum(group_label == k) * total / 200) < 2


def test_every_group_has_the_same_chance_of_being_tested():
    sizes = np.repeat([1, 2, 5], 10)
    groups = np.repeat(np.arange(30), sizes)
    x, tested = np.random.default_rng(1).normal(size=(len(groups), 1)), Counter()
    for seed in range(200):
        tested.update(set(groups[Data.from_array(x, groups=groups, seed=seed).test["obs"].values].tolist()))
    counts = [tested[group] for group in range(30)]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_one_huge_group_is_trained_on_and_too_few_are_refused():
    x = RNG.normal(size=(100, 2))
    groups = np.r_[np.zeros(80), np.arange(1, 21)]
    for seed in range(10):
        assert set(range(80)) <= set(rows_of(Data.from_array(x, groups=groups, seed=seed))["train"].tolist())
    with pytest.raises(DataError, match=r"every part needs a row.*the largest such unit has 99"):
        Data.from_array(x, groups=np.r_[np.zeros(99), 1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"groups": [1, 2]}, r"groups must be \(10,\)"),
        ({"groups": [None, *"abcdefghi"]}, "the group of row 0"),
        ({"groups": np.arange(10) // 2, "split": "rows"}, "leave one of them out"),
        ({"split": "columns"}, '\'columns\' must be "grouped", "rows"'),
    ],
)
def test_bad_groups(options, match):
    with pytest.raises(DataError, match=match):
        Data.from_array(RNG.normal(size=(10, 2)), **options)


def test_a_group_that_a_given_split_divides_is_told():
    split = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    data = Data.from_array(RNG.normal(size=(10, 2)), split=split, groups=np.arange(10) // 3)
    assert "1 of 4 groups are in more than one part" in told(data)


ANSWERS = (RNG.random((500, 1)) < 0.3) ^ (RNG.random((500, 12)) < 0.03)  # who answers one way does so throughout
COUNTS = RNG.poisson(4, (300, 12))
ROUNDED = RNG.normal(size=(2000, 2)).round(1)


@pytest.mark.parametrize(
    ("x", "kept"),
    [
        (RNG.integers(0, 2, (200, 3)), False),
        (RNG.integers(1, 6, (500, 3)), False),
        (RNG.poisson(0.5, (300, 4)), False),
        (ANSWERS, False),
        (np.ones((50, 4)), False),
        (np.full((50, 4), 0.1), False),
        (ROUNDED[:, :1], False),
        (ROUNDED, False),
        (np.concatenate([COUNTS, COUNTS[:40]]), True),
        (np.concatenate([COUNTS] * 4), True),
        (np.concatenate([COUNTS, COUNTS[:40]]) + 0.5, True),
        (np.concatenate([RNG.normal(size=(50, 3))] * 3), True),
        (with_copies(columns=1), True),
        (RNG.normal(size=(300, 1)).round(2), False),
        (np.concatenate([ROUNDED[:300]] * 2), True),
        (np.concatenate([ROUNDED[:300]] * 5), True),
        (np.arange(5000)[:, None] % 10, False),
        (np.array([*np.ndindex(3, 2, 4)] * 50), False),
    ],
)
def test_copies_are_told_from_chance(x, kept):
    data = Data.from_array(np.asarray(x, dtype=float))
    assert ("equal rows were kept in one part" in told(data)) == kept
    found = standing_in_training(data, "test")
    assert bool(found) != kept
    if not kept:
        assert f"{found} of {len(data.test)} test rows" in told(data)
        assert "times as many as such columns have by chance" in told(data)
        assert data.fingerprint == Data.from_array(np.asarray(x, dtype=float), split="rows").fingerprint


def test_copies_in_a_column_are_seen_wherever_they_stand():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(0, 100, 20_000), 4)
    for row in np.flatnonzero(rng.random(20_000) < 0.3)[1:]:
        x[row] = x[row - 1]
    assert all(
        "equal rows were kept in one part" in told(Data.from_array(of[:, None])) for of in (x, rng.permutation(x))
    )


def test_groups_are_not_joined_by_values_that_chance_makes_equal():
    x, sites = RNG.normal(size=(400, 1)).round(2), np.repeat(np.arange(20), 20)
    data = Data.from_array(x, groups=sites)
    assert "Each of 20 groups is in one part" in told(data)
    assert "divided by their groups alone" in told(data) and "groups= keeps" not in told(data)


def test_equal_rows_are_found_by_their_values_alone():
    x = np.array([[0.0, 1.5], [-0.0, 1.5], [1.5, 0.0], [0.3, 2.0], [0.1 + 0.2, 2.0], [4.0, 4.5]] * 2)
    split = ["train"] * 6 + ["validation", "test"] * 3
    notes = split_rows(Rows(x), row_keys(x + 0.0), split, None, None, False, RNG).notes
    assert notes == (
        "3 of 3 test rows and 3 of 3 validation rows also occur in the training part: the part of every row was given.",
    )


def test_groups_by_name(tmp_path):
    frame = pd.DataFrame(RNG.normal(size=(90, 2)), columns=["a", "b"])
    frame["patient"] = [f"patient {i}" for i in RNG.integers(20, size=90)]
    frame["class"] = RNG.choice(["ill", "well"], 90)
    path = tmp_path / "visits.csv"
    frame.to_csv(path, index=False)
    data = zoo.load_data(path, labels="class", groups="patient", seed=4)
    assert data.names == ("a", "b")
    seen = Counter(name for part in PARTS for name in set(frame["patient"][rows_of(data)[part]]))
    assert set(seen.values()) == {1}
    assert set(data.train["label"].values) == {"ill", "well"}
    again = zoo.sources.DataCall.parse(data.origin).load()
    assert (again.fingerprint, again.origin) == (data.fingerprint, data.origin)
    assert "groups='patient'" in data.origin
    said = Loading(data=str(path), labels="class", groups="patient", split_seed=4).load()
    assert (said.fingerprint, said.origin) == (data.fingerprint, data.origin)
    same = zoo.load_data(frame[["a", "b"]], labels=frame["class"], groups=frame["patient"], seed=4)
    assert same.fingerprint == zoo.load_data(frame, labels="class", groups="patient", seed=4).fingerprint
    assert same.fingerprint == data.fingerprint
    with pytest.raises(DataError, match=r"groups='pateint' is not a column.*patient"):
        zoo.load_data(path, labels="class", groups="pateint")
    with pytest.raises(DataError, match="no named columns"):
        zoo.load_data("iris", groups="patient")


def test_a_part_of_less_than_nothing_is_refused():
    with pytest.raises(DataError, match="three fractions above 0 that sum to 1"):
        Data.from_array(np.eye(30) + 0.5, split=(1.5, -0.25, -0.25))
