"""ArviZ's conventions: what every group of a run's tree carries, and that nothing which breaks them goes unseen."""

import json
import subprocess
import sys

import arviz_base
import numpy as np
import pytest
import xarray
from synthetic_runs import synthetic_run

from zoo.comparison import elpd
from zoo.errors import OptionError
from zoo.tree import GROUPS, check_tree, finish

SMALL = {"seeds": 2, "steps": 40, "obs": 12, "latents": 2, "images": False}


@pytest.fixture
def tree():
    """A finished run whose predictive groups are of the rows of its observed data."""
    made = synthetic_run("gaussian-identity", **SMALL)
    made["observed_data"] = made["observed_data"].to_dataset().isel(obs=slice(made["prior_predictive"].sizes["obs"]))
    return finish(made)


def test_every_group_has_what_arviz_itself_would_give_it(tree):
    theirs = arviz_base.from_dict({"posterior": {"z": np.zeros((2, 20, 3))}})["posterior"]
    for name, group in tree.children.items():
        assert theirs.attrs.keys() - {"sample_dims"} <= group.attrs.keys(), name
        assert set(group.dims) <= set(group.indexes), name
        assert group.attrs["creation_library"] == "zoo" and group.attrs["inference_library"] == "pyro"
        assert "not a Markov chain" in group.attrs.get("chain", "") or "chain" not in group.dims or "seed" in group.dims
    assert tree["posterior"].attrs["sample_dims"] == ["chain", "draw"]
    assert tree.attrs["name"] == "gaussian-identity"


def test_what_a_tree_has_stays_and_finishing_again_changes_nothing(tree):
    before = tree.copy(deep=True)
    finish(tree)
    xarray.testing.assert_identical(tree, before)
    assert tree["heldout"].attrs["samples"] == 5000


def test_a_group_that_is_not_there_is_named_with_the_call_that_makes_it():
    tree = finish(synthetic_run(evaluated=False, **SMALL, absent=json.dumps({"calibration": "not known."})))
    told = json.loads(tree.attrs["not_asked"])
    assert told.keys() == set(GROUPS) - {"optimization", "validation", "constant_data", "calibration"}
    assert (told["heldout"], told["prior_sbc"]) == ("zoo.evaluate(run, data)", "zoo.evaluate(run, data, sbc=1000)")
    check_tree(tree)


def test_a_run_of_old_gets_the_name_that_it_lacked(tmp_path):
    """Of runs before this rule ``component`` was a variable, and a dimension without labels."""
    index = (("chain", "draw", "obs"), np.zeros((2, 3, 4), int))
    of_each = (("chain", "obs", "component"), np.full((2, 4, 5), 0.2))
    old = xarray.DataTree.from_dict({"posterior": xarray.Dataset({"component": index, "responsibility": of_each})})
    (tmp_path / "run.nc").write_bytes(bytes(old.to_netcdf(engine="h5netcdf")))
    read = finish(xarray.load_datatree(tmp_path / "run.nc", engine="h5netcdf"))
    assert set(read["posterior"].data_vars) == {"component_index", "responsibility"}
    assert read["posterior"]["component"].values.tolist() == [0, 1, 2, 3, 4]
    check_tree(read)


def without_coordinate(tree):
    tree["posterior"] = tree["posterior"].to_dataset().drop_vars("draw")


def clashing(tree):
    values = np.zeros((tree["posterior"].sizes["latent"], 3))
    tree["posterior"] = (
        tree["posterior"].to_dataset().drop_vars("latent").assign_coords(latent=(("latent", "k"), values))
    )


def without_draws(tree):
    tree["prior"] = xarray.Dataset({"z": ("chain", [0.0, 1.0])}, {"chain": [0, 1]}, tree["posterior"].attrs)


def other_prior(tree):
    tree["prior"] = tree["posterior"].to_dataset()[["z"]].rename(z="y")


def other_rows(tree):
    tree["posterior_predictive"] = tree["posterior_predictive"].to_dataset().assign_coords(obs=lambda of: of["obs"] + 1)


def attribute(name, value, group="posterior"):
    return lambda tree: tree[group].attrs.update({name: value})


def removed(name, group="posterior"):
    return lambda tree: tree[group].attrs.pop(name)


BREACHES = {
    "a dimension without coordinate": (without_coordinate, "posterior: the dimension draw has no coordinate"),
    "a variable like a dimension": (
        clashing,
        'the variable latent has the name of a dimension: call it "latent_index"',
    ),
    "no draws": (without_draws, "prior: draws have the dimensions chain and draw, or sample"),
    "another prior": (other_prior, "prior: there is no variable y in posterior"),
    "other rows": (other_rows, "posterior_predictive: x does not have the obs of observed_data"),
    "nobody made it": (removed("creation_library", "heldout"), "heldout: without the attributes creation_library"),
    "a dict": (attribute("note", {"a": 1}), "posterior: netCDF holds no attribute note={'a': 1}: make it JSON"),
    "one letter a dimension": (attribute("sample_dims", "draw"), "sample_dims='draw' is not a list"),
    "two names": (attribute("name", "z"), "posterior: only the root may have the attribute name"),
    "sampled root": (attribute("sample_dims", ["chain"], "/"), "/: the attribute sample_dims belongs to a group"),
    "what is a chain": (removed("chain"), "posterior: no attribute says what a chain is"),
    "an absent group": (lambda tree: tree["spread"].orphan(), "why there is no group spread"),
    "no name": (removed("name", "/"), "/: the attribute name is None, and not the pair"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_what_breaks_a_rule_is_named_with_its_group_and_the_remedy(tree, breach):
    check_tree(tree)
    breaks, told = BREACHES[breach]
    breaks(tree)
    with pytest.raises(AssertionError, match=r"rules? of ArviZ's schema (is|are) broken") as raised:
        check_tree(tree)
    assert told in str(raised.value)


def test_the_rules_need_neither_torch_nor_pyro():
    code = "import sys, zoo.tree; sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arviz_has_the_pareto_k_of_a_run(tree):
    found = elpd(tree)
    assert np.array_equal(found.pareto_k, tree["heldout/pareto_k"].max("chain"))
    assert np.array_equal(found.pareto_k["obs"], tree["heldout"]["obs"])
    exact = elpd(finish(synthetic_run("gmm", components=2, **SMALL)))
    assert exact.pareto_k is None


def test_what_is_no_tree_is_told_so():
    with pytest.raises(OptionError, match=r"tree is of type int; give an xarray\.DataTree"):
        check_tree(3)
