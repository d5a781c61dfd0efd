"""What is scored of many rows, what is kept of them, and what is held in memory at once."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo import evaluation, inference, rowwise, splits
from zoo.errors import OptionError, RunError
from zoo.evaluation import draws, evidence, weighing
from zoo.evaluation.calibration import calibration
from zoo.evaluation.spread import spread
from zoo.runs import Run
from zoo.splits import subsample, value_blocks

pytestmark = pytest.mark.usefixtures("quick_scores")
PAIRS = {"gaussian-constrained": {"latent_dim": 2, "hidden": (8,)}, "gmm-constrained": {"components": 3}}
KEPT = ("posterior", "sample_stats", "posterior_predictive", "prior_predictive", "observed_data")


@pytest.fixture(scope="module")
def runs(iris):
    pairs = [zoo.create(name, iris, **options) for name, options in PAIRS.items()]
    return [zoo.fit(pair, iris, seeds=2, steps=30, compile="off", progress=False) for pair in pairs]


def scored(run, data, **how):
    """The run, scored in a tree of its own."""
    own = Run(run.pair, run.seeds, run.weights, run.tree.copy(deep=True))
    zoo.evaluate(own, data, **{"samples": 50, "temperatures": 0} | how)
    return own


def of_size(data, rows):
    """The data with as many test rows as wanted, whatever their fingerprint says."""
    test = data.test.isel(obs=np.resize(np.arange(len(data.test)), rows))
    return replace(data, test=test.assign_coords(obs=np.arange(rows)))


@pytest.mark.parametrize("which", [0, 1])
def test_rows_scores_a_seeded_subset_of_the_test_part_and_meets_no_other_row(runs, iris, which):
    expected = subsample(iris.test, 9)
    some = scored(runs[which], iris, rows=9)
    spoilt = replace(iris, test=iris.test.where(iris.test["obs"].isin(expected["obs"]), 1e6))
    same = scored(runs[which], spoilt, rows=9)
    for name in ("heldout", "calibration", "spread", "reconstruction", *KEPT):
        group = some.tree[name].to_dataset()
        assert group.equals(same.tree[name].to_dataset()), name
        if "obs" in group.dims:
            assert group["obs"].values.tolist() == expected["obs"].values.tolist(), name
    assert "rows=9" in some.tree.attrs["repeat"]
    every, beyond = scored(runs[which], iris), scored(runs[which], iris, rows=31)
    assert every.tree["heldout"].to_dataset().equals(beyond.tree["heldout"].to_dataset())
    if which:  # exact, so that a row's score owes nothing to the rows beside it
        of_all = every.tree["heldout/log_evidence"].sel(obs=expected["obs"])
        np.testing.assert_allclose(some.tree["heldout/log_evidence"], of_all, rtol=1e-5)


def test_a_subset_is_told_and_never_compared_with_other_rows(runs, iris, tmp_path):
    some = [scored(run, iris, rows=9) for run in runs]
    verdicts = zoo.compare(some)["verdict"]
    assert verdicts.str.contains("scored on 9 of 30 test rows").all()
    page = zoo.report(some[1], tmp_path / "report").read_text(encoding="utf-8")
    assert "scored on 9 of 30 test rows" in page and "test, 9 of them scored" in page
    every = scored(runs[0], iris)
    assert "scored on" not in zoo.compare(every)["verdict"].item()
    told = r"different test rows \(gaussian-constrained on 30 of 30, gmm-constrained on 9 of 30\).*the same rows="
    with pytest.raises(RunError, match=told):
        zoo.compare([every, some[1]])
    moved = some[1].tree["heldout"].to_dataset()
    some[1].tree["heldout"] = moved.assign_coords(obs=moved["obs"] + 1)
    with pytest.raises(RunError, match="different test rows"):
        zoo.compare(some)


def test_rows_is_a_count(runs, iris):
    with pytest.raises(OptionError, match="rows=0; give an integer"):
        zoo.evaluate(runs[0], iris, rows=0)


def test_groups_of_draws_keep_the_same_rows_and_say_which(runs, iris, monkeypatch):
    run = runs[0]  # two seeds, two latents and two log densities: 800 numbers a row
    monkeypatch.setattr(draws, "LEAST_ROWS", 5)
    monkeypatch.setattr(draws, "RECONSTRUCTED", 5)
    monkeypatch.setattr(draws, "KEPT", 8000)
    tree = scored(run, iris).tree
    kept = subsample(iris.test, 10)
    for name in KEPT:
        assert tree[name]["obs"].values.tolist() == kept["obs"].values.tolist()
    assert tree["posterior/z"].size + tree["sample_stats/lp"].size + tree["sample_stats/lq"].size == 8000
    assert tree["observed_data/x"].equals(kept)
    assert tree["reconstruction"]["obs"].values.tolist() == kept["obs"].values[:5].tolist()
    assert tree["posterior"].attrs["note"] == "100 draws for each of 10 of 30 scored test rows, a random subset"
    assert tree["posterior_predictive"].attrs["note"].startswith("20 draws for each of 10 of 30 scored test rows")
    assert tree["heldout"].sizes["obs"] == 30
    monkeypatch.setattr(draws, "KEPT", 1000)  # five rows at least, and fewer draws
    tree = scored(run, iris).tree
    assert tree["posterior/z"].shape == (2, 25, 5, 2)
    assert tree["posterior"].attrs["note"].startswith("25 draws for each of 5 of 30")
    monkeypatch.setattr(draws, "KEPT", 10**7)
    monkeypatch.setattr(draws, "PREDICTED", 2 * 4 * 12 * 4)  # four draws of 12 rows
    tree = scored(run, iris).tree
    assert tree["posterior_predictive/x"].shape == tree["prior_predictive/x"].shape == (2, 4, 12, 4)
    zoo.testing.check_tree(tree)


def test_the_farthest_column_of_every_row_is_noted(runs, iris):
    held = scored(runs[1], iris).tree["heldout"]
    distance = np.abs(iris.test.values - iris.train.values.mean(0)) / iris.train.values.std(0)
    assert held["farthest_column"].values.tolist() == distance.argmax(1).tolist()
    np.testing.assert_allclose(held["farthest"], distance.max(1))


class Sizes(TorchDispatchMode):
    """How many numbers the tensors have that operations return."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        several = returned if isinstance(returned, tuple | list) else [returned]
        self.found |= {tensor.numel() for tensor in several if isinstance(tensor, torch.Tensor)}
        return returned


@pytest.mark.parametrize("which", [0, 1])
def test_no_tensor_grows_with_the_rows_but_their_values_and_what_is_told_of_each(runs, iris, which, monkeypatch):
    """All that is drawn for a row goes block by block."""
    block = 2**11
    for module, name in ((inference, "CHUNK"), (rowwise, "CACHE"), (weighing, "AT_ONCE")):
        monkeypatch.setattr(module, name, block)
    monkeypatch.setattr(draws, "KEPT", 2**13)
    monkeypatch.setattr(evaluation.evidence, "ROWS", 50)
    monkeypatch.setattr(sys.modules["zoo.evaluation.spread"], "MMD_ROWS", 50)
    sizes = []
    for rows in (150, 350):  # more than those that are looked at more closely
        with Sizes() as of:
            scored(runs[which], of_size(iris, rows), samples=20, temperatures=1)
        sizes.append(of.found)
    assert max(sizes[1] - sizes[0]) <= 2 * block, "the last block is another, and the values are 4 x 350"


def test_values_are_read_some_rows_at_a_time(iris, monkeypatch):
    monkeypatch.setattr(splits, "NUMBERS_AT_ONCE", 30)
    blocks = [*value_blocks(iris.test)]
    assert {block.shape for block in blocks} == {(7, 4), (2, 4)}
    assert np.array_equal(np.concatenate(blocks), iris.test.values)


def test_a_known_evidence_is_taken_some_rows_at_a_time(iris, monkeypatch):
    model, met = zoo.create("linear-diagonal", iris).model.eval(), []
    x, columns = torch.as_tensor(iris.scaled("test"), dtype=torch.float32), torch.tensor([0, 2])
    whole = [model.log_evidence(x).detach(), model.log_evidence(x, columns).detach()]
    log_evidence = model.log_evidence
    monkeypatch.setattr(inference, "CHUNK", 28)
    monkeypatch.setattr(model, "log_evidence", lambda rows, *of: met.append(len(rows)) or log_evidence(rows, *of))
    with torch.no_grad():
        torch.testing.assert_close(inference.known_evidence(model, x, columns)[:, 0], torch.stack(whole))
    assert max(met) == 7 and sum(met) == 60


class Held(TorchDispatchMode):
    """How many bytes tensors hold together, at most, beside those that are there before."""

    def __init__(self):
        super().__init__()
        self.alive, self.bytes, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        for tensor in returned if isinstance(returned, tuple | list) else [returned]:
            try:
                storage = tensor.untyped_storage()
            except (AttributeError, NotImplementedError):  # no tensor, or one of torch.func's around another
                continue
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.bytes += storage.nbytes()
        if self.bytes > self.peak:
            self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
            self.bytes = sum(size for _, size in self.alive.values())
            self.peak = max(self.peak, self.bytes)
        return returned


def test_draws_are_not_kept_longer_than_their_block(monkeypatch):
    """A row keeps what is told of it, whatever of its draws it was told by."""
    wide = zoo.Data.from_array(np.random.default_rng(0).normal(size=(60, 64)))
    pair = zoo.create("gaussian-constrained", wide, latent_dim=2, hidden=(8,))
    run = zoo.fit(pair, wide, seeds=1, steps=3, compile="off", progress=False)
    monkeypatch.setattr(inference, "CHUNK", 2**12)
    monkeypatch.setattr(rowwise, "CACHE", 2**15)
    monkeypatch.setattr(weighing, "K_FITS", 640)
    peaks = []
    for rows in (30, 60):
        data = of_size(wide, rows)
        with Held() as held:
            calibration(run, data, evidence.weigh(run, data, 300))
        peaks.append(held.peak)
    assert (peaks[1] - peaks[0]) / 30 < 8 * 300 * 8, "of a row, eight numbers for each draw, and not 64"


def test_what_is_scored_of_many_levels_goes_by_pieces_of_their_draws(monkeypatch):
    x = np.random.default_rng(0).permuted(np.arange(240).reshape(60, 4) % 64, axis=0)
    data = zoo.Data.from_array(x, support="ordinal")
    pair = zoo.create("categorical", data, latent_dim=2, hidden=(8,))
    run = zoo.fit(pair, data, seeds=1, steps=3, compile="off", progress=False)
    for module, name in ((inference, "CHUNK"), (rowwise, "CACHE"), (weighing, "AT_ONCE")):
        monkeypatch.setattr(module, name, 2**12)  # 16 draws of the 256 logits of a row
    for name in ("PRIOR_ROWS", "MMD_ROWS"):
        monkeypatch.setattr(sys.modules["zoo.evaluation.spread"], name, 100)
    with Sizes() as of:
        weighed = evidence.weigh(run, data, 200)
        spread(run, weighed.x, evidence.heldout(run, data, weighed, 2))
        calibration(run, data, weighed)
    assert max(of.found) < 200 * 256, "never the logits of all draws of a row"
