"""Every check of the kit, on every pair of the catalogue and every choice it offers."""

import pytest
import torch

import zoo
from zoo.engine import Engine
from zoo.objective import elbo
from zoo.testing import CHECKS, check_engine, make_subject, variants

SUBJECTS = [(name, options) for name in zoo.list_pairs() for options in variants(name)]


def label(subject):
    name, options = subject
    return "-".join([name, *map(str, options.values())])


@pytest.fixture(scope="module", params=SUBJECTS, ids=label)
def subject(request):
    name, options = request.param
    return make_subject(name, **options)


@pytest.mark.parametrize("check", CHECKS)
def test_pair_conforms(subject, check):
    CHECKS[check](subject)


def test_the_step_is_captured(subject):
    x = torch.as_tensor(subject.pair.scale(subject.data.train.values))
    how = {"objective": elbo, "schedule": lambda _: (1e-3, 1.0), "batch_size": 16}
    assert Engine(subject.pair, [0], x, **how, mode="capture").mode == "capture"


@pytest.mark.slow
def test_the_compiled_step_is_pyros_too(subject):
    assert check_engine(subject, mode="inductor") == "inductor"
