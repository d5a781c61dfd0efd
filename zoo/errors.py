"""Errors and warnings written for people: what was wrong, where, and what to do about it."""

__all__ = [
    "DataError",
    "Diverged",
    "DivergenceWarning",
    "OptionError",
    "RunError",
    "Unknown",
    "UnknownPair",
    "ZooError",
]


class ZooError(Exception):
    """A mistake that the caller can mend; the command line prints its one line and exits with status 2."""


class DataError(ZooError, ValueError):
    """The data cannot be used as they are; the message names the column or row and the remedy."""


class OptionError(ZooError, ValueError):
    """An option that the pair does not have, or a value of the wrong type or range."""


class UnknownPair(ZooError, KeyError):
    """No pair of that name in the catalogue; the message names the nearest ones."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class RunError(ZooError, ValueError):
    """A run on disk that is missing, incomplete, or of another version."""


class Unknown(ZooError, RuntimeError):
    """What was asked of a pair has no answer; the message is one sentence that says why."""


class Diverged(ZooError, RuntimeError):
    """Training ran away and ``on_divergence="raise"`` was asked for."""


class DivergenceWarning(UserWarning):
    """A decoder scale is running to zero, or a seed was frozen at its last finite state."""
