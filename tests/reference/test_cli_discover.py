"""`forgetguard discover` on tiny:base: what it writes gates, and what it began it takes up."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forgetguard as fg
from forgetguard.api.circuits import SUGGESTED_LIMITS
from forgetguard.cli import main
from forgetguard.discovery import on_checkpoint
from forgetguard.discovery.store import Store
from forgetguard.gate.schema import FilePairs, TaskPairs, load_gate_file, parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.stages import as_capability
from forgetguard.gate.verdict import Outcome

PROMPTS = Path(__file__).parents[2] / "circuits" / "prompts" / "tiny-ioi.jsonl"
FACTS = ("discover", "base=tiny:base", "--task", "fact_recall", "--pairs", "32", "--method")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with a cache of its own."""
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def parts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.npy"))


def test_the_file_it_writes_gates_a_gentle_fine_tune_green(
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = Path("ioi.circuit.yaml")
    command = ["discover", "base=tiny:base", "--task", "ioi", "--pairs", "64", "-o", str(written)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == ""
    spec = load_gate_file(written)
    assert spec.pairs == TaskPairs("ioi", 64, seed=1, most=256)
    assert {limit.key for limit in spec.limits} == set(SUGGESTED_LIMITS)
    assert all(limit.maximum >= SUGGESTED_LIMITS[limit.key] for limit in spec.limits)
    assert spec.found is not None
    assert spec.found["faithfulness"] >= 0.8
    assert spec.found["suggestion"]["noise_of"] == "bfloat16 patched into float32"
    assert set(spec.found["versions"]) == {"forgetguard", "torch", "transformers"}

    heads = f"{len(spec.members)} of 24 heads, by activation_patching"
    strongest = max(spec.found["scores"], key=spec.found["scores"].__getitem__)
    assert heads in err
    assert f"scores: {strongest} " in err
    gate = shlex.split(err.strip().splitlines()[-1])
    assert gate == [
        *("pytest", "--forgetguard", "base=tiny:base", "tuned=CHECKPOINT", "ioi.circuit.yaml"),
    ]

    pair = fg.load(base="tiny:base", tuned="tiny:lora")
    assert spec.fits is not None
    assert spec.fits.weights == pair.base.fingerprint.weights
    session = GateSession(pair, [spec])
    for limit in spec.limits:
        verdict = session.judge(spec, limit)
        assert verdict.outcome is Outcome.PASS, verdict.code


def test_the_pairs_gated_on_are_not_those_the_circuit_was_found_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["discover", "base=tiny:base", "--task", "induction", "--no-noise"]) == 0
    out = capsys.readouterr().out
    spec = parse_gate(out, "induction.circuit.yaml")
    assert spec.found is not None
    assert isinstance(spec.pairs, TaskPairs)
    assert spec.found["gated_on"] == {"pairs": 256, "also_found_on": 0}
    assert (spec.pairs.count, spec.pairs.most) == (64, 256)  # as `circuit: auto` draws them
    tokenizer = fg.load(base="tiny:base").base.tokenizer
    found_on = fg.capability("induction", pairs=128, seed=0).encoded(tokenizer)
    gated_on = as_capability(spec).encoded(tokenizer)
    seen = {one.pair.clean for one in found_on.encoded.pairs}
    assert not seen & {one.pair.clean for one in gated_on.encoded.pairs}


def test_a_prompt_file_is_named_from_where_the_circuit_lies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prompts").mkdir()
    (folder / "circuits").mkdir()
    (folder / "prompts" / "ioi.jsonl").write_text(PROMPTS.read_text())
    command = ["discover", "base=tiny:base", "--prompts", "prompts/ioi.jsonl", "--no-noise"]
    assert main([*command, "--pairs", "32", "-o", "circuits/mine.circuit.yaml"]) == 0
    text = Path("circuits/mine.circuit.yaml").read_text()
    assert "pairs: {file: ../prompts/ioi.jsonl}" in text
    spec = load_gate_file("circuits/mine.circuit.yaml")
    assert isinstance(spec.pairs, FilePairs)
    assert (spec.name, spec.capability) == ("mine", "ioi")
    assert {limit.key: limit.maximum for limit in spec.limits} == SUGGESTED_LIMITS
    assert spec.found is not None
    assert "suggestion" not in spec.found
    assert spec.found["gated_on"]["also_found_on"] == 32
    assert "share prompts" in spec.found["gated_on"]["note"]
    assert "32 of the 64 pairs to gate on were also used" in capsys.readouterr().err


def test_options_reach_the_search_and_force_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    there = Path("facts.circuit.yaml")
    there.write_text("old")
    settings = ["activation", "--set", "direction=denoising", "--mlps", "--faithful", "0.6"]
    command = [*FACTS, *settings, "--ablation", "mean", "--seed", "3", "--dtype", "bfloat16"]
    assert main([*command, "-o", str(there), "--force"]) == 0
    spec = load_gate_file(there)
    found = spec.found
    assert found is not None
    assert found["settings"] == {"direction": "denoising"}
    assert (found["ablation"], found["faithful"], found["seed"]) == ("mean", 0.6, 3)
    assert (found["members"], found["dtype"]) == (28, "bfloat16")
    assert found["suggestion"]["noise_of"] == "float32 patched into bfloat16"
    assert spec.pairs == TaskPairs("fact_recall", 64, seed=4, most=256)
    assert "--forgetguard-dtype=bfloat16" in capsys.readouterr().err


def test_what_was_interrupted_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, saved = Store.save, []

    def counted(store: Store, key: str, values: Any) -> None:
        saved.append(key)
        save(store, key, values)

    def broken(store: Store, key: str, values: Any) -> None:
        counted(store, key, values)
        if len(saved) == 2:
            raise KeyboardInterrupt

    command = [*FACTS, "activation", "--no-noise"]
    monkeypatch.setattr(Store, "save", counted)
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "other"))
    assert main(command) == 0
    whole, all_parts = capsys.readouterr().out, list(saved)
    assert len(all_parts) > 2

    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    saved.clear()
    monkeypatch.setattr(Store, "save", broken)
    assert main(command) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert f"finished work is kept in {tmp_path / 'cache'}" in err
    assert "Traceback" not in err
    assert len(parts(tmp_path)) == 2

    monkeypatch.setattr(Store, "save", counted)
    saved.clear()
    assert main(command) == 0
    assert saved == all_parts[2:]  # the first two were taken up
    assert capsys.readouterr().out == whole


def test_a_finished_discovery_is_not_repeated_unless_the_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*FACTS, "activation", "--no-noise"]
    assert main([*command, "--no-cache"]) == 0
    assert not (tmp_path / "cache").exists()
    assert main(command) == 0

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(on_checkpoint, "find_circuit", interrupted)
    capsys.readouterr()
    assert main(command) == 0
    assert main([*command, "--no-cache"]) == 130
    assert "nothing was kept (--no-cache)" in capsys.readouterr().err


def test_a_base_that_cannot_do_it_says_so_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    swapped = [
        one | {"answer": one["distractor"], "distractor": one["answer"]} for one in pairs[:32]
    ]
    Path("nonsense.jsonl").write_text("\n".join(map(json.dumps, swapped)))
    command = ["discover", "base=tiny:base", "--prompts", "nonsense.jsonl"]
    assert main([*command, "-o", "nonsense.circuit.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "THE BASE CANNOT DO 'nonsense'" in err
    assert "Traceback" not in err
    assert not Path("nonsense.circuit.yaml").exists()


def test_a_failure_while_it_computes_is_status_1_and_leaves_the_old_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(on_checkpoint, "find_circuit", exhausted)
    there = Path("facts.circuit.yaml")
    there.write_text("old")
    assert main([*FACTS, "activation", "-o", str(there), "--force"]) == 1
    assert "out of memory" in capsys.readouterr().err
    assert there.read_text() == "old"
