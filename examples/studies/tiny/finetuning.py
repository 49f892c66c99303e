"""Fine-tune a LoRA adapter of the tiny base on the new task, until it is learned."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from itertools import islice

import torch
from datasets import Dataset
from peft import PeftModel
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

from examples.studies.tiny import science
from examples.studies.tiny.evaluation import held_out_questions, new_task_accuracy
from forgetguard.recipes.data.substances import is_held_out
from forgetguard.recipes.training.models import lora
from forgetguard.recipes.training.settings import AdapterSettings

EXAMPLES = 2048
VALIDATION_SEED = 1_000_003  # never an evaluation's


@dataclass(frozen=True, slots=True)
class Plan:
    """How fast to train, and how long at most: training ends at the first check, every
    `check_every` steps, where the new task's accuracy on validation questions has reached
    `stop_at`."""

    steps: int
    rate: float
    batch: int
    seed: int
    check_every: int
    stop_at: float
    adapter: AdapterSettings


def fine_tune(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, plan: Plan
) -> tuple[PeftModel, int]:
    """Train an adapter of `model`; return it with the steps taken."""
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
            peft_config=lora(plan.adapter),
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
        if state.global_step % self._plan.check_every == 0:
            model = kwargs["model"]
            model.eval()  # type: ignore[attr-defined]
            reached = new_task_accuracy(model, self._tokenizer, self._questions)  # type: ignore[arg-type]
            model.train()  # type: ignore[attr-defined]
            enough = reached >= self._plan.stop_at
            control.should_training_stop = control.should_training_stop or enough
        return control
