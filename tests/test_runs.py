"""What a fit leaves behind, in memory and on disk."""

import hashlib
import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray
from programs import score_quickly

import zoo
from zoo.errors import DataError, OptionError, RunError, UnknownPair
from zoo.runs import FORMAT


@pytest.fixture(scope="module")
def run(iris):
    pair = zoo.create("gaussian-constrained:full-rank", iris, latent_dim=2, hidden=(16, 8))
    run = zoo.fit(pair, iris, seeds=[3, 8], steps=60, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        score_quickly(patch)
        zoo.evaluate(run, iris, samples=50, temperatures=1)
    return run


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("written") / "run")


@pytest.fixture
def saved(written, tmp_path):
    """A copy of the run's files that a test may damage."""
    return shutil.copytree(written, tmp_path / "run")


@pytest.mark.usefixtures("quick_scores")
def test_it_comes_back_whole(run, saved, iris):
    loaded = zoo.load_run(saved)
    assert loaded.pair.options == run.pair.options and loaded.seeds == run.seeds
    xarray.testing.assert_identical(loaded.tree.to_dataset(), run.tree.to_dataset())
    for group in run.tree.children:
        xarray.testing.assert_equal(loaded.tree[group].to_dataset(), run.tree[group].to_dataset())
    x = iris.test.values
    for method in ("encode", "reconstruct", "log_evidence"):
        assert np.array_equal(getattr(loaded, method)(x), getattr(run, method)(x)), method
    assert np.array_equal(loaded.sample(5), run.sample(5))
    zoo.evaluate(loaded, iris, samples=50, temperatures=1)
    assert np.array_equal(loaded.tree["heldout/log_evidence"], run.tree["heldout/log_evidence"])


def test_its_arrays_have_a_leading_seed_axis_and_the_units_of_the_data(run, iris):
    x = iris.test.values
    assert run.encode(x).shape == (2, 30, 2)
    assert run.reconstruct(x).shape == (2, 30, 4)
    assert np.abs(run.reconstruct(x) - x).mean() < iris.train_std.mean()
    assert run.log_evidence(x, samples=7).shape == (2, 30)
    samples = run.sample(4000)
    assert samples.shape == (2, 4000, 4)
    assert np.abs(samples.mean((0, 1)) - x.mean(0)).max() < iris.train_std.max()


def test_the_file_opens_with_xarray_alone_and_holds_no_pickle(saved):
    assert len(list(saved.glob("*.nc"))) == 1
    assert sorted(p.suffix for p in saved.iterdir()) == [".json", ".nc", ".safetensors"]
    code = (
        "import sys, xarray; tree = xarray.open_datatree(sys.argv[1]);"
        "assert 'zoo' not in sys.modules and 'torch' not in sys.modules;"
        "print(sorted(tree.children), dict(tree['optimization'].sizes))"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-c", code, str(saved / "run.nc")], capture_output=True, text=True, check=True
    ).stdout
    assert "'heldout'" in out and "'chain': 2" in out and "'step': 60" in out


def test_saving_again_replaces_a_run_and_nothing_else(run, saved, tmp_path):
    run.save(saved)
    assert zoo.load_run(saved).seeds == run.seeds
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not a run"):
        run.save(other)
    assert (other / "chapter.tex").read_text() == "years of work"
    assert {p.name for p in tmp_path.iterdir()} == {"run", "thesis"}


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        run.save(tmp_path / "file" / "run")


@pytest.mark.parametrize("damaged", ["run.json", "run.nc", "weights.safetensors"])
@pytest.mark.parametrize("share", [None, 0, 0.5])
def test_a_damaged_run_says_so(saved, damaged, share):
    content = (saved / damaged).read_bytes()
    (saved / damaged).unlink()
    if share is not None:
        (saved / damaged).write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"damaged|no run"):
        zoo.load_run(saved)


def rewrite(saved, **changes):
    """Another recipe, signed as if it had been written so."""
    recipe = json.loads((saved / "run.json").read_text()) | changes
    del recipe["sha256"]["run.json"]
    recipe["sha256"]["run.json"] = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    (saved / "run.json").write_text(json.dumps(recipe))


@pytest.mark.parametrize("name", ["run.json", "run.nc", "weights.safetensors"])
def test_a_flipped_bit_anywhere_is_seen(saved, name):
    whole = bytearray((saved / name).read_bytes())
    for at in np.random.default_rng(0).integers(len(whole), size=5):
        content = whole.copy()
        content[at] ^= 1
        (saved / name).write_bytes(content)
        with pytest.raises(RunError, match=r"damaged|format"):
            zoo.load_run(saved)


def test_traces_that_promise_too_much_take_no_memory(saved):
    """Chunks that were never written cost nothing on disk, and their fill value fills the memory."""
    with h5py.File(saved / "run.nc", "a") as file:
        file.create_dataset("optimization/huge", shape=(2**20, 2**14), dtype="f8", chunks=(2**10, 2**10))
    recipe = json.loads((saved / "run.json").read_text())
    told = hashlib.sha256((saved / "run.nc").read_bytes()).hexdigest()
    rewrite(saved, sha256=recipe["sha256"] | {"run.nc": told})
    for read in (zoo.load_run, zoo.compare):
        with pytest.raises(RunError, match=r"its header promises \d+ bytes, which do not fit"):
            read(saved)


def test_weights_of_another_architecture_are_refused(saved):
    recipe = json.loads((saved / "run.json").read_text())
    rewrite(saved, options=recipe["options"] | {"hidden": [16, 9]})
    with pytest.raises(RunError, match=r"has shape \(2, .*\), not \(2, .*\)"):
        zoo.load_run(saved)


def test_a_run_of_a_later_format_or_an_unknown_pair_is_refused(saved):
    rewrite(saved, format=99)
    with pytest.raises(RunError, match="format 99"):
        zoo.load_run(saved)
    rewrite(saved, format=FORMAT, pair="gaussian-unheard-of")
    with pytest.raises(UnknownPair, match=r"Nearest.*run that first"):
        zoo.load_run(saved)


def test_the_file_that_registered_a_pair_is_named_where_it_is_missing(saved):
    rewrite(saved, pair="mine", registered_by=["/home/ada/own.py"])
    with pytest.raises(UnknownPair, match=r"of 'mine': .* To load it, run /home/ada/own\.py first, which registers it"):
        zoo.load_run(saved)


def test_data_of_another_width_are_refused(run):
    with pytest.raises(DataError, match=r"x has shape \(3, 7\); gaussian-constrained takes \(N, 4\)"):
        run.encode(np.zeros((3, 7)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.log_evidence(np.zeros((2, 4)), samples=0), "samples=0; give an integer from 1"),
        (lambda run: run.sample(-1), "n=-1; give an integer from 1"),
        (lambda run: run.reconstruct(np.zeros((2, 4)), samples=1.5), "samples=1.5"),
    ],
)
def test_a_count_that_is_none_is_named(run, call, said):
    with pytest.raises(OptionError, match=said):
        call(run)


def test_numbers_outside_the_support_are_refused(run, digits):
    x = np.zeros((2, 4))
    x[1, 2] = np.inf
    with pytest.raises(DataError, match=r"inf in row 1 .*, column 'petal length.*takes numbers"):
        run.encode(x)
    data = zoo.load_data("digits", binarize="threshold")
    binary = zoo.fit(zoo.create("bernoulli", data), data, seeds=1, steps=2, progress=False)
    with pytest.raises(DataError, match="bernoulli takes 0 or 1"):
        binary.log_evidence(digits.test.values, samples=2)
