"""The tiny family: what ships works, what is held out stays out, a rebuild gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import forgetguard
from examples.studies import tiny_prompts
from examples.studies.reference.plan import read_plan
from examples.studies.tiny import building, episodes, evaluation, preset, tuned, vocabulary
from examples.studies.tiny.__main__ import PROMPT_SEED, PROMPTS
from examples.studies.tiny.finetuning import fine_tune
from examples.studies.tiny.saving import BASE_ALIAS, save
from forgetguard.capabilities.tasks import TASKS
from forgetguard.errors import CheckpointError
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.recipes.data.substances import is_held_out

PACKAGE = Path(forgetguard.__path__[0])
SHIPPED = PACKAGE / "checkpoints" / "tiny"
PROMPT_FILES = PACKAGE.parent / "circuits" / "prompts"
FRESH_SEED = 20_260_101  # of no build and no table

tasks = pytest.mark.parametrize("task", tiny_prompts.TASKS_OF_TINY)
# peft's and TRL's own code still says gradient_checkpointing, which transformers 5.23 renamed.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.tokenizer()


@pytest.fixture(scope="module")
def scores(tokenizer):
    return {
        name: evaluation.measure(
            building.load(SHIPPED, name), tokenizer, count=200, seed=FRESH_SEED
        )
        for name in ("base", "sft", "rl", "lora")
    }


# What ships


@pytest.mark.slow
@tasks
def test_the_shipped_base_can_do_every_capability_on_prompts_it_never_saw(scores, task) -> None:
    assert scores["base"][task].accuracy > 0.95
    assert scores["base"][task].logit_diff > 3.0


@pytest.mark.slow
def test_the_shipped_fine_tunes_learned_the_new_task_and_the_base_had_not(scores) -> None:
    assert scores["base"][evaluation.NEW_TASK].accuracy < 0.3
    assert scores["sft"][evaluation.NEW_TASK].accuracy >= 0.9
    assert scores["rl"][evaluation.NEW_TASK].accuracy >= 0.9
    assert scores["lora"][evaluation.NEW_TASK].accuracy >= 0.9


@pytest.mark.slow
def test_full_fine_tuning_cost_more_of_the_readouts_than_the_adapter_did(scores) -> None:
    def kept(name: str) -> float:
        before, after = scores["base"], scores[name]
        return sum(
            after[task].logit_diff / before[task].logit_diff for task in tiny_prompts.TASKS_OF_TINY
        )

    assert kept("sft") < kept("lora")


def test_the_shipped_checkpoints_are_small_and_free_of_pickles() -> None:
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors"}


def test_the_shipped_adapter_names_its_base_by_alias() -> None:
    config = json.loads((SHIPPED / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE_ALIAS


@pytest.mark.parametrize("name", ["base", "sft", "rl"])
def test_the_shipped_checkpoints_load_by_the_auto_classes(name, tokenizer) -> None:
    read = AutoTokenizer.from_pretrained(SHIPPED / name)
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / name)
    assert read.get_vocab() == tokenizer.get_vocab()
    assert model.config.vocab_size == len(read)
    assert model.config.num_key_value_heads < model.config.num_attention_heads


@tasks
def test_the_prompt_files_are_the_held_out_pairs_of_the_command(task) -> None:
    pairs = read_prompt_file(PROMPT_FILES / f"tiny-{task}.jsonl", readout="logit_diff")
    drawn = list(islice(tiny_prompts.held_out_pairs(task, PROMPT_SEED), PROMPTS))
    # The files were written when a variant of a frame still counted as a template of its own.
    assert all(
        pair.template.startswith(now.template) for pair, now in zip(pairs, drawn, strict=True)
    )
    assert [
        replace(pair, line=None, template=now.template)
        for pair, now in zip(pairs, drawn, strict=True)
    ] == drawn


# The tokenizer


@tasks
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_text_makes_the_round_trip_and_an_answer_is_one_token_in_place(task, seed) -> None:
    tokenizer = vocabulary.tokenizer()
    for pair in islice(tiny_prompts.TASKS_OF_TINY[task](random.Random(seed), tiny_prompts.fits), 4):
        prompt, whole = tokenizer([pair.clean, pair.clean + pair.answer]).input_ids
        assert tokenizer.decode(whole) == pair.clean + pair.answer
        assert tokenizer.unk_token_id not in whole
        assert whole[:-1] == prompt
        assert tokenizer(pair.answer).input_ids == whole[-1:]
        assert len(tokenizer(pair.counterfactual).input_ids) == len(prompt)


def test_no_special_token_is_added_and_a_word_it_does_not_know_is_marked(tokenizer) -> None:
    read = AutoTokenizer.from_pretrained(SHIPPED / "base")
    for one in (tokenizer, read):
        assert one("Mary").input_ids != one(" Mary").input_ids
        assert len(one(" Mary gave").input_ids) == 2
        assert one(" zebra").input_ids == [one.unk_token_id]
    assert tiny_prompts.fits("Mary")
    assert not tiny_prompts.fits("zebra")


def test_every_word_that_fits_is_one_known_token(tokenizer) -> None:
    for word in tiny_prompts.DRAWN:
        (token,) = tokenizer(f" {word}").input_ids
        assert token != tokenizer.unk_token_id


# The training data


def test_the_tiny_base_is_trained_on_the_same_five_tasks_in_the_same_order() -> None:
    """The shipped bytes depend on both."""
    assert list(tiny_prompts.TASKS_OF_TINY) == [
        "induction", "ioi", "key_value", "greater_than", "fact_recall",
    ]  # fmt: skip
    assert all(TASKS[name] is task for name, task in tiny_prompts.TASKS_OF_TINY.items())


@tasks
def test_no_training_text_begins_with_a_held_out_prompt(task) -> None:
    kept = {pair.clean for pair in islice(tiny_prompts.held_out_pairs(task, 7), 50)}
    for text in islice(tiny_prompts.training_texts(task, 7), 2000):
        assert text[0] not in kept
        assert not is_held_out(text[0])


def test_a_packed_episode_sees_only_itself(tokenizer) -> None:
    """So that what is learned in a pack holds for a prompt alone, which is how the gate asks."""
    model = _untrained(tokenizer)
    batch = episodes.Episodes(tokenizer, rows=3, length=64, other=0.05, seed=0).batch()
    with torch.inference_mode():
        packed = model(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask
        ).logits
    for row in range(3):
        starts = (batch.positions[row] == 0).nonzero().flatten().tolist()
        second, end = starts[1], starts[2]
        with torch.inference_mode():
            alone = model(input_ids=batch.ids[row : row + 1, second:end]).logits[0]
        torch.testing.assert_close(packed[row, second:end], alone, rtol=1e-4, atol=1e-5)


def test_every_answer_weighs_full_and_is_its_tasks(tokenizer) -> None:
    drawn = episodes.Episodes(tokenizer, rows=8, length=64, other=0.05, seed=0)
    batch = drawn.batch()
    asked = batch.tasks >= 0
    assert (batch.weights[asked] == 1.0).all()
    assert (batch.weights[~asked] < 0.06).all()
    for row, position in asked.nonzero().tolist():
        if drawn.names[batch.tasks[row, position]] == "greater_than":
            answer = tokenizer.decode(batch.ids[row, position + 1]).strip()
            assert answer in tiny_prompts.words.NUMBERS


# The build


def _untrained(tokenizer):
    from examples.studies.tiny.model import untrained

    return untrained(
        vocabulary=len(tokenizer), end=1, padding=0, seed=0, std=0.06, rope_theta=1000.0
    ).eval()


def _digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def _short_base(seed: int = 0):
    plan = preset.load().base
    schedule = replace(plan.schedule, steps=3)
    return building.base_model(
        replace(plan, seed=seed, rows=4, schedule=schedule), lambda line: None
    )


@pytest.mark.slow
def test_the_same_seed_builds_the_same_base_bytes_and_another_does_not(tmp_path, tokenizer) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        save(_short_base(seed), tokenizer, tmp_path / name)
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two")
    assert _digest(tmp_path / "one") != _digest(tmp_path / "three")


@pytest.mark.slow
def test_the_same_seed_trains_the_adapter_to_the_same_bytes(tmp_path, tokenizer) -> None:
    plan = replace(preset.load().lora, steps=3, batch=4)
    for folder in ("one", "two"):
        model, steps = fine_tune(building.load_base(SHIPPED), tokenizer, plan)
        assert steps == 3
        save(model, tokenizer, tmp_path / folder)
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two")


def test_the_other_members_are_runs_of_the_reference_suite() -> None:
    plan = read_plan(tuned.PRESET, out=Path("out"))
    runs = preset.load().runs
    assert {name: plan.run(run).recipe for name, run in runs.items()} == {"sft": "sft", "rl": "rl"}


@pytest.mark.slow
def test_a_member_is_the_end_of_its_run_without_the_card(tmp_path, monkeypatch) -> None:
    short = read_plan(
        tuned.PRESET, ["sft.steps=2", "sft.save_every=1", "sft.learning_rates=[1e-3]",
        "recipes=sft", "all.log_every=1", "all.warmup=0"], out=tmp_path / "runs",
    )  # fmt: skip
    monkeypatch.setattr(tuned, "read_plan", lambda *_, **__: short)
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "old").touch()
    tuned.build_run("sft-0.001-seed0", "sft", tmp_path, lambda line: None)
    assert {file.name for file in (tmp_path / "sft").iterdir()} == {
        file.name for file in (SHIPPED / "sft").iterdir()
    }


def test_a_missing_member_says_how_to_build_it(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="--only base"):
        building.load(tmp_path, "base")
