"""The registry: from a name to a pair of Pyro programs."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

from zoo.cards import Card
from zoo.errors import DataError, OptionError, UnknownPair
from zoo.names import Name
from zoo.options import MAX_SEED, checked, count, switch
from zoo.parts import GUIDES, OBJECTIVES, PRIORS, Part
from zoo.plugins import PACKAGE, load_installed, origin
from zoo.supports import MIXED, SUPPORTS, Support, models
from zoo.words import did_you_mean, html_facts

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data
    from zoo.views import View

__all__ = [
    "Entry",
    "Pair",
    "adopt",
    "card",
    "create",
    "entries",
    "list_pairs",
    "options_of",
    "origins",
    "package_of",
    "register",
]

Builder = Callable[["Data", Any], "tuple[nn.Module, nn.Module]"]
B = TypeVar("B", bound=Builder)
P = ParamSpec("P")


@dataclass(frozen=True)
class Entry:
    """A card, the function that builds what it describes, and what registered it (:func:`zoo.plugins.origin`)."""

    card: Card
    build: Builder
    origin: str


NORMAL, OWN = "normal", "own"  # priors: N(0, I), and one that belongs to the model
TOO_LARGE = re.compile("allocate memory|overflow|too large", re.IGNORECASE)  # in messages of torch and NumPy
MOST_NAMED = 5  # columns in a message
_ENTRIES: dict[str, Entry] = {}


def _registering(make_card: Callable[P, Card]) -> Callable[P, Callable[[B], B]]:
    """A decorator factory with the same arguments as ``make_card``."""

    def register(*args: P.args, **kwargs: P.kwargs) -> Callable[[B], B]:
        """Add a pair to the catalogue; decorates a function ``(data, options) -> (model, guide)``.

        Takes the arguments of :class:`zoo.Card`, the name first. The type of ``options`` is read from its
        annotation: a frozen dataclass whose fields all have defaults. The function may use everything in ``data``
        (``features``, ``image_shape``, ``support``, ...) except the rows, since a saved run rebuilds its networks
        without them. A model that starts from data has a method ``initialise(x)``, which is called with the
        training part in scaled units.

        Raises:
            OptionError: a malformed name, or claims that contradict each other.

        See ``scripts/own_pair.py`` for a pair from the first line to the last.
        """
        card = make_card(*args, **kwargs)

        def add(build: B) -> B:
            taken = _own().get(card.name)
            # the same function again: a notebook cell or plugin was run twice
            if taken and (taken.build.__module__, taken.build.__qualname__) != (build.__module__, build.__qualname__):
                raise OptionError(
                    f"{taken.build.__module__} already registers a pair {card.name!r}: choose another name."
                )
            _ENTRIES[card.name] = Entry(card, build, origin(build))
            return build

        return add

    return register


register = _registering(Card)


def list_pairs(pattern: str = "*", *, support: Support | None = None, bounded: bool | None = None) -> list[str]:
    """Names in the catalogue that match a wildcard pattern, in natural order.

    Args:
        pattern: shell wildcards.
        support: only pairs for data of this support.
        bounded: only pairs whose likelihood is bounded above (True) or is not (False).

    Raises:
        OptionError: an argument of the wrong type, or an unknown support.

    >>> import zoo
    >>> zoo.list_pairs("gmm*", bounded=False)
    ['gmm', 'gmm-map', 'gmm-ratio']
    """
    if not isinstance(pattern, str):
        raise OptionError(f"pattern={pattern!r}; give text such as 'gaussian-*'.")
    if support is not None and not (isinstance(support, str) and support in get_args(Support)):
        raise OptionError(f"support={support!r}; choose from {', '.join(get_args(Support))}.")
    if bounded is not None:
        switch("bounded", bounded)
    return sorted(
        (
            name
            for name, entry in entries().items()
            if fnmatchcase(name, pattern)
            and (support is None or entry.card.takes_support(support))
            and (bounded is None or entry.card.bounded == bounded)
        ),
        key=_natural,
    )


def card(name: str) -> Card:
    """The card of a pair; a guide in the name is ignored.

    Raises:
        UnknownPair: no pair of that name; the message names the nearest ones.

    >>> import zoo
    >>> zoo.card("gaussian-constrained").bound
    '-(D/2) log(2π floor)'
    """
    return _entry(name).card


def options_of(name: str) -> type[Any]:
    """The options dataclass of a pair, read from its function's annotation.

    Raises:
        OptionError: the function has no ``options`` argument annotated with a dataclass.
    """
    build = _entry(name).build
    # only this annotation is resolved: the others may name modules that are imported late
    annotation = inspect.get_annotations(build).get("options")
    if isinstance(annotation, str):
        annotation = eval(annotation, getattr(build, "__globals__", {}))
    if not (inspect.isclass(annotation) and is_dataclass(annotation)):
        raise OptionError(
            f"pair {name!r}: annotate the second argument of {build.__qualname__} with a dataclass of options, "
            "as in `def build(data: zoo.Data, options: MyOptions)`."
        )
    return annotation


@dataclass(frozen=True, eq=False, repr=False)
class Pair:
    """A model and a guide, with the card and the options that made them.

    Attributes:
        card: what the pair claims.
        options: the frozen dataclass it was built from.
        guide_name: its guide, with the options that differ from their defaults.
        prior_name: its prior, in the same form; "own" if the prior belongs to the model.
        data: the data it was built for.
        model: the generative Pyro program, a plain ``nn.Module``.
        guide: the variational Pyro program, a plain ``nn.Module``.
    """

    card: Card
    options: Any
    guide_name: str
    prior_name: str
    data: Data
    model: nn.Module
    guide: nn.Module

    def __repr__(self) -> str:
        return f"<Pair {self.name!r} of {self.data.name!r}: guide {self.guide_name}, {self.parameters:,} parameters>"

    def _repr_html_(self) -> str:
        """Claims, options and data, for a notebook."""
        told = {name: str(value) for name, value in self.choices.items()}
        heading = f"<p>{escape(repr(self))}</p>"
        return (
            heading
            + html_facts(self.card.claims | {"options": ", ".join(f"{name}={value}" for name, value in told.items())})
            + self.data._repr_html_()
        )

    @property
    def parameters(self) -> int:
        """How many parameters model and guide learn together."""
        return sum(p.numel() for program in (self.model, self.guide) for p in program.parameters())

    @property
    def name(self) -> str:
        """The catalogue's name, without the guide."""
        return self.card.name

    @property
    def choices(self) -> dict[str, Any]:
        """The arguments of :func:`create` that make this pair again: options, guide and prior."""
        own = self.guide_name == self.card.guide
        prior = {} if self.prior_name == OWN else {"prior": PRIORS.spelled(self.prior_name, whole=True)}
        # with every option, so that a record keeps its meaning when a default changes
        guide = self.guide_name if own else GUIDES.spelled(self.guide_name, whole=True)
        return {**asdict(self.options), "guide": guide, **prior}

    @cached_property
    def view(self) -> View:
        """How it sees the data: units, cells and noise."""
        from zoo.views import View

        return View(self.data, self.card)

    def replica(self, seed: int) -> Pair:
        """The same pair with initial weights drawn from ``seed``; the caller's random state is left alone."""
        seed = count("seed", seed, least=0, most=MAX_SEED)
        model, guide, _ = _build(_entry(self.name), self.data, self.options, self.guide_name, self.prior_name, seed)
        return replace(self, model=model, guide=guide)


def create(name: str, data: Data, *, guide: Any = None, prior: Any = None, **options: Any) -> Pair:
    """Build a pair by name for these data.

    Args:
        name: a name in the catalogue, with a guide after a colon if not the default one, and options in brackets:
            ``PAIR[:GUIDE][OPTION=VALUE, ...]``. An option the pair does not have, here or in ``options``, goes to the
            guide in the name.
        data: what the pair will be trained on; decides the shapes and must fit the pair's support.
        guide: a guide that serves the pair's latents, by name, ``"iaf"`` or ``"iaf[layers=4]"``, or one of
            ``zoo.parts.guides``; None for the card's. ``zoo parts`` lists them.
        prior: the prior of a VAE, in the same form: ``"vamp[components=50]"``; None for N(0, I), or the model's own.
        **options: fields of the pair's options dataclass, and ``preset``, a name for some of them; ``zoo show NAME``
            lists both.

    Raises:
        UnknownPair: no such name.
        OptionError: an unknown option, guide or prior, one that does not serve the pair's latents, or a value of the
            wrong type or range.
        DataError: data that the likelihood does not model.

    >>> import zoo
    >>> pair = zoo.create("gaussian-constrained", zoo.load_data("digits"), floor=0.04)
    >>> pair.options.floor
    0.04
    >>> zoo.create("gaussian-constrained[floor=0.04]", zoo.load_data("digits")).options == pair.options
    True
    >>> zoo.create("gaussian-constrained:iaf[floor=0.04, layers=2]", zoo.load_data("digits")).guide_name
    'iaf[layers=2]'
    """
    entry = _entry(name)
    if not hasattr(data, "fingerprint"):
        raise DataError(
            f"create: data is a {type(data).__name__}; load it first, with zoo.load_data or zoo.Data.from_array."
        )
    _, of_name, told = Name.parse(name)
    beside = {**options, **{part: value for part, value in (("guide", guide), ("prior", prior)) if value is not None}}
    if twice := told.keys() & beside.keys():
        raise OptionError(f"{name}: {sorted(twice)[0]} is given twice, in the name and as an argument.")
    options = {**told, **beside}
    guide, prior = (options.pop(part, None) for part in ("guide", "prior"))
    if guide is not None and not isinstance(guide, str):
        guide = GUIDES.spelled(guide)
    if of_name and guide not in (None, of_name):
        raise OptionError(f"{name}: its guide is {of_name}, and guide={guide!r} is another: leave one out.")
    if "preset" in options:
        preset = options.pop("preset")
        set_by_it = entry.card.preset(preset)
        if twice := set_by_it.keys() & options.keys():
            raise OptionError(f"{name}: preset={preset} sets {sorted(twice)[0]}, which is also given: leave one out.")
        options = {**set_by_it, **options}
    _check_support(entry.card, data)
    OBJECTIVES.part(entry.card.objective)
    kind = options_of(name)
    guide = of_name or (entry.card.guide if guide is None else guide)
    if of_name:  # the brackets after it hold options of pair and guide together
        own, others = {field.name for field in fields(kind)}, _options(guide)
        if unknown := [n for n in options if n not in own and n not in others]:
            known = f"{entry.card.name} has {_listed(own)}, and its guide {guide} {_listed(others)}"
            near = did_you_mean(unknown[0], [*own, *others], ".")
            raise OptionError(f"{name}: no option is called {unknown[0]!r}{near} {known}.")
        of_guide = {n: options.pop(n) for n in [*options] if n not in own}
        guide = f"{guide}[{', '.join(f'{n}={v}' for n, v in of_guide.items())}]" if of_guide else guide
    guide = guide if guide == entry.card.guide else GUIDES.spelled(guide)
    prior = None if prior is None else PRIORS.spelled(prior)
    chosen = checked(kind, options, entry.card.name)
    model, guide_module, prior = _build(entry, data, chosen, guide, prior, seed=0)
    return Pair(entry.card, chosen, guide, prior, data, model, guide_module)


def _listed(options: Iterable[str]) -> str:
    return ", ".join(sorted(options)) or "none"


def _options(guide: str) -> dict[str, Any]:
    """The options of a guide; none for a guide that belongs to its pair."""
    try:
        return GUIDES.part(guide).options
    except OptionError:
        return {}


def _check_support(card: Card, data: Data) -> None:
    """Refuse data that the card's likelihood does not model, and name the remedy."""
    several = card.support == "ordinal" and len({column.levels for column in data.columns}) > 1
    wrong = [column for column in data.columns if not models(card.support, column)]
    if not wrong and not several:
        return
    remedy = "Declare them with support={...} if that is what they are"
    names = ", ".join(repr(column.name) for column in wrong[:MOST_NAMED]) + (" and more" if wrong[MOST_NAMED:] else "")
    unlevelled = [c for c in wrong if c.support in SUPPORTS[card.support].takes]
    if several and not wrong:
        kind, remedy = "columns of different levels", "Name levels that hold all of them, as levels=range(17) does"
    elif unlevelled:
        level = next(level for c in unlevelled for level in c.levels or () if level < 0 or level != int(level))
        kind = f"levels such as {level:g}, which is not a count"
        remedy = "Number the levels from 0 if only their order counts"
    elif len(wrong) < data.features or data.support == MIXED:
        kinds = dict.fromkeys(column.support for column in wrong)
        kind = f"{' and '.join(kinds)} columns ({names})"
    else:
        kind = f"{data.support} data"
    if card.support == "binary" and kind.endswith("data"):
        remedy = 'Load them as load_data(..., binarize="threshold") or binarize="stochastic"'
    elif kind.endswith("data"):
        remedy = f"Declare them with support={card.support!r} if that is what they are"
    takers = [name for name in list_pairs() if _entry(name).card.takes(data.columns)]
    takers = [name for name in takers if _entry(name).card.support != card.support]
    raise DataError(
        f"{card.name} is a model of {card.support} data, and {data.name} holds {kind}. {remedy}, or choose a pair "
        f"that takes them: {', '.join(takers)}."
    )


def _build(
    entry: Entry, data: Data, options: Any, guide: str, prior: str | None, seed: int
) -> tuple[nn.Module, nn.Module, str]:
    """Model and guide, with the chosen guide and prior instead of their own, if any, and the prior's name."""
    import torch

    from zoo.context import pyro_context, seeded

    try:
        with seeded(seed), pyro_context():
            built = entry.build(data, options)
            if not (isinstance(built, tuple) and len(built) == 2):
                told = f"{entry.build.__qualname__} returned {type(built).__name__}"
                raise OptionError(f"{told}; it must return (model, guide).")
            model, made = built
            for part in (model, made):
                if any(parameter.dtype == torch.float64 for parameter in part.parameters()):
                    raise OptionError(
                        f"{entry.build.__qualname__} returned a {type(part).__name__} in double precision, and pairs "
                        "are trained in single precision: leave out .double()."
                    )
            if guide != entry.card.guide:
                made = _with_guide(entry.card, data, options, model, guide)
            prior = _with_prior(entry.card, data, model, made, prior)
    except (RuntimeError, OverflowError, TypeError) as error:
        if not TOO_LARGE.search(str(error)):
            raise
        raise OptionError(
            f"{entry.build.__qualname__} with {options} on {data.features} columns does not fit into memory: choose "
            "smaller options, such as diagonal covariances or fewer hidden units, or fewer columns."
        ) from error
    return (*(_observed(entry.card, data, model, made) if data.missing else (model, made)), prior)


def _with_guide(card: Card, data: Data, options: Any, model: Any, name: str) -> nn.Module:
    """The guide of that name for a model."""
    from zoo.guides import WithComponent
    from zoo.pairs.programs import target

    chosen, at = GUIDES.make(name), target(card, data, options, model)
    if not chosen.serves(at):
        served = [part.name for part in GUIDES if part.kind().serves(at)]
        choice = f"choose from {', '.join(served)}" if served else f"only its own, {card.guide}, does"
        raise OptionError(
            f"{card.name} has the latents {at.latents}, which the guide {name!r} does not serve: {choice}."
        )
    made: nn.Module = chosen.build(at)
    return WithComponent(made, model) if at.latent_dim and at.latents.summed else made


def _with_prior(card: Card, data: Data, model: Any, guide: nn.Module, name: str | None) -> str:
    """Give a VAE the prior of that name, and return the name of its prior."""
    from zoo.models import VAE
    from zoo.models.priors import StandardNormal
    from zoo.parts.priors import Setting

    normal = isinstance(model, VAE) and isinstance(getattr(model, "prior", None), StandardNormal)
    if name in (None, NORMAL if normal else OWN):
        return NORMAL if normal else OWN
    if not normal or hasattr(model, "log_evidence"):  # known in closed form under N(0, I)
        raise OptionError(f"{card.name} has its own prior, which prior={name!r} cannot replace.")
    model.prior = PRIORS.make(name).build(Setting(guide, model.latent_dim, data.features))
    return name


def _observed(card: Card, data: Data, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The programs restricted to observed entries."""
    import torch

    from zoo.lenses import observed
    from zoo.views import View

    return observed(model, guide, torch.as_tensor(View(data, card).filler, dtype=torch.float32))


def origins(pair: Pair) -> list[str]:
    """What registered a pair and its parts, apart from the zoo itself: packages with their versions, files."""
    things: list[Entry | Part] = [_entry(pair.name)]
    things += [GUIDES.part(pair.guide_name)] if pair.guide_name != pair.card.guide else []
    things += [PRIORS.part(pair.prior_name)] if pair.prior_name != OWN else []
    return [*filter(None, dict.fromkeys(thing.origin for thing in things))]


def package_of(name: str) -> str:
    """The installed package that registers a pair, with its version, or empty."""
    told = _entry(name).origin
    return told.removeprefix(PACKAGE) if told.startswith(PACKAGE) else ""


def adopt(entry: Entry) -> None:
    """Add a pair that another process registered, unless its name is taken."""
    entries().setdefault(entry.card.name, entry)


def _own() -> dict[str, Entry]:
    import zoo.pairs  # noqa: F401  registers the zoo's own pairs on first use

    return _ENTRIES


def entries() -> dict[str, Entry]:
    """Every pair by its name."""
    own = _own()
    load_installed()  # these may import the zoo's own pairs
    return own


def _entry(name: str) -> Entry:
    base = Name.parse(name).pair
    known = entries()
    if base not in known:
        if sorts := [of.sort for of in (GUIDES, PRIORS, OBJECTIVES) if base in [part.name for part in of]]:
            raise UnknownPair(f"{base!r} is not a pair but {_article(sorts[0])}: see `zoo parts` for its options.")
        from zoo.sources import list_data

        if base in list_data():
            raise UnknownPair(f"{base!r} is a data set, not a pair: name it with --data, or as data=.")
        near = difflib.get_close_matches(base, known, 3, 0.4)
        hint = f"Nearest: {', '.join(near)}." if near else f"There are: {', '.join(sorted(known))}."
        raise UnknownPair(f"no pair is called {base!r}. {hint}")
    return known[base]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
