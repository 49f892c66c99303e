"""Carries out tasks in processes: in order of dependence, a failure stops only what rests on it.

A worker imports what its tasks need once and keeps it (training libraries take longer to import
than a tiny model takes to train). It ends with its parent, however that ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from forgetguard.errors import ForgetguardError

Progress = Callable[[str, int, int], None]  # what, done, total
# (shared, the task's name, progress); defined at the top of a module, so that processes find it.
Work = Callable[[Any, str, Progress], None]
Event = Callable[[str], None]  # a line to tell
_WATCH = 1.0  # seconds between two looks whether the parent is still there
_OFTEN = 20.0  # seconds between two words on how far a task is
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work, by name; after another, if it rests on that. Costly ones start first."""

    name: str
    work: Work
    after: str | None = None
    cost: int = 1


@dataclass(slots=True)
class _Board:
    """What is to be done and what has become of it."""

    waiting: list[Task]
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def next(self, own: set[str]) -> Task | None:
        """The costliest task that can start. `own`: names that are tasks at all; others that a
        task rests on were done before."""
        for task in sorted(self.waiting, key=lambda one: -one.cost):
            if task.after in self.failed:
                self.waiting.remove(task)
                self.failed[task.name] = f"not started, as {task.after} failed"
                return self.next(own)
            if task.after is None or task.after not in own or task.after in self.done:
                self.waiting.remove(task)
                return task
        return None


def carry_out(
    tasks: Sequence[Task],
    shared: Any,
    *,
    jobs: int,
    threads: int | None = None,
    say: Event = lambda _: None,
) -> dict[str, str]:
    """Do every task, `jobs` at once; returns what failed and why, by name.

    Args:
        shared: given to every task; must be picklable.
        jobs: processes; 0 works here, without any.
        threads: of the processor that each process may use.
        say: told of every start, end and failure.

    A KeyboardInterrupt stops all processes at once; tasks must leave nothing half done that looks
    whole.
    """
    board = _Board(list(tasks))
    if not tasks:
        return {}
    if jobs == 0:
        _here(board, shared, say)
        return board.failed
    with _pool(min(jobs, len(tasks)), shared, threads) as pool:
        _dispatch(board, pool, say)
    return board.failed


def _here(board: _Board, shared: Any, say: Event) -> None:
    own = {task.name for task in board.waiting}
    while (task := board.next(own)) is not None:
        error = _attempt(task, shared, lambda *_: None)
        _note(board, task, error, 0.0, say)


@dataclass(frozen=True, slots=True)
class _Done:
    """How far a task is."""

    done: int
    total: int


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    since: float = 0.0


@dataclass(slots=True)
class _Pool:
    """Workers, and what a new one is started with."""

    shared: Any
    threads: int | None
    workers: list[_Worker] = field(default_factory=list)

    def start(self) -> None:
        context = get_context("spawn")  # forked processes inherit threads' locks
        ours, theirs = context.Pipe()
        given = (theirs, self.shared, self.threads)
        process = context.Process(target=serve, args=given, daemon=True)
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))

    def end(self, worker: _Worker) -> None:
        """Let an idle worker go, and stop a busy one."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join(timeout=2 if worker.task is None else 0)
        for stop in (worker.process.terminate, worker.process.kill):
            if worker.process.is_alive():
                stop()
                worker.process.join(timeout=5)


@contextmanager
def _pool(number: int, shared: Any, threads: int | None) -> Iterator[_Pool]:
    pool = _Pool(shared, threads)
    try:
        for _ in range(number):
            pool.start()
        yield pool
    finally:
        for worker in list(pool.workers):
            pool.end(worker)


def _dispatch(board: _Board, pool: _Pool, say: Event) -> None:
    own = {task.name for task in board.waiting}
    while True:
        for worker in pool.workers:
            if worker.task is None and (task := board.next(own)) is not None:
                say(f"{task.name}: started")
                worker.task, worker.since = task, time.monotonic()
                worker.pipe.send(task)
        busy = [worker for worker in pool.workers if worker.task is not None]
        if not busy:
            return
        ready = connection.wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe in ready:
                _hear(board, pool, worker, say)


def _hear(board: _Board, pool: _Pool, worker: _Worker, say: Event) -> None:
    """What a worker says of its task; one that died is replaced while there is more to do."""
    task = worker.task
    assert task is not None  # only busy ones are listened to
    seconds = time.monotonic() - worker.since
    try:
        heard: str | _Done | None = worker.pipe.recv()
        if isinstance(heard, _Done):
            say(f"{task.name}: {heard.done} of {heard.total}")
            return
        error = heard
        worker.task = None
    except (EOFError, ConnectionResetError):
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        error = f"its process ended with status {code} (-9: killed, often for want of memory)"
        pool.end(worker)
        if board.waiting:
            pool.start()
    _note(board, task, error, seconds, say)


def _note(board: _Board, task: Task, error: str | None, seconds: float, say: Event) -> None:
    if error is None:
        board.done.add(task.name)
        say(f"{task.name}: done in {seconds:.0f} s")
    else:
        board.failed[task.name] = error
        say(f"{task.name}: FAILED: {error}")


# --- in the worker ---------------------------------------------------------------------------


def serve(pipe: Connection, shared: Any, threads: int | None) -> None:
    """Carry out tasks as they come until there are no more, or nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked, and stops its workers
    if threads is not None:  # before anything that reads it is imported
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        if threads is not None:
            _limit_torch(threads)
        pipe.send(_attempt(task, shared, _telling(pipe)))


def _telling(pipe: Connection) -> Progress:
    """Tells the parent how far a task is, not too often."""
    told = time.monotonic()

    def tell(_: str, done: int, total: int) -> None:
        nonlocal told
        if done < total and time.monotonic() - told >= _OFTEN:
            told = time.monotonic()
            pipe.send(_Done(done, total))

    return tell


def _limit_torch(threads: int) -> None:
    """Its own setting: a container may have told torch otherwise."""
    import torch

    torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)


def _attempt(task: Task, shared: Any, progress: Progress) -> str | None:
    """None, or why the task failed; one that fails must not end the others."""
    try:
        task.work(shared, task.name, progress)
    except ForgetguardError as error:
        return str(error)
    except Exception as error:  # of any library: said with its kind, as nobody here knows it
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return None
