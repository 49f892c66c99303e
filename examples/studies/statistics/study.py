"""The whole study as one dictionary of plain values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.studies.statistics import (
    coverage,
    detectable,
    doses,
    families,
    few_templates,
    guards,
    lost_heads,
    proportions,
    sequences,
    tiny_family,
    whole_runs,
)
from examples.studies.statistics.jobs import Job, carry_out
from examples.studies.statistics.settings import Settings

Say = Callable[[str], None]


def study(
    settings: Settings,
    *,
    say: Say,
    large: Path | None = None,
    real: Sequence[Path] = (),
    workers: int = 1,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        say: is told what is being done.
        large: a file that keeps the large sets of the tiny family: read if it is there, else
            written. None: they are measured.
        real: files of `collect`, with the damage of other models.
        workers: processes that the work is shared among; how many changes no number.

    Raises:
        ForgetguardError: the tiny family cannot be measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = large or Path(folder) / "large.npz"
        if not kept.is_file():
            tiny_family.save(tiny_family.large_sets(settings, say), kept)
        jobs = _jobs(settings, kept.resolve(), tuple(one.resolve() for one in real))
        shown = 0

        def told(done: int, of: int) -> None:
            nonlocal shown
            if done * 20 // of > shown:
                shown = done * 20 // of
                say(f"{done} of {of} pieces")

        found = carry_out(jobs, workers, told)
    return {"settings": asdict(settings), **found}


def _jobs(settings: Settings, large: Path, others: tuple[Path, ...]) -> Mapping[str, Sequence[Job]]:
    """By the name of what they measure; those that take longest first, for they end last."""
    return {
        "whole_runs": whole_runs.jobs(settings),
        "coverage": coverage.jobs(settings),
        "detectable": detectable.jobs(settings, large, others),
        "tiny_gates": tiny_family.gate_jobs(settings, large),
        "tiny_coverage": tiny_family.coverage_jobs(settings, large),
        "tiny_data": tiny_family.shape_jobs(large),
        "corrections": families.correction_jobs(settings),
        "lost_heads": lost_heads.jobs(settings, large, others),
        "heads": doses.head_jobs(settings),
        "circuits": doses.circuit_jobs(settings),
        "sequences": sequences.jobs(settings),
        "guards": guards.jobs(settings),
        "few_templates": few_templates.jobs(settings),
        "accuracy": proportions.jobs(settings),
        "accuracy_templates": proportions.template_jobs(settings),
    }
