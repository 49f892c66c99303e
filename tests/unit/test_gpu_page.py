"""docs/performance.md shows what benchmarks/gpu.json holds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_recorded_run() -> None:
    gpu = benchmark()
    page = gpu.PAGE.read_text("utf-8")
    found = json.loads(gpu.DATA.read_text("utf-8")) if gpu.DATA.exists() else {}
    assert gpu.table(found) in page
    assert gpu.fill(page, found) == page


def test_a_section_that_did_not_finish_says_so_in_the_table() -> None:
    gpu = benchmark()
    surroundings = {"device": "D", "torch": "2", "transformers": "5"}
    sections = {
        "loading-bfloat16": {"outcome": "done", "seconds": 2.04, "peak_gib": 5.96},
        "gate-float32-sequential": {"outcome": "out of time after 75 s"},
    }
    table = gpu.table({"surroundings": surroundings, "small": False, "sections": sections})
    rows = table.splitlines()[-2:]
    assert rows[0].endswith("| 2.0 s, peak 6.0 GiB |")
    assert rows[1].endswith("| out of time after 75 s |")


def test_a_later_run_replaces_its_sections_and_says_where_it_ran() -> None:
    gpu = benchmark()

    def run(device: str, passed: int, **more: object) -> dict[str, object]:
        surroundings = {"device": device, "torch": "2", "transformers": "5"}
        parity = {"outcome": "done", "passed": passed, "failed": 1, "error": 1}
        return {
            "surroundings": surroundings,
            "small": False,
            "sections": {"parity-float32": parity, **more},
        }

    first = run("D", 5, model={"outcome": "done", "gib": 1.0})
    rows = gpu.table(gpu.merged([first, run("D", 7)])).splitlines()[-2:]
    assert rows[0].endswith("| 7 passed, 2 failed |")
    assert rows[1].endswith("| 1.00 GiB |")
    assert "| 9 passed, 2 failed (on E) |" in gpu.table(gpu.merged([first, run("E", 9)]))
    assert gpu.merged([first]) == first
