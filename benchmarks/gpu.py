"""What forgetguard does on one GPU: parity, the gate at 3B, the wavefront, training; as JSON.

    bash benchmarks/gpu.sh                # all of it, in at most nine minutes, on the GPU
    python benchmarks/gpu.py --small      # the same on tiny sizes, on whatever is there
    python benchmarks/gpu.py --page a.json b.json   # keep a with b's sections, and render that
    python benchmarks/gpu.py --page       # render benchmarks/gpu.json into docs/performance.md

Every section is a process of its own with its own time limit; one that fails or runs out of time is
noted and the next begins. The results are written after each, to $OUT/gpu.json (or ./gpu.json), and
what the sections print is appended to gpu.log beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE, DATA = ROOT / "docs" / "performance.md", HERE / "gpu.json"
BUDGET = 500  # seconds of all sections

# Seconds that each may take, the most valuable first.
LIMITS = {
    "parity-float32": 110,
    "parity-bfloat16": 90,
    "model": 90,
    "gate-bfloat16-sequential": 75,
    "loading-bfloat16": 40,
    "gate-bfloat16-resident": 60,
    "pytest-bfloat16": 75,
    "training": 60,
    "wavefront": 60,
    "gate-float32-sequential": 75,
}


def section(name: str, small: bool, folder: Path) -> dict[str, Any]:
    """Do the work of one section, in this process."""
    if name.startswith("parity-"):
        return parity(name.removeprefix("parity-"), small)
    import gpu_gate

    shape = gpu_gate.SMALL if small else gpu_gate.FULL
    what, *rest = name.split("-")
    work: dict[str, Callable[..., dict[str, Any]]] = {
        "model": lambda: gpu_gate.make(shape, folder),
        "gate": lambda dtype, placement: gpu_gate.gate(shape, folder, dtype, placement),
        "loading": lambda dtype: gpu_gate.loading(folder, dtype),
        "pytest": lambda dtype: gpu_gate.through_pytest(folder, dtype),
        "training": lambda: gpu_gate.training(folder, {"sft": 20, "rl": 5}),
        "wavefront": lambda: gpu_gate.ratios(shape, folder),
    }
    return work[what](*rest)


def parity(dtype: str, small: bool) -> dict[str, Any]:
    """tests/parity on the device in one number format."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    surroundings = os.environ | {
        "FORGETGUARD_TEST_DEVICE": device,
        "FORGETGUARD_TEST_DTYPE": dtype,
        "OMP_NUM_THREADS": "1",
    }
    # Neither other plugins nor warnings of other versions are what is tested.
    surroundings["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rfE", "-W", "default"]
    command += ["--disable-warnings", "tests/parity"]
    if small:
        command += ["-k", "test_wavefront and qwen3"]
    elif find_spec("xdist"):
        command += ["-p", "xdist.plugin", "-n", "8"]
    run = subprocess.run(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True, check=False
    )
    print(run.stdout, flush=True)
    counted = dict(map(reversed, re.findall(r"(\d+) (passed|failed|errors?|skipped)", run.stdout)))
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return {"status": run.returncode, **{k: int(v) for k, v in counted.items()}, "names": failed}


def surroundings() -> dict[str, Any]:
    """Device and versions that the numbers hold for."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = ("torch", "transformers", "trl", "peft")
    versions = {one: metadata.version(one) for one in packages}
    return {"device": name, "cuda": torch.version.cuda, "python": platform.python_version()} | (
        versions
    )


def run_all(small: bool, only: list[str], out: Path) -> int:
    """Every section in a process of its own; the number of those that did not finish."""
    found: dict[str, Any] = {"small": small, "surroundings": surroundings(), "sections": {}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name in only or LIMITS:
            left = BUDGET - (time.monotonic() - began)
            limit = min(LIMITS[name], left)
            found["sections"][name] = one = _run(name, small, Path(folder), out, limit)
            (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
            print(f"{name:26s} {one['wall_seconds']:6.1f} s  {one['outcome']}", flush=True)
    print("\n" + table(found))
    return sum(one["outcome"] != "done" for one in found["sections"].values())


def _run(name: str, small: bool, folder: Path, out: Path, limit: float) -> dict[str, Any]:
    if limit < 5:
        return {"outcome": "no time left", "wall_seconds": 0.0}
    result, log = folder / f"{name}.json", folder / f"{name}.txt"
    command = [sys.executable, __file__, "--section", name, "--folder", str(folder)]
    began, outcome = time.monotonic(), "done"
    with log.open("w") as printed:
        process = subprocess.Popen(
            [*command, *(["--small"] if small else [])],
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            outcome = f"out of time after {limit:.0f} s"
            os.killpg(process.pid, 9)  # its own children too: pytest's workers
            process.wait()
    found = json.loads(result.read_text()) if result.exists() else {}
    text = log.read_text()
    with (out / "gpu.log").open("a") as whole:
        whole.write(f"\n===== {name}: {outcome}\n{text}")
    if outcome == "done" and process.returncode:
        lines = text.strip().splitlines() or ["no output"]
        outcome = f"failed: {lines[-1][:300]}"
    return {"outcome": outcome, "wall_seconds": round(time.monotonic() - began, 2), **found}


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first run with the sections of later ones in place of its own; what ran in other
    surroundings keeps them."""
    first, *later = runs
    for run in later:
        if run["surroundings"] != first["surroundings"]:
            for one in run["sections"].values():
                one["surroundings"] = run["surroundings"]
        first = first | {"sections": first["sections"] | run["sections"]}
    return first


def table(found: Mapping[str, Any]) -> str:
    """The numbers as a Markdown table; what did not finish says so."""
    if not found:
        return "Not run yet: `bash benchmarks/gpu.sh` writes `gpu.json`."
    at = found["surroundings"]
    head = f"{at['device']}, torch {at['torch']}, transformers {at['transformers']}"
    lines = [f"On {head}{', tiny sizes' if found['small'] else ''}:\n", "| what | result |"]
    lines.append("|---|---|")
    for name, one in found["sections"].items():
        text = _row(name, one) if one["outcome"] == "done" else one["outcome"]
        if "surroundings" in one:
            text += f" (on {one['surroundings']['device']})"
        lines.append(f"| {_LABELS.get(name, name)} | {text} |")
    return "\n".join(lines)


_LABELS = {
    "parity-float32": "`tests/parity`, float32",
    "parity-bfloat16": "`tests/parity`, bfloat16",
    "model": "size of each checkpoint, bfloat16",
    "gate-bfloat16-sequential": "the gate from Python, bfloat16, sequential",
    "loading-bfloat16": "loading both checkpoints, and nothing else, bfloat16",
    "gate-bfloat16-resident": "the gate from Python, bfloat16, resident",
    "pytest-bfloat16": "`pytest --forgetguard`, bfloat16, start-up included",
    "training": "an update on the tiny model, `sft` of 16 rows, `rl` of 16 x 8 completions",
    "wavefront": "one wavefront of the circuit's heads",
    "gate-float32-sequential": "the gate from Python, float32, sequential",
}


def _row(name: str, one: Mapping[str, Any]) -> str:
    if name.startswith("parity"):
        broken = sum(one.get(key, 0) for key in ("failed", "error", "errors"))
        return f"{one.get('passed', 0)} passed, {broken} failed"
    if name == "model":
        return f"{one['gib']:.2f} GiB"
    if name == "training":
        return ", ".join(f"`{k}` {v:.3f} s" for k, v in one["seconds_a_step"].items())
    if name == "wavefront":
        return (
            f"{one['wavefront_seconds']:.2f} s; a batched forward pass for each head "
            f"{one['per_head']:.1f}x, one for each head and prompt {one['per_prompt']:.1f}x"
            + _peak(one)
        )
    again = (
        f", again without loading {one['again_seconds']:.1f} s" if "again_seconds" in one else ""
    )
    return f"{one['seconds']:.1f} s{again}{_peak(one)}" + (
        "; no verdict on random weights" if "refused" in one else ""
    )


def _peak(one: Mapping[str, Any]) -> str:
    return f", peak {one['peak_gib']:.1f} GiB" if one.get("peak_gib") else ""


def fill(page: str, found: Mapping[str, Any]) -> str:
    """The page with its block `<!-- gpu -->` rendered anew."""
    block = re.compile(r"(<!-- gpu -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}\n{table(found)}\n\n{match[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, few tests")
    parser.add_argument("--only", nargs="*", default=[], choices=LIMITS, help="some sections")
    parser.add_argument(
        "--page", nargs="*", type=Path, help="render docs/performance.md, from these results if any"
    )
    parser.add_argument("--section", choices=LIMITS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page is not None:
        if options.page:
            kept = merged([json.loads(file.read_text()) for file in options.page])
            DATA.write_text(json.dumps(kept, indent=1) + "\n")
        found = json.loads(DATA.read_text()) if DATA.exists() else {}
        PAGE.write_text(fill(PAGE.read_text(), found))
    elif options.section:
        result = section(options.section, options.small, options.folder)
        (options.folder / f"{options.section}.json").write_text(json.dumps(result))
    else:
        sys.exit(run_all(options.small, options.only, Path(os.environ.get("OUT", "."))))


if __name__ == "__main__":
    main()
