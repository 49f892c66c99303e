"""Finds the circuit files of a run: under the paths, by option, or else those bundled."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forgetguard.errors import ForgetguardError, SpecificationError
from pytest_forgetguard import baseline, near_misses
from pytest_forgetguard.backend import BUNDLED
from pytest_forgetguard.items import CircuitFile, LimitItem
from pytest_forgetguard.keys import MARKER, SUFFIXES, is_gate
from pytest_forgetguard.preflight import circuit_files
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from forgetguard.gate.declaration import GateSpec
    from pytest_forgetguard.state import Run


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> CircuitFile | None:
    """Circuit files under the given paths."""
    if not file_path.name.endswith(SUFFIXES):
        return None
    named: dict[str, Any] = {}
    if not file_path.is_relative_to(parent.config.rootpath):  # pytest would leave out the file
        named["nodeid"] = _node_id(_relative(file_path, parent.config.rootpath))
    node: CircuitFile = CircuitFile.from_parent(parent, path=file_path, **named)
    return node


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Remember which circuit files were selected. (`--lf` may leave them empty later on, and
    pytest makes nodes for the siblings of a selected file, which are never started.)"""
    if isinstance(collector, CircuitFile):
        collector.config.stash[RUN].circuit_files_seen.add(collector.path)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Add the circuits that no path led to, before anything is deselected; then plan the run."""
    run = config.stash[RUN]
    try:
        _add_declared(session, run, items)
        _add_bundled(session, run, items)
    except ForgetguardError as error:
        _refuse(run, items, str(error))
        return (yield)
    run.collected += filter(is_gate, items)
    if not run.worker:
        run.misnamed = near_misses.beside(config, near_misses.paths_given(config))
    result = yield
    try:
        circuits = _circuits(run, items, config.rootpath)
        run.backend.check(circuits)
        if not config.option.collectonly:
            run.deselected = _left_out(run, items)
            baseline.check_selection(run, circuits)
        run.measurements.plan(circuits)
    except ForgetguardError as error:
        _refuse(run, items, str(error))
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fix what has to report before this run can be a pass, and what was left out by `-k`, `-m`,
    `--lf`, or a conftest that removes items without telling pytest."""
    run = session.config.stash[RUN]
    run.planned = {item.nodeid: None for item in session.items if is_gate(item)}
    declared = [(one.spec, one.limit) for one in run.collected if isinstance(one, LimitItem)]
    run.measurements.share(len(run.collected), declared, run.settings.family)
    run.deselected = _left_out(run, session.items)
    run.collected.clear()


def _left_out(run: Run, items: Iterable[pytest.Item]) -> dict[str, None]:
    """The gates that were collected and are not among `items`."""
    selected = {id(item) for item in items}
    return {item.nodeid: None for item in run.collected if id(item) not in selected}


def _refuse(run: Run, items: list[pytest.Item], message: str) -> None:
    """End with exit status 4. An exception would kill a worker without a word, so a worker runs
    nothing and sends the message to the controller at its end."""
    run.usage_errors[message] = None
    if not run.worker:
        raise pytest.UsageError(message) from None
    items.clear()


def _add_declared(session: pytest.Session, run: Run, items: list[pytest.Item]) -> None:
    for given in run.settings.circuits:
        for path in circuit_files(given):
            if path not in run.circuit_files_seen:
                items += _generate(session, path, _relative(path, session.config.rootpath))


def _add_bundled(session: pytest.Session, run: Run, items: list[pytest.Item]) -> None:
    """Where no path was given and nothing was found to gate on: the bundled circuits that fit the
    base. Paths that hold no gate are refused: other circuits than those that were asked for must
    not be taken for them.

    Raises:
        SpecificationError: none fits, or a path was given.
    """
    if run.circuit_files_seen or any(is_gate(item) for item in items):
        return
    given = near_misses.paths_given(session.config)
    if given:
        # Gates may be among the files that could not be read, or that --lf left out: without any
        # gate the run is no pass anyway.
        if session.testsfailed or run.selection.get("last_failed"):
            return
        raise SpecificationError(near_misses.no_gate(session.config, given))
    files, left, known = run.backend.bundled()
    run.left_out = dict.fromkeys(left)
    run.circuits_from = "those bundled with forgetguard"
    for path in files:
        items += _generate(session, path, f"{BUNDLED}/{path.name}", default=True)
    only_last_failed = session.config.getoption("lf", False) and items
    if not files and not only_last_failed:
        where = ", ".join(str(arg) for arg in session.config.args)
        raise SpecificationError(
            f"no circuits to gate on: no *{SUFFIXES[0]} under {where}, no Python gates there, and "
            f"none of the {known} bundled circuits fits base={run.settings.base}; write a circuit "
            f"file for this base, or name one with --forgetguard-circuits PATH"
        )


def _generate(
    session: pytest.Session, path: Path, nodeid: str, *, default: bool = False
) -> Iterable[pytest.Item]:
    node: CircuitFile = CircuitFile.from_parent(
        session, path=path, name=nodeid, nodeid=_node_id(nodeid), default=default
    )
    yield from session.genitems(node)


def _node_id(nodeid: str) -> Any:
    """pytest 9.2 made node ids a class of their own; before that they are strings."""
    try:
        from _pytest.nodeid import NodeId
    except ImportError:
        return nodeid
    return NodeId.parse(nodeid)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _circuits(run: Run, items: Iterable[pytest.Item], root: Path) -> list[GateSpec]:
    """The circuits of the selected gates, each once."""
    paths: dict[Path, None] = {}
    for item in items:
        if isinstance(item, LimitItem):
            paths[item.path] = None
        else:
            for marker in item.iter_markers(MARKER):
                paths.update((located(g, item.path, root), None) for g in _named(marker, item))
    return list({id(spec): spec for spec in map(run.circuit, paths)}.values())


def _named(marker: pytest.Mark, item: pytest.Item) -> list[str | Path]:
    circuit = marker.kwargs.get("circuit", [])
    if marker.args or marker.kwargs.keys() - {"circuit"}:
        raise SpecificationError(
            f"{item.nodeid}: the marker {MARKER} takes circuit=PATH or circuit=[PATH, ...] and "
            f"nothing else, got {marker.args or marker.kwargs}"
        )
    return [circuit] if isinstance(circuit, str | Path) else list(circuit)


def located(given: str | Path, beside: Path | None, root: Path) -> Path:
    """A circuit file named in a test: beside the test's file, else under pytest's rootdir.

    Raises:
        SpecificationError: it is in neither place.
    """
    folders = dict.fromkeys([root] if beside is None else [beside.parent, root])
    for folder in folders:
        if (folder / given).is_file():
            return folder / given
    raise SpecificationError(
        f"{beside or root}: there is no circuit file {given} in "
        f"{' or '.join(str(folder) for folder in folders)}; check the path"
    )
