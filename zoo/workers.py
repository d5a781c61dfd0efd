"""Tasks in other processes, by loky's pool or any executor, and their progress."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import loky
import psutil

from zoo.checkpoint import FIT, steps_taken
from zoo.errors import one_line
from zoo.runs import RECIPE
from zoo.settings import Settings
from zoo.storage import free_memory
from zoo.tasks import Ended, Task, in_worker

__all__ = ["Executor", "Future", "by_executor", "by_workers", "workers_for"]

SMALL = 4000  # steps over all tasks that take no longer than starting workers
WORKER_BYTES, COPIES = 3 * 2**29, 4  # memory of a worker and its compiler; copies of the data it holds
BARREN = 2  # after this many pools broke before finishing a task, each task gets its own pool
POLL, LOOK = 0.05, 1.0  # seconds between looks at the futures, and at the files


class Future(Protocol):
    """A submitted call; ``done`` and ``cancel`` are used if it has them."""

    def result(self) -> Any:
        """The call's result, once it is there."""
        ...


class Executor(Protocol):
    """Anything that calls functions elsewhere: concurrent.futures, dask.distributed.Client, submitit, ..."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Submit a function call."""
        ...


def workers_for(tasks: Sequence[Task], data_bytes: int) -> int:
    """How many workers pay off: one per usable core, if there is enough memory and work.

    Args:
        tasks: the tasks to do.
        data_bytes: memory of the largest data.
    """
    if sum(Settings(**task.settings).likely_steps for task in tasks) <= SMALL:
        return 1
    by_memory: int = free_memory() // (WORKER_BYTES + COPIES * data_bytes)
    return max(1, min(int(loky.cpu_count()), len(tasks), by_memory))


def by_workers(tasks: Sequence[Task], workers: int, progress: bool) -> Iterator[tuple[Task, Ended]]:
    """Run tasks in several processes, and yield each as it ends.

    A killed process breaks its pool: the remaining tasks continue in a new one, from their checkpoints. A task has
    failed if its process dies while no other is running.
    """
    left, barren = list(tasks), 0
    while left:
        alone = barren == BARREN
        now, death = left[:1] if alone else left[:], ""
        with _pool(min(workers, len(now)), now[0].threads) as pool:
            for task, ended in by_executor(pool, now, progress):
                if ended.died:
                    death = ended.failure
                else:
                    left.remove(task)
                    yield task, ended
        if alone and left[:1] == now:
            told = f"its process died, perhaps because memory ran out: {death}"
            yield left.pop(0), Ended(0.0, told, died=True)
        elif not alone:
            barren = 0 if len(left) < len(now) else barren + 1


def by_executor(executor: Executor, tasks: Sequence[Task], progress: bool) -> Iterator[tuple[Task, Ended]]:
    """Submit tasks and yield each as it ends; tasks not yet begun are cancelled if the caller stops."""
    waiting = [(executor.submit(in_worker, task), task) for task in tasks]
    try:
        with _bars(progress) as show:
            while waiting:
                for future, task in [pair for pair in waiting if _has(pair[0], "done")]:
                    waiting.remove((future, task))
                    yield task, _answer(future)
                show([task for _, task in waiting])
                time.sleep(POLL)
    finally:
        for future, _ in waiting:
            _has(future, "cancel")


def _has(future: Future, method: str) -> bool:
    """The result of an optional method of a future; a future without ``done`` is waited for."""
    return bool(getattr(future, method, lambda: True)())


def _answer(future: Future) -> Ended:
    try:
        ended: Ended = future.result()
        return ended
    except Exception as error:  # an executor's error: a task reports its own
        return Ended(0.0, one_line(error), died=True)


@contextmanager
def _pool(workers: int, threads: int) -> Iterator[Executor]:
    """Processes of loky, which unlike those of the standard library do not run the caller's script again."""
    at_start = {"OMP_NUM_THREADS": str(threads)}
    pool = loky.ProcessPoolExecutor(workers, initializer=_start, initargs=(os.getpid(),), env=at_start)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


def _start(parent: int) -> None:
    """Leave Ctrl-C to the parent process, and end when it ends, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # Windows keeps naming a parent that has ended
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _bars(progress: bool) -> Iterator[Callable[[Sequence[Task]], None]]:
    """A bar for each running task, read from its place, whatever machine runs it; none in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown: dict[Task, Any] = {}
    looked = -LOOK

    with Progress(
        *columns, console=console, disable=not (progress and (console.is_terminal or console.is_jupyter))
    ) as bars:

        def show(tasks: Sequence[Task]) -> None:
            nonlocal looked
            if bars.disable or time.monotonic() < looked + LOOK:
                return
            looked = time.monotonic()
            begun = [task for task in tasks if (task.place / FIT).is_file() or (task.place / RECIPE).is_file()]
            for task in begun:
                if task not in shown:
                    shown[task] = bars.add_task(task.name)
                if (task.place / RECIPE).is_file():
                    bars.update(shown[task], description=f"{task.name}: scoring", completed=1, total=1)
                else:
                    steps = steps_taken(task.place)
                    bars.update(shown[task], completed=steps, total=Settings(**task.settings).round(steps).stop)
            for task in [task for task in shown if task not in begun]:
                bars.remove_task(shown.pop(task))

        yield show
        bars.refresh()  # rich omits it at the end in a notebook
