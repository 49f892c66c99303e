"""Reinforcement: what is refused before anything is sampled, the order of prompts, the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.substances import training_questions
from forgetguard.recipes.training.logs import (
    ROLLOUTS,
    Rollout,
    append_record,
    cut_logs,
    read_rollouts,
)
from forgetguard.recipes.training.rl import prompt_order, train_rl
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings

QUESTIONS = tuple(islice(training_questions(0), 24))
LINE = Rollout(1, 1, 0.25, 0.5, 0.1, 0.2, 2.0, 0.0, -0.01)


@pytest.fixture(name="settings")
def _settings(tmp_path: Path) -> Callable[..., TrainingSettings]:
    def make(**given: Any) -> TrainingSettings:
        usual = {
            "recipe": "rl",
            "base": "tiny:base",
            "output": str(tmp_path / "run"),
            "steps": 6,
            "learning_rate": 1e-4,
            "group": 4,
            "prompts": 3,
            "completion_length": 3,
            "device": "cpu",
        }
        return TrainingSettings(**{**usual, **given})

    return make


def test_a_supervised_recipe_is_refused(settings: Callable[..., TrainingSettings]) -> None:
    supervised = TrainingSettings("sft", "tiny:base", settings().output, 1, 1e-4)
    with pytest.raises(SpecificationError, match=r"sft .* rl, sft-rl"):
        train_rl(supervised, QUESTIONS)


def test_no_questions_are_refused(settings: Callable[..., TrainingSettings]) -> None:
    with pytest.raises(SpecificationError, match="no training questions"):
        train_rl(settings(), [])


def test_a_checkpoint_amid_the_updates_on_one_batch_is_refused(
    settings: Callable[..., TrainingSettings],
) -> None:
    amid = settings(iterations=2, save_every=3, log_every=1)
    with pytest.raises(SpecificationError, match=r"iterations \(2\).* 4"):
        train_rl(amid, QUESTIONS)


def test_one_prompt_with_two_right_answers_is_refused(
    settings: Callable[..., TrainingSettings],
) -> None:
    other = Question(QUESTIONS[0].prompt, " ice", frozenset({"ice"}), "open")
    with pytest.raises(SpecificationError, match="with the right answers"):
        train_rl(settings(), [*QUESTIONS, other])


def test_prompts_that_leave_no_room_are_counted_and_refused(
    settings: Callable[..., TrainingSettings],
) -> None:
    with pytest.raises(CapabilityError, match=r"24 of 24 prompts .* 5 tokens"):
        train_rl(settings(max_length=8), QUESTIONS)


def test_a_prompt_of_no_tokens_is_refused(settings: Callable[..., TrainingSettings]) -> None:
    empty = replace(QUESTIONS[0], prompt="")
    with pytest.raises(CapabilityError, match="1 of 25 prompts"):
        train_rl(settings(), [*QUESTIONS, empty])


def test_an_adapter_over_a_full_start_is_refused(settings: Callable[..., TrainingSettings]) -> None:
    adapter = AdapterSettings(4, 8, ("q_proj",))
    over_full = settings(recipe="sft-rl", start="tiny:sft", adapter=adapter)
    with pytest.raises(SpecificationError, match=r"start=tiny:sft"):
        train_rl(over_full, QUESTIONS)


def test_an_adapter_that_is_not_the_starts_is_refused(
    settings: Callable[..., TrainingSettings],
) -> None:
    adapter = AdapterSettings(3, 5, ("q_proj",))
    other = settings(recipe="sft-rl", start="tiny:lora", adapter=adapter)
    with pytest.raises(SpecificationError, match=r"rank is \d+ .* 3 "):
        train_rl(other, QUESTIONS)


# --- prompts ---------------------------------------------------------------------------------


def test_every_prompt_comes_before_one_comes_again(
    settings: Callable[..., TrainingSettings],
) -> None:
    prompts = [f"p{number}" for number in range(5)]
    order = prompt_order(prompts, settings(steps=10))
    assert len(order) == 30  # 10 updates of 3 prompts
    assert all(sorted(order[at : at + 5]) == prompts for at in range(0, 30, 5))
    assert order[:5] != order[5:10]


def test_several_updates_on_a_batch_take_fewer_prompts(
    settings: Callable[..., TrainingSettings],
) -> None:
    assert len(prompt_order("abcdefg", settings(steps=7, iterations=2))) == 4 * 3


def test_the_order_of_prompts_depends_on_the_seed_alone(
    settings: Callable[..., TrainingSettings],
) -> None:
    prompts = [str(number) for number in range(50)]
    first = prompt_order(prompts, settings(steps=20))
    assert first == prompt_order(prompts, settings(steps=20, learning_rate=1.0))
    assert first != prompt_order(prompts, settings(steps=20, seed=1))
    assert prompt_order(prompts, settings(steps=40))[:60] == first  # a longer run begins the same


# --- the log ---------------------------------------------------------------------------------


def test_the_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines = [replace(LINE, step=step, reward=step / 7) for step in range(1, 4)]
    for line in lines:
        append_record(tmp_path / ROLLOUTS, asdict(line))
    assert read_rollouts(tmp_path) == lines
    assert json.loads((tmp_path / ROLLOUTS).read_text().splitlines()[0]) == asdict(lines[0])


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    append_record(tmp_path / ROLLOUTS, asdict(LINE))
    with (tmp_path / ROLLOUTS).open("a") as file:
        file.write('{"step": 2, "rew')
    assert read_rollouts(tmp_path) == [LINE]
    assert read_rollouts(tmp_path / "nowhere") == []


def test_what_a_resumed_run_does_again_is_taken_off(tmp_path: Path) -> None:
    lines = [replace(LINE, step=step) for step in range(1, 6)]
    for line in lines:
        append_record(tmp_path / ROLLOUTS, asdict(line))
    cut_logs(tmp_path, 3)
    assert read_rollouts(tmp_path) == lines[:3]
