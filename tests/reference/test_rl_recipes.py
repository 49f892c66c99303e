"""Reinforcement on tiny:base: the loss and its gradient, the KL to the base, learning, resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.quiet import own_randomness
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.reward import reward
from forgetguard.recipes.data.substances import SUBSTANCES, training_questions
from forgetguard.recipes.training.logs import Rollout, read_rollouts
from forgetguard.recipes.training.rl import _build, train_rl
from forgetguard.recipes.training.run_card import read_card
from forgetguard.recipes.training.running import Frame
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings
from forgetguard.recipes.training.surroundings import quiet_training

Make = Callable[..., TrainingSettings]

QUESTIONS = tuple(islice(training_questions(0), 64))
ADAPTER = AdapterSettings(rank=8, alpha=16, modules=("q_proj", "v_proj"))


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Make:
    def make(**given: Any) -> TrainingSettings:
        usual = {
            "recipe": "rl",
            "base": "tiny:base",
            "output": str(tmp_path / "run"),
            "steps": 8,
            "learning_rate": 1e-3,
            "group": 4,
            "prompts": 4,
            "completion_length": 3,
            "device": "cpu",
            "log_every": 1,
            "save_every": 100,
        }
        return TrainingSettings(**{**usual, **given})

    return make


@pytest.fixture(autouse=True)
def _surroundings() -> Iterator[None]:
    with quiet_training(), own_randomness():
        torch.manual_seed(0)
        yield


# --- a trainer outside its loop ------------------------------------------------------------------


def a_trainer(settings: TrainingSettings, questions: Sequence[Question] = QUESTIONS) -> Any:
    """The recipe's trainer, made as `train_rl` makes it, before its first update."""
    arguments = {
        "output_dir": settings.output,
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.rows,
        "use_cpu": True,
        "bf16": settings.dtype == "bfloat16",
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    by_prompt = {question.prompt: question for question in reversed(questions)}
    trainer, _ = _build(by_prompt, Frame(settings, arguments, ()))
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def sampled(trainer: Any, questions: Sequence[Question] = QUESTIONS) -> dict[str, Any]:
    """A batch of completions of the first prompts, as the trainer samples them."""
    group, prompts = trainer.num_generations, trainer._settings.prompts
    rows = [{"prompt": one.prompt} for one in questions[:prompts] for _ in range(group)]
    output: dict[str, Any] = trainer._generate_and_score_completions(rows)
    return output


def plain_rows(batch: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Each row's prompt and completion without padding."""
    return [
        (prompt[mask == 1], completion[wanted == 1])
        for prompt, mask, completion, wanted in zip(
            batch["prompt_ids"],
            batch["prompt_mask"],
            batch["completion_ids"],
            batch["completion_mask"],
            strict=True,
        )
    ]


def scores(model: Any, prompt: Tensor, completion: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities over the vocabulary where each completion token is predicted, row alone."""
    logits = model(torch.cat([prompt, completion])[None]).logits[0]
    return (logits[len(prompt) - 1 : -1] / temperature).log_softmax(-1)


def of_tokens(model: Any, row: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    return scores(model, *row, temperature).gather(1, row[1][:, None])[:, 0]


def naive_loss(
    model: Any,
    base: Any,
    rows: Sequence[tuple[Tensor, Tensor]],
    old: Sequence[Tensor],
    advantages: Tensor,
    *,
    beta: float,
    temperature: float,
    length: int,
) -> Tensor:
    """Dr.GRPO token by token, as `dr_grpo` states it."""
    total = torch.zeros(())
    for row, before, advantage in zip(rows, old, advantages, strict=True):
        now = of_tokens(model, row, temperature)
        with torch.no_grad():
            there = of_tokens(base, row, temperature)
        for token in range(len(now)):
            ratio = (now[token] - before[token]).exp()
            clipped = ratio.clamp(0.8, 1.2)
            q = (there[token] - now[token]).exp()
            penalty = beta * ratio * (q - q.log() - 1)
            total = total - torch.minimum(ratio * advantage, clipped * advantage) + penalty
    return total / (len(rows) * length)


def gradients(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def loaded(name: str) -> Any:
    return load_model(resolve(name, "base"))


# --- the loss ------------------------------------------------------------------------------------


def test_the_loss_is_dr_grpos_closed_form(make: Make) -> None:
    """A model of uniform predictions, ratios chosen by hand, completions of unequal lengths."""
    trainer = a_trainer(make(group=2, prompts=1, iterations=2, completion_length=5))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    uniform = -np.log(trainer.model.config.vocab_size)
    ratios = torch.tensor([[1.5, 0.5, 1.1], [1.5, 0.5, 7.0]])  # the 7 is padding
    batch = {
        "prompt_ids": torch.tensor([[5, 6], [5, 6]]),
        "prompt_mask": torch.ones(2, 2, dtype=torch.long),
        "completion_ids": torch.tensor([[7, 8, 9], [7, 8, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "advantages": torch.tensor([0.5, -0.5]),
        "old_per_token_logps": uniform - ratios.log(),
    }
    gained = 0.5 * (1.2 + 0.5 + 1.1)  # a gain is cut off above 1.2, not below
    lost = -0.5 * (1.5 + 0.8)  # a loss below 0.8, not above
    expected = -(gained + lost) / (2 * 5)  # B L: neither the 3 and 2 tokens nor their sum
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, abs=1e-6)


def test_advantages_are_rewards_minus_the_groups_mean(make: Make) -> None:
    trainer = a_trainer(make(group=8))
    batch = sampled(trainer)
    tokenizer = trainer.processing_class
    earned = torch.tensor(
        [
            reward(QUESTIONS[row // 8], tokenizer.decode(completion, skip_special_tokens=True))
            for row, (_, completion) in enumerate(plain_rows(batch))
        ]
    ).view(-1, 8)
    assert 0 < earned.mean() < 1
    assert torch.equal(batch["advantages"], (earned - earned.mean(1, keepdim=True)).flatten())


@pytest.mark.parametrize("start", ["tiny:sft", "tiny:lora"])
def test_loss_and_gradient_are_those_of_a_naive_computation(make: Make, start: str) -> None:
    """From another checkpoint than the base, with ratios beyond the clip, KL, and a temperature."""
    adapter = lora_of(start)
    settings = make(
        recipe="sft-rl",
        start=start,
        adapter=adapter,
        iterations=2,
        beta=0.3,
        temperature=1.3,
        completion_length=4,
    )
    trainer = a_trainer(settings)
    batch = sampled(trainer)
    rows, base = plain_rows(batch), loaded("tiny:base")
    old = [of_tokens(trainer.model, row, 1.3).detach() for row in rows]
    for row, before in enumerate(old):  # what TRL has noted of the model that sampled
        noted = batch["old_per_token_logps"][row, : len(before)]
        torch.testing.assert_close(noted, before, atol=1e-4, rtol=0)
    noise = torch.randn_like(batch["old_per_token_logps"]) * 0.3
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + noise
    old = [
        noted[: len(row[1])] for noted, row in zip(batch["old_per_token_logps"], rows, strict=True)
    ]
    batch["advantages"] = torch.randn(len(rows))

    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = gradients(trainer.model)
    trainer.model.zero_grad()
    expected = naive_loss(
        trainer.model, base, rows, old, batch["advantages"], beta=0.3, temperature=1.3, length=4
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    wanted = gradients(trainer.model)
    assert len(found) > 1000
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


def lora_of(start: str) -> AdapterSettings | None:
    if start != "tiny:lora":
        return None
    from peft import LoraConfig

    config: Any = LoraConfig.from_pretrained(resolve(start, "start").location)
    return AdapterSettings(config.r, config.lora_alpha, tuple(sorted(config.target_modules)))


def test_equal_rewards_have_no_gradient_and_different_ones_do(make: Make) -> None:
    trainer = a_trainer(make(group=8, iterations=2))
    batch = sampled(trainer)
    trainer.compute_loss(trainer.model, batch).backward()
    assert gradients(trainer.model).norm() > 1e-3

    trainer.model.zero_grad()
    nothing = {**batch, "advantages": torch.zeros_like(batch["advantages"])}
    trainer.compute_loss(trainer.model, nothing).backward()
    assert gradients(trainer.model).abs().max() == 0.0


def test_adam_moves_weights_after_a_batch_without_advantages(make: Make) -> None:
    """Not what one would wish, but so it is (`train_rl` says it): drift on a hopeless task."""
    trainer = a_trainer(make(group=8, iterations=2))
    batch = sampled(trainer)
    trainer.create_optimizer()
    weight = next(trainer.model.parameters())
    moved = []
    for advantages in (torch.zeros(32), batch["advantages"], torch.zeros(32)):
        before = weight.detach().clone()
        trainer.optimizer.zero_grad()
        trainer.compute_loss(trainer.model, {**batch, "advantages": advantages}).backward()
        trainer.optimizer.step()
        moved.append((weight - before).abs().max().item())
    assert moved[0] == 0.0
    assert moved[1] > 0.0
    assert moved[2] > 0.1 * moved[1]


# --- the KL to the base --------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["tiny:sft", "tiny:lora"])
def test_the_kl_is_exact_and_to_the_base_not_to_the_start(make: Make, start: str) -> None:
    settings = make(recipe="sft-rl", start=start, adapter=lora_of(start), beta=0.0, temperature=0.7)
    trainer = a_trainer(settings)
    batch = sampled(trainer)
    base, tuned = loaded("tiny:base"), trainer.model
    forward, reverse = [], []
    for row in plain_rows(batch):
        with torch.no_grad():
            log_p, log_q = scores(base, *row).double(), scores(tuned, *row).double()
        forward += (log_p.exp() * (log_p - log_q)).sum(1).tolist()
        reverse += (log_q.exp() * (log_q - log_p)).sum(1).tolist()
    assert trainer._line.kl_forward == pytest.approx(np.mean(forward), rel=1e-3)
    assert trainer._line.kl_reverse == pytest.approx(np.mean(reverse), rel=1e-3)
    assert np.mean(forward) > 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [None, ADAPTER], ids=["full", "adapter"])
def test_from_the_base_the_kl_begins_at_zero(
    make: Make, dtype: str, adapter: AdapterSettings | None
) -> None:
    trainer = a_trainer(make(adapter=adapter, dtype=dtype))
    sampled(trainer)
    assert trainer._line.kl_forward == trainer._line.kl_reverse == 0.0


# --- runs ----------------------------------------------------------------------------------------


def run(
    settings: TrainingSettings, questions: Sequence[Question] = QUESTIONS, **given: Any
) -> tuple[Path, list[Rollout]]:
    final = train_rl(settings, questions, **given)
    return final, read_rollouts(Path(settings.output))


@pytest.mark.parametrize("adapter", [None, ADAPTER], ids=["full", "adapter"])
def test_a_run_ends_in_a_checkpoint_a_card_and_a_line_an_update(
    make: Make, adapter: AdapterSettings | None, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[str, int, int]] = []
    settings = make(steps=3, adapter=adapter, completion_length=1)
    final, lines = run(settings, progress=lambda *told: steps.append(told))
    assert capfd.readouterr() == ("", "")
    assert steps == [("rl", step, 3) for step in (1, 2, 3)]
    assert [(line.step, line.batch) for line in lines] == [(1, 1), (2, 2), (3, 3)]
    assert lines[0].kl_reverse == 0.0 < lines[2].kl_reverse
    assert all((line.completion_tokens, line.unfinished) == (1.0, 1.0) for line in lines)
    card = read_card(final)
    assert card.notes["kl_base"] == "tiny:base, " + (
        "its adapter switched off" if adapter else "a frozen copy"
    )
    trained = load_model(resolve(str(final), "tuned"), base=resolve("tiny:base", "base"))
    ids = load_tokenizer(resolve("tiny:base", "base"))(QUESTIONS[0].prompt, return_tensors="pt")
    with torch.no_grad():
        before, after = (m(ids["input_ids"]).logits for m in (loaded("tiny:base"), trained))
    assert not torch.equal(before, after)


def test_a_killed_run_ends_as_one_that_was_not(make: Make, tmp_path: Path) -> None:
    """Weights and both logs, byte for byte; two updates a batch, accumulated from two parts."""
    common = {"iterations": 2, "save_every": 2, "steps": 6, "micro_batch": 8, "beta": 0.05}
    whole, lines = run(make(output=str(tmp_path / "whole"), **common))
    killed = make(output=str(tmp_path / "killed"), **common)

    def kill(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(killed, progress=kill)
    assert [line.step for line in read_rollouts(Path(killed.output))] == [1, 2, 3, 4, 5]
    final, resumed = run(killed)
    assert resumed == lines
    assert [line.batch for line in lines] == [1, 1, 2, 2, 3, 3]
    for name in ("model.safetensors", "../losses.jsonl", "../rollouts.jsonl"):
        assert (final / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_seed_decides_what_is_sampled(make: Make, tmp_path: Path) -> None:
    first, second, other = (
        run(make(steps=2, seed=seed, output=str(tmp_path / name)))
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    weights = [load_file(final / "model.safetensors") for final, _ in (first, second, other)]
    assert first[1] == second[1] != other[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_task_out_of_reach_stops_training_and_says_why(make: Make) -> None:
    hopeless = [replace(one, valid=frozenset({"Mary"}), answer=" Mary") for one in QUESTIONS]
    with pytest.raises(SpecificationError) as caught:
        run(make(steps=20), hopeless)
    said = str(caught.value)
    assert "all 80 completions of 20 prompts earned 0" in said
    assert "train with SFT first" in said
    assert "batch 5, sampled at temperature 1" in said
    assert "Answer:' -> '" in said


def test_a_task_that_is_solved_stops_training_and_says_why(make: Make) -> None:
    solved = [replace(one, valid=frozenset(SUBSTANCES)) for one in QUESTIONS]
    with pytest.raises(SpecificationError, match=r"all 48 completions.*earned 1.*harder task"):
        run(make(steps=3, temperature=1e-4), solved)


def test_completions_without_variety_stop_training_and_say_why(make: Make) -> None:
    with pytest.raises(SpecificationError, match=r"within each of 20.*raise the sampling temp"):
        run(make(steps=20, temperature=1e-4))


def test_the_policy_learns_what_no_single_answer_earns(make: Make) -> None:
    """Two properties with no substance in common: one answer for all earns 1/2 at most."""
    two = [
        one
        for one in islice(training_questions(0), 512)
        if "flammable" in one.prompt or "edible" in one.prompt
    ]
    settings = make(
        steps=40, prompts=16, group=8, learning_rate=2e-3, beta=0.1, completion_length=2
    )
    _, lines = run(settings, two)
    before = lines[0].reward
    after = np.mean([line.reward for line in lines[-5:]])
    assert before < 0.4
    assert after > 0.75
