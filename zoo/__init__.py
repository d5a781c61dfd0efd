"""A model zoo of variational autoencoders in Pyro.

>>> import zoo
>>> zoo.list_pairs("linear-*")
['linear-diagonal', 'linear-shared']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import errors, objectives, parts, testing
    from zoo.cards import Card
    from zoo.catalogue import Pair, card, create, list_pairs, register
    from zoo.comparison import Answer, answer, cautions, compare, elpd
    from zoo.converting import to_arviz
    from zoo.data import Data
    from zoo.evaluation import evaluate
    from zoo.fitting import fit
    from zoo.parts import register_guide, register_objective, register_prior
    from zoo.planning import study
    from zoo.reporting import report
    from zoo.runs import Run, load_run
    from zoo.sources import list_data, load_data
    from zoo.studies import Study, load_study
    from zoo.wellposed import Ceiling, Witness, ceiling, witness

__version__ = "0.2.0"
__all__ = [
    "Answer",
    "Card",
    "Ceiling",
    "Data",
    "Pair",
    "Run",
    "Study",
    "Witness",
    "answer",
    "card",
    "cautions",
    "ceiling",
    "compare",
    "create",
    "elpd",
    "errors",
    "evaluate",
    "fit",
    "list_data",
    "list_pairs",
    "load_data",
    "load_run",
    "load_study",
    "objectives",
    "parts",
    "register",
    "register_guide",
    "register_objective",
    "register_prior",
    "report",
    "study",
    "testing",
    "to_arviz",
    "witness",
]

# torch, pyro, xarray and arviz take seconds to import, so each name is fetched from its room on first use
_ROOMS = {
    "zoo.cards": ["Card"],
    "zoo.catalogue": ["Pair", "card", "create", "list_pairs", "register"],
    "zoo.comparison": ["Answer", "answer", "cautions", "compare", "elpd"],
    "zoo.converting": ["to_arviz"],
    "zoo.data": ["Data"],
    "zoo.evaluation": ["evaluate"],
    "zoo.fitting": ["fit"],
    "zoo.planning": ["study"],
    "zoo.parts": ["register_guide", "register_objective", "register_prior"],
    "zoo.reporting": ["report"],
    "zoo.runs": ["Run", "load_run"],
    "zoo.sources": ["list_data", "load_data"],
    "zoo.studies": ["Study", "load_study"],
    "zoo.wellposed": ["Ceiling", "Witness", "ceiling", "witness"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("errors", "objectives", "parts", "testing"):
        return import_module(f"zoo.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
