"""Fine-tune the tiny base on the new task with TRL: all parameters, or a LoRA adapter."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from itertools import islice

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from forgetguard.recipes.tiny import science
from forgetguard.recipes.tiny.episodes import is_held_out
from forgetguard.recipes.tiny.evaluation import held_out_questions, new_task_accuracy

EXAMPLES = 2048
VALIDATION_SEED = 1_000_003  # never an evaluation's


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's shape."""

    rank: int
    alpha: int
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train. With `stop_at`, training ends at the first check, every
    `check_every` steps, where the new task's accuracy on validation questions has reached it."""

    steps: int
    rate: float
    batch: int
    seed: int
    check_every: int = 0
    stop_at: float | None = None
    adapter: Adapter | None = None


def fine_tune(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, plan: Plan
) -> tuple[PreTrainedModel | PeftModel, int]:
    """Train `model` in place; return it (a PeftModel with an adapter) and the steps taken."""
    torch.manual_seed(plan.seed)
    watch = _StopWhenReached(tokenizer, plan)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=scratch,
                max_steps=plan.steps,
                learning_rate=plan.rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=10,
                per_device_train_batch_size=plan.batch,
                seed=plan.seed,
                data_seed=plan.seed,
                completion_only_loss=True,
                max_length=64,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                dataloader_pin_memory=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=_examples(plan.seed),
            processing_class=tokenizer,
            peft_config=_lora(plan.adapter),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)  # it prints where progress bars are off
        trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    return trained.eval(), trainer.state.global_step


def _examples(seed: int) -> Dataset:
    stream = (q for q in science.questions(random.Random(f"training {seed}")))
    kept = islice((q for q in stream if not is_held_out(q.prompt)), EXAMPLES)
    return Dataset.from_list([{"prompt": q.prompt, "completion": q.answer} for q in kept])


def _lora(adapter: Adapter | None) -> LoraConfig | None:
    if adapter is None:
        return None
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(adapter.modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


class _StopWhenReached(TrainerCallback):
    """Ends training at the first check where the new task is learned."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, plan: Plan) -> None:
        self._tokenizer, self._plan = tokenizer, plan
        self._questions = list(islice(held_out_questions(VALIDATION_SEED), 200))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> TrainerControl:
        target, every = self._plan.stop_at, self._plan.check_every
        if target is not None and state.global_step % every == 0:
            model = kwargs["model"]
            model.eval()  # type: ignore[attr-defined]
            reached = new_task_accuracy(model, self._tokenizer, self._questions)  # type: ignore[arg-type]
            model.train()  # type: ignore[attr-defined]
            control.should_training_stop = control.should_training_stop or reached >= target
        return control
