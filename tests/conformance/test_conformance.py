"""Every check of the kit, on every pair of the catalogue and every choice it offers; what takes long is slow."""

import pytest
import torch

import zoo
from zoo.context import pyro_context
from zoo.engine import Replica
from zoo.noise import Tape
from zoo.parts import OBJECTIVES
from zoo.testing import ANSWERS, CHECKS, check_engine, make_subject, unknown_answers, variants

SUBJECTS = [(name, options) for name in zoo.list_pairs() for options in variants(name)]


def quick(subject):
    """Whether `make test` runs it: networks know nothing of an emission, and one pair has every one of them.

    The emissions of `mixed` have pairs of their own, and are put together in one way.
    """
    name, options = subject
    if name == "mixed":
        return options in ({}, {"real": "constrained"})
    return not options.keys() & {"activation", "network"} or name == "gaussian-learned"


def label(subject):
    name, options = subject
    return "-".join([name, *map(str, options.values())])


PARAMS = [pytest.param(each, marks=() if quick(each) else pytest.mark.slow) for each in SUBJECTS]


@pytest.fixture(scope="module", params=PARAMS, ids=label)
def subject(request):
    name, options = request.param
    return make_subject(name, **options)


@pytest.mark.parametrize("check", [check for check in CHECKS if check != "saving"])
def test_pair_conforms(subject, check):
    outcome = CHECKS[check](subject)
    assert check != "engine" or outcome == "capture", "the step of every pair can be recorded"


# of each family of models; the others, and every choice, come back in the slow tests
SAVED = ["gaussian-constrained", "gaussian-two-stage", "gaussian-map", "gmm", "gmvae", "linear-diagonal", "log-normal",
         "beta", "poisson", "categorical", "bernoulli", "mixed"]  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_a_run_comes_back(name):
    CHECKS["saving"](make_subject(name))


@pytest.mark.slow
def test_a_run_of_every_pair_with_every_choice_comes_back(subject):
    CHECKS["saving"](subject)


def test_what_is_not_known_of_a_pair_is_on_its_card(subject):
    declared = subject.pair.card.unknown
    assert set(declared) <= set(ANSWERS)
    # a path takes seconds: tests/test_wellposed.py follows that of every pair
    asked = [answer for answer in ANSWERS if answer != "witness"]
    assert set(unknown_answers(subject, asked)) <= set(declared)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_pairs())
def test_a_witness_is_known_of_images_too(name):
    assert set(unknown_answers(make_subject(name), ["witness"])) <= set(zoo.card(name).unknown)


@pytest.mark.parametrize("name", [name for name in zoo.list_pairs() if zoo.card(name).unknown])
def test_a_card_says_of_nothing_that_it_is_unknown_and_is_not(name):
    chosen = [options for options in variants(name) if quick((name, options))]
    asked = [answer for answer in ANSWERS if answer != "witness"]
    found = {answer for options in chosen for answer in unknown_answers(make_subject(name, **options), asked)}
    assert found == set(zoo.card(name).unknown)


def test_all_of_a_pair_goes_where_the_data_are(subject):
    """No GPU is needed to see what would stay behind: what has no numbers multiplies with nothing that has some."""
    replica = subject.pair.replica(0)
    program = Replica(replica.model, replica.guide).to("meta")
    x = torch.empty(16, subject.x.shape[1], device="meta")
    noise = torch.empty(2**16, device="meta")
    with pyro_context(), Tape(normal=noise, uniform=noise):
        loss = program(OBJECTIVES.make(subject.pair.card.objective), x)
    assert {term.device.type for term in (loss.value, *loss.diagnostics.values())} == {"meta"}


@pytest.mark.slow
def test_the_compiled_step_is_pyros_too(subject):
    assert check_engine(subject, mode="inductor") == "inductor"
