"""What the columns of a table are taken for, against what pandas and fractions say of the same values."""

import re
from fractions import Fraction
from math import gcd

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import zoo
from zoo.data import MOST_SHOWN, PARTS, Data
from zoo.errors import DataError
from zoo.frames import filled
from zoo.schema import read_table
from zoo.supports import SUPPORTS

OTHER = np.random.default_rng(1).normal(size=200)  # a column of numbers with all their places


def column(values, name="a", **options):
    """What one column of a frame is taken for, beside one of real numbers."""
    series = pd.Series(values)
    table = read_table(pd.DataFrame({name: series, "other": OTHER[: len(series)]}), **options)
    return table.columns[0]


def codes(values, **options):
    """The numbers that one column of a frame is read as."""
    return read_table(pd.DataFrame({"a": pd.Series(values)}), **options).values[:, 0].tolist()


# -- what a column is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "support", "levels"),
    [
        ([0, 1, 1, 0], "binary", None),
        ([0.0, 1.0, np.nan, 1.0], "binary", None),
        ([True, False, True, True], "binary", None),
        ([1, 2, 3, 1, 2, 3], "ordinal", (1.0, 2.0, 3.0)),
        ([2, 4, 8, 2, 4, 8], "ordinal", (2.0, 4.0, 6.0, 8.0)),
        ([0, 1, 2, 3, 4, 5], "count", None),  # levels repeat, and these are all different
        ([0, 3, 50, 7, 7, 1], "count", None),
        ([10, 20, 400, 10], "real", None),  # in steps of 10: amounts
        ([70, 65, 44, 98, 71, 66], "real", None),  # the smallest is too large a part of the largest
        ([0.5, 0.25, 1.0, 0.0], "unit", None),
        ([0.5, 0.5, 0.5, 0.5], "real", None),
        ([0.5, 3.25, 80.5, 1.75], "positive", None),
        ([0.5, 3.25, 40.5, 1.75], "real", None),
        ([-0.5, 3.25, 80.5, 1.75], "real", None),
        (["a", "b", "b", "a"], "categorical", None),
    ],
)
def test_a_column_is_the_first_support_that_holds_for_all_that_was_observed(values, support, levels):
    found = column(values)
    assert (found.support, found.levels) == (support, levels)
    assert found.reason
    gappy = column([*values, np.nan])
    assert (gappy.support, gappy.levels) == (support, levels)


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([3, 1, 2, 3, 1], "Int64"), ([3, 1, 2, 3, 1], "UInt8"), ([3, 1, 2, 3, 1], "int8"), ([3, 1, 2, 3, 1], object),
        ([0.5, 1.5, -2.5, 0.25, 7.5], "Float64"), ([0.5, 1.5, -2.5, 0.25, 7.5], "Float32"),
        ([0, 7, 40, 5, 3], "Int32"), ([0, 1, 1, 0, 1], "Int64"),
    ],
)  # fmt: skip
def test_numbers_are_the_same_in_every_dtype(numbers, dtype):
    plain, found = column(numbers), column(pd.Series(numbers, dtype=dtype))
    assert (found.support, found.levels, found.resolution) == (plain.support, plain.levels, plain.resolution)
    assert codes(pd.Series(numbers, dtype=dtype)) == numbers
    *kept, gap = codes(pd.Series([*numbers, None], dtype="float64" if dtype == "int8" else dtype))
    assert kept == numbers and np.isnan(gap)


def test_numbers_written_as_text_are_numbers():
    assert codes(["1.5", " 2 ", "-7e1", None])[:3] == [1.5, 2, -70]
    assert column(["1.5", "2.25", "-7e1", "3"]).support == "real"


@pytest.mark.parametrize("pair", [("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t")])
@pytest.mark.parametrize("written", [str.lower, str.upper, str.capitalize])
def test_a_word_and_its_opposite_are_zero_and_one(pair, written):
    zero, one = map(written, pair)
    found = column([one, zero, one, None, one])
    assert (found.support, found.categories) == ("binary", (zero, one))
    assert found.reason == f"{pair[1]} or {pair[0]}"
    assert codes([one, zero, one, None, one])[:3] == [1, 0, 1]
    assert column([one, one, one]).categories == (pair[0], one)  # a word that is not met is a small one


def test_cases_may_be_mixed_but_not_pairs():
    assert codes(["Yes", "NO", "yes"]) == [1, 0, 1]
    for words in (["yes", "false"], ["yes", "no", "maybe"], ["y", "no"]):
        assert column(words * 3).support == "categorical"


@pytest.mark.parametrize("dtype", [bool, "boolean"])
def test_true_and_false_keep_their_words(dtype):
    found = column(pd.Series([True, False, True], dtype=dtype))
    assert (found.support, found.categories, found.reason) == ("binary", ("False", "True"), "true or false")
    assert codes(pd.Series([True, None, False], dtype="boolean"))[::2] == [1, 0]


@pytest.mark.parametrize("dtype", [object, "str", "string"])
def test_text_is_in_no_order(dtype):
    words = pd.Series(["Rome", "Bonn", None, " Rome", "Oslo"], dtype=dtype)
    found = column(words)
    assert (found.support, found.categories, found.levels) == ("categorical", ("Bonn", "Oslo", "Rome"), None)
    assert found.reason == "text, 3 different words in 4 rows"
    assert codes(words)[:2] == [2, 0] and np.isnan(codes(words)[2]) and codes(words)[3] == 2


def test_categories_of_pandas_keep_their_order_and_those_that_are_not_met():
    sizes = pd.Categorical(["S", "L", None, "S"], categories=["S", "M", "L"], ordered=True)
    found = column(sizes)
    assert (found.support, found.categories, found.levels) == ("ordinal", ("S", "M", "L"), (0.0, 1.0, 2.0))
    assert found.reason == "ordered categories"
    assert codes(sizes)[::3] == [0, 0] and codes(sizes)[1] == 2 and np.isnan(codes(sizes)[2])
    found = column(pd.Categorical(sizes, categories=["M", "L", "S"], ordered=False))
    assert (found.support, found.categories, found.reason) == ("categorical", ("M", "L", "S"), "categories")
    assert column(pd.Categorical([3, 1, 3])).categories == ("1", "3")
    assert column(pd.Categorical(["no", "yes", "no"])).support == "binary"


@pytest.mark.parametrize(
    ("declared", "values", "told"),
    [
        ("count", [70, 65, 44], "count"),
        ("real", [0, 1, 1], "real"),
        ("positive", [0.5, 1.5, 2.5], "positive"),
        ("ordinal", [0, 3, 1000], "ordinal"),
        ("categorical", [0, 3, 3], "categorical"),
        ("ordinal", pd.Categorical(list("abca"), categories=list("cab"), ordered=True), "ordinal"),
        ("binary", ["a", "b", "b", "a"], "binary"),
    ],
)
def test_a_mapping_declares_some_columns(declared, values, told):
    found = column(values, support={"a": declared})
    assert (found.support, found.reason) == (told, "declared")
    if told == "categorical":
        assert found.categories == ("0", "3")


@pytest.mark.parametrize(
    ("declared", "values", "said"),
    [
        ("real", ["a", "b", "a"], r"support='real' of column 'a': it holds words, a, b;"),
        ("binary", ["a", "b", "c", "a"], r"support='binary' of column 'a'.*holds words"),
        ("binary", [0, 1, 2], r"'a', row 2 .*: 2.0 is outside the support 'binary'"),
        ("positive", [0.5, 0, 2], r"'a', row 1 .*: 0.0 is outside the support 'positive'.*declare support='real'"),
        ("ordinal", [0, 0.5, 1], r"'a': no grid of 2 to 65536 levels holds its values; name the levels"),
        ("categorical", [0, 0.5, 1], r"'a' is declared categorical: .* text or whole numbers, at most 100"),
        (
            "ordinal",
            ["a", "b", "c", "a"],
            r"support='ordinal' of column 'a': a, b, c are unordered words; give an order",
        ),
        ("number", [1.5, 2, 3], r"support='number' is unknown: choose one of 'auto', 'binary', .*'categorical'"),
    ],
)
def test_a_declaration_that_the_values_contradict_is_refused(declared, values, said):
    with pytest.raises(DataError, match=said):
        column(values, support={"a": declared})


# -- what cannot be used -----------------------------------------------------------------------------------------------

N = 30
REFUSED = {
    "day": pd.date_range("2020-01-01", periods=N),
    "zoned": pd.date_range("2020-01-01", periods=N, tz="UTC"),
    "written day": [f"2020-01-{i % 28 + 1:02}" for i in range(N)],
    "month": pd.period_range("2020-01", periods=N, freq="M"),
    "spell": pd.to_timedelta(range(N), unit="h"),
    "identifier": [f"P-{i:03}x" for i in range(N)],
    "remark": [f"came {'late ' * (i % 7)}on visit no. {'i' * i}" for i in range(N)],
    "mostly different": [f"w{i * 2 // 3}" for i in range(N)],
    "nothing": [None] * N,
    "list": [[i] for i in range(N)],
    "many": pd.Categorical.from_codes(np.arange(N), [f"c{k}" for k in range(101)]),
}


def test_all_columns_that_cannot_be_used_are_named_at_once():
    frame = pd.DataFrame({"height": OTHER[:N], **REFUSED, "city": ["Rome", "Bonn", "Oslo"] * (N // 3)})
    with pytest.raises(DataError) as raised:
        Data.from_array(frame)
    message = str(raised.value)
    assert re.findall(r"column '([^']+)'", message) == list(REFUSED)
    assert f"drop={list(REFUSED)!r}" in message and "--drop day" in message and "--drop 'written day'" in message
    drop = eval(re.search(r"drop=(\[.*?\])", message)[1])
    assert Data.from_array(frame, drop=drop).names == ("height", "city")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "holds dates or times; a number in its place") for name in ("day", "zoned", "written day", "spell")),
        ("identifier", "has a different word in each of 30 rows, like an identifier or free text"),
        ("remark", "has a different word in each of 30 rows, like an identifier or free text"),
        ("mostly different", "has 20 different words in 30 rows, too many to learn from each"),
        ("nothing", "has no observed entry"),
        ("list", "holds lists or other objects in its cells"),
        ("many", "has 101 categories, more than the 100 allowed"),
    ],
)
def test_why_a_column_cannot_be_used(name, why):
    with pytest.raises(DataError, match=f"^column '{name}' {why}.* Leave it out with drop="):
        column(REFUSED[name], name)


def test_words_that_repeat_are_categories_up_to_a_hundred():
    assert len(column([f"w{i % 100}" for i in range(200)]).categories) == 100
    with pytest.raises(DataError, match="has 101 different words, more than the 100 categories allowed"):
        read_table(pd.DataFrame({"a": [f"w{i % 101}" for i in range(300)]}))


# -- what is wanted ----------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"height": OTHER[:9], "weight": OTHER[9:18], "city": list("abc") * 3})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"columns": ["weight", "height"]}, ("height", "weight")),  # in the order of the source
        ({"columns": "city"}, ("city",)),
        ({"drop": "city"}, ("height", "weight")),
        ({"drop": ["city", "height"]}, ("weight",)),
        ({"columns": ["height", "city"], "drop": ["city"]}, ("height",)),
    ],
)
def test_columns_are_kept_or_dropped_by_name(options, names):
    assert Data.from_array(FRAME, **options).names == names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["heigth"]}, "columns: 'heigth' is not a column; did you mean 'height'"),
        ({"drop": ["City"]}, "drop: 'City' is not a column; did you mean 'city'"),
        ({"drop": ["xyzzy"]}, "drop: 'xyzzy' is not a column; there are height, weight, city"),
        ({"support": {"wieght": "real"}}, "support: 'wieght' is not a column; did you mean 'weight'"),
        ({"resolution": {"hight": 0.1}}, "resolution: 'hight' is not a column; did you mean 'height'"),
        ({"support": {"city": "categorical"}, "drop": ["city"]}, "support: 'city' is not a column"),
        ({"drop": ["height", "weight", "city"]}, "no column is left"),
    ],
)
def test_a_name_that_is_no_column_is_answered_with_the_nearest(options, said):
    with pytest.raises(DataError, match=said):
        Data.from_array(FRAME, **options)


def test_a_column_that_is_dropped_is_not_even_read():
    frame = FRAME.assign(bad=[1, 2, "x", 3, 4, 5, 6, 7, np.inf])
    assert Data.from_array(frame, drop=["bad"]).fingerprint == Data.from_array(FRAME).fingerprint
    with pytest.raises(DataError, match="leave holes in the images"):
        Data.from_array(np.zeros((5, 2, 2)), drop=["pixel_0_0"])


# -- what is pointed out -----------------------------------------------------------------------------------------------


def coded_column(code, rest, times=2):
    values = np.array(rest, dtype=float)
    values[3 : 3 + times] = code
    return pd.DataFrame({"lead": values, "other": OTHER[: len(values)]})


HUNDREDTHS = np.random.default_rng(2).normal(size=40).round(2)
AGES = np.random.default_rng(2).integers(20, 90, size=40)


@pytest.mark.parametrize(
    ("code", "rest"),
    [
        (-999, HUNDREDTHS),
        (9999, AGES),
        (99, HUNDREDTHS),
        (-9999, HUNDREDTHS),
        (99999, AGES),
        (-1, [60, 61, 62, 63] * 5),
    ],
)
def test_a_code_for_a_missing_value_is_pointed_out_and_kept(code, rest):
    frame = coded_column(code, rest)
    data = Data.from_array(frame)
    (note,) = (note for note in data.notes if "may mark missing ones" in note)
    assert note.startswith(f"{code} in lead lies far from all other values")
    assert f"missing_values=[{code}] (--missing {code})" in note
    assert data.missing == 0
    told = eval(re.search(r"missing_values=(\[.*?\])", note)[1])
    replaced = Data.from_array(frame, missing_values=told)
    assert replaced.missing == 2 and replaced.columns[0].missing == 2
    assert not any("may mark missing" in note for note in replaced.notes)
    assert any("2 of " in note and "are missing, in lead" in note for note in replaced.notes)
    gaps = [np.isnan(getattr(replaced, part).sel(feature="lead")).sum() for part in PARTS]
    assert sum(map(int, gaps)) == 2


@pytest.mark.parametrize(
    ("code", "rest", "times"),
    [
        (-999, HUNDREDTHS, 1),  # once: a value like another
        (99, AGES, 2),
        (99, range(40), 2),  # near the rest
        (-1, [0, 1, 2, 3] * 5, 2),
        (998, AGES, 2),  # far, and no code that people use
        (999, np.arange(0, 2000, 50), 2),  # among the rest
    ],
)
def test_what_only_looks_like_a_code_is_not(code, rest, times):
    assert not any("may mark missing" in note for note in Data.from_array(coded_column(code, rest, times)).notes)


def test_one_note_tells_of_all_columns_with_a_code():
    frame = coded_column(-999, HUNDREDTHS).assign(zinc=lambda f: f.lead.to_numpy()[::-1])
    notes = [note for note in Data.from_array(frame).notes if "may mark missing" in note]
    assert len(notes) == 1 and notes[0].startswith("-999 in lead, zinc lies far")


def test_words_may_stand_for_what_was_not_observed():
    frame = pd.DataFrame({"a": ["1.5", "?", "2.5", "n.d.", "0.25"] * 3, "b": ["x", "y", "?", "x", "y"] * 3})
    data = Data.from_array(frame, missing_values=["?", "n.d."])
    assert [column.missing for column in data.columns] == [6, 3]
    assert data.columns[1].categories == ("x", "y")


@pytest.mark.parametrize("name", ["Unnamed: 0", "id", "ID", "index", "row", "level_0"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_numbers_the_rows_is_pointed_out(name, first):
    frame = FRAME.assign(**{name: range(first, first + len(FRAME))})
    data = Data.from_array(frame)
    assert f"{name} numbers the rows, which says nothing about them: drop=['{name}'] leaves it out." in data.notes
    assert name in data.names
    two = Data.from_array(frame.assign(Index=range(len(FRAME)), index_of=range(len(FRAME))))
    (told,) = (note for note in two.notes if "the rows, which" in note)
    assert told.startswith(f"{name}, Index number the rows") and "index_of" not in told


@pytest.mark.parametrize("numbers", [[3, 1, 2, 0, 8, 5, 4, 7, 3], range(0, 18, 2)])
def test_what_is_called_a_number_of_rows_and_is_none_is_left_alone(numbers):
    assert not any("the rows, which" in note for note in Data.from_array(FRAME.assign(id=numbers)).notes)


def test_missing_entries_are_counted_by_column_and_told():
    x = np.array([[1.5, 2.5, 3.5]] * 20) * np.arange(1, 21)[:, None]
    x[[0, 3, 4], 1] = np.nan
    x[7, 2] = np.nan
    data = Data.from_array(x, names=["a", "b", "c"])
    assert [column.missing for column in data.columns] == [0, 3, 1]
    assert data.missing == 4 and "4 entries missing" in repr(data)
    assert any(note.startswith("4 of 60 entries (6.7 %) are missing, in b, c:") for note in data.notes)
    x[5] = np.nan
    emptied = Data.from_array(x, names=["a", "b", "c"])
    assert any(note.startswith("Row 5 has no observed entry") for note in emptied.notes)
    assert sum(len(getattr(emptied, part)) for part in PARTS) == 19


# -- what numbers are recorded to --------------------------------------------------------------------------------------

STEPS = [0.1, 0.01, 0.25, 25, 0.5, 2.5, 1, 0.2, 0.005, 1e-4]


def multiples(step, seed=0):
    """Numbers as they are written down: the float that is nearest to a decimal."""
    k = np.random.default_rng(seed).integers(-300, 300, size=120)
    return np.array([float(int(i) * Fraction(str(step))) for i in [1, 3, *k]])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("as_frame", [False, True])
def test_the_step_that_numbers_were_recorded_in_is_found(step, single, as_frame):
    values = np.column_stack([multiples(step), OTHER[:122]]).astype(np.float32 if single else np.float64)
    x = pd.DataFrame(values) if as_frame else values
    first, second = read_table(x).columns
    assert (first.support, second.support) == ("real", "real")
    assert first.resolution == pytest.approx(step, rel=1e-12)
    assert second.resolution is None  # as many places as fit
    if single:  # numbers that were in single precision once are so still
        assert read_table(values.astype(np.float64)).columns[0].resolution == first.resolution
    assert [c.resolution for c in read_table(x, resolution=None).columns] == [None, None]
    rounded = np.column_stack([values[:, 0], np.round(values[:, 1] / 0.5) * 0.5])
    declared = read_table(rounded, names=["a", "b"], resolution={"b": 0.25}).columns
    assert [c.resolution for c in declared] == [first.resolution, 0.25]
    with pytest.raises(DataError, match=r"resolution=0.5 of column 'b': row \d+ .* not a multiple"):
        read_table(values, names=["a", "b"], resolution={"b": 0.5})


ROUND = [Fraction(digit) * Fraction(10) ** power for power in range(-3, 4) for digit in (1, 2, Fraction(5, 2), 5)]


@given(
    numerators=st.lists(st.integers(-9999, 9999), min_size=6, max_size=40, unique=True),
    step=st.sampled_from([Fraction(1, 100), Fraction(1, 40), Fraction(1, 8), Fraction(1), Fraction(3, 10)]),
    single=st.booleans(),
)
def test_a_resolution_is_the_coarsest_round_step(numerators, step, single):
    exact = [k * step for k in numerators if abs(k * step) < 100]
    numbers = [int(v * 1000) for v in exact]
    assume(len(numbers) > 5)
    values = np.array([float(v) for v in exact], dtype=np.float32 if single else np.float64)
    common = Fraction(gcd(*numbers), 1000)
    expected = max(r for r in ROUND if (common / r).denominator == 1)
    found = column(pd.Series(values), support={"a": "real"}).resolution
    assert found == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    "values", [OTHER, OTHER.astype(np.float32), OTHER.round(7), np.arange(1, 40) / 3, 2.0**53 * np.arange(1, 9) * 10]
)
def test_numbers_of_many_places_have_no_resolution(values):
    assert column(pd.Series(values), support={"a": "real"}).resolution is None


@pytest.mark.parametrize(
    ("values", "width"),
    [([0, 1, 1, 0], 1), ([2, 4, 6, 2, 4, 6], 2), ([0, 3, 50, 7, 7, 1], 1), (["a", "b", "b", "a"], 1)],
)
def test_discrete_columns_have_a_resolution_whatever_is_said(values, width):
    assert column(values).resolution == column(values, resolution=None).resolution == width


@pytest.mark.parametrize("width", [0, -1, np.inf, np.nan, True, "0.1"])
def test_a_resolution_is_a_positive_width(width):
    with pytest.raises(DataError, match=r"resolution=.* of column 'a': give a positive width, or None"):
        column([0.5, 1.5, -2.5], resolution={"a": width})


def test_zero_has_no_sign():
    plain = read_table(pd.DataFrame({"a": [0.0, 0.5, -0.25, 1.75, 3.0]}))
    negative = read_table(pd.DataFrame({"a": [-0.0, 0.5, -0.25, 1.75, 3.0]}))
    text = read_table(pd.DataFrame({"a": ["-0", "0.5", "-0.25", "1.75", "3"]}))
    assert negative.columns == plain.columns == text.columns
    assert not any(np.signbit(table.values[0, 0]) for table in (plain, negative, text))
    assert column([-0.0, 1.0, 0.0]).support == "binary"


@pytest.mark.parametrize(
    ("images", "support", "width"),
    [
        (np.random.default_rng(0).integers(0, 256, (20, 3, 3)), "ordinal", 1),
        (np.random.default_rng(0).integers(0, 256, (20, 3, 3)) / 255, "unit", None),
        ((np.random.default_rng(0).integers(0, 256, (20, 3, 3)) / 255).astype(np.float32), "unit", None),
        (np.random.default_rng(0).random((20, 3, 3)).round(2), "unit", 0.01),
        (np.random.default_rng(0).normal(size=(20, 3, 3)), "real", None),
        (np.random.default_rng(0).integers(0, 2, (20, 3, 3)), "binary", 1),
    ],
)
def test_the_pixels_of_images_are_of_one_kind(images, support, width):
    columns = read_table(images).columns
    assert {(c.support, c.resolution) for c in columns} == {(support, width)}


# -- what is shown -----------------------------------------------------------------------------------------------------


def mixed_frame(rows=60):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "sold": rng.choice(["yes", "no"], rows),
            "grade": pd.Categorical(rng.choice(["low", "mid", "high"], rows), ["low", "mid", "high"], ordered=True),
            "city": rng.choice(["Rome", "Bonn", "Oslo"], rows),
            "visits": rng.poisson(3, rows) + 40 * (np.arange(rows) % 20 == 0),
            "stars": rng.integers(1, 6, rows),
            "share": rng.random(rows),
            "price": (np.exp(2 * rng.normal(size=rows)) + 0.01).round(2),
            "height <cm>": rng.normal(170, 9, rows).round(1),
        }
    )
    frame.loc[[2, 30], "city"] = None
    frame.loc[[5], "height <cm>"] = np.nan
    return frame


KINDS = ["binary", "ordinal", "categorical", "count", "ordinal", "unit", "positive", "real"]


def test_the_schema_is_a_row_a_column_with_its_reason():
    data = Data.from_array(mixed_frame(), name="shops")
    schema = data.schema
    assert schema["column"].tolist() == list(data.names)
    assert schema["support"].tolist() == [c.support for c in data.columns] == KINDS
    assert sorted({*KINDS}) == sorted(SUPPORTS)  # none is left out here
    assert schema["recorded to"].tolist() == ["1"] * 5 + ["", "0.01", "0.1"]
    assert schema["missing"].tolist() == [0, 0, 2, 0, 0, 0, 0, 1]
    assert schema["values"].tolist()[:5] == [
        "no, yes", "low, mid, high", "Bonn, Oslo, Rome", "0, 1, 2, ... without an upper limit", "5 levels, 1 to 5",
    ]  # fmt: skip
    assert (schema["because"].str.len() > 0).all() and all(column.reason for column in data.columns)
    constant = Data.from_array(mixed_frame().assign(stars=3))
    assert constant.schema["because"].str.endswith("; constant in training").tolist() == [
        n == "stars" for n in data.names
    ]


def test_a_notebook_shows_the_schema_and_escapes_the_names():
    data = Data.from_array(mixed_frame(), name="a <b> shop")
    html = data._repr_html_()
    assert "mixed (1 binary, 2 ordinal, 1 categorical, 1 count, 1 unit, 1 positive, 1 real)" in html
    assert "height &lt;cm&gt;" in html and "<cm>" not in html
    assert "a &lt;b&gt; shop" in html and "<b>" not in html
    assert html.count("<tr") == 1 + data.features and "more" not in html
    wide = Data.from_array(np.random.default_rng(0).normal(size=(10, 100)))._repr_html_()
    assert wide.count("<tr") == 1 + MOST_SHOWN and f"and {100 - MOST_SHOWN} more" in wide


# -- there and back ----------------------------------------------------------------------------------------------------

ROWS = 24


def of_kind(kind, gaps):
    """A strategy for a column of ROWS entries, some of them missing."""
    cell = {
        "words": st.sampled_from(["Rome", "Bonn", "São Tomé", "a, b", 'so "called"']),
        "yes or no": st.sampled_from(["yes", "no"]),
        "levels": st.integers(0, 4),
        "counts": st.integers(0, 500),
        "tenths": st.integers(-999, 999).map(lambda k: k / 10),
        "hundredths": st.integers(1, 10**6).map(lambda k: k / 100),
        "shares": st.integers(0, 999983).map(lambda k: k / 999983),
        "reals": st.floats(-1e6, 1e6).map(lambda v: round(v, 12)),  # the square of which is none too small
    }[kind]
    full = st.lists(cell, min_size=ROWS, max_size=ROWS)
    where = st.sets(st.integers(0, ROWS - 1), max_size=ROWS // 4) if gaps else st.just(set())
    return st.tuples(full, where).map(lambda c: [None if row in c[1] else value for row, value in enumerate(c[0])])


KINDS_OF_CELLS = ["words", "yes or no", "levels", "counts", "tenths", "hundredths", "shares", "reals"]


def frame_of(kinds):
    """A strategy for a frame of such columns and one of numbers, without which no file tells its names from words."""
    columns = {f"{kind} {j}": of_kind(kind, gaps) for j, (kind, gaps) in enumerate([*kinds, ("reals", False)])}
    return st.fixed_dictionaries(columns).map(lambda cells: pd.DataFrame({n: pd.Series(c) for n, c in cells.items()}))


frames = st.lists(st.tuples(st.sampled_from(KINDS_OF_CELLS), st.booleans()), max_size=4).flatmap(frame_of)


def back(data):
    """All rows of a data set as the user's own table."""
    return pd.concat([data.frame(part) for part in PARTS]).sort_index()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(frame=frames)
def test_a_table_comes_back_as_it_was_and_so_does_its_file(frame, tmp_path):
    data = Data.from_array(frame, split="rows")
    again = back(data)
    assert list(again) == list(frame)
    for name in frame:
        assert again[name].isna().tolist() == frame[name].isna().tolist()
        assert again[name].dropna().tolist() == frame[name].dropna().tolist()
    for part in PARTS:
        assert np.array_equal(data.coded(data.frame(part)), getattr(data, part), equal_nan=True)
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert zoo.load_data(tmp_path / "a.csv", split="rows").columns == data.columns


def test_a_declared_resolution_is_held_against_float32_values():
    values = np.arange(1, 40, dtype=np.float32)[:, None] * np.float32(0.01)
    assert read_table(values, resolution=0.01).columns[0].resolution == 0.01


def test_large_integers_are_recorded_to_a_step_too():
    big = 2**21 + np.arange(50)[:, None] * 3
    (column,) = read_table(np.hstack([big, big + 0.5])[:, 1:]).columns
    assert column.resolution == 0.5


def test_an_ordered_category_of_one_word_is_a_category():
    frame = pd.DataFrame({"a": pd.Categorical(["x"] * 40, categories=["x"], ordered=True), "b": np.arange(40) % 7})
    assert [c.support for c in read_table(frame).columns] == ["categorical", "ordinal"]
    assert zoo.create("mixed", zoo.Data.from_array(frame)).name == "mixed"


def test_true_and_false_with_gaps_come_back_as_they_were():
    frame = pd.DataFrame({"a": pd.Series([True, False, None, True] * 10, dtype=object), "b": np.linspace(0, 1, 40)})
    data = zoo.Data.from_array(frame)
    assert (data.columns[0].support, data.columns[0].missing) == ("binary", 10)
    gaps = frame.isna().to_numpy()
    whole = filled(data.columns, frame, np.zeros(frame.shape), gaps)
    assert whole["a"].tolist() == [True, False, False, True] * 10


@pytest.mark.parametrize("value", ["NA", -999, None])
def test_missing_values_are_a_list(value):
    with pytest.raises(DataError, match=r"missing_values=.*; give a list"):
        read_table(np.ones((9, 2)), missing_values=value)


@pytest.mark.parametrize("option", ["columns", "drop"])
def test_columns_are_named_in_a_list(option):
    with pytest.raises(DataError, match=f"{option}=3; give a list"):
        zoo.Data.from_array(np.ones((9, 2)), **{option: 3})


@pytest.mark.parametrize("code", ["-999", -999, -999.0])
@pytest.mark.parametrize("dtype", [float, "category", object])
def test_a_code_for_missing_is_found_as_text_and_as_a_number(code, dtype):
    column = pd.Series([1.0, 2.0, 3.0, -999.0] * 5).astype(dtype)
    assert zoo.Data.from_array(pd.DataFrame({"a": column}), missing_values=[code]).columns[0].missing == 5


@pytest.mark.parametrize("width", [0.5, None, "half"])
def test_a_resolution_of_a_column_that_is_counted_is_refused(width):
    x = np.column_stack([np.arange(40) % 5, np.linspace(0, 1, 40) * 7])
    with pytest.raises(
        DataError, match=r"of column 'x0': it is ordinal, whose values are discrete; declare support='real'"
    ):
        read_table(x, resolution={"x0": width})
    assert read_table(x, resolution={"x0": 1}).columns[0].resolution == 1
    assert read_table(x, resolution={"x0": 0.5}, support={"x0": "real"}).columns[0].resolution == 0.5


def test_levels_without_an_ordinal_column_are_refused():
    frame = pd.DataFrame({"a": ["x", "y"] * 20, "b": np.arange(40) % 3})
    with pytest.raises(DataError, match="levels= needs ordinal columns, and there are none"):
        read_table(frame, levels=[0, 1, 2, 3])
    assert read_table(frame, levels=[0, 1, 2, 3], support={"b": "ordinal"}).columns[1].levels == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "cells",
    [
        ["2020-01-03"], ["3/4/2020"], ["Jan 3 2020"], ["3 January 2020"], ["12:30"], ["9:05 pm"], ["Mar-2020"],
        ["12-Feb-99"], ["Sept. 3, 2021"],
    ],
)  # fmt: skip
def test_dates_and_times_in_words_are_no_categories(cells):
    with pytest.raises(DataError, match=r"column 'when' holds dates or times.*--drop when"):
        read_table(pd.DataFrame({"when": cells * 30, "b": np.arange(30) % 7}))


@pytest.mark.parametrize("word", ["Mary 12", "maybe 3", "march", "10:1", "June"])
def test_what_only_looks_like_a_date_is_a_category(word):
    assert read_table(pd.DataFrame({"a": [word, "other"] * 20, "b": np.arange(40) % 7})).columns[0].categories


def test_a_number_of_each_row_is_pointed_out_in_any_order():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": rng.permutation(60) + 1, "b": rng.normal(size=60)})
    assert any("id numbers the rows" in note for note in read_table(frame).notes)


def test_a_constant_word_has_no_variance():
    frame = pd.DataFrame({"city": ["Rome"] * 40, "b": np.linspace(0, 1, 40) ** 2, "c": [3.5] * 40})
    notes = " ".join(zoo.Data.from_array(frame).notes)
    assert "1 of 3 columns is constant in the training part (city): nothing can be learned from it." in notes
    assert "1 of 3 columns is constant in the training part (c): a learned variance runs away on it" in notes


def test_dates_written_as_numbers_are_dates():
    days = pd.date_range("2019-11-20", periods=60).strftime("%Y%m%d").astype(int)
    with pytest.raises(DataError, match=r"column 'when' holds dates written as numbers.*--drop when"):
        read_table(pd.DataFrame({"when": days, "b": np.arange(60) % 7}))
    assert read_table(pd.DataFrame({"price": days + 50, "b": np.arange(60) % 7})).columns[0].support != "categorical"


def test_a_sparse_column_is_read():
    sparse = pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.5] * 20), "b": np.linspace(0, 9, 40)})
    assert np.array_equal(read_table(sparse).values[:, 0], [0.0, 1.5] * 20)


def test_missing_values_by_column_are_refused():
    with pytest.raises(DataError, match=r"missing_values=.*; give a list, which applies to all columns"):
        read_table(FRAME, missing_values={"a": [3]})


def test_numbers_that_are_declared_categories_are_those_that_are_met():
    frame = pd.DataFrame({"grade": [1, 3, 5, 10] * 10, "mix": ["1", "2", "x", "y"] * 10, "b": np.linspace(0, 1, 40)})
    table = read_table(frame, support={"grade": "categorical", "mix": "categorical"})
    assert [column.categories for column in table.columns[:2]] == [("1", "3", "5", "10"), ("1", "2", "x", "y")]
    data = zoo.Data.from_array(frame, support={"grade": "categorical"}, columns=["grade", "b"])
    assert np.array_equal(data.coded(frame[["grade", "b"]])[:4, 0], [0, 1, 2, 3])


def test_one_value_tells_its_decimals():
    assert read_table(pd.DataFrame({"a": [7.25] * 40, "b": np.linspace(0, 1, 40)})).columns[0].resolution == 0.01
