"""Tables larger than memory, held against the same tables in memory."""

import os
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray

import zoo
from zoo import batches, fitting, sources, tables
from zoo.batches import Order
from zoo.data import PARTS
from zoo.errors import DataError
from zoo.lazy import data_array
from zoo.splits import _first_equal
from zoo.summaries import Summary
from zoo.tables import InFile, Rows, row_keys

RNG = np.random.default_rng(0)  # of tests whose numbers are no matter
N = 400


def table(kind):
    """Rows (N, 5) of one support, or of several."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(N, 5))
    return {
        "real": z,
        "single": z.astype(np.float32),
        "recorded": z.round(2),
        "recorded in single": z.round(2).astype(np.float32),
        "binary": (z > 0).astype(np.uint8),
        "ordinal": rng.integers(0, 5, (N, 5)) * 2.0,
        "count": rng.poisson(30, (N, 5)).astype(np.int32),
        "positive": np.exp(3 * z),
        "unit": rng.random((N, 5)),
        "bytes": rng.integers(0, 256, (N, 5)).astype(np.uint8),
        "gaps": np.where(rng.random((N, 5)) < 0.2, np.nan, z.round(1)),
        "single gaps": np.where(rng.random((N, 5)) < 0.2, np.nan, z).astype(np.float32),
        "copies": np.repeat(z[: N // 2], 2, axis=0),
        "constant": z * [1, 0, 1, 1, 1] + 0.1,
        "dependent": np.column_stack([z[:, :4], z[:, 0] + 2 * z[:, 1]]),
        "mixed": np.column_stack([z[:, 0], z[:, 1] > 0, rng.integers(1, 6, N), rng.poisson(40, N), rng.random(N)]),
        "empty rows": np.where(np.arange(N)[:, None] % 50 == 3, np.nan, z),
        "codes": np.where(rng.random((N, 5)) < 0.2, -999, z),
    }[kind]


KINDS = [
    "real", "single", "recorded", "recorded in single", "binary", "ordinal", "count", "positive", "unit", "bytes",
    "gaps", "single gaps", "copies", "constant", "dependent", "mixed", "empty rows", "codes",
]  # fmt: skip


def to_netcdf(x, path, **how):
    dataset = xarray.Dataset({"x": (("row", "feature"), x)}, {"feature": [f"c{j}" for j in range(x.shape[1])]})
    dataset.to_netcdf(path, engine="h5netcdf", **how)


def to_zarr(x, path):
    import zarr

    zarr.save_array(str(path), np.ascontiguousarray(x))


WRITERS = {
    "npy": lambda x, path: np.save(path, x),
    "parquet": lambda x, path: pd.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])]).to_parquet(path),
    "by column.npy": lambda x, path: np.save(path, np.asfortranarray(x)),
    "nc": to_netcdf,
    "zarr": to_zarr,
}


@pytest.fixture
def left_in_place(monkeypatch):
    """Tables of more than 500 numbers are read where they are, 700 numbers at a time."""

    def lower(limit=500, block=700):
        monkeypatch.setattr(tables, "LARGE", limit)
        monkeypatch.setattr(tables, "BLOCK", block)
        monkeypatch.setattr(tables, "SPAN", 2**16)
        monkeypatch.setattr(sources, "ROW", 8)

    return lower


def lazy(part):
    return not part.variable._in_memory


def written(tmp_path, ending, x):
    path = tmp_path / f"table {ending}" if "." in ending else tmp_path / f"table.{ending}"
    WRITERS[ending](x, path)
    return path


# -- the same data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_data_that_are_read_by_rows_are_those_in_memory(tmp_path, left_in_place, ending, kind):
    path = written(tmp_path, ending, table(kind))
    whole = zoo.load_data(path)
    left_in_place()
    rows = zoo.load_data(path, max_bytes=8 * N)  # too little for its numbers
    assert lazy(rows.train) and not lazy(whole.train)
    assert (rows.fingerprint, rows.mass_fingerprint) == (whole.fingerprint, whole.mass_fingerprint)
    for part in PARTS:
        xarray.testing.assert_identical(getattr(rows, part).load(), getattr(whole, part))
    for ours, theirs in zip(rows.columns, whole.columns, strict=True):
        assert replace(ours, center=theirs.center, scale=theirs.scale) == theirs
        np.testing.assert_allclose([ours.center, ours.scale], [theirs.center, theirs.scale], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rows.train_std, whole.train_std, rtol=1e-12)
    assert set(whole.notes) <= set(rows.notes)
    more = [note for note in rows.notes if note not in whole.notes]
    assert "numbers of the training part are read on demand" in more[-1]
    assert any("unpacked into" in note for note in more) == (ending != "npy")
    again = sources.DataCall.parse(rows.origin).load()
    assert again.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"missing_values": [-999, 3]},
        {"columns": ["x3", "x0"]},
        {"drop": ["x1"]},
        {"split": (0.5, 0.25, 0.25), "seed": 4},
        {"labels": np.arange(N) % 3},
        {"groups": np.arange(N) // 7},
        {"scaling": "scalar"},
        {"resolution": {"x0": 0.01}},
        {"support": {"x1": "real"}},
        {"resolution": None},
    ],
    ids=str,
)
def test_options_mean_the_same(tmp_path, left_in_place, options):
    path = written(tmp_path, "npy", np.where(RNG.random((N, 5)) < 0.1, -999, RNG.normal(size=(N, 5)).round(2)))
    whole = zoo.load_data(path, **options)
    left_in_place()
    rows = zoo.load_data(path, **options)
    assert lazy(rows.train) and rows.fingerprint == whole.fingerprint
    assert rows.names == whole.names and rows.kind == whole.kind


@pytest.mark.parametrize("options", [{"binarize": "threshold"}, {"binarize": "stochastic"}, {"dequantize": True}])
def test_noise_is_drawn_the_same(tmp_path, left_in_place, options):
    path = written(tmp_path, "npy", RNG.integers(0, 9, (N, 5)))
    whole = zoo.load_data(path, **options)
    left_in_place()
    rows = zoo.load_data(path, **options)
    assert lazy(rows.train) and rows.fingerprint == whole.fingerprint
    np.testing.assert_allclose(rows.train_std, whole.train_std, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (np.full((N, 2), np.inf), {}, r"column 'x0', row 0 \(counted from 0\): inf is infinite \(800 such values"),
        (np.arange(2.0 * N).reshape(N, 2), {"support": "binary"}, r"'x0', row 1 .*: 2.0 is outside .*798 such values"),
        (np.arange(2 * N).reshape(N, 2) + 2**53, {}, r"'x1', row 0 .*: 9007199254740993 is beyond what float64 holds"),
        (np.arange(2.0 * N).reshape(N, 2) / 8, {"resolution": {"x1": 0.25}}, r"'x1': row 0 .* holds 0.125, which is"),
    ],
)
def test_what_is_refused_is_named_in_whichever_block_it_stands(tmp_path, left_in_place, x, options, said):
    path = written(tmp_path, "npy", x)
    with pytest.raises(DataError, match=said) as in_memory:
        zoo.load_data(path, **options)
    left_in_place(block=100)
    with pytest.raises(DataError) as by_rows:
        zoo.load_data(path, **options)
    assert str(by_rows.value) == str(in_memory.value)


@pytest.mark.parametrize("precision", [np.float64, np.float32])
def test_a_step_that_shows_late_is_found(precision):
    """The first rows are whole, or coarser, in ways that the later ones are not."""
    early, late = np.arange(-300.0, 300), np.arange(1.0, 601)
    columns = {
        0.5: (3 * early, 1.5 * late),
        0.05: (early, 0.05 * late),
        0.25: (5 * early, late / 4),
        1.0: (10 * early, late),
        20.0: (100 * early, 20 * late),
        0.002: (0.2 * early, 0.002 * late),
        None: (early, np.sqrt(late)),
    }
    x = np.stack([np.concatenate(parts).astype(precision).round(3) for parts in columns.values()], axis=1)
    x[:, -1] = np.concatenate(columns[None]).astype(precision)
    summary = Summary([precision is np.float32] * len(columns))
    for block in np.split(x.astype(np.float64), 12):
        summary.add(block)
    assert [summary.step(j) for j in range(len(columns))] == list(columns)


def test_rows_of_equal_keys_are_told_apart():
    x = RNG.integers(0, 3, (60, 2)).astype(float)
    x[5, 1] = x[50, 1] = np.nan
    first = _first_equal(Rows(x), np.zeros(60, dtype=np.uint64))
    expected = [next((i for i in range(j) if np.array_equal(x[i], x[j])), j) for j in range(60)]
    assert first.tolist() == expected == _first_equal(Rows(x), row_keys(x)).tolist()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (300, 3), (40, 4, 5)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|u1", "|b1", "<i8", "<f2"])
def test_rows_in_a_file_are_those_of_numpy(tmp_path, shape, dtype):
    x = (RNG.normal(size=shape) * 50).astype(dtype)
    (tmp_path / "x.bin").write_bytes(b"header" + x.tobytes())
    found, n = InFile(tmp_path / "x.bin", 6, shape, np.dtype(dtype)), shape[0]
    asked = [slice(None), slice(1, 5), slice(n - 2, n + 9), slice(3, 1), slice(None, None, 7), slice(None, None, -1)]
    for rows in [*asked, RNG.integers(n, size=50), np.arange(n), np.array([n - 1]), np.empty(0, dtype=int)]:
        np.testing.assert_array_equal(found[rows], x[rows])


def test_close_rows_are_read_together_and_scattered_ones_alone(tmp_path, monkeypatch):
    x = np.arange(10**5, dtype=np.float64).reshape(-1, 2)
    x.tofile(tmp_path / "x.bin")
    calls = []
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: calls.append(len(given[1][0])) or read(*given))
    found = InFile(tmp_path / "x.bin", 0, x.shape, x.dtype)
    close, far = np.arange(100, 300, 2), np.array([40_000, 3])
    np.testing.assert_array_equal(found[close], x[close])
    np.testing.assert_array_equal(found[far], x[far])
    assert calls == [199 * 16, 16, 16]


def test_a_file_that_was_cut_short_meanwhile_is_told(tmp_path):
    path = written(tmp_path, "npy", RNG.normal(size=(N, 5)))
    found = InFile(path, 128, (N, 5), np.dtype(np.float64))
    os.truncate(path, 1000)
    for rows in (slice(None), np.array([3, N - 1])):
        with pytest.raises(DataError, match=r"table\.npy ends before row 399: it has been cut short"):
            found[rows]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_parquet_file_of_several_types_is_unpacked_as_pandas_reads_it(tmp_path, left_in_place, labelled):
    frame = pd.DataFrame(
        {
            "single": RNG.normal(size=N).round(1).astype(np.float32),
            "flag": pd.array(np.where(RNG.random(N) < 0.1, None, RNG.random(N) < 0.5), dtype="boolean"),
            "visits": pd.array(np.where(RNG.random(N) < 0.1, None, RNG.poisson(50, N)), dtype="Int64"),
            "site": RNG.integers(0, 9, N),
            "big": RNG.normal(size=N),
            "kind": RNG.choice(["a", "b"], N),
        },
        index=[f"row {i}" for i in range(N)],
    )
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=130)
    options = {"groups": "site"} | ({"labels": "kind"} if labelled else {"drop": ["kind"]})
    whole = zoo.load_data(tmp_path / "x.parquet", **options)
    left_in_place()
    rows = zoo.load_data(tmp_path / "x.parquet", max_bytes=8 * N, **options)
    assert rows.fingerprint == whole.fingerprint and rows.names == whole.names == ("single", "flag", "visits", "big")
    assert [c.support for c in rows.columns] == [c.support for c in whole.columns]
    assert rows.columns[1].categories == ("False", "True")
    if labelled:
        assert np.array_equal(rows.test["label"], whole.test["label"])
    with pytest.raises(DataError, match=r"column 'kind' holds (large_)?string, .*write a number for each word"):
        zoo.load_data(tmp_path / "x.parquet", max_bytes=8 * N)
    assert zoo.load_data(tmp_path / "x.parquet").fingerprint  # with words in memory, where there is room


def test_a_large_frame_keeps_its_numbers_once(left_in_place):
    frame = pd.DataFrame(RNG.normal(size=(N, 5)), columns=list("abcde"))
    whole = zoo.Data.from_array(frame)
    left_in_place()
    rows = zoo.Data.from_array(frame)
    assert lazy(rows.train) and rows.fingerprint == whole.fingerprint


def test_an_array_in_memory_is_not_copied(left_in_place):
    left_in_place()
    x = RNG.normal(size=(N, 5)).astype(np.float32)
    data = zoo.Data.from_array(x)
    row = int(data.train["obs"][0])
    x[row, 2] = 77
    assert float(data.train[0, 2]) == 77


def test_there_has_to_be_room_to_unpack(tmp_path, monkeypatch, left_in_place):
    path = written(tmp_path, "parquet", table("real"))
    left_in_place()
    monkeypatch.setattr(tables, "_room", lambda _: 1000)
    with pytest.raises(DataError, match=rf"take 16,000 bytes on disk when unpacked, .*{tmp_path}.*TMPDIR.*\.npy"):
        zoo.load_data(path, max_bytes=8 * N)


def test_chunks_of_whole_columns_are_refused(tmp_path, monkeypatch, left_in_place):
    to_netcdf(table("real"), tmp_path / "x.nc", encoding={"x": {"chunksizes": (N, 1), "zlib": True}})
    left_in_place()
    assert zoo.load_data(tmp_path / "x.nc").fingerprint
    monkeypatch.setattr("zoo.sources.CHUNKS", 1000)
    with pytest.raises(DataError, match=r"its chunks hold 400 rows of 5 numbers.*in chunks of fewer rows"):
        zoo.load_data(tmp_path / "x.nc")


# -- lazy arrays -------------------------------------------------------------------------------------------------------


def test_pieces_of_a_lazy_array_are_those_of_the_array(left_in_place):
    left_in_place()
    x = RNG.normal(size=(N, 5)).astype(np.float32)
    kept = np.flatnonzero(RNG.random(N) < 0.6)
    described = {"dims": ("obs", "feature"), "coords": {"obs": kept, "feature": list("abcde")}, "name": "x"}
    found, whole = data_array(Rows(x, index=kept), **described), xarray.DataArray(x[kept].astype(float), **described)
    pieces = [
        lambda a: a[3],
        lambda a: a[:, 2],
        lambda a: a[-1, 4],
        lambda a: a[5:40:3, ::-1],
        lambda a: a.isel(obs=[9, 2, 2, -1]),
        lambda a: a.sel(feature="c", obs=kept[4]),
        lambda a: a.isel(obs=xarray.DataArray([1, 7], dims="p"), feature=xarray.DataArray([0, 3], dims="p")),
        lambda a: a.isel(obs=a["obs"] % 2 == 0)[2:9].mean("obs"),
    ]
    assert pickle.loads(pickle.dumps(found)).equals(whole)
    for piece in pieces:
        assert lazy(found)
        xarray.testing.assert_identical(piece(found).load(), piece(whole))


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compile"), [("gaussian-constrained", "capture"), ("student-t:full-rank", "off"), ("bernoulli", "capture")]
)
def test_a_fit_takes_the_same_steps_wherever_its_data_are(tmp_path, left_in_place, monkeypatch, name, compile):
    path = written(tmp_path, "npy", table("bytes" if name == "bernoulli" else "single"))
    options = {"binarize": "stochastic", "levels": range(256)} if name == "bernoulli" else {}
    how = {"seeds": [0, 3], "steps": 20, "progress": False, "compile": compile, "batch_size": 37}
    resident = zoo.load_data(path, **options)
    whole = zoo.fit(zoo.create(name, resident), resident, **how)
    left_in_place()
    monkeypatch.setattr(batches, "NUMBERS_AHEAD", 3 * 2 * 37 * 5)  # three steps
    data = replace(zoo.load_data(path, **options), columns=resident.columns)  # without what rounds otherwise
    assert lazy(data.train)
    run = zoo.fit(zoo.create(name, data), data, **how)
    for weights, values in whole.weights.items():
        assert torch.equal(run.weights[weights], values), weights


def test_a_fit_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, left_in_place):
    left_in_place()
    data = zoo.load_data(written(tmp_path, "npy", table("single")))
    pair = zoo.create("gaussian-constrained", data, latent_dim=2, hidden=(8,))
    how = {"seeds": 2, "steps": 30, "progress": False, "checkpoint_every": 10}
    whole = zoo.fit(pair, data, checkpoint=tmp_path / "whole", **how)

    class Stop(Exception):
        pass

    from zoo.engine import Engine

    step = Engine.step

    def stops(engine, number):
        if number == 17:
            raise Stop
        return step(engine, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", stops)
        with pytest.raises(Stop):
            zoo.fit(pair, data, checkpoint=tmp_path / "halves", **how)
    halves = zoo.fit(pair, data, checkpoint=tmp_path / "halves", **how)
    assert all(torch.equal(halves.weights[name], value) for name, value in whole.weights.items())


@pytest.mark.parametrize(
    "name", ["gmm-map", "gaussian-map", "linear-shared", "gaussian-shared[optimal=true]", "poisson"]
)
def test_what_looks_at_all_data_looks_at_some(tmp_path, left_in_place, name):
    path = written(tmp_path, "npy", table("count" if name == "poisson" else "gaps"))
    left_in_place(limit=300)
    data = zoo.load_data(path, **({"support": "count"} if name == "poisson" else {}))
    pair = zoo.create(name, data, **({"latent_dim": 2} if name != "gmm-map" else {}))
    run = zoo.fit(pair, data, seeds=1, steps=12, progress=False, compile="off")
    counted = [value.tolist() for weights, value in run.weights.items() if weights.endswith(".rows")]
    assert counted == [[len(data.train)]] * (name in ("gmm-map", "gaussian-map"))
    assert f"uses 60 of the {len(data.train)} rows" in data.notes[-1]


def test_an_order_of_many_rows_uses_each_once_an_epoch(monkeypatch):
    monkeypatch.setattr(batches, "DRAWN_ORDER", 50)
    order = Order(77, 10, [4, 0, 4], torch.device("cpu"))
    rows = torch.cat([order.of_steps(start, start + 7) for start in range(0, 77, 7)], dim=1).flatten(1)
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    for epoch in rows[0].split(77):
        assert sorted(epoch.tolist()) == list(range(77))
    assert not torch.equal(rows[0, :77], rows[0, 77:154])


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced():
    """How many more bytes were taken at most since the last time that was asked."""

    before = 0

    def peak():
        nonlocal before
        now, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        most, before = most - before, now
        return most

    tracemalloc.start()
    yield peak
    tracemalloc.stop()


LONG = RNG.normal(size=(20_000, 40)).astype(np.float32)


def test_a_row_in_a_file_takes_a_few_numbers_of_memory(tmp_path, left_in_place, traced):
    np.save(tmp_path / "x.npy", LONG)
    left_in_place(limit=2**14, block=2**14)
    zoo.load_data(tmp_path / "x.npy")  # which imports what is imported late
    traced()
    data = zoo.load_data(tmp_path / "x.npy")
    assert traced() < 64 * len(LONG) + 2**20
    assert data.train[17:19].values.shape == (2, 40)
    read = fitting._training(zoo.create("gaussian-constrained", data), data.train, torch.device("cpu"))
    read.follow(Order(len(read), 16, [0, 1], torch.device("cpu")))
    traced()
    for step in range(40):
        read.given(step)
    assert traced() < 2**22 + 16 * len(LONG)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_an_array_in_memory_takes_no_more(left_in_place, traced, dtype):
    x = (LONG * 9).astype(dtype)
    left_in_place(limit=2**14, block=2**14)
    zoo.Data.from_array(x)
    traced()
    zoo.Data.from_array(x)
    assert traced() < 64 * len(LONG) + 2**20


def test_a_table_of_nothing_but_gaps_is_refused():
    with pytest.raises(zoo.errors.DataError, match="has an observed entry"):
        zoo.load_data(np.full((30, 4), np.nan))
