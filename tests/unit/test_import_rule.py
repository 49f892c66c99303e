"""The layers of docs/architecture.md: each imports only from those before it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "forgetguard"
LAYERS = (
    "errors",
    "whole_files",
    "cache_folder",
    "checkpoints",
    "anatomy",
    "patching",
    "capabilities",
    "measures",
    "discovery",
    "gate",
    "comparison",
    "calibration",
    "report",
    "api",
    "recipes",
    "cli",
    "__main__",
)
# Modules of one layer that need nothing at all, so that any layer may use them.
LEAVES = {"forgetguard.errors", "forgetguard.anatomy.members", "forgetguard.capabilities.pairs"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    """Modules of forgetguard that a file imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("forgetguard.")}


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_only_from_those_before_it(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    later = {
        name
        for name in imported(path)
        if layer(name) > layer(own) and not any(name.startswith(leaf) for leaf in LEAVES)
    }
    assert not later, f"{own} imports from later layers: {sorted(later)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_but_the_plugin_knows_pytest(path: Path) -> None:
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not names & {"pytest", "_pytest", "pytest_forgetguard"}


@pytest.mark.parametrize(
    "module",
    [
        "forgetguard",
        "forgetguard.checkpoints.preflight",
        "forgetguard.capabilities.tasks",
        "forgetguard.gate.schema",
        "forgetguard.gate.decision",
        "forgetguard.gate.baseline",
        "forgetguard.gate.environment",
        "forgetguard.report.baseline_file",
        "forgetguard.report.recheck",
        "forgetguard.cli.verify",
        "forgetguard.report.terminal",
    ],
)
def test_what_runs_before_models_are_needed_does_not_import_torch(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
