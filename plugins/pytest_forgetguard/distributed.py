"""What crosses between pytest-xdist's workers and their controller besides the reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pytest_forgetguard.keys import SUFFIXES
from pytest_forgetguard.state import RUN

KEY = "forgetguard"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker, after the models were closed: send what only the worker knows."""
    run = session.config.stash[RUN]
    if not run.worker:
        return
    output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
    output[KEY] = {
        "planned": list(run.planned),
        "deselected": list(run.deselected),
        "left_out": list(run.left_out),
        "usage_errors": list(run.usage_errors),
        "specification_errors": list(run.specification_errors),
        "problems": run.problems,
        "circuits_from": run.circuits_from,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """In the controller: plan the limits of circuit files even if no worker lives to the end.
    (Python gates cannot be told from other tests by their ids: those come at the end.)"""
    planned = node.config.stash[RUN].planned
    planned.update((nodeid, None) for nodeid in ids if nodeid.partition("::")[0].endswith(SUFFIXES))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """In the controller: receive it. A worker that died has sent nothing."""
    sent = getattr(node, "workeroutput", {}).get(KEY)
    if sent is None:
        return
    run = node.config.stash[RUN]
    for name in ("planned", "deselected", "left_out", "usage_errors", "specification_errors"):
        getattr(run, name).update(dict.fromkeys(sent[name]))
    run.problems += [problem for problem in sent["problems"] if problem not in run.problems]
    run.circuits_from = sent["circuits_from"]
