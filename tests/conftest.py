import logging

import matplotlib as mpl
import numpy as np
import pytest

import zoo


@pytest.fixture(scope="session")
def digits():
    return zoo.load_data("digits")


@pytest.fixture(scope="session")
def iris():
    return zoo.load_data("iris")


@pytest.fixture
def catalogue(monkeypatch):
    """The catalogue, put back after the test."""
    from zoo import catalogue

    entries = dict(catalogue._entries())
    monkeypatch.setattr(catalogue, "_ENTRIES", entries)
    return entries


@pytest.fixture(autouse=True)
def nothing_global_changes():
    """No test, and so nothing the zoo does in one, leaves a global setting of a library changed."""
    import pyro
    import torch

    def state():
        return {
            "torch dtype": torch.get_default_dtype(),
            "torch grad": torch.is_grad_enabled(),
            "torch validation": torch.distributions.Distribution._validate_args,
            "pyro": pyro.settings.get(),
            "pyro parameters": sorted(pyro.get_param_store().keys()),
            "numpy errors": np.geterr(),
            "matplotlib": dict(mpl.rcParams),
            "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        }

    before, random_states = state(), (torch.random.get_rng_state(), np.random.get_state()[1].tolist())
    yield
    assert state() == before
    assert torch.equal(torch.random.get_rng_state(), random_states[0])
    assert np.random.get_state()[1].tolist() == random_states[1]
