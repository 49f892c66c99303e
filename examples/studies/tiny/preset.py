"""Read preset.yaml, the settings of the shipped checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from examples.studies.tiny.finetuning import Plan
from examples.studies.tiny.pretraining import Schedule
from forgetguard.recipes.training.settings import AdapterSettings


@dataclass(frozen=True, slots=True)
class BasePlan:
    """The tiny base's initial weights, batches and schedule."""

    seed: int
    std: float
    rope_theta: float
    rows: int
    length: int
    other: float
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Preset:
    """The settings of the whole family; `runs` of the reference suite are members of it too."""

    base: BasePlan
    lora: Plan
    runs: Mapping[str, str]


def load() -> Preset:
    """The settings of the shipped checkpoints."""
    read: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("preset.yaml").read_text())
    base = read["base"]
    of_schedule = {name: base.pop(name) for name in Schedule.__dataclass_fields__}
    adapter = read["lora"].pop("adapter")
    adapter["modules"] = tuple(adapter["modules"])
    return Preset(
        base=BasePlan(**base, schedule=Schedule(**of_schedule)),
        lora=Plan(**read["lora"], adapter=AdapterSettings(**adapter)),
        runs=dict(read["runs"]),
    )
