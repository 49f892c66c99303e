"""Build the members of the family that are made here: the base, then the adapter from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from examples.studies.tiny import vocabulary
from examples.studies.tiny.episodes import Episodes
from examples.studies.tiny.finetuning import Plan, fine_tune
from examples.studies.tiny.model import untrained
from examples.studies.tiny.preset import BasePlan
from examples.studies.tiny.pretraining import train
from examples.studies.tiny.saving import save
from forgetguard.errors import CheckpointError


def one_thread() -> None:
    """Make results depend on nothing but the settings: one thread, deterministic kernels."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def base_model(plan: BasePlan, report: Callable[[str], None]) -> Qwen3ForCausalLM:
    """The trained tiny base."""
    tokenizer = vocabulary.tokenizer()
    model = untrained(
        vocabulary=len(tokenizer),
        end=tokenizer.get_vocab()[vocabulary.END],
        padding=tokenizer.get_vocab()[vocabulary.PADDING],
        seed=plan.seed,
        std=plan.std,
        rope_theta=plan.rope_theta,
    )
    episodes = Episodes(
        tokenizer, rows=plan.rows, length=plan.length, other=plan.other, seed=plan.seed
    )
    train(model, episodes, plan.schedule, report)
    return model


def build_base(plan: BasePlan, out: Path, report: Callable[[str], None]) -> None:
    """Train the base and write it to `out`/base."""
    save(base_model(plan, report), vocabulary.tokenizer(), out / "base")


def build_adapter(name: str, plan: Plan, out: Path, report: Callable[[str], None]) -> None:
    """Fine-tune `out`/base and write the result to `out`/`name`."""
    tokenizer = vocabulary.tokenizer()
    model, steps = fine_tune(load_base(out), tokenizer, plan)
    report(f"{name}: {steps} steps")
    save(model, tokenizer, out / name)


def load_base(out: Path) -> PreTrainedModel:
    """The base in `out`, in evaluation mode. Raises CheckpointError where it has not been built."""
    return _load(_built(out, "base"))


def load(out: Path, name: str) -> PreTrainedModel | PeftModel:
    """A member of the family in `out`, in evaluation mode; an adapter on its base.

    Raises CheckpointError where it has not been built.
    """
    folder = _built(out, name)
    if (folder / "adapter_config.json").exists():
        return PeftModel.from_pretrained(load_base(out), str(folder)).eval()
    return _load(folder)


def _built(out: Path, name: str) -> Path:
    folder = out / name
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no {folder}. Build it first: "
            f"python -m examples.studies.tiny --only {name} --out {out}"
        )
    return folder


def _load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model
