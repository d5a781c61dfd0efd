"""The ``zoo`` command: reads what was typed, calls the library, prints what comes back."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer import Argument, Option
from typer.core import TyperGroup

import zoo
from zoo.cards import Card
from zoo.errors import DataError, DivergenceWarning, OptionError, RunError, UnknownPair, ZooError, one_line, tell
from zoo.names import alternatives, literal
from zoo.options import MOST_SEEDS, ImputationMethod, count, location
from zoo.supports import MIXED, ColumnSupport, Support

if TYPE_CHECKING:
    import pandas as pd

    from zoo.catalogue import Pair
    from zoo.data import Data
    from zoo.runs import Run
    from zoo.studies import Study

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """A person's mistake, a warning and an interruption each become one line on stderr."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The named command, if several processes can run it together."""
        name, command, rest = super().resolve_command(ctx, args)
        if name != "train" and _by_torchrun() and os.environ.get("WORLD_SIZE") != "1":
            raise OptionError(f"torchrun is for `zoo train`, which divides its work: call `zoo {name}` without it.")
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a mistake exits with status 2, an interruption with 130."""
        with warnings.catch_warnings():
            shown_before = warnings.showwarning

            def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, DivergenceWarning):
                    tell(f"warning: {message}", "yellow")
                else:
                    shown_before(message, category, *where, **more)

            warnings.simplefilter("always", DivergenceWarning)
            warnings.showwarning = show
            try:
                return super().invoke(ctx)
            except ZooError as error:
                # every process sees a mistake in the call; only one may know why a run ended
                if _is_first("LOCAL_RANK") or isinstance(error, RunError):
                    tell(f"error: {error}", "red")
                raise typer.Exit(2) from None
            except OSError as error:
                if error.errno == errno.EPIPE:  # as `| head` does; typer knows what to do
                    raise
                told = [str(part) for part in (error.filename, error.strerror or error) if part]
                tell(f"error: {': '.join(told)}", "red")
                raise typer.Exit(2) from None
            except KeyboardInterrupt as interruption:
                if _is_first("LOCAL_RANK"):
                    tell(f"interrupted: {str(interruption) or 'nothing was written.'}", "red")
                raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
main = app  # what the installed command calls

WIDTH_IN_A_PIPE = 180

DATA = partial(Option, rich_help_panel="Data")
TRAINING = partial(Option, rich_help_panel="Training")
SCORING = partial(Option, rich_help_panel="Scoring")
WORKING = partial(Option, rich_help_panel="Workers")
DASK_SECONDS = 10
ODD = 0.01  # rows of this rank or less are worth a look

Plugins = Annotated[
    list[Path] | None,
    Option("--plugin", metavar="FILE.py", help="Python file that registers your own pairs."),
]
Assignments = Annotated[
    list[str] | None, Option("--set", metavar="OPTION=VALUE", help="An option of the pair; may be repeated.")
]
AsJSON = Annotated[bool, Option("--json", help="Print JSON, for scripts.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress on stderr; warnings, errors and notes on the data remain.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what an earlier command left there.")]
Resume = Annotated[
    bool, Option("--resume", help="Continue an interrupted command; the result is the same to the last bit.")
]


OfRun = Annotated[Path, Argument(help="Directory of a run.")]
Table = Annotated[str, DATA(metavar="NAME|FILE", help="A table with the columns the run was trained on.")]
OutTable = Annotated[Path, Option(metavar="FILE", help="File to write: .csv, .tsv, .parquet or .npy.")]
Missing = Annotated[
    list[str] | None,
    DATA(metavar="VALUE", help="A value that marks a missing entry.", show_default="as in training"),
]
DataNow = Annotated[
    str | None,
    DATA(metavar="NAME|FILE", help="Where the data are now.", show_default="where training loaded them from"),
]


@dataclass(frozen=True)
class Loading:
    """What the command line says about the data."""

    data: Annotated[
        str | None, DATA(metavar="NAME|FILE", help="A name that `zoo data` prints, or a file.", show_default="required")
    ] = None
    labels: Annotated[
        str | None, DATA(metavar="COLUMN", help="Column of class labels; the split is stratified by it.")
    ] = None
    groups: Annotated[
        str | None, DATA(metavar="COLUMN", help="Column of groups, such as patients; a group is never split.")
    ] = None
    columns: Annotated[
        list[str] | None, DATA(metavar="COLUMN", help="Use this column; may be repeated.", show_default="all")
    ] = None
    drop: Annotated[list[str] | None, DATA(metavar="COLUMN", help="Leave this column out; may be repeated.")] = None
    missing: Annotated[
        list[str] | None,
        DATA(metavar="VALUE", help="A value that marks a missing entry, such as -999; may be repeated."),
    ] = None
    support: Annotated[
        list[str] | None,
        DATA(
            metavar="SUPPORT|COLUMN=SUPPORT",
            help="The kind of values in all columns, or in one: real, positive, unit, count, ordinal, binary or "
            "categorical; may be repeated.",
            show_default="inferred",
        ),
    ] = None
    resolution: Annotated[
        list[str] | None,
        DATA(
            metavar="none|COLUMN=WIDTH",
            help="Spacing of recorded values; none treats numbers as exact, not as rounded; may be repeated.",
            show_default="inferred",
        ),
    ] = None
    scaling: Annotated[str, DATA(help="How data are scaled for training: none, scalar, column, or auto.")] = "auto"
    binarize: Annotated[
        str | None,
        DATA(
            metavar="threshold|stochastic|NUMBER",
            help="Turn pixels into zeros and ones (in compare: for binary pairs only).",
        ),
    ] = None
    dequantize: Annotated[bool, DATA("--dequantize", help="Add uniform noise to discrete values.")] = False
    split: Annotated[str, DATA(help="grouped keeps copies of a row in the same part; rows splits row by row.")] = (
        "grouped"
    )
    split_seed: Annotated[int, DATA(help="Seed of the split into train, validation and test.")] = 0
    max_bytes: Annotated[
        int | None,
        DATA(help="The most memory an unpacked file may take.", show_default="an eighth of the free memory"),
    ] = None

    def load(self) -> Data:
        """Load the data, passing ``zoo.load_data`` only what differs from the defaults."""
        names = {"split_seed": "seed", "missing": "missing_values"}
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        if self.binarize is not None:
            given["binarize"] = literal(self.binarize)
        if self.missing:
            given["missing"] = [literal(text) for text in self.missing]
        if self.support:
            given["support"] = _of_columns("--support", self.support, str)
        if self.resolution:
            given["resolution"] = _of_columns("--resolution", self.resolution, literal)
            if given["resolution"] == "none":
                given["resolution"] = None
        if not given.pop("data", ""):
            raise OptionError("say which data: --data with a name that `zoo data` prints, or a file.")
        return zoo.load_data(self.data, **{names.get(name, name): value for name, value in given.items()})

    def for_pair(self, card: Card) -> Loading:
        """Binarize only for binary pairs, and dequantize only for pairs of real numbers."""
        return replace(
            self,
            binarize=self.binarize if card.support == "binary" else None,
            dequantize=self.dequantize and card.support == "real",
        )

    def by_pair(self) -> Callable[[Card, int], Data]:
        """A loader of the data for a card and a split seed; pairs that see the same data share them."""
        loaded: dict[str, Data] = {}

        def load(card: Card, seed: int) -> Data:
            wanted = replace(self.for_pair(card), split_seed=seed)
            if repr(wanted) not in loaded:
                loaded[repr(wanted)] = wanted.load()
            return loaded[repr(wanted)]

        return load


ALONE: dict[str, Any] = {"steps": 2000, "on_divergence": "stop"}  # arguments of zoo.fit unless others are given


@dataclass(frozen=True)
class Training:
    """What the command line says about training: arguments of ``zoo.fit``."""

    seeds: Annotated[int | None, TRAINING(help="How many seeds to train, counted from 0.", show_default="4")] = None
    seed: Annotated[list[int] | None, TRAINING(help="Train this seed instead; may be repeated.")] = None
    steps: Annotated[
        str | None,
        TRAINING(
            metavar="NUMBER|auto",
            help="Gradient steps, or auto: train until validation stops improving.",
            show_default="2000; in a comparison, auto",
        ),
    ] = None
    batch_size: Annotated[int, TRAINING(help="Rows per step.")] = 128
    learning_rate: Annotated[float | None, TRAINING(help="Learning rate of Adam.", show_default="the pair's own")] = (
        None
    )
    schedule: Annotated[str, TRAINING(help="How the learning rate changes: cosine or constant.")] = "cosine"
    objective: Annotated[
        str | None,
        TRAINING(
            help="What is maximised, such as elbo, iwae or miwae; `zoo parts` lists them.",
            show_default="the pair's own",
        ),
    ] = None
    objective_set: Annotated[
        list[str] | None, TRAINING(metavar="OPTION=VALUE", help="An option of the objective; may be repeated.")
    ] = None
    warmup: Annotated[int, TRAINING(help="Steps over which the weight of the KL term rises to 1.")] = 0
    clip: Annotated[float | None, TRAINING(help="Clip gradients to this norm.", show_default="none")] = None
    validation_rows: Annotated[
        str,
        TRAINING(metavar="NUMBER|all", help="Validation rows used at each check: at most so many, chosen at random."),
    ] = "4096"
    patience: Annotated[
        int | None, TRAINING(help="Stop a seed after this many checks without progress.", show_default="never")
    ] = None
    compile: Annotated[
        str, TRAINING(help="How steps are compiled: off, capture, inductor, or auto for whichever is fastest overall.")
    ] = "auto"
    precision: Annotated[str, TRAINING(help="Precision of matrix products in training: float32 or bfloat16.")] = (
        "float32"
    )
    device: Annotated[str, TRAINING(help="Where to train: cpu, cuda, or auto.")] = "auto"
    on_divergence: Annotated[
        str | None,
        TRAINING(
            help="What to do when a variance runs to zero: stop, warn or raise.",
            show_default="stop; in a comparison, warn",
        ),
    ] = None

    def settings(self, **otherwise: Any) -> dict[str, Any]:
        """All settings but the seeds, with these defaults, checked before any data are read."""
        from zoo.settings import checked_settings

        given = asdict(self) | {name: value for name, value in otherwise.items() if getattr(self, name) is None}
        settings = {name: value for name, value in given.items() if name not in ("seed", "seeds", "objective_set")}
        if self.objective_set:
            if self.objective is None:
                raise OptionError("--objective-set needs --objective: name the objective too.")
            if "[" in self.objective:
                raise OptionError("give the objective's options either in brackets or with --objective-set, not both.")
            settings["objective"] = f"{self.objective}[{', '.join(self.objective_set)}]"
        settings |= {n: int(settings[n]) for n in ("steps", "validation_rows") if str(settings[n]).isdecimal()}
        if settings["validation_rows"] == "all":
            settings["validation_rows"] = None
        checked_settings(settings)
        return settings

    @property
    def chosen_seeds(self) -> int | list[int]:
        """A count, or the seeds themselves."""
        if self.seeds is not None and self.seed:
            raise OptionError("--seeds says how many and --seed says which: leave one of them out.")
        if self.seed and not (min(self.seed) >= 0 and max(self.seed) < 2**63 and len({*self.seed}) == len(self.seed)):
            told = " ".join(f"--seed {seed}" for seed in self.seed)
            raise OptionError(f"{told}: give different whole numbers from 0 to 2**63 - 1.")
        return self.seed or (4 if self.seeds is None else count("--seeds", self.seeds, most=MOST_SEEDS))


@dataclass(frozen=True)
class Scoring:
    """What the command line says about scoring: arguments of ``zoo.evaluate``."""

    samples: Annotated[int, SCORING(help="Importance samples per held-out row.")] = 5000
    temperatures: Annotated[
        int, SCORING(help="Temperatures of annealing for rows where importance sampling fails; 0 for no annealing.")
    ] = 50
    reference: Annotated[int, SCORING(metavar="ROWS", help="Test rows that get a reference posterior by NUTS.")] = 0
    hide: Annotated[
        float | None,
        SCORING(
            metavar="SHARE",
            help="Share of the observed test entries to hide and impute; 0 for none.",
            show_default="0.1 where entries are missing in the data, else 0",
        ),
    ] = None
    rows: Annotated[int | None, SCORING(help="How many test rows to score, chosen at random.", show_default="all")] = (
        None
    )
    sbc: Annotated[
        int | None,
        SCORING(metavar="N", help="How many simulated rows to check the guide's calibration on.", show_default="none"),
    ] = None

    def settings(self) -> dict[str, Any]:
        """The arguments, checked before the first pair is trained."""
        from zoo.evaluation import checked_effort

        return checked_effort(**asdict(self))


@dataclass(frozen=True)
class Working:
    """What the command line says about workers: arguments of ``Plan.run``."""

    workers: Annotated[
        str,
        WORKING(
            metavar="NUMBER|auto",
            help="Processes, each training one pair at a time; auto: one per core, if work and memory allow.",
        ),
    ] = "auto"
    threads: Annotated[
        int, WORKING(help="Threads of torch in each process; changing it changes the last bits of results.")
    ] = 1
    shard: Annotated[
        str | None,
        WORKING(
            metavar="I/N",
            help="Run share I of N, then any task no other process has taken: for job arrays on a shared file system.",
            show_default="all",
        ),
    ] = None
    dask: Annotated[
        str | None, WORKING(metavar="ADDRESS", help="Run the tasks on the workers of this Dask scheduler.")
    ] = None

    @property
    def count(self) -> int | Literal["auto"]:
        """How many processes."""
        return "auto" if self.workers == "auto" else count("--workers", literal(self.workers))

    def executor(self) -> AbstractContextManager[Any]:
        """The Dask client that does the work instead of local processes, if there is one."""
        if self.dask is None:
            return nullcontext()
        try:
            from distributed import Client
        except ImportError:
            raise OptionError("--dask needs Dask: pip install 'vae-zoo[dask]'.") from None
        try:
            client: AbstractContextManager[Any] = Client(self.dask, timeout=DASK_SECONDS)
        except (OSError, ValueError) as error:
            raise OptionError(f"--dask {self.dask}: no scheduler answers there ({error}).") from None
        return client


def _spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer has to see it: every dataclass parameter replaced by its fields."""
    groups: dict[str, Any] = {n: hint for n, hint in get_type_hints(command).items() if is_dataclass(hint)}
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        group = groups[parameter.name]
        hints = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(group)
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        gathered = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **gathered)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(zoo.__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train pairs of Pyro models and guides by name, score and compare them on held-out data."""


@app.command("list")
def list_pairs(
    pattern: Annotated[str, Argument(help="Shell wildcards, such as 'gaussian-*'.")] = "*",
    support: Annotated[Support | None, Option(help="Only pairs for this kind of data.")] = None,
    bounded: Annotated[
        bool | None,
        Option("--bounded/--unbounded", help="Only pairs with a bounded likelihood, or only the others."),
    ] = None,
    plugin: Plugins = None,
    as_json: AsJSON = False,
    as_markdown: Annotated[bool, Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """List the pairs of the catalogue, grouped by kind of data."""
    from zoo.catalogue import package_of

    _run_plugins(plugin)
    names = zoo.list_pairs(pattern, support=support, bounded=bounded)
    kinds = [*get_args(ColumnSupport)[::-1], MIXED]
    cards = sorted(map(zoo.card, names), key=lambda card: kinds.index(card.support))
    if as_json:
        _print_json([asdict(card) | {"package": package_of(card.name)} for card in cards])
    elif as_markdown:
        typer.echo("| name | data | likelihood | bounded above, per datum | source |\n|---|---|---|---|---|")
        for card in cards:
            bound = f"`{card.bound}`" if card.bounded else card.boundedness if card.bounded_if else "**no**"
            source = f"[{card.reference.partition(',')[0]}]({card.link})" if card.link else card.reference
            formula = card.formula.replace("|", "∣")
            typer.echo(f"| `{card.name}` | {card.support} | `{formula}` | {bound} | {source} |")
    elif not cards:
        tell(f"no pair matches {pattern!r} and the filters.")
    else:
        told = [f"{c.title}\n{c.summary}" + f"\nBounded: {c.boundedness}." * bool(c.bounded_if) for c in cards]
        names = [c.name + (f"\n({package})" if (package := package_of(c.name)) else "") for c in cards]
        rows = [
            (name, c.support, "yes" if c.bounded else "no", text)
            for name, c, text in zip(names, cards, told, strict=True)
        ]
        _print_table(["name", "support", "bounded", "title and summary"], rows)


@app.command()
def show(
    name: Annotated[str, Argument(help="A name that `zoo list` prints.")],
    plugin: Plugins = None,
    as_json: AsJSON = False,
) -> None:
    """Show what a pair claims, its guides and its options."""
    from zoo.catalogue import options_of

    _run_plugins(plugin)
    card, kind = zoo.card(name), options_of(name)
    hints = get_type_hints(kind)
    options = {f.name: (_type_text(hints[f.name]), f.default) for f in fields(kind)}
    if as_json:
        listed = {option: {"type": told, "default": default} for option, (told, default) in options.items()}
        _print_json(asdict(card) | {"options": listed})
        return
    _print_table([], [(claim, text) for claim, text in card.claims.items() if text])
    typer.echo()
    _print_table(["option", "type", "default"], [(option, *map(str, told)) for option, told in options.items()])
    for ancestor in reversed(kind.__mro__):
        if is_dataclass(ancestor) and ancestor.__doc__:
            typer.echo("\n" + inspect.cleandoc(ancestor.__doc__).replace("``", "`"))


@app.command()
def new(
    name: Annotated[str, Argument(help="Name of the new pair, such as huber.")],
    out: Annotated[Path | None, Option(help="Folder to create.", show_default="vae-zoo-NAME")] = None,
) -> None:
    """Write a package for a pair of your own: code, test, README and entry point."""
    from zoo.scaffold import write_package

    path = write_package(name, location("--out", out or f"vae-zoo-{name}"))
    place = path if path.is_absolute() else f"./{path}"  # or pip would look for a package of that name elsewhere
    typer.echo(f"{path}: install it with `pip install {place}`, and `zoo list {name}` shows it.")


@app.command()
def parts(
    name: Annotated[
        str | None, Argument(help="A pair, to list only what it can be given.", show_default="every part")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJSON = False,
) -> None:
    """List the guides, priors and objectives you can give a pair, with their options."""
    from zoo.parts import GUIDES, OBJECTIVES, PRIORS

    _run_plugins(plugin)
    sorts = {of.sort: list(of) for of in (GUIDES, PRIORS, OBJECTIVES)}
    if name is not None:
        from zoo.testing import guides_of, priors_of

        serving = {*guides_of(name), *priors_of(name)}
        sorts |= {of.sort: [part for part in of if part.name in serving] for of in (GUIDES, PRIORS)}
    if as_json:
        told = ("name", "summary", "reference", "link", "options")
        _print_json({sort: [{key: getattr(part, key) for key in told} for part in of] for sort, of in sorts.items()})
        return
    for sort, of in sorts.items():
        rows = [(p.name, ", ".join(f"{n}={v}" for n, v in p.options.items()), f"{p.summary} {p.reference}") for p in of]
        if rows:
            _print_table([sort, "options", "summary and source"], rows)
        else:
            typer.echo(f" {sort}: only the pair's own")
        typer.echo()


@app.command()
@_spread
def data(
    loading: Loading,
    source: Annotated[
        str | None, Argument(metavar="[NAME|FILE]", help="The data set whose columns to show.", show_default="none")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """List the data sets that come with the zoo, or show how the columns of a data set or file are read."""
    if source is None and loading == Loading():
        if as_json:
            _print_json(zoo.list_data())
        else:
            typer.echo("\n".join(zoo.list_data()))
        return
    if source is not None and loading.data is not None:
        raise OptionError("name the data once: as the argument, or with --data.")
    loaded = replace(loading, data=source or loading.data).load()
    if as_json:
        columns = [asdict(column) for column in loaded.columns]
        _print_json({"data": loaded.name, "rows": _rows(loaded), "columns": columns, "notes": loaded.notes})
        return
    typer.echo(repr(loaded).strip("<>"))
    _remark_on([loaded])
    schema = loaded.schema.astype(object).where(loaded.schema.notna(), "")
    _print_table(list(schema.columns), schema.astype(str).values.tolist())


def _rows(loaded: Data) -> dict[str, int]:
    return {part: len(getattr(loaded, part)) for part in ("train", "validation", "test")}


@app.command()
@_spread
def train(
    loading: Loading,
    training: Training,
    name: Annotated[
        str | None,
        Argument(help="A pair; add :GUIDE for a guide other than its default.", show_default="required"),
    ] = None,
    out: Annotated[
        Path | None, Option(metavar="RUN", help="Directory to save the run in.", show_default="required")
    ] = None,
    assignments: Assignments = None,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        Path | None,
        Option(metavar="RUN", help="Continue an interrupted run to the same bits. Needs no other option."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Train a pair and save the run, or continue an interrupted run.

    Under torchrun several processes share the work: they divide the seeds or, if there are fewer seeds than
    processes, the rows of each batch. The exit status is 1 if no seed ever had a finite validation ELBO.
    """
    _run_plugins(plugin)
    if resume:
        asked = (name, replace(loading, data=None), training, out, assignments, overwrite)
        if asked != (None, Loading(), Training(), None, None, False):
            raise OptionError(
                f"--resume {resume} continues what was begun there: it takes no option but --data and --plugin."
            )
        out = resume
        run = _load_run(out) if (out / "run.json").is_file() else _train(_begun(out, loading.data), quiet)
    elif name is None or out is None:
        raise OptionError("name a pair and an --out directory, or --resume an interrupted run.")
    else:
        zoo.card(name)
        if _is_first():
            _check_free(out, overwrite)
        seeds, settings = training.chosen_seeds, training.settings(**ALONE)
        pair = zoo.create(name, loading.load(), **dict(_assignment(text) for text in assignments or ()))
        _remark_on([pair.data])
        run = _train(Fit(pair, seeds, settings, out, overwrite), quiet)
    best = run.tree["validation"].to_dataset()["elbo"].max("check").values.tolist()
    broken = not any(map(math.isfinite, best))
    if not _is_first():
        raise typer.Exit(int(broken))
    if as_json:
        scores = [elbo if math.isfinite(elbo) else None for elbo in best]
        about = {"run": str(out), "pair": run.pair.name, "seeds": run.seeds, "notes": run.pair.data.notes}
        _print_json({**about, "validation_elbo": scores})
    else:
        typer.echo(f"Best validation ELBO, nats per datum: {', '.join(f'{elbo:.2f}' for elbo in best)}")
        typer.echo(out)
    if broken:
        tell(
            f"error: every seed of {run.pair.name} broke before its first finite validation ELBO; saved all the same.",
            "red",
        )
        raise typer.Exit(1)


@app.command()
@_spread
def evaluate(
    run: Annotated[Path, Argument(help="Directory of a run.")],
    scoring: Scoring,
    data: DataNow = None,
    plugin: Plugins = None,
    as_json: AsJSON = False,
) -> None:
    """Score a run on the held-out part of its data, and save the scores in the run."""
    _run_plugins(plugin)
    loaded = _load_run(run)
    zoo.evaluate(loaded, _load_again(run, loaded.tree.attrs.get("data_call", ""), data), **scoring.settings())
    loaded.save(run)
    _print_ranking(zoo.compare([loaded]), {}, None, [loaded.pair.data], as_json)


@app.command()
@_spread
def compare(
    names: Annotated[
        list[str],
        Argument(
            metavar="NAME...",
            help="Pairs: PAIR, PAIR:GUIDE or PAIR[OPTION=VALUE, ...]; VALUE|VALUE gives one pair per value.",
        ),
    ],
    loading: Loading,
    training: Training,
    scoring: Scoring,
    working: Working,
    out: Annotated[Path, Option(metavar="DIR", help="Directory for the runs and the report.")],
    assignments: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="[PAIR.]OPTION=VALUE",
            help="An option of one pair, or of every pair that has it; may be repeated.",
        ),
    ] = None,
    ensembles: Annotated[bool, Option("--ensembles", help="Also rank the mixture of each pair's seeds.")] = False,
    repeats: Annotated[
        int, Option(help="Repeat everything on this many splits of the data, counted from --split-seed.")
    ] = 1,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Train, score and rank pairs on the same data, and write the report.

    Pairs are trained until validation stops improving, unless --steps gives a number. If a pair fails, the others
    go on and the exit status is 1. With --repeats, each split gets its own runs and report in a folder of DIR, and
    the results over all splits are printed and written to across_splits.csv.
    """
    from zoo import planning, tasks

    _run_plugins(plugin)
    names = [one for name in names for one in alternatives(name)]
    cards = {name: zoo.card(name) for name in names}
    if loading.binarize is not None and all(card.support != "binary" for card in cards.values()):
        raise OptionError(f"--binarize is for pairs of binary data, and none of {', '.join(names)} is one.")
    if overwrite and (resume or working.shard):
        raise OptionError("--overwrite starts over, --resume and --shard continue: leave one of them out.")
    remedies = "use --overwrite to replace it, --resume to continue it, or "
    todo = planning.plan(
        names,
        loading.by_pair(),
        out,
        seeds=training.chosen_seeds,
        repeats=repeats,
        split_seed=loading.split_seed,
        options=_options_by_pair(names, assignments or ()),
        threads=working.threads,
        ensembles=ensembles,
        overwrite=overwrite,
        check=partial(
            tasks.check_place,
            overwrite=overwrite,
            resume=resume or working.shard is not None,
            argument="--out",
            remedies=remedies,
        ),
        **training.settings(**planning.COMPARED),
        **scoring.settings(),
    )
    _remark_on(todo.datas)
    with working.executor() as executor:
        try:
            study = todo.run(
                workers=working.count,
                executor=executor,
                shard=working.shard,
                progress=not quiet,
                tell=None if quiet else planning.said,
            )
        except KeyboardInterrupt:
            done = ", ".join(map(str, todo.study.runs)) or "no run"
            raise KeyboardInterrupt(
                f"{done} finished; no report was written. To continue, add --resume to the same command."
            ) from None
    _print_study(study, todo.datas, as_json)
    for name, reason in study.failures.items():
        tell(f"error: {name} failed: {reason}", "red")
    for name in study.unfinished:
        told = "another shard is working on it" if working.shard else "another process is working on it: --resume later"
        tell(f"{name} is not done: {told}.", "dim" if working.shard else "red")
    if study.failures or (study.unfinished and not working.shard):
        raise typer.Exit(1)


@app.command()
def impute(
    run: OfRun,
    data: Annotated[str, DATA(metavar="NAME|FILE", help="A table with gaps and the columns the run was trained on.")],
    out: Annotated[
        Path, Option(metavar="FILE", help="The same table with its gaps filled: .csv, .tsv, .parquet, .npy.")
    ],
    missing: Missing = None,
    method: Annotated[
        ImputationMethod, Option(help="gibbs is Metropolis within Gibbs; pseudo-gibbs is biased, for comparison only.")
    ] = "gibbs",
    draws: Annotated[int, Option(help="Draws per gap and seed.")] = 20,
    sweeps: Annotated[int, Option(help="Sweeps of the Gibbs samplers.")] = 50,
    seed: Annotated[int, Option(help="Seed of the random draws.")] = 0,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
    as_json: AsJSON = False,
) -> None:
    """Fill the gaps of a table: numbers with the mean of draws over all seeds, text with the most frequent draw.

    Every filled value is one its column can take. Recorded entries stay as they were written, and so do columns the
    run was not trained on.
    """
    from zoo.rewriting import fill_file

    trained = _writing(run, out, plugin, overwrite)
    filled = fill_file(
        trained, data, out, missing_values=_literals(missing), draws=draws, method=method, sweeps=sweeps, seed=seed
    )
    if as_json:
        _print_json({"out": str(out), "filled": filled})
        return
    columns = ", ".join(f"{count} in {name}" for name, count in filled.items() if count)
    tell(f"filled: {columns or 'nothing, there were no gaps'}", "dim")
    typer.echo(out)


@app.command()
def score(
    run: OfRun,
    data: Table,
    out: OutTable,
    missing: Missing = None,
    columns: Annotated[int, Option(help="How many of a row's most costly columns to name.")] = 3,
    samples: Annotated[int, Option(help="Importance samples per row.")] = 1000,
    training: Annotated[
        str | None,
        DATA(
            metavar="NAME|FILE",
            help="The rows the run was trained on; scores are ranked among theirs.",
            show_default="as loaded for training",
        ),
    ] = None,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
    as_json: AsJSON = False,
) -> None:
    """Score each row of a table: its log-likelihood, its rank among the training rows, the columns that make it odd.

    The log-likelihood is that of the pair's own formula, which may be a density: it compares rows, and not pairs.
    A rank of 0.01 means that one training row in a hundred is as odd. A column's cost is how many nats less its value
    scores, given the rest of the row, than in a usual row. Columns the run was not trained on are kept.
    """
    from zoo.rewriting import answer_file, rows_of

    trained, told = _writing(run, out, plugin, overwrite), _literals(missing)
    among = None if training is None else rows_of(trained, training, told)
    found = answer_file(
        trained,
        data,
        out,
        lambda x: trained.score(x, columns=columns, samples=samples, training=among),
        told,
    )
    if as_json:
        _print_json({"out": str(out), "rows": len(found), "odd": int((found["rank"] <= ODD).sum())})
        return
    oddest = found.iloc[found["rank"].fillna(math.inf).argmin()]
    why = f", {oddest['column_1']} costs it most" if "column_1" in found and oddest["column_1"] else ""
    tell(
        f"scored: {len(found)} rows, {(found['rank'] <= ODD).sum()} of which rank at {ODD:g} or less; "
        f"the oddest is {oddest.name}: rank {oddest['rank']:.2g}{why}",
        "dim",
    )
    typer.echo(out)


@app.command()
def embed(
    run: OfRun,
    data: Table,
    out: OutTable,
    missing: Missing = None,
    seed: Annotated[
        int | None, Option(help="Which of the run's seeds.", show_default="the one with the best validation ELBO")
    ] = None,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the posterior means of the latents for each row of a table, in columns z0, z1, and so on.

    They come from one seed, since the latents of different seeds are rotated against each other. A mixture gives the
    probabilities of its components. Columns the run was not trained on are kept.
    """
    from zoo.rewriting import answer_file

    trained = _writing(run, out, plugin, overwrite)
    answer_file(trained, data, out, lambda x: trained.embed(x, seed), _literals(missing))
    typer.echo(out)


@app.command()
def sample(
    run: OfRun,
    out: OutTable,
    n: Annotated[int, Option("-n", help="How many rows.")] = 1000,
    seed: Annotated[int, Option(help="Seed of the random draws.")] = 0,
    plugin: Plugins = None,
    overwrite: Overwrite = False,
) -> None:
    """Write synthetic rows with the columns the run was trained on, each drawn from a seed chosen at random."""
    from zoo.rewriting import write_table

    trained = _writing(run, out, plugin, overwrite)
    write_table(trained.sample_frame(n, seed), out)
    typer.echo(out)


@app.command()
def repeat(
    run: Annotated[Path, Argument(help="Directory of a run that this command line trained.")],
    out: Annotated[Path, Option(metavar="RUN", help="Directory for the new run.")],
    data: DataNow = None,
    plugin: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Train a run again and say whether weights and traces are the same to the last bit.

    On the same machine with the same versions they are; if not, the exit status is 1.
    """
    from zoo.tasks import check_place

    _run_plugins(plugin)
    first = _load_run(run)
    if "interrupted_at" in first.tree.attrs:
        raise RunError(f"{run} is an interrupted run: finish it with `zoo train --resume {run.parent}`.")
    check_place(out, overwrite=False, resume=False, argument="--out", remedies="")
    now = _load_again(run, first.tree.attrs.get("data_call", ""), data)
    if now.fingerprint != first.tree.attrs["data_fingerprint"]:
        raise DataError(f"{now.origin} does not give the data {run} was trained on.")
    pair = zoo.create(first.pair.name, now, **first.pair.choices)
    again = _train(Fit(pair, list(first.seeds), first.settings, out), quiet)
    differing = first.differences(again)
    if not differing:
        typer.echo(f"{out} is {run} to the last bit.")
        return
    then, now = (json.loads(of.tree.attrs["versions"]) | {"machine": of.tree.attrs["machine"]} for of in (first, again))
    changed = ", ".join(f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name])
    tell(
        f"{out} is not {run}: {', '.join(differing[:5])} differ. {f'Since then: {changed}.' if changed else ''}", "red"
    )
    raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], Argument(help="Directories of runs, or of a comparison, finished or not.")],
    out: Annotated[Path, Option(metavar="DIR", help="Directory for the page and its figures.")],
    png: Annotated[bool, Option("--png", help="Also write each figure as PNG.")] = False,
) -> None:
    """Write a report on saved runs, and print its path."""
    from zoo.studies import PLAN

    studies = {run: zoo.load_study(run) for run in runs if (run / PLAN).is_file()}
    given = [one for run in runs for one in (studies[run].runs if run in studies else [run])]
    failures = {name: why for study in studies.values() for name, why in study.absent.items()}
    if not given:
        raise RunError(f"no run in {', '.join(map(str, runs))} is finished yet: `zoo compare ... --resume` continues.")
    ensembles = any(study.ensembles for study in studies.values())
    typer.echo(zoo.report(given, out, ensembles=ensembles, failures=failures, png=png))


def _writing(run: Path, out: Path, plugin: list[Path] | None, overwrite: bool) -> Run:
    """The run that will write a file, once it is clear that the file may be written."""
    from zoo.rewriting import check_ending

    _run_plugins(plugin)
    check_ending(location("--out", out))
    if out.exists() and not (overwrite and out.is_file()):
        raise OptionError(f"{out} exists: use --overwrite to replace it, or choose another --out.")
    return _load_run(run)


def _literals(texts: list[str] | None) -> list[Any] | None:
    return None if texts is None else [literal(text) for text in texts]


def _load_run(place: Path) -> Run:
    try:
        return zoo.load_run(place)
    except UnknownPair as error:
        raise UnknownPair(f"{error} Name the file that registers it with --plugin.") from error


def _load_again(place: Path, text: str, now: str | None) -> Data:
    """The data of a run or an unfinished fit, loaded by the call it recorded, from where they are now."""
    from zoo.sources import DataCall

    if not text and now is None:
        raise RunError(f"{place} does not record how its data were loaded: name them with --data.")
    call = DataCall.parse(text) if text else DataCall(str(now), {})
    try:
        return (call if now is None else replace(call, source=now)).load()
    except DataError as error:
        if now or Path(call.source).exists() or call.source in zoo.list_data():
            raise
        raise DataError(f"{error}; if the data have moved, say where they are with --data.") from error


@dataclass(frozen=True)
class Fit:
    """A pair to train, how to train it, and where to save it."""

    pair: Pair
    seeds: int | list[int]
    settings: dict[str, Any]
    place: Path
    overwrite: bool = False


def _begun(place: Path, now: str | None) -> Fit:
    """The unfinished fit in a place."""
    from zoo.checkpoint import begun
    from zoo.settings import Settings

    fit, origin = begun(place)
    try:
        name, options, seeds = fit["pair"], fit["options"], fit["seeds"]
        settings = {field.name: fit[field.name] for field in fields(Settings)}
    except KeyError as missing:
        raise RunError(f"{place} was begun by another version: it does not record {missing}.") from None
    try:
        zoo.card(name)
    except UnknownPair as error:
        raise UnknownPair(f"{error} Name the file that registers it with --plugin.") from error
    return Fit(zoo.create(name, _load_again(place, origin, now), **options), seeds, settings, place)


def _remark_on(datas: Iterable[Data]) -> None:
    """Print the notes on the data before anything is trained on them."""
    for note in _notes(datas) if _is_first() else ():
        tell(f"data: {note}", "dim")


def _notes(datas: Iterable[Data]) -> list[str]:
    return list(dict.fromkeys(note for data in datas for note in data.notes))


def _train(wanted: Fit, quiet: bool) -> Run:
    """Train in its place; an interruption says how to continue."""
    from zoo.checkpoint import FIT, SO_FAR
    from zoo.tasks import train

    place = wanted.place
    again = f"`{'torchrun ... -m zoo.command_line' if _by_torchrun() else 'zoo'} train --resume {place}`"
    try:
        return train(wanted.pair, wanted.seeds, wanted.settings, place, wanted.overwrite, not quiet, again)
    except KeyboardInterrupt:
        if not (place / FIT).is_file():
            raise KeyboardInterrupt("nothing was written.") from None
        usable = f"{place / SO_FAR} is the run as it stood; " if (place / SO_FAR).is_dir() else ""
        raise KeyboardInterrupt(f"{usable}{again} continues.") from None


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_first(number: str = "RANK") -> bool:
    """Whether this process speaks for all processes of torchrun, or for those on its machine (LOCAL_RANK)."""
    return not _by_torchrun() or os.environ[number] == "0"


def _check_free(place: Path, overwrite: bool) -> None:
    """Refuse a place where no run could be saved."""
    from zoo.tasks import check_place

    remedies = f"use --overwrite to replace it, `zoo train --resume {place}` to continue it, or "
    check_place(place, overwrite=overwrite, resume=False, argument="--out", remedies=remedies)


def _assignment(text: str) -> tuple[str, Any]:
    """``"floor=0.04"`` as a name and a Python value."""
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise OptionError(f"--set {text}: write it as OPTION=VALUE, such as floor=0.04.")
    return name.strip(), literal(value.strip())


def _of_columns(option: str, texts: Sequence[str], read: Callable[[str], Any]) -> Any:
    """One value for all columns, or a value for each named column."""
    pairs = [text.rpartition("=") for text in texts]
    if len(texts) == 1 and not pairs[0][1]:
        return texts[0]
    if plain := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        raise OptionError(f"{option} {plain[0]} names no column, while other values do: write COLUMN={plain[0]}.")
    return {name: None if value == "none" else read(value) for name, _, value in pairs}


def _options_by_pair(names: Sequence[str], assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``PAIR.option=value`` for that pair, ``option=value`` for every pair that has the option."""
    from zoo.catalogue import options_of

    known = {name: {field.name for field in fields(options_of(name))} for name in names}
    known = {name: own | ({"preset"} if zoo.card(name).presets else set()) for name, own in known.items()}
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in assignments:
        path, value = _assignment(text)
        pair, _, option = path.rpartition(".")
        owners = [pair] if pair else [name for name in names if option in known[name]]
        if not owners or owners[0] not in names:
            trouble = f"{pair} is not among {', '.join(names)}" if pair else f"no pair has an option {option!r}"
            raise OptionError(f"--set {text}: {trouble}; `zoo show NAME` lists the options of a pair.")
        for owner in owners:
            options[owner][option] = value
    return options


def _run_plugins(paths: Iterable[Path] | None) -> None:
    """Execute Python files so that they register their pairs."""
    for path in paths or ():
        spec = importlib.util.spec_from_file_location(f"zoo_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise OptionError(f"--plugin {path}: there is no such Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their annotations up there
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise OptionError(f"--plugin {path}: {one_line(error, path)}") from error


def _type_text(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if (parts := get_args(hint)) and type(None) in parts:
        return " | ".join("None" if part is type(None) else _type_text(part) for part in parts)
    return str(hint) if get_args(hint) else str(getattr(hint, "__name__", hint))


def _print_ranking(
    table: pd.DataFrame | None,
    failures: Mapping[str, str],
    page: Path | None,
    datas: Iterable[Data],
    as_json: bool,
    answer: zoo.Answer | None = None,
) -> None:
    """Print a table per base measure and data set, the failed pairs, the path of the report, and which pair to use."""
    careful = {} if table is None else zoo.cautions(table)
    if as_json:
        rows = [] if table is None else json.loads(table.reset_index().to_json(orient="records"))
        told = {"rows": rows, "cautions": careful, "failures": failures, "report": page and str(page)}
        _print_json(told | _answer_json(answer) | {"notes": _notes(datas)})
        return
    for label, rows in [] if table is None else table.groupby("table", sort=False):
        cells = [
            (
                "-" if row["rank"] is None else str(row["rank"]),
                name,
                _plus_minus(row["log_evidence"], row["se"]),
                _plus_minus(row["difference"], row["difference_se"], row["difference_seed_se"]),
                "-" if row["weight"] is None else f"{row['weight']:.2f}",
                row["verdict"],
            )
            for name, row in json.loads(rows.to_json(orient="index")).items()
        ]
        _print_table(
            ["rank", "pair", "held-out, nats", "difference ± data ± seeds", "weight", "verdict"], cells, str(label)
        )
        for text in [*rows["choice"][rows["choice"] != ""].unique(), *careful.get(str(label), [])]:
            typer.echo(f"{text}\n")
    if failures:
        _print_table(["pair", "reason"], list(failures.items()), "failed")
    if page:
        typer.echo(page)
    if answer:
        typer.echo(f"\n{answer}")


def _answer_json(answer: zoo.Answer | None) -> dict[str, Any]:
    return {"answer": {"text": str(answer), **asdict(answer)}} if answer else {}


def _print_study(study: Study, datas: Iterable[Data], as_json: bool) -> None:
    """Print the ranking, or the results over several splits, a table per base measure and data set, and its path."""
    from zoo.words import nats

    if len(study.splits) == 1:
        _print_ranking(study.table, study.failures, next(iter(study.pages), None), datas, as_json, study.answer)
        return
    across = study.table
    written = None if across is None else str(study.out / "across_splits.csv")
    if as_json:
        rows = [] if across is None else json.loads(across.reset_index().to_json(orient="records"))
        failures = {split.folder.name: split.failures for split in study.splits}
        told = {"rows": rows, "failures": failures, "written": written}
        _print_json(told | _answer_json(study.answer) | {"notes": _notes(datas)})
        return
    for label, rows in [] if across is None else across.groupby("table", sort=False):
        cells = [
            (
                name,
                f"{row['splits']:.0f}",
                _plus_minus(row["log_evidence"], row["split_sd"]),
                _plus_minus(row["difference"], row["difference_se"]),
                f"{row['best']:.0f}",
                f"{row['apart']:.0f}",
                f"{row['chosen']:.0f}",
                nats(row["worst"]),
            )
            for name, row in json.loads(rows.to_json(orient="index")).items()
        ]
        names = ["splits", "held-out, nats ± sd", "difference ± se", "best in", "apart in", "chosen in", "worst datum"]
        _print_table(["pair", *names], cells, str(label))
    if written:
        typer.echo(written)
    typer.echo(f"\n{study.answer}")


def _plus_minus(value: float | None, *errors: float | None) -> str:
    from zoo.words import plus_minus

    return "-" if value is None else plus_minus(value, *(math.nan if error is None else error for error in errors))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table as wide as the terminal, or in a pipe wide enough to keep lines whole."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_IN_A_PIPE
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=bool(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
