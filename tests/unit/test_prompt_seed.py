"""A run's own prompts: `--forgetguard-prompt-seed`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate import records
from forgetguard.gate.declaration import FilePairs, GateSpec, InlinePairs, TaskPairs
from forgetguard.gate.stages import as_capability, prompt_notes
from pytest_forgetguard.fixtures import Forgetguard
from pytest_forgetguard.rerun import rerun_command
from pytest_forgetguard.settings import Settings

PAIRS = tuple(PromptPair(f"clean {i}", f"counter {i}", " y", " n") for i in range(100))


def spec(pairs: TaskPairs | FilePairs | InlinePairs, seed: int | None = None) -> GateSpec:
    return GateSpec("c", "ioi", pairs, "logit_diff", (), (), prompt_seed=seed)


def test_a_task_draws_other_prompts_with_another_seed_and_the_same_with_the_same() -> None:
    task = TaskPairs("ioi", 64, seed=3)
    fixed, one, again, other = (as_capability(spec(task, at)).seed for at in (None, 1, 1, 2))
    assert fixed == 3
    assert one == again
    assert len({fixed, one, other}) == 3
    assert [as_capability(spec(task, at)).held_out for at in (None, 1)] == [False, True]
    # A file that asks for other pairs of the task gets other pairs of this run.
    assert as_capability(spec(replace(task, seed=4), 1)).seed != one


def test_a_file_that_holds_more_gives_others_of_its_pairs() -> None:
    file = FilePairs(Path("/p.jsonl"), 30, PAIRS)
    assert as_capability(spec(file)).pairs == PAIRS[:30]
    one, again, other = (as_capability(spec(file, seed)).pairs for seed in (1, 1, 2))
    assert one == again
    assert one != other
    for drawn in (one, other):
        assert len(set(drawn)) == 30
        assert set(drawn) <= set(PAIRS)
        assert set(drawn) != set(PAIRS[:30])


def test_with_stages_as_many_are_drawn_as_may_be_needed() -> None:
    file = FilePairs(Path("/p.jsonl"), 16, PAIRS, most=64)
    assert len(set(as_capability(spec(file, 1)).pairs)) == 64


@pytest.mark.parametrize("count", [None, 100, 200])
def test_a_file_without_more_pairs_is_read_as_it_is_and_says_that_it_is_fixed(
    count: int | None,
) -> None:
    file = spec(FilePairs(Path("/p.jsonl"), count, PAIRS), 1)
    assert as_capability(file).pairs == PAIRS
    (note,) = prompt_notes(file)
    assert (note.code, note.facts["can_be_drawn"]) == ("fixed_prompts", False)


def test_a_verdict_says_whether_its_prompts_are_fixed_or_drawn() -> None:
    task = TaskPairs("ioi", 64)
    (fixed,), (drawn,) = prompt_notes(spec(task)), prompt_notes(spec(task, 7))
    assert (fixed.code, fixed.facts) == ("fixed_prompts", {"kind": "task", "can_be_drawn": True})
    assert (drawn.code, drawn.facts) == ("drawn_prompts", {"seed": 7})
    (inline,) = prompt_notes(spec(InlinePairs(PAIRS), 7))
    assert inline.facts == {"kind": "inline", "can_be_drawn": False}


def test_the_seed_is_in_the_results_file_and_in_the_command_that_runs_a_limit_again() -> None:
    written = records.spec_to_dict(spec(TaskPairs("ioi", 64), 7))
    assert records.spec_from_dict(written).prompt_seed == 7
    command = rerun_command(
        Settings("b", "t", prompt_seed=0), Path("/x/c.circuit.yaml"), "::c::dcv.head", Path("/x")
    )
    assert "--forgetguard-prompt-seed=0" in command.split()


def test_a_gate_spec_of_a_python_gate_is_measured_on_the_prompts_of_the_run() -> None:
    def asked(run_seed: int | None, own: int | None) -> int | None:
        run: Any = SimpleNamespace(settings=Settings("b", "t", prompt_seed=run_seed))
        given = spec(TaskPairs("ioi", 64), own)
        return Forgetguard(run, Path("/x")).circuit(given).prompt_seed

    assert [asked(7, None), asked(7, 3), asked(None, 3), asked(None, None)] == [7, 3, 3, None]
