"""Tasks in other processes: in a pool that loky keeps, or by any executor, and how far each has come."""

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
from zoo.fitting import Settings
from zoo.runs import RECIPE
from zoo.storage import free_memory
from zoo.tasks import Ended, Task, in_worker

__all__ = ["Executor", "Future", "by_executor", "by_workers", "workers_for"]

SMALL = 4000  # steps of all tasks, which take no longer than workers take to start
WORKER_BYTES, COPIES = 3 * 2**29, 4  # of memory: what a worker and its compiler take, and how often it holds the data
BARREN = 2  # pools that broke before a task of theirs was done; from then on each task gets one of its own
POLL, LOOK = 0.05, 1.0  # seconds from one look at the futures, and at the files, to the next


class Future(Protocol):
    """A call that was submitted; ``done`` and ``cancel`` are used where it has them."""

    def result(self) -> Any:
        """What the call returned, once it has."""
        ...


class Executor(Protocol):
    """Anything that has functions called elsewhere: concurrent.futures, dask.distributed.Client, submitit, ..."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Have a function called."""
        ...


def workers_for(tasks: Sequence[Task], data_bytes: int) -> int:
    """How many workers pay: one for each core that may be used, if memory holds them and there is work for them.

    Args:
        tasks: what there is to do.
        data_bytes: what the largest data take in memory.
    """
    if sum(Settings(**task.settings).likely_steps for task in tasks) <= SMALL:
        return 1
    by_memory: int = free_memory() // (WORKER_BYTES + COPIES * data_bytes)
    return max(1, min(int(loky.cpu_count()), len(tasks), by_memory))


def by_workers(tasks: Sequence[Task], workers: int, progress: bool) -> Iterator[tuple[Task, Ended]]:
    """Run tasks in so many processes, and tell each as it ends.

    A process that is killed breaks its pool: the tasks that are left go on in a new one, from their checkpoints. A task
    has failed if its process dies while no other is there.
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
            told = f"its process died, as it does where memory runs out: {death}"
            yield left.pop(0), Ended(0.0, told, died=True)
        elif not alone:
            barren = 0 if len(left) < len(now) else barren + 1


def by_executor(executor: Executor, tasks: Sequence[Task], progress: bool) -> Iterator[tuple[Task, Ended]]:
    """Submit tasks and tell each as it ends; what has not begun is cancelled if nobody asks any more."""
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
    """What a method that a future may lack says; one that cannot say whether it is done is waited for."""
    return bool(getattr(future, method, lambda: True)())


def _answer(future: Future) -> Ended:
    try:
        ended: Ended = future.result()
        return ended
    except Exception as error:  # of the executor: what a task itself meets, it tells
        return Ended(0.0, one_line(error), died=True)


@contextmanager
def _pool(workers: int, threads: int) -> Iterator[Executor]:
    """Processes that loky starts: unlike those of the standard library they do not run the caller's script again."""
    at_start = {"OMP_NUM_THREADS": str(threads)}
    pool = loky.ProcessPoolExecutor(workers, initializer=_start, initargs=(os.getpid(),), env=at_start)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


def _start(parent: int) -> None:
    """Leave Ctrl-C to the process that started this one, and end when it does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # Windows goes on naming a parent that is gone
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _bars(progress: bool) -> Iterator[Callable[[Sequence[Task]], None]]:
    """A bar for each task that is being done, read from its place, whatever machine it is done on; none in a pipe."""
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
        bars.refresh()  # which rich leaves out at the end in a notebook
