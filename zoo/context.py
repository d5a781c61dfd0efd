"""Settings and random states that are set temporarily and restored; the zoo changes none permanently."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import pyro
import torch

__all__ = ["Stream", "pyro_context", "quiet_compiler", "random_stream", "seeded"]


class Stream(IntEnum):
    """The independent uses of one seed's randomness."""

    NOISE = 0
    ORDER = 1
    START = 2
    VALIDATION = 3
    EVIDENCE = 4
    POSTERIOR = 5
    PREDICTIVE = 6
    CALIBRATION = 7
    IMPUTATION = 8


@contextmanager
def pyro_context(*, validate: bool = False) -> Iterator[None]:
    """Parameters stay in the modules; validation, 15 host synchronisations a step, is on only for the first step.

    New tensors are in single precision, whatever the caller's default is.
    """
    before = torch.get_default_dtype()
    with pyro.settings.context(
        module_local_params=True,
        validate_distributions_pyro=validate,
        validate_distributions_torch=validate,
        validate_infer=validate,
        validate_poutine=validate,
    ):
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Silence messages that torch's compiler has for its developers."""
    log = logging.getLogger("torch._inductor.ir")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside, and restore the caller's random state."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        # torch.manual_seed() would also record its caller's stack for every absent kind of device
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def random_stream(seed: int, stream: Stream, step: int = 0) -> int:
    """A seed for a generator, spread over 32 bits, which is all torch's CPU generator uses."""
    mixed = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03 + step * 0x8CB92BA72F3D8DD7) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> shift)) * factor % 2**64
    return mixed >> 32
