"""The loop around the step: validation, stopping, and what is recorded."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from zoo.context import pyro_context, seeded
from zoo.errors import DataError, DivergenceWarning, OptionError
from zoo.models import VAE
from zoo.pairs import VAEOptions, decoder, guide
from zoo.settings import Settings
from zoo.splits import subsample

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def pair(iris):
    return zoo.create("gaussian-constrained", iris, latent_dim=2)


def test_the_scored_weights_are_those_of_the_best_validation_elbo(iris):
    rows = np.concatenate([iris.train.values[:20], iris.validation.values, iris.test.values])
    split = ["train"] * 20 + ["validation"] * len(iris.validation) + ["test"] * len(iris.test)
    few = zoo.Data.from_array(rows, split=split)
    pair = zoo.create("gaussian-constrained", few, latent_dim=2)
    how = QUIET | {"seeds": 4, "steps": 300, "learning_rate": 0.02, "schedule": "constant", "checks": 20}
    run = zoo.fit(pair, few, **how)
    validation = run.tree["validation"]
    best = validation["step"].values[validation["elbo"].values.argmax(1)]
    assert run.tree["optimization"]["best_step"].values.tolist() == best.tolist()
    assert (best < 300).any(), "the fit was to overfit, so that the last weights are not the best"
    shorter = zoo.fit(pair, few, patience=6, **how)
    steps = shorter.tree["optimization"]
    stopped = steps["stopped_at"].values >= 0
    assert stopped.any()
    early = torch.as_tensor(stopped & (best <= steps["stopped_at"].values))
    assert early.any()
    for name in ("model.decoder.0.weight", "guide.encoder.2.bias"):
        assert torch.equal(run.weights[name][early], shorter.weights[name][early])
    late = steps["elbo"].isel(chain=int(stopped.argmax()), step=slice(int(steps["stopped_at"][stopped.argmax()]), None))
    assert late.isnull().all()


def test_the_test_part_is_untouched(pair, iris):
    spoilt = replace(iris, test=iris.test * np.nan)
    run, again = (zoo.fit(pair, data, seeds=1, steps=20, **QUIET) for data in (iris, spoilt))
    assert np.array_equal(run.tree["validation"]["elbo"], again.tree["validation"]["elbo"])


def test_traces_are_in_the_units_of_the_data_as_loaded(iris):
    """In other units of the same flowers, the ELBO moves by exactly the log of the units' ratio."""
    tens = zoo.Data.from_array(iris_values() * 10, name="millimetres", split="rows")
    ones = zoo.Data.from_array(iris_values(), name="centimetres", split="rows")
    traces = [
        zoo.fit(zoo.create("gaussian-identity", d), d, seeds=1, steps=5, **QUIET).tree["optimization"]["elbo"].values
        for d in (ones, tens)
    ]
    np.testing.assert_allclose(traces[0] - traces[1], 4 * np.log(10), rtol=1e-4)


def iris_values():
    data = zoo.load_data("iris")
    return np.concatenate([data.train, data.validation, data.test])


class BreaksBeyondTheEdge(VAE):
    """Not a number as soon as the smallest log variance of a batch falls below an edge."""

    def likelihood(self, z):
        mean, log_variance = self.decoder(z).unbind(-2)
        edge = torch.where(log_variance.amin() < -1.5, torch.nan, 0.0)
        return dist.Normal(mean + edge, (log_variance / 2).exp()).to_event(1)


def test_a_seed_that_breaks_is_frozen_marked_and_padded(catalogue):
    @zoo.register("breaks", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return BreaksBeyondTheEdge(decoder(data, options, 2), options.latent_dim), guide(data, options)

    data = zoo.Data.from_array(np.random.default_rng(0).normal(size=(60, 3)) * [1, 1, 0], name="flat")
    with pytest.warns(DivergenceWarning, match="not finite"):
        run = zoo.fit(zoo.create("breaks", data), data, seeds=3, steps=300, on_divergence="warn", **QUIET)
    steps = run.tree["optimization"]
    assert (steps["frozen_at"].values >= 0).any()
    for chain in np.flatnonzero(steps["frozen_at"].values >= 0):
        at = int(steps["frozen_at"][chain])
        assert steps["elbo"][chain, : at - 1].notnull().all()
        assert steps["elbo"][chain, at - 1 :].isnull().all()
        assert json.loads(run.tree.attrs["faults"])[str(chain)].startswith(f"at step {at} the log_prob of the model's")
    assert all(tensor.isfinite().all() for tensor in run.weights.values())


def test_kl_warmup_is_recorded_and_the_elbo_is_not_annealed(pair, iris):
    run = zoo.fit(pair, iris, seeds=1, steps=10, warmup=5, **QUIET)
    steps = run.tree["optimization"]
    np.testing.assert_allclose(steps["kl_weight"], [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(steps["elbo"], steps["log_likelihood"] - steps["kl"], rtol=1e-5)


def test_fresh_noise_reaches_every_step_and_the_scored_parts_stand_still(digits):
    data = zoo.load_data("digits", binarize="stochastic")
    pair = zoo.create("bernoulli", data)
    run = zoo.fit(pair, data, seeds=1, steps=60, batch_size=2000, learning_rate=1e-9, checks=3, **QUIET)
    likelihood = run.tree["optimization"]["log_likelihood"].values[0]
    assert likelihood.std() > 1e-3, "the whole training part at a standstill: only fresh binarisation can move it"
    assert np.ptp(run.tree["validation"]["elbo"].values) < 1e-3
    assert set(np.unique(data.test)) == {0, 1}


def test_dequantised_data_are_trained_with_fresh_noise():
    data = zoo.load_data("digits", dequantize=True)
    run = zoo.fit(zoo.create("gaussian-learned", data), data, seeds=1, steps=300, **QUIET)
    assert (run.tree["optimization"]["ran_away_at"] == -1).all(), "noise on constant columns keeps their scale up"
    x = (zoo.load_data("digits").test.values + np.random.default_rng(0).uniform(-0.5, 0.5, (360, 64)))[:50]
    assert np.isfinite(run.log_evidence(x, samples=50)).all()


def test_attributes_say_what_repeats_the_run(pair, iris):
    run = zoo.fit(pair, iris, seeds=[7], steps=12, batch_size=8, **QUIET)
    attrs = run.tree.attrs
    assert attrs["pair"] == "gaussian-constrained" and json.loads(attrs["options"])["latent_dim"] == 2
    assert json.loads(attrs["seeds"]) == [7] and attrs["steps"] == 12 and attrs["learning_rate"] == 3e-3
    assert attrs["data_fingerprint"] == iris.fingerprint
    snippet = attrs["repeat"].replace("data = ...", 'data = zoo.load_data("iris")')
    snippet = snippet.replace("zoo.evaluate(run, data)", "")
    names = {}
    exec(snippet.replace("zoo.fit(pair, data", "zoo.fit(pair, data, progress=False"), names)
    assert np.array_equal(names["run"].tree["optimization"]["elbo"], run.tree["optimization"]["elbo"])


def test_the_bound_is_in_the_units_of_the_data(iris, pair):
    run = zoo.fit(pair, iris, seeds=1, steps=1, **QUIET)
    expected = -4 / 2 * np.log(2 * np.pi * 0.01) - np.log(iris.scaling.scale).sum()
    assert run.tree.attrs["bound"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("steps", 0, "greater than or equal to 1"),
        ("steps", "many", "valid integer.*, or input should be 'auto'"),
        ("batch_size", -3, "greater than or equal to 1"),
        ("learning_rate", -1.0, "greater than 0"),
        ("schedule", "step", "'cosine' or 'constant'"),
        ("compile", "jit", "'off', 'capture'"),
        ("device", "tpu", "device"),
        ("on_divergence", "ignore", "'warn', 'stop' or 'raise'"),
        ("seeds", 0, "at least 1"),
        ("seeds", [1, 1], "different"),
        ("seeds", [-1], "non-negative"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(pair, iris, argument, value, said):
    with pytest.raises(OptionError, match=f"fit: .*{argument}.*{said}"):
        zoo.fit(pair, iris, **{"progress": False, argument: value})


def test_other_data_than_the_pair_was_created_for_are_refused(pair, digits):
    with pytest.raises(DataError, match=r"created for <Data 'iris'.* asked to fit <Data 'digits'"):
        zoo.fit(pair, digits)


def test_every_validation_row_counts_alike(monkeypatch, iris):
    from zoo import fitting

    run = zoo.fit(zoo.create("gmm", iris), iris, seeds=1, steps=6, **QUIET)
    monkeypatch.setattr(fitting, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(fitting, "REPEATED_ROWS", 0)
    in_blocks = zoo.fit(zoo.create("gmm", iris), iris, seeds=1, steps=6, **QUIET)
    np.testing.assert_allclose(in_blocks.tree["validation/elbo"], run.tree["validation/elbo"], rtol=1e-5)


@pytest.mark.parametrize(("steps", "asked", "done"), [(2000, 50, 50), (99, 50, 50), (1999, 1000, 1000), (30, 1, 6)])
def test_checks_are_about_as_many_as_asked_for(steps, asked, done):
    settings = Settings(steps=steps, checks=asked)
    assert sum(settings.checks_at(step) for step in range(steps)) == done


@pytest.mark.parametrize(("steps", "likely"), [(20, 20), (60, 60), ("auto", 7000)])
def test_auto_asks_whether_compiling_pays_in_the_likely_steps(monkeypatch, steps, likely):
    from zoo import engine, settings

    asked = []
    monkeypatch.setattr(engine, "compiling_pays", lambda _, times: bool(asked.append(times)))
    monkeypatch.setattr(settings.Settings, "most_steps", property(lambda _: 20))
    data = zoo.load_data("iris")
    run = zoo.fit(zoo.create("gmm", data), data, seeds=2, steps=steps, **QUIET | {"compile": "auto"})
    assert asked == ([] if steps == 20 else [likely])
    assert run.tree.attrs["compile"] == ("off" if steps == 20 else "capture")


def test_every_round_runs_through_the_whole_schedule():
    settings = Settings(steps="auto", learning_rate=0.5, warmup=1500)
    rates = np.array([settings.at(step)[0] for step in range(7000)])
    for start, stop in ((0, 1000), (1000, 3000), (3000, 7000)):
        done = np.arange(stop - start) / (stop - start)
        np.testing.assert_allclose(rates[start:stop], 0.25 * (1 + np.cos(np.pi * done)), atol=1e-12)
    assert [settings.at(step)[1] for step in (0, 749, 1499, 3000)] == [1 / 1500, 0.5, 1, 1]
    judged = [step + 1 for step in range(settings.most_steps) if settings.settles_at(step)]
    assert judged == [7000, 15000, 31000], "a round in which the KL term grows is compared with no other"
    assert not any(Settings(steps=3000).settles_at(step) for step in range(3000))


def test_each_seed_stops_by_itself_where_it_improves_no_more(iris, short_rounds):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    how = QUIET | {"steps": "auto", "learning_rate": 0.07, "checks": 6, "compile": "capture"}
    run = zoo.fit(pair, iris, seeds=4, **how)
    optimization, validation = (run.tree[group].to_dataset() for group in ("optimization", "validation"))
    settled, checks = optimization["settled_at"].values, validation["step"].values
    assert len(set(settled)) > 2 and -1 in settled, "one seed is to stop early, one to meet the bound unsettled"
    assert (settled == optimization["stopped_at"].values).all()
    for at, seed in zip(settled, validation["elbo"].values, strict=True):
        stops = [stop for stop in short_rounds if stop <= at or at < 0]
        assert np.array_equal(np.isfinite(seed), checks <= stops[-1])
        best = [seed[checks <= stop].max() for stop in stops]
        ends = [seed[checks == stop][0] for stop in stops]
        gains = np.diff([-np.inf, *best])
        goes_on = [gain > 0.3 and end > top - 0.3 for gain, end, top in zip(gains, ends, best, strict=True)]
        assert goes_on == [True] * (len(best) - 1) + [at < 0]
    first = int(np.where(settled < 0, 999, settled).argmin())
    alone = zoo.fit(pair, iris, seeds=[first], **how).tree["optimization"]
    assert alone["settled_at"].item() == alone.sizes["step"] == settled[first]
    assert [int((checks <= stop).sum()) for stop in short_rounds] == [5, 15, 22, 29, 36]
    assert "steps='auto'" in run.tree.attrs["repeat"] and run.settings["steps"] == "auto"


def test_a_bound_ends_what_does_not_settle(pair, iris, short_rounds, monkeypatch):
    from zoo import fitting

    monkeypatch.setattr(fitting, "still_improving", lambda *elbo: np.ones(len(elbo[-1]), bool))
    run = zoo.fit(pair, iris, seeds=2, steps="auto", checks=6, compile="capture", **QUIET)
    steps = run.tree["optimization"]
    assert steps.sizes["step"] == short_rounds[-1] and np.isfinite(steps["elbo"]).all()
    assert steps["settled_at"].values.tolist() == steps["stopped_at"].values.tolist() == [-1, -1]
    assert "settled_at" not in zoo.fit(pair, iris, seeds=1, steps=5, **QUIET).tree["optimization"]


def test_a_seed_that_ran_away_goes_on_to_the_end_of_its_round_only(iris, monkeypatch):
    from zoo import fitting, rounds, settings

    monkeypatch.setattr(rounds, "FIRST", 400)
    monkeypatch.setattr(settings, "AUTO_STEPS", 500)
    monkeypatch.setattr(fitting, "still_improving", lambda *elbo: np.ones(len(elbo[-1]), bool))
    data = zoo.Data.from_array(np.pad(iris.train.values, ((0, 0), (0, 20))), name="with constants")
    # which of the seeds run away differs between processors
    how = QUIET | {"steps": "auto", "learning_rate": 0.05, "checks": 30, "on_divergence": "warn"}
    with warnings.catch_warnings(record=True) as told:  # others may end in a number that is not finite
        warnings.simplefilter("always")
        pair = zoo.create("gaussian-learned", data, latent_dim=2, hidden=(32,), activation="relu")
        run = zoo.fit(pair, data, seeds=4, **how)
    assert any("runs away" in str(one.message) for one in told)
    steps = run.tree["optimization"]
    early = (steps["ran_away_at"] > 0) & (steps["ran_away_at"] < 400)
    assert early.any()
    assert set(steps["stopped_at"].values[early]) == {400}
    assert set(steps["settled_at"].values[early]) == {-1}


@pytest.mark.parametrize(("other", "said"), [({"schedule": "constant"}, "restarts"), ({"patience": 3}, "patience out")])
def test_what_auto_steps_leave_no_room_for_is_refused(pair, iris, other, said):
    with pytest.raises(OptionError, match=f'steps="auto".*{said}'):
        zoo.fit(pair, iris, steps="auto", **QUIET, **other)


def test_the_smallest_scale_has_its_row(iris):
    run = zoo.fit(zoo.create("gaussian-learned", iris), iris, seeds=2, steps=10, progress=False)
    assert np.isin(run.tree["validation"]["scale_obs"], iris.validation["obs"]).all()
    run = zoo.fit(zoo.create("gmm", iris, components=2), iris, seeds=2, steps=10, progress=False)
    assert (run.tree["validation"]["scale_obs"] == -1).all()


def test_the_median_scale_is_over_rows_and_a_mixtures_components_have_none(iris):
    run = zoo.fit(zoo.create("gaussian-learned", iris), iris, seeds=2, steps=10, checks=10, **QUIET)
    smallest, median = (run.tree["validation"][name] for name in ("column_scale", "median_scale"))
    assert (smallest < median).all()
    run = zoo.fit(zoo.create("gaussian-shared", iris), iris, seeds=2, steps=10, checks=10, **QUIET)
    assert np.array_equal(run.tree["validation/median_scale"], run.tree["validation/column_scale"])
    run = zoo.fit(zoo.create("gmm", iris, components=2), iris, seeds=2, steps=10, **QUIET)
    assert run.tree["validation/median_scale"].isnull().all()


def test_the_learning_rate_of_every_step_is_recorded(pair, iris):
    run = zoo.fit(pair, iris, seeds=1, steps=4, learning_rate=0.1, **QUIET)
    np.testing.assert_allclose(run.tree["optimization/learning_rate"], 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)))


@pytest.mark.parametrize("name", ["gaussian-learned", "gmm"])
def test_a_check_sees_a_seeded_subset_of_the_validation_part_and_nothing_else(iris, name):
    pair, how = zoo.create(name, iris), QUIET | {"seeds": 2, "steps": 10, "checks": 10, "compile": "off"}
    some, every, more = (zoo.fit(pair, iris, validation_rows=rows, **how) for rows in (6, None, 500))
    seen = subsample(iris.validation, 6)["obs"]
    spoilt = replace(iris, validation=iris.validation.where(iris.validation["obs"].isin(seen), 1e4))
    same = zoo.fit(pair, spoilt, validation_rows=6, **how)
    assert np.array_equal(same.tree["validation/elbo"], some.tree["validation/elbo"])
    assert not np.isclose(every.tree["validation/elbo"], some.tree["validation/elbo"]).any()
    assert every.differences(more) == [] == zoo.fit(pair, iris, **how).differences(every)
    assert some.tree["validation"].attrs["note"] == "6 of 15 validation rows, the same for every seed"
    assert "note" not in every.tree["validation"].attrs
    if name == "gaussian-learned":
        assert np.isin(some.tree["validation/scale_obs"], seen).all()
    assert some.tree.attrs["validation_rows"] == some.settings["validation_rows"] == 6
    assert every.settings["validation_rows"] is None and "validation_rows=None" in every.tree.attrs["repeat"]


def test_what_settles_settles_on_as_many_training_rows(iris, monkeypatch):
    from zoo.models import OptimalVAE

    met, settle = [], OptimalVAE.settle
    monkeypatch.setattr(OptimalVAE, "settle", lambda self, guide, x: met.append(len(x)) or settle(self, guide, x))
    pair = zoo.create("gaussian-shared", iris, optimal=True)
    zoo.fit(pair, iris, seeds=1, steps=10, validation_rows=30, **QUIET)
    assert set(met) == {1020}, "30 rows, several times over"


def test_patience_counts_the_checks_since_the_best(iris):
    """Steps too small to change a number: the first check is the best, and the third after it ends the fit."""
    how = {"steps": 400, "checks": 20, "seeds": 2, "compile": "off", "progress": False}
    run = zoo.fit(zoo.create("gaussian-constrained", iris), iris, learning_rate=1e-20, patience=3, **how)
    steps = run.tree["validation"]["step"].values
    assert (run.tree["optimization"]["best_step"] == steps[0]).all()
    assert len(steps) == 4 and (run.tree["optimization"]["stopped_at"] == steps[3]).all()


def test_the_row_of_the_smallest_scale_is_found_in_any_block(monkeypatch):
    """Of programs by which the scale of a row follows its first column."""
    from zoo import fitting

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(3), z.exp().expand(*z.shape[:-1], 3)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, :1], 1e-6).to_event(1))

    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(5))
    x[40, 0] = -4.0
    monkeypatch.setattr(fitting, "ROWS_AT_ONCE", 7)
    with pyro_context(), seeded(0), torch.no_grad():
        found = fitting._validate(model, guide, x)
    assert (found.row == 40).all()
    torch.testing.assert_close(found.smallest, x[:, 0].min().exp().expand(3), rtol=1e-4, atol=0)
