"""What may import what: the layers of docs/architecture.md, no circles, and what is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

from forgetguard.cli.command import SUMMARIES
from forgetguard.measures.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = (
    "errors",
    "whole_files",
    "cache_folder",
    "shown",
    "checkpoints",
    "anatomy",
    "patching",
    "capabilities",
    "measures",
    "discovery",
    "gate",
    "calibration",
    "report",
    "api",
    "recipes",
    "cli",
    "__main__",
)
# Modules of one layer that need nothing at all, so that any layer may use them.
LEAVES = {"forgetguard.errors", "forgetguard.anatomy.members", "forgetguard.capabilities.pairs"}
# What runs before models are needed, with all that it imports: neither torch nor transformers.
BEFORE_MODELS = (
    *BUILT_IN.values(),
    "forgetguard",
    "forgetguard.calibration.editing",
    "forgetguard.capabilities.tasks",
    "forgetguard.checkpoints.fingerprint",
    "forgetguard.checkpoints.preflight",
    *(f"forgetguard.cli.{name}" for name in SUMMARIES),
    "forgetguard.gate.baseline",
    "forgetguard.gate.bundled",
    "forgetguard.gate.environment",
    "forgetguard.gate.records",
    "forgetguard.gate.rule",
    "forgetguard.gate.schema",
    "forgetguard.recipes.losses.replay",
    "forgetguard.recipes.training.logs",
    "forgetguard.recipes.training.saved_states",
    "forgetguard.report.baseline_file",
    "forgetguard.report.page",
    "forgetguard.report.recheck",
    "forgetguard.report.terminal",
    "examples.studies.calibration",
    "examples.studies.command",
    "examples.studies.comparison.__main__",
    "examples.studies.comparison.table",
    "examples.studies.estimate",
    "examples.studies.reference.__main__",
    "examples.studies.reference.plan",
    "examples.studies.reference.splitting",
    "examples.studies.reference.workers",
    "examples.studies.sensitivity.__main__",
    "examples.studies.statistics.page",
)
NOT_IMPORTED_YET: set[str] = set()


def modules_of(name: str, folder: Path) -> dict[str, Path]:
    """The files of an import package by their dotted names."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = (name, *path.relative_to(folder).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


PACKAGE = modules_of("forgetguard", ROOT / "forgetguard")
PLUGIN = modules_of("pytest_forgetguard", ROOT / "plugins" / "pytest_forgetguard")
STUDIES = modules_of("examples.studies", ROOT / "examples" / "studies")
OURS = PACKAGE | PLUGIN | STUDIES


@cache
def imported(path: Path) -> frozenset[str]:
    """What a file imports anywhere, functions and type-only imports included: our own modules by
    their whole names, others by their first."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in OURS else node.module)
    return frozenset(name if name in OURS else name.partition(".")[0] for name in names)


def test_a_layer_imports_only_from_those_before_it() -> None:
    def layer(module: str) -> int:
        return LAYERS.index(module.split(".")[1])

    offenders = [
        f"{own} imports {name}"
        for own, path in PACKAGE.items()
        for name in imported(path)
        if own != "forgetguard" and name.startswith("forgetguard.") and name not in LEAVES
        if layer(name) > layer(own)
    ]
    assert not offenders


def test_no_file_imports_in_a_circle() -> None:
    imports = {own: imported(path) & OURS.keys() - {own} for own, path in OURS.items()}
    circle: list[str] = []
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle


def test_nothing_but_the_plugin_knows_pytest() -> None:
    known = {"pytest", "_pytest", *PLUGIN}
    assert not [own for own, path in PACKAGE.items() if imported(path) & known]


def test_what_is_installed_imports_nothing_that_is_not() -> None:
    outside = {"examples", "tests", "benchmarks", *STUDIES}
    assert not [own for own, path in (PACKAGE | PLUGIN).items() if imported(path) & outside]


def test_every_package_is_installed_and_no_other() -> None:
    declared = PROJECT["tool"]["setuptools"]["packages"]
    there = {own for own, path in (PACKAGE | PLUGIN).items() if path.name == "__init__.py"}
    assert set(declared) == {*there, "forgetguard_circuits"}


def test_what_runs_before_models_are_needed_imports_neither_torch_nor_transformers() -> None:
    code = """
import importlib, sys

class Refuse:
    def find_spec(self, name, *_):
        if name in ("torch", "transformers"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, "imports", error)
"""
    command = [sys.executable, "-c", code, *BEFORE_MODELS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def declared_dependencies() -> set[str]:
    """The distributions that the package and its extras need, but for developing."""
    extras = PROJECT["project"]["optional-dependencies"]
    needed = list(PROJECT["project"]["dependencies"])
    needed += [one for name in extras if name not in ("dev", "docs") for one in extras[name]]
    return {normal(re.match(r"[\w.-]+", one)[0]) for one in needed}


def imported_distributions() -> set[str]:
    """The distributions, but ours and Python's own, that the package and its plugin import."""
    names = {name for path in (PACKAGE | PLUGIN).values() for name in imported(path)}
    theirs = names - OURS.keys() - sys.stdlib_module_names - {"forgetguard_circuits"}
    of = packages_distributions()
    return {normal(of[name][0]) for name in theirs}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_declared_dependency_is_imported_and_every_import_is_declared() -> None:
    assert imported_distributions() == declared_dependencies()
