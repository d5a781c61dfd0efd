import logging
import os
import sys

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import settings

import zoo

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.fixture(scope="session", autouse=True)
def no_power_is_lost():
    """Nothing here has to outlast a loss of power, and the thousands of states that are written wait for no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def digits():
    return zoo.load_data("digits")


@pytest.fixture(scope="session")
def iris():
    return zoo.load_data("iris")


@pytest.fixture
def short_rounds(monkeypatch):
    """Rounds of 5 steps, 10 and so on for steps="auto", and where each ends; only 0.3 nats are worth another."""
    from zoo import rounds, settings

    monkeypatch.setattr(rounds, "FIRST", 5)
    monkeypatch.setattr(rounds, "WORTH", 0.3)
    monkeypatch.setattr(settings, "AUTO_STEPS", 155)
    return [5, 15, 35, 75, 155]


@pytest.fixture
def quick_scores(monkeypatch):
    from programs import score_quickly

    score_quickly(monkeypatch)


@pytest.fixture
def blank_pictures(monkeypatch):
    from pictures import draw_nothing

    draw_nothing(monkeypatch)


@pytest.fixture
def catalogue(monkeypatch):
    """The catalogue, put back after the test with all guides, priors and objectives."""
    from zoo import catalogue
    from zoo.parts import GUIDES, OBJECTIVES, PRIORS

    entries = dict(catalogue.entries())
    monkeypatch.setattr(catalogue, "_ENTRIES", entries)
    for parts in (GUIDES, PRIORS, OBJECTIVES):
        monkeypatch.setattr(parts, "_parts", {part.name: part for part in parts})
    return entries


@pytest.fixture(autouse=True)
def nothing_global_changes():
    """No test, and so nothing the zoo does in one, leaves a global setting of a library changed."""
    before = global_state()
    yield
    after = global_state()
    assert {name: after[name] for name in before} == before


def global_state():
    """The settings of every library loaded so far: the report runs where torch is not even installed."""
    state = {
        "numpy errors": np.geterr(),
        "numpy random": np.random.get_state()[1].tobytes(),
        "matplotlib": dict(mpl.rcParams),
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        state |= {
            "torch dtype": torch.get_default_dtype(),
            "torch grad": torch.is_grad_enabled(),
            "torch threads": torch.get_num_threads(),
            "torch validation": torch.distributions.Distribution._validate_args,
            "torch random": torch.random.get_rng_state().numpy().tobytes(),
        }
    if "pyro" in sys.modules:
        pyro = sys.modules["pyro"]
        state |= {"pyro": pyro.settings.get(), "pyro parameters": sorted(pyro.get_param_store().keys())}
    return state
