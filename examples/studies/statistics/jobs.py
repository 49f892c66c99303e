"""The study in pieces that need nothing of each other, carried out here or in other processes.

A piece is a function of a module with its arguments (`functools.partial`), and returns records;
each draws from seeds of its own, so the number of processes changes no number.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Record = dict[str, Any]
Job = Callable[[], Sequence[Record]]
Told = Callable[[int, int], None]


def carry_out(
    sections: Mapping[str, Sequence[Job]], workers: int, told: Told
) -> dict[str, list[Record]]:
    """The records of every section, in the order of its jobs.

    Args:
        workers: processes; 1: this one.
        told: called with (jobs done, all).
    """
    named = [(name, job) for name, jobs in sections.items() for job in jobs]
    found: dict[str, list[Record]] = {name: [] for name in sections}
    # Which job takes long is not known, so each is a task of its own.
    for number, ((name, _), records) in enumerate(
        zip(named, _results([job for _, job in named], workers), strict=True), start=1
    ):
        found[name] += records
        told(number, len(named))
    return found


def _results(jobs: Sequence[Job], workers: int) -> Any:
    if workers == 1:
        yield from (job() for job in jobs)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # of the processes to come
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_carried_out, jobs)


def _carried_out(job: Job) -> Sequence[Record]:
    return job()
