"""GRPOTrainer as Dr.GRPO, which measures its distance from the base and stops where no reward
differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.utils.deterministic
from accelerate.utils import broadcast_object_list
from jaxtyping import Int
from torch import Tensor, nn
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.measures.divergence import token_divergence
from forgetguard.recipes.data.reward import check_learnable
from forgetguard.recipes.training.logs import ROLLOUTS, Rollout, append_record, read_rollouts
from forgetguard.recipes.training.models import FrozenBase, inner_model
from forgetguard.recipes.training.rows import IGNORED
from forgetguard.recipes.training.settings import TrainingSettings
from forgetguard.recipes.training.supervised_trainer import answers

PATIENCE = 5  # batches of completions without a difference in reward before training is stopped
_LOGITS_AT_ONCE = 1 << 28  # for the KL, of each of the two models: 1 GiB in float32
_SHOWN = 3
_WIDTH = 60


def dr_grpo(settings: TrainingSettings) -> dict[str, Any]:
    """The arguments of TRL's GRPOConfig that make it Dr.GRPO (arXiv 2503.20783).

    For B completions an update, of at most L tokens (`completion_length`), with rewards r_i:

        A_i  = r_i - mean of the rewards of its group
        p_it = pi(o_it) / pi_old(o_it), both at the sampling temperature
        loss = -1/(B L) sum_it min(p_it A_i, clip(p_it, 0.8, 1.2) A_i)
               + beta/(B L) sum_it p_it (q_it - log q_it - 1),   q_it = base(o_it) / pi(o_it)

    as TRL 1.16 computes it: no division by the rewards' deviation, and the constant B L in place of
    the completions' lengths. pi_old is the model that sampled them; on the first update after that
    p is 1. beta is set on the trainer (see `ReinforcementTrainer`), hence 0 here.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": False,
        "num_generations": settings.group,
        "num_iterations": settings.iterations,
        "epsilon": 0.2,
        "beta": 0.0,
        "use_bias_correction_kl": True,
        "temperature": settings.temperature,
        "max_completion_length": settings.completion_length,
        "mask_truncated_completions": False,
        "disable_dropout": True,  # else p is not 1 where nothing has changed
        "shuffle_dataset": False,  # the rows stand in the order to be trained in
        "log_completions": False,
        "use_vllm": False,
    }


class ReinforcementTrainer(GRPOTrainer):
    """GRPOTrainer that compares with the base, whatever beta is and wherever training started.

    TRL's own reference would be the model's starting point (for `sft-rl`, the SFT checkpoint), and
    none at all with beta 0. So TRL is built with beta 0, and the base put in afterwards.

    Args:
        begin: the updates that lie behind, with their lines in the log of `run`.
    """

    def __init__(
        self,
        *,
        settings: TrainingSettings,
        base: FrozenBase,
        run: Path,
        begin: int,
        **arguments: Any,
    ) -> None:
        self._settings, self._run = settings, run
        self._line: Rollout | None = None  # of the batch at hand
        self._batches, self._loss = math.ceil(begin / settings.iterations), 0.0
        self._equal: list[tuple[float, ...]] | None = []  # None: some rewards have differed
        super().__init__(**arguments)
        differed = [any(line.equal_groups < 1 for line in read_rollouts(run))]
        broadcast_object_list(differed)  # the first process alone has cut the log
        if differed[0] or self._batches >= PATIENCE:
            self._equal = None
        self._plain_base = base.inner(self.accelerator.unwrap_model(self.model))
        self._base = FrozenBase(None if base.copy is None else self._prepared(base.copy))
        self.beta = settings.beta
        self.ref_model = self._base.copy

    def _prepared(self, base: Any) -> Any:
        """As TRL prepares its own reference."""
        add_fused_lm_head(base, temperature=self.temperature)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(base, self.accelerator)
        if self.is_fsdp_enabled:
            return prepare_fsdp(base, self.accelerator)
        return self.accelerator.prepare_model(base, evaluation_mode=True)

    # --- each batch of completions -----------------------------------------------------------

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        try:
            with self.accelerator.autocast():  # weights are cast once, not for every token
                sample: Any = super()._generate_single_turn  # has no annotations
                return sample(*arguments, **named)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            raise self._diverged("the model's probabilities were") from error

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        logs: Any = self._logs
        rewards: list[float] = list(logs["rewards"][self.reward_func_names[0]])
        size = self._settings.group or 0
        groups = [tuple(rewards[at : at + size]) for at in range(0, len(rewards), size)]
        self._batches += 1
        self._refuse_equal(groups)
        kl_forward, kl_reverse = self._divergence(output)
        metrics = self._metrics["train"]
        metrics["kl_forward"].append(kl_forward)
        metrics["kl_reverse"].append(kl_reverse)
        self._line = Rollout(
            step=0,
            batch=self._batches,
            reward=sum(rewards) / len(rewards),
            equal_groups=sum(len(set(group)) == 1 for group in groups) / len(groups),
            kl_forward=kl_forward,
            kl_reverse=kl_reverse,
            completion_tokens=metrics["completions/mean_length"][-1],
            unfinished=metrics["completions/clipped_ratio"][-1],
            loss=0.0,
        )
        return output

    def _refuse_equal(self, groups: Sequence[tuple[float, ...]]) -> None:
        """Stop where no reward has differed within its group since the beginning."""
        if self._equal is None:
            return
        if any(len(set(group)) > 1 for group in groups):
            self._equal = None
            return
        self._equal += groups
        batches = math.ceil(self._settings.steps / self._settings.iterations)
        if self._batches >= min(PATIENCE, batches):
            raise SpecificationError(
                f"{self._settings.recipe}: {check_learnable(self._equal)}. That was so from the "
                f"first update to batch {self._batches}, sampled at temperature "
                f"{self._settings.temperature:g} (another one may help), at most "
                f"{self._settings.completion_length} tokens each; the last ones were "
                f"{_samples(self._logs['prompt'], self._logs['completion'], groups)}"
            )

    def _divergence(self, output: dict[str, Any]) -> tuple[float, float]:
        """Mean KL(base || model) and KL(model || base) over the completions' tokens, everywhere."""
        given = "prompt_ids", "prompt_mask", "completion_ids", "completion_mask"
        batch = left_aligned(*(output[key] for key in given))
        model: Any = self.model
        vocabulary = model.config.get_text_config().vocab_size
        unwrapped = self.accelerator.unwrap_model(model)
        # Where models are spread over processes these run them in step: all take as many at once.
        rows = max(1, _LOGITS_AT_ONCE // (self._settings.max_length * vocabulary))
        parts = []
        for begin in range(0, len(batch["input_ids"]), rows):
            part = {key: value[begin : begin + rows] for key, value in batch.items()}
            with torch.no_grad(), self.accelerator.autocast():
                with self._base.running(model, unwrapped) as base:
                    there = answers(base, self._plain_base, part)
                here = answers(model, inner_model(unwrapped), part)
            # Of the models' own distributions: no temperature.
            both = token_divergence(there.logits[there.mask], here.logits[here.mask])
            parts.append(torch.stack(both))
        found = torch.cat(parts, dim=1)
        count = torch.tensor([found.shape[1]], dtype=found.dtype, device=found.device)
        totals = self.accelerator.reduce(torch.cat([found.sum(1), count]), reduction="sum")
        kl_forward, kl_reverse = (totals[:2] / totals[2].clamp(min=1)).tolist()
        if not math.isfinite(kl_forward + kl_reverse):
            raise self._diverged("the KL to the base was")
        return kl_forward, kl_reverse

    def _diverged(self, what: str) -> MeasurementError:
        return MeasurementError(
            f"training diverged: {what} not finite at step {self.state.global_step}: lower "
            f"learning_rate; checkpoints before that are in {self._run}"
        )

    # --- each update ---------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        with _unfilled():
            step: Any = super().training_step  # has no annotations
            loss = step(model, inputs, num_items_in_batch)
        self._loss += self.accelerator.reduce(loss.detach(), reduction="mean").item()
        if self.accelerator.sync_gradients:
            if self._line is not None and self.accelerator.is_main_process:
                line = replace(self._line, step=self.state.global_step + 1, loss=self._loss)
                append_record(self._run / ROLLOUTS, asdict(line))
            self._loss = 0.0
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._metrics["train"].pop("step_time", None)  # all else is the same in a repeated run
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the run card takes its place."""


@contextmanager
def _unfilled() -> Iterator[None]:
    """Where algorithms are deterministic, torch fills new memory as well: for each pass a buffer of
    0.5 GB that TRL then writes over (measured on the tiny model: a third of its time)."""
    switches: Any = torch.utils.deterministic  # its properties are set at run time
    before = switches.fill_uninitialized_memory
    switches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        switches.fill_uninitialized_memory = before


def left_aligned(
    prompt_ids: Int[Tensor, "row prompt"],
    prompt_mask: Int[Tensor, "row prompt"],
    completion_ids: Int[Tensor, "row completion"],
    completion_mask: Int[Tensor, "row completion"],
) -> dict[str, Int[Tensor, "row pos"]]:
    """Prompts padded on the left and completions padded on the right, as TRL holds them, as a
    batch whose labels are the completions.

    Padding stands on the right, where no token sees it, so that every token has the position that
    it has alone, in models with absolute positions too.
    """
    mask = torch.cat([prompt_mask, completion_mask], dim=1).long()
    labels = completion_ids.masked_fill(completion_mask == 0, IGNORED)
    columns = {
        "input_ids": torch.cat([prompt_ids, completion_ids], dim=1),
        "labels": torch.cat([torch.full_like(prompt_ids, IGNORED), labels], dim=1),
        "attention_mask": mask,
    }
    order = mask.argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    return {key: column.gather(1, order) for key, column in columns.items()}


def _samples(
    prompts: Iterable[Any], completions: Iterable[Any], groups: Sequence[Sequence[float]]
) -> str:
    """Some completions of different groups, with what they earned."""
    size = len(groups[0])
    every = list(zip(prompts, completions, (r for group in groups for r in group), strict=True))
    shown = every[::size][:_SHOWN]
    return "; ".join(
        f"...{prompt[-_WIDTH:]!r} -> {completion[:_WIDTH]!r} ({reward:g})"
        for prompt, completion, reward in shown
    )
