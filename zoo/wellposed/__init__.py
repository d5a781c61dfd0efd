"""Whether a likelihood is bounded, shown by computation: paths along which it is not, and ceilings where there are."""

from zoo.wellposed.growth import Witness, witness
from zoo.wellposed.nonparametric import Ceiling, ceiling

__all__ = ["Ceiling", "Witness", "ceiling", "witness"]
