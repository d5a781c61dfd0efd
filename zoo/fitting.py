"""The SVI loop: many seeds at once, validated at intervals, watched for divergence."""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo.batches import Resident, Streamed, Training
from zoo.cards import kept_weights
from zoo.catalogue import Pair, origins
from zoo.checkpoint import SO_FAR, Checkpoint
from zoo.checks import Check, OnCheck, Teller
from zoo.data import Data
from zoo.densities import column_scale
from zoo.divergence import Watch
from zoo.engine import Engine, LinAlgError, Mode, State
from zoo.errors import DataError, Diverged, DivergenceWarning, OptionError, RunError
from zoo.graphs import measured_onednn_from
from zoo.lenses import Gapped
from zoo.objectives import terms, traces
from zoo.options import count, location, switch
from zoo.parts import OBJECTIVES
from zoo.plugins import PACKAGE
from zoo.portions import DividedEngine
from zoo.ranks import Ranks, ranks_of
from zoo.rounds import Round, still_improving
from zoo.runs import RECIPE, Run, load_run
from zoo.settings import Settings, checked_seeds, checked_settings, chosen_device
from zoo.splits import subsample
from zoo.storage import write_directory
from zoo.tables import large, looked_at
from zoo.tree import finish

__all__ = ["fit"]

log = logging.getLogger("zoo")

ROWS_AT_ONCE, VALUES_AT_ONCE = 4096, 2**22  # at most, in a pass of a check
FEW_STEPS = 50  # not worth recording
MODES: tuple[Mode, ...] = get_args(Mode)
OF_STEP = tuple(field.name for field in fields(State))
OF_SEEDS = ("best_elbo", "best_step", "stopped_at", "settled_at")  # what a Record knows of each seed
OF_DENSITY = ("elbo", "log_likelihood", "objective")  # traces of a step in nats, in the units of the data
OF_CHECKS = ("elbo", "column_scale", "median_scale", "scale_obs")
NUMBER, SHARE = 4, 8  # bytes per number; data may take this fraction, 1/8, of a card's free memory
SCALED_AT_ONCE = 2**16  # numbers, few enough to stay in the cache
REPEATED_ROWS, REPEATED_VALUES = 1024, 2**20  # a smaller part is drawn several times to reduce noise in its mean


def fit(
    pair: Pair,
    data: Data,
    *,
    seeds: int | Iterable[int] = 4,
    steps: int | Literal["auto"] = 2000,
    batch_size: int = 128,
    learning_rate: float | None = None,
    schedule: str = "cosine",
    objective: Any = None,
    warmup: int = 0,
    clip: float | None = None,
    same_batches: bool = False,
    checks: int = 50,
    validation_rows: int | None = 4096,
    keep: str = "best",
    patience: int | None = None,
    compile: str = "auto",
    precision: str = "float32",
    device: str = "auto",
    on_divergence: str = "stop",
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    on_check: OnCheck | None = None,
) -> Run:
    """Train a pair for several seeds at once by stochastic variational inference with Adam.

    Each seed has its own initial weights, noise and order of the data, and its numbers do not depend on the other
    seeds. By default the weights with the best validation ELBO are kept; the test part is not touched.

    Several processes share one fit if all of them make this call: those started by torchrun, or in an initialised
    process group of ``torch.distributed``. If there are at least as many seeds as processes, each trains some of them;
    otherwise each trains all seeds on some rows of every batch, to the same numbers up to rounding. Each gets the
    whole run; only the first writes the checkpoint and shows progress.

    Args:
        pair: from :func:`zoo.create`.
        data: the data it was created for.
        seeds: how many, counted from 0, or the seeds themselves.
        steps: gradient steps, or "auto": rounds of 1,000 steps, 2,000 and so on to 16,000, each with its own
            schedule. A seed stops at the end of a round if its validation ELBO gained at most 0.1 nats in it, fell
            0.1 nats below its best, or the seed ran away.
        batch_size: data per step.
        learning_rate: Adam's step size; None takes the card's.
        schedule: "cosine" lowers the learning rate to zero at the last step, "constant" keeps it.
        objective: what is maximised: a name such as "elbo", or "iwae[samples=5, gradient=dreg]" with options, or one of
            ``zoo.objectives`` such as ``IWAE(samples=5)``; ``zoo parts`` lists them. None takes the card's.
        warmup: steps over which the weight of the KL term rises to 1. The recorded ELBO is never annealed or
            weighted by a ``poutine.scale`` of the pair.
        clip: the largest gradient norm of a seed; None does not clip.
        same_batches: give all seeds the data in the same order, so that they differ only in start and noise.
        checks: about how many times the validation ELBO is computed, in each round if there are several; at least six.
        validation_rows: the most validation rows that a check uses, and the most training rows that the watch and a
            model that settles use: a random subset, the same for all seeds, pairs and machines; None takes all.
        keep: "best" keeps the weights with the best validation ELBO, "last" those after the last step.
        patience: stop a seed whose validation ELBO has not improved for this many checks; None never does.
        compile: "off" runs Pyro as it is, "capture" replays a recorded graph, "inductor" compiles it, "auto"
            chooses from the work ahead.
        precision: "bfloat16" is used for matrix products of network layers in training; parameters, densities, Adam
            and all scores stay in single precision.
        device: "cpu", "cuda", or "auto" for the best available.
        on_divergence: when a decoder scale runs to zero: "stop" freezes that seed, "warn" goes on (to the end of the
            round, if there are several), "raise" raises.
        progress: show a progress bar where a person is watching.
        checkpoint: a directory to train in. A fit stopped there, however it ended, is continued to the same bits as if
            it had not been stopped; a finished one is returned. When done, the run is saved there. Ctrl-C leaves the
            unfinished run in ``so-far`` there.
        checkpoint_every: steps between states on disk; the last two are kept; None writes one at each check.
        on_check: called after each check with a :class:`zoo.checks.Check`: ``docs/examples`` has calls for TensorBoard
            and MLflow. If it raises, the error is logged, it is not called again and training goes on; Ctrl-C, or a
            ``KeyboardInterrupt`` from it, ends training as usual. Among several processes only the first calls it.

    Returns:
        A :class:`zoo.Run` with groups ``optimization``, ``validation`` and ``constant_data``.

    Raises:
        OptionError: an argument of the wrong type or range, a batch that cannot be divided over processes, or programs
            with something that the loss would leave out.
        DataError: data the pair was not created for.
        Diverged: a seed ran away and ``on_divergence="raise"``.
        RunError: the checkpoint's directory is in use, cannot be written, or holds something else. (Once training has
            begun, a full disk is only a warning, and the run is returned.) Or one of several processes has ended or
            was asked for another fit.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, steps=30, progress=False)
    >>> dict(run.tree["optimization"].sizes)
    {'chain': 2, 'step': 30}
    """
    given = {name: value for name, value in locals().items() if name in Settings.__dataclass_fields__}
    if objective is not None:
        given["objective"] = OBJECTIVES.spelled(objective)
    settings = checked_settings(given)
    chosen_seeds, progress = checked_seeds(seeds), switch("progress", progress)
    _check_data(pair, data)
    settings = replace(
        settings,
        objective=settings.objective or pair.card.objective,
        learning_rate=settings.learning_rate or pair.card.learning_rate,
    )
    identity = {
        "pair": pair.name,
        "options": pair.choices,
        "data": data.fingerprint,
        "seeds": chosen_seeds,
        **asdict(settings),
        "torch": torch.__version__,
    }
    if checkpoint is None and checkpoint_every is not None:
        raise OptionError("fit: checkpoint_every needs checkpoint: name a directory too.")
    if on_check is not None and not callable(on_check):
        raise OptionError(f"fit: on_check={on_check!r} is not a function: give one that takes a zoo.checks.Check.")
    teller = Teller(on_check)
    ranks = ranks_of(json.dumps(identity), chosen_seeds, chosen_device(settings.device))
    if checkpoint is None:
        return _train(pair, data, chosen_seeds, settings, progress, ranks, teller)
    every = None if checkpoint_every is None else count("checkpoint_every", checkpoint_every)
    if ranks.divides_rows:
        identity["processes"] = ranks.size  # the order of summing gradients depends on it
    with Checkpoint(location("checkpoint", checkpoint), identity, data.origin, ranks) as place:
        if ranks.first(lambda: {} if (place.path / RECIPE).is_file() else None) is not None:
            run = load_run(place.path)
            place.refuse_another(json.loads(run.tree.attrs.get("fit", "{}")))
            return run
        run = _train(pair, data, chosen_seeds, settings, progress, ranks, teller, place, every)
        run.tree.attrs["fit"] = json.dumps(place.identity)

        def write() -> None:
            try:
                write_directory(place.path, run.files())
            except RunError as error:  # keep the run even if it cannot be saved
                log.warning("%s The run is only in memory.", error)

        ranks.first(write)
    return run


def _train(
    pair: Pair,
    data: Data,
    seeds: list[int],
    settings: Settings,
    progress: bool,
    ranks: Ranks,
    teller: Teller,
    place: Checkpoint | None = None,
    save_every: int | None = None,
) -> Run:
    """Train from the start, or from the last state in a place."""
    saved = place.begin() if place else None
    engine, record, watch = _prepared(pair, data, seeds, settings, ranks, saved)
    if engine.note and ranks.leads:
        log.warning("%s, compile=%r, is run with %r: %s", pair.name, settings.compile, engine.mode, engine.note)
    else:
        log.info("%s, compile=%r, is run with %r", pair.name, settings.compile, engine.mode)
    first, before = 0, 0.0
    if saved is not None:
        record.restore(saved)
        watch.restore(saved)
        first, before = int(saved["step"]), float(saved["seconds"])

    started = time.perf_counter()
    done = first
    try:
        with _progress(f"{pair.name} ({engine.mode})", shown=progress and ranks.leads) as tell:
            for step in range(first, settings.most_steps if record.alive().any() else first):
                if step >= len(record.trace):
                    record.reserve(settings.round(step).stop)
                record.keep(step, engine.step(step))
                check = settings.checks_at(step)
                if check:
                    record.check(step + 1)
                    alarmed = watch.alarms(
                        step + 1,
                        record.elbo[-1],
                        record.column_scale[-1],
                        record.median_scale[-1],
                        record.scale_obs[-1],
                        alive=record.alive(),
                    )
                    if alarmed.any() and settings.on_divergence == "raise":
                        raise Diverged(watch.message(alarmed))
                    if alarmed.any() and ranks.leads:
                        warnings.warn(watch.message(alarmed), DivergenceWarning, stacklevel=3)
                    late = record.checks_without_progress() >= (settings.patience or math.inf)
                    record.stop(step + 1, late | (alarmed & (settings.on_divergence == "stop")))
                    if settings.settles_at(step):
                        record.stop(step + 1, watch.ran_away_at >= 0)  # it has nothing to settle at
                        record.settle(step + 1, ~record.still_improving(settings.round(step).start))
                    tell(step + 1, settings.round(step), record.elbo[-1])
                if place and ((step + 1) % save_every == 0 if save_every else check):
                    seconds = before + time.perf_counter() - started
                    counts = {"step": step + 1, "seconds": seconds, "mode": MODES.index(engine.mode)}
                    counts["onednn_from"] = math.nan if engine.onednn_from is None else engine.onednn_from
                    state = {name: torch.tensor(value, dtype=torch.float64) for name, value in counts.items()}
                    place.save(step + 1, state | record.state(step + 1) | watch.state())
                    done = step + 1
                if check and teller.wanted:  # once the state is on disk
                    found = record.last_check(settings.round(step).stop, before + time.perf_counter() - started)
                    if ranks.leads:
                        teller(found)
                if check and not record.alive().any():
                    break
    except KeyboardInterrupt:
        saved = place.latest() if place else None
        if place is None or saved is None or not ranks.leads:
            raise
        kept = ""
        with _undisturbed():
            if ranks.size > 1:  # the others may be anywhere; a state holds all seeds, so one process is enough
                engine, record, watch = _prepared(pair, data, seeds, settings, Ranks(ranks.device), saved)
            record.restore(saved)  # an interruption may come at any time; a saved state is complete
            watch.restore(saved)
            if record.checked:
                record.stop(done, record.alive())
                run = _run(pair, data, settings, engine, record, watch, float(saved["seconds"]))
                run.tree.attrs["interrupted_at"] = done
                try:
                    kept = f" and, in {run.save(place.path / SO_FAR)}, the run they made"
                except RunError as error:  # the state is on disk regardless
                    log.warning("%s", error)
        raise KeyboardInterrupt(f"{place.path} holds the first {done} steps{kept}: the same call continues.") from None
    return _run(pair, data, settings, engine, record, watch, before + time.perf_counter() - started)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C wait: torchrun sends its processes what the terminal has sent them already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepared(
    pair: Pair, data: Data, seeds: list[int], settings: Settings, ranks: Ranks, saved: dict[str, Tensor] | None
) -> tuple[Engine, Record, Watch]:
    """The engine, the record and the watch of a fit before its first step, ready to be given a saved state."""
    at = ranks.device
    some_train, validation = (subsample(part, settings.validation_rows) for part in (data.train, data.validation))
    width = _tensor(pair.view.width, at)
    assert settings.objective is not None  # fit has filled it in
    engine = (DividedEngine if ranks.divides_rows else Engine)(
        pair,
        seeds,
        _training(pair, data.train, at),
        objective=OBJECTIVES.make(settings.objective),
        schedule=settings.at,
        batch_size=settings.batch_size,
        prepare=(lambda x: pair.view.noisy(x, torch.rand_like(x), width)) if data.noise else None,
        clip=settings.clip,
        same_batches=settings.same_batches,
        mode=_mode(settings) if saved is None else MODES[int(saved["mode"])],
        steps=settings.likely_steps,
        precision=settings.precision,
        onednn_from=_onednn_from(saved, ranks),
        ranks=ranks,
    )
    record = Record(
        engine, seeds, pair, some_train, validation, keep_last=settings.keep == "last", settles=settings.steps == "auto"
    )
    return engine, record, Watch(pair, seeds, some_train.values)


def _run(
    pair: Pair, data: Data, settings: Settings, engine: Engine, record: Record, watch: Watch, seconds: float
) -> Run:
    """The run, after warnings that say why seeds were frozen."""
    seeds, frozen_at = record.seeds, record.frozen_at()
    here = enumerate(frozen_at[engine.ranks.part].tolist())
    found = [f"at step {step} {engine.fault(row, step - 1)}" if step >= 0 else "" for row, step in here]
    faults = {str(seed): fault for seed, fault in zip(seeds, engine.ranks.texts(found), strict=True) if fault}
    for seed, fault in faults.items() if engine.ranks.leads else ():
        warnings.warn(
            f"{pair.name}, seed {seed}: {fault}; the seed was frozen at its last finite state.",
            DivergenceWarning,
            stacklevel=4,
        )
    attrs = _attributes(pair, data, settings, engine, seeds, seconds) | {"faults": json.dumps(faults)}
    root = xarray.Dataset(attrs=attrs)
    tree = xarray.DataTree.from_dict({"/": root, **record.groups(watch.ran_away_at), **_constants(data, watch)})
    return Run(pair, tuple(seeds), record.best_weights(), finish(tree))


class Record:
    """Traces of every step and check, and the best weights so far; on the device until the end.

    A step leaves a few numbers per seed; ``reserve`` makes room for them.

    Args:
        engine: what is trained in this process.
        seeds: all seeds trained, in this process or another; the results of checks cover all of them.
        pair: the pair; the traces are in the units of its data.
        train: the training rows a model settles on, in the units as loaded, shape (N, D).
        validation: the validation rows a check uses, in the units as loaded, shape (N, D).
        keep_last: keep the weights of the last check instead of the best.
        settles: whether seeds are trained until they stop improving.
    """

    def __init__(
        self,
        engine: Engine,
        seeds: list[int],
        pair: Pair,
        train: xarray.DataArray,
        validation: xarray.DataArray,
        *,
        keep_last: bool,
        settles: bool,
    ) -> None:
        self.engine = engine
        self.seeds = seeds
        self.ranks = engine.ranks
        self.pair = pair
        self.keep_last = keep_last
        self.settles = settles
        self.obs = validation["obs"].values
        # the log volume of a mean row, since that of a batch's own rows is unknown afterwards
        self.volume = pair.view.mean_log_volume(pair.data.train)
        self.validation_volume = pair.view.mean_log_volume(validation)
        device = engine.x.device

        def seen(part: xarray.DataArray) -> Tensor:
            return _repeated(_tensor(pair.view.inward(part.values), device))

        self.validation = seen(validation)
        self.train = seen(train) if hasattr(engine.program.model, "settle") else None
        self.trace = torch.empty(0, len(engine.recorded), len(engine.seeds), dtype=torch.float32, device=device)
        self.checked: list[int] = []
        self.elbo: list[np.ndarray[Any, Any]] = []
        self.column_scale: list[np.ndarray[Any, Any]] = []
        self.median_scale: list[np.ndarray[Any, Any]] = []
        self.scale_obs: list[np.ndarray[Any, Any]] = []
        self.best_theta = engine.state.theta.clone()
        self.best_buffers = {name: buffer.clone() for name, buffer in engine.buffers.items()}
        self.best_elbo = np.full(len(seeds), -math.inf)
        self.best_step = np.zeros(len(seeds), dtype=np.int64)
        self.stopped_at = np.full(len(seeds), -1)
        self.settled_at = np.full(len(seeds), -1)

    def reserve(self, steps: int) -> None:
        """Make room for the traces of this many steps in total."""
        room = self.trace.new_full((steps - len(self.trace), *self.trace.shape[1:]), math.nan)
        self.trace = torch.cat([self.trace, room])

    def keep(self, step: int, statistics: Tensor) -> None:
        """Record what a step returned, without waiting for it."""
        self.trace[step] = statistics

    def check(self, step: int) -> None:
        """Compute the validation ELBO and the decoder's scales, and keep the best weights so far."""
        if self.train is not None:
            self.engine.call(_settle, self.engine.prepare, self.train)
        results = zip(*self.engine.call(_validate, self.validation), strict=True)
        elbos, smallest, rows, median = (self.ranks.whole(torch.stack(of)).cpu().numpy() for of in results)
        elbo = elbos.astype(np.float64) - self.validation_volume
        self.checked.append(step)
        self.elbo.append(np.where(self.alive(), elbo, math.nan))
        self.column_scale.append(smallest)
        self.median_scale.append(median)
        self.scale_obs.append(np.where(rows < 0, -1, self.obs[rows % len(self.obs)]).astype(np.int32))
        better = self.alive() & ((elbo > self.best_elbo) | self.keep_last)
        self.best_elbo = np.where(better, elbo, self.best_elbo)
        self.best_step = np.where(better, step, self.best_step)
        here = better[self.ranks.part]
        self.best_theta[here] = self.engine.state.theta[here]
        for name, buffer in self.best_buffers.items():
            buffer[here] = self.engine.buffers[name][here]

    def last_check(self, steps: int, seconds: float) -> Check:
        """The state at the last check; every process has to call it."""
        first = self.checked[-2] if len(self.checked) > 1 else 0
        recent = self.trace[first : self.checked[-1], self.engine.recorded.index("elbo")]
        return Check(
            pair=self.pair.name,
            step=self.checked[-1],
            steps=steps,
            seconds=seconds,
            seeds=tuple(self.seeds),
            elbo=self.ranks.whole(recent.nanmean(0)).cpu().numpy().astype(np.float64) - self.volume,
            validation_elbo=self.elbo[-1].copy(),
            best_elbo=self.best_elbo.copy(),
            alive=self.alive(),
        )

    def alive(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which seeds are still trained."""
        return self.ranks.whole(self.engine.state.alive).cpu().numpy()

    def checks_without_progress(self) -> np.ndarray[Any, Any]:
        """How many checks ago each seed had its best validation ELBO."""
        return np.array([sum(step > best for step in self.checked) for best in self.best_step])

    def stop(self, step: int, which: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Stop training these seeds."""
        self.stopped_at[which & self.alive()] = step
        self.engine.freeze(which[self.ranks.part])

    def still_improving(self, start: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which seeds would gain from more steps, judged by their gain since a step."""
        elbo, since = np.stack(self.elbo, axis=1), np.array(self.checked) > start
        return still_improving(elbo[:, ~since], elbo[:, since])

    def settle(self, step: int, which: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Stop training these seeds, since they would gain next to nothing."""
        self.settled_at[which & self.alive()] = step
        self.stop(step, which)

    def frozen_at(self) -> np.ndarray[Any, Any]:
        """The step, counted from 1, at which a seed's loss was not finite, or -1."""
        finite = self.ranks.whole(self.trace[:, -1].isfinite(), -1).cpu().numpy()
        broken = ~finite & (np.arange(len(self.trace)) < self.checked[-1])[:, None]
        return np.where(broken.any(0) & (self.stopped_at < 0), broken.argmax(0) + 1, -1)

    def best_weights(self) -> dict[str, Tensor]:
        """Parameters with the best validation ELBO, and buffers, each with a leading seed axis."""
        buffers = {name: self.ranks.whole(buffer) for name, buffer in self.best_buffers.items()}
        weights = self.engine.parameters(self.ranks.whole(self.best_theta)) | buffers
        return {name: tensor.cpu().contiguous() for name, tensor in weights.items()}

    def state(self, steps: int) -> dict[str, Tensor]:
        """Everything to save after this many steps."""
        of_checks = {name: torch.as_tensor(np.stack(getattr(self, name))) for name in OF_CHECKS if getattr(self, name)}
        here = {
            **{f"engine.{name}": getattr(self.engine.state, name) for name in OF_STEP},
            **{f"buffer.{name}": buffer for name, buffer in self.engine.buffers.items()},
            **{f"best_buffer.{name}": buffer for name, buffer in self.best_buffers.items()},
            "best_theta": self.best_theta,
        }
        tensors = {
            **{name: self.ranks.whole(tensor) for name, tensor in here.items()},
            "trace": self.ranks.whole(self.trace[:steps], -1),
            "checked": torch.tensor(self.checked, dtype=torch.long),
            **{name: torch.as_tensor(getattr(self, name)) for name in OF_SEEDS},
            **of_checks,
        }
        # copies: tensors saved together must not share memory
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what :meth:`state` returned, in place, since a recorded step refers to its buffers."""
        here = self.ranks.part
        for name in OF_STEP:
            getattr(self.engine.state, name).copy_(state[f"engine.{name}"][here])
        for name, buffer in self.engine.buffers.items():
            buffer.copy_(state[f"buffer.{name}"][here])
            self.best_buffers[name].copy_(state[f"best_buffer.{name}"][here])
        self.best_theta.copy_(state["best_theta"][here])
        self.trace = state["trace"][..., here].to(self.trace.device)
        self.checked = state["checked"].tolist()
        for name in OF_SEEDS:
            setattr(self, name, state[name].numpy().copy())
        for name in OF_CHECKS:
            setattr(self, name, list(state[name].numpy()) if name in state else [])

    def groups(self, ran_away_at: np.ndarray[Any, Any]) -> dict[str, xarray.Dataset]:
        """The groups ``optimization`` and ``validation``, in the units of the data as loaded."""
        steps = self.checked[-1]
        trace = self.ranks.whole(self.trace[:steps], -1).cpu().numpy()
        told = dict(zip(self.engine.recorded, trace.transpose(1, 2, 0), strict=True))
        rate, kl_weight = np.array([self.engine.schedule(step) for step in range(steps)]).T
        per_step, per_seed = ("chain", "step"), ("chain",)
        chain = ("chain", self.seeds)
        nats, scaled = {"units": "nats per datum"}, {"units": "scaled units"}
        optimization = xarray.Dataset(
            {
                **{name: (per_step, told.pop(name) - self.volume, nats) for name in OF_DENSITY},
                "kl": (per_step, told.pop("kl"), nats),
                "min_scale": (per_step, told.pop("min_scale"), scaled),
                **{name: (per_step, values) for name, values in told.items()},
                "learning_rate": ("step", rate),
                "kl_weight": ("step", kl_weight),
                "frozen_at": (per_seed, self.frozen_at()),
                "stopped_at": (per_seed, self.stopped_at),
                **({"settled_at": (per_seed, self.settled_at)} if self.settles else {}),
                "ran_away_at": (per_seed, ran_away_at),
                "best_step": (per_seed, self.best_step),
            },
            coords={"chain": chain, "step": np.arange(1, steps + 1)},
        )
        validation = xarray.Dataset(
            {
                "elbo": (("chain", "check"), np.stack(self.elbo, axis=1), nats),
                "column_scale": (("chain", "check", "feature"), np.stack(self.column_scale, axis=1), scaled),
                "median_scale": (("chain", "check", "feature"), np.stack(self.median_scale, axis=1), scaled),
                "scale_obs": (("chain", "check", "feature"), np.stack(self.scale_obs, axis=1)),
            },
            coords={"chain": chain, "step": ("check", self.checked), "feature": list(self.pair.data.names)},
            attrs=_subset_note(len(self.obs), len(self.pair.data.validation)),
        )
        return {"optimization": optimization, "validation": validation}


def _subset_note(rows: int, of: int) -> dict[str, str]:
    return {"note": f"{rows:,} of {of:,} validation rows, the same for every seed"} if rows < of else {}


def _repeated(x: Tensor) -> Tensor:
    """A small part repeated, for several draws per datum."""
    times = min(REPEATED_ROWS // len(x), REPEATED_VALUES // x.numel())
    return x.repeat(times, 1) if times > 1 else x


def _settle(model: Any, guide: Any, prepare: Any, x: Tensor) -> None:
    """Let a model fix what it takes from training rows; ``Engine.call`` gives it its seed's buffers."""
    model.settle(guide, prepare(x))


class Validation(NamedTuple):
    """Mean validation ELBO and, by column, (D,), the smallest decoder scale, its row, and the median scale.

    The median is over the first block of rows. The scales of a mixture belong to no row: its median is NaN and its row
    is -1.
    """

    elbo: Tensor
    smallest: Tensor
    row: Tensor
    median: Tensor


def _validate(model: Any, guide: Any, x: Tensor) -> Validation:
    """What a check computes on x, shape (N, D), a block of rows at a time."""
    total, smallest = x.new_zeros(()), x.new_full((x.shape[-1],), math.inf)
    median, at = torch.full_like(smallest, math.nan), torch.full_like(smallest, -1, dtype=torch.long)
    size = max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // x.shape[-1]))
    for start, rows in zip(range(0, len(x), size), x.split(size), strict=True):
        try:
            p, q = traces(model, guide, rows)
        except LinAlgError:  # in this seed only: the others are still validated
            return Validation(total + math.nan, torch.full_like(smallest, math.nan), at, median)
        total = total + terms(p, q, len(x)).elbo
        scale = column_scale(p.nodes["x"]["fn"]).to(x)
        of_datum = scale.dim() == 2 and len(scale) == len(rows)  # a mixture has scales by component
        gone = rows.isnan() if of_datum else torch.zeros((), dtype=torch.bool)  # a scale where no value was observed
        if of_datum and start == 0:
            # for an expanded tensor torch 2.13 returns uninitialised memory
            of_values = scale.masked_fill(gone, math.nan).contiguous()
            median = (of_values.nanmedian(0) if isinstance(p.nodes["x"]["fn"], Gapped) else of_values.median(0)).values
        least, row = scale.masked_fill(gone, math.inf).reshape(-1, x.shape[-1]).min(0)
        at = torch.where((least < smallest) & of_datum, row + start, at)
        smallest = torch.minimum(smallest, least)
    return Validation(total, smallest, at, median)


def _attributes(
    pair: Pair, data: Data, settings: Settings, engine: Engine, seeds: list[int], seconds: float
) -> dict[str, Any]:
    """What identifies a run and repeats it; structures are JSON text, since netCDF cannot store them."""
    options = pair.choices
    arguments = asdict(settings) | {"compile": engine.mode}
    told = "".join(f", {name}={value!r}" for name, value in options.items())
    fitted = ", ".join(f"{name}={value!r}" for name, value in {"seeds": seeds, **arguments}.items())
    elsewhere = [*origins(pair), *filter(None, [OBJECTIVES.part(settings.objective).origin])]
    plugins = [one for one in elsewhere if not one.startswith(PACKAGE)]
    loaded = f"zoo.{data.origin}" if data.origin else f"...  # {data.name}, fingerprint {data.fingerprint[:12]}"
    return {
        "pair": pair.name,
        "guide": pair.guide_name,
        "prior": pair.prior_name,
        "title": pair.card.title,
        "options": json.dumps(options),
        "card": json.dumps(asdict(pair.card)),
        "objective_summary": OBJECTIVES.part(settings.objective).summary,
        "weights_kept": kept_weights(settings.objective or pair.card.objective, settings.keep),
        "base_measure": pair.card.base_measure,
        "bound": _bound(pair),
        "data": data.name,
        "data_call": data.origin,
        "data_fingerprint": data.fingerprint,
        "mass_fingerprint": data.mass_fingerprint,
        "data_summary": json.dumps(data.summary()),
        "seeds": json.dumps(seeds),
        **{name: json.dumps(v) if v is None or isinstance(v, bool) else v for name, v in arguments.items()},
        "compile_note": engine.note,
        "compile_seconds": engine.compile_seconds,
        "train_seconds": seconds,
        "parameters": engine.state.theta.shape[1],
        "versions": json.dumps({name: version(name) for name in ("vae-zoo", "torch", "pyro-ppl", "arviz", "xarray")}),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {engine.x.device}"
        + (f", {engine.ranks.size} processes" if engine.ranks.size > 1 else ""),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "registered_by": json.dumps(elsewhere),
        "repeat": "".join(f"# first run {plugin}, which registers what follows\n" for plugin in plugins)
        + f"import zoo\n\ndata = {loaded}\n"
        f"pair = zoo.create({pair.name!r}, data{told})\n"
        f"run = zoo.fit(pair, data, {fitted})",
    }


def _bound(pair: Pair) -> float:
    """The model's upper bound on log p(x) in the units as loaded, or NaN."""
    bound = getattr(pair.model, "log_density_bound", None)
    value = bound(pair.data.features) if bound else math.inf
    return value - pair.view.log_volume if math.isfinite(value) else math.nan


def _constants(data: Data, watch: Watch) -> dict[str, xarray.Dataset]:
    constant = xarray.Dataset(
        {
            "center": ("feature", data.scaling.center),
            "scale": ("feature", data.scaling.scale),
            "support": ("feature", [column.support for column in data.columns]),
            "resolution": ("feature", data.resolution, {"units": "as loaded; NaN where a value is a point"}),
            "missing": ("feature", [column.missing for column in data.columns]),
            "categories": ("feature", [json.dumps(column.categories) for column in data.columns]),
            "train_std": ("feature", data.train_std),
            "constant_in_training": ("feature", (data.train_std == 0).astype(np.int8)),
            "repeats_below": ("feature", watch.repeats_below, {"units": "scaled units"}),
        },
        coords={"feature": list(data.names)},
        attrs={"image_shape": json.dumps(data.image_shape)} if data.image_shape else {},
    )
    return {"constant_data": constant}


def _check_data(pair: Pair, data: Data) -> None:
    if not isinstance(pair, Pair):
        raise OptionError(f"fit: pair is a {type(pair).__name__}; create it first, with zoo.create.")
    if not isinstance(data, Data):
        raise DataError(f"fit: data is a {type(data).__name__}; load it first, with zoo.load_data.")
    if data.fingerprint != pair.data.fingerprint:
        raise DataError(
            f"{pair.name} was created for {pair.data!r} but asked to fit {data!r}: other values, another split or "
            "other options. Create it for the data it is to fit, since it uses their scaling."
        )


def _tensor(array: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(array), dtype=torch.float32, device=device)


def _training(pair: Pair, train: xarray.DataArray, device: torch.device) -> Training:
    """The training part in the pair's units: on the device, unless it is too large for the device."""
    if not large(train.shape) or NUMBER * train.size < _room(device):
        return Resident(_tensor(pair.view.inward(train.values), device))

    def read(rows: Any) -> Tensor:
        x = torch.empty(len(rows), train.shape[1], dtype=torch.float32)
        values = train.isel(obs=rows).values
        size = max(1, SCALED_AT_ONCE // train.shape[1])
        for piece in (slice(at, at + size) for at in range(0, len(rows), size)):
            x[piece] = torch.as_tensor(pair.view.inward(values[piece]))
        return x

    some = subsample(train, looked_at(train.shape))
    return Streamed(read, len(train), _tensor(pair.view.inward(some.values), device))


def _room(device: torch.device) -> int:
    """Bytes of a device's own memory that data may take."""
    return int(torch.cuda.mem_get_info(device)[0]) // SHARE if device.type == "cuda" else 0


def _mode(settings: Settings) -> Mode | Literal["auto"]:
    """How steps are run; recording, which takes under a second, does not pay for a few."""
    return "off" if settings.compile == "auto" and settings.likely_steps < FEW_STEPS else settings.compile


def _onednn_from(saved: dict[str, Tensor] | None, ranks: Ranks) -> float | None:
    """How large oneDNN's products get, if known: several processes have to agree on it in advance."""
    if saved is None and ranks.size > 1:
        saved = ranks.first(lambda: {"onednn_from": torch.tensor(measured_onednn_from(), dtype=torch.float64)})
    return None if saved is None or saved["onednn_from"].isnan() else float(saved["onednn_from"])


@contextmanager
def _progress(told: str, *, shown: bool) -> Iterator[Callable[[int, Round, np.ndarray[Any, Any]], None]]:
    """A bar with validation ELBO, rate and time left in the round, updated at checks only; none in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[elbo]}"),
    )
    started = time.perf_counter()
    with Progress(
        *columns, console=console, disable=not (shown and (console.is_terminal or console.is_jupyter))
    ) as bar:
        task = bar.add_task(told, total=None, rate="", elbo="")

        def tell(step: int, current: Round, elbo: np.ndarray[Any, Any]) -> None:
            rate = f"{step / (time.perf_counter() - started):.0f} steps/s"
            alive = elbo[np.isfinite(elbo)]
            mean = f"validation ELBO {alive.mean():.2f}" if alive.size else ""
            bar.update(task, completed=step, total=current.stop, rate=rate, elbo=mean)

        yield tell
        bar.refresh()  # rich omits it at the end in a notebook
