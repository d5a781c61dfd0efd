"""Whether a likelihood is bounded, shown by computation: paths on which it grows without end, and ceilings."""

from zoo.wellposed.growth import Witness, witness
from zoo.wellposed.nonparametric import Ceiling, ceiling

__all__ = ["Ceiling", "Witness", "ceiling", "witness"]
