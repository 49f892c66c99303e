"""What `forgetguard compare` does once it is known to be asked rightly."""

from __future__ import annotations

import sys
from typing import Any

from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.cli.command import DONE, INTERRUPTED, say
from forgetguard.cli.compare import Plan
from forgetguard.cli.progress import progress_bar
from forgetguard.comparison import compare
from forgetguard.comparison.result import Comparison
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import BaseCannotError
from forgetguard.report.comparison_table import comparison_text, comparisons_json
from forgetguard.whole_files import write_text


def compare_all(plan: Plan) -> int:
    """Compare, print the tables, write the JSON; returns the exit status (raises
    ForgetguardError)."""
    try:
        with progress_bar() as bar:
            found = carry_out(plan, bar)
    except KeyboardInterrupt:
        kept = "finished work is kept, and the same command goes on from there"
        say(f"forgetguard compare: interrupted; {kept if plan.keep else 'nothing was kept'}")
        return INTERRUPTED
    if plan.out is not None:
        write_text(plan.out, comparisons_json(found))
    sys.stdout.write("\n\n".join(comparison_text(one) for one in found) + "\n")
    return DONE


def carry_out(plan: Plan, progress: Progress | None = None) -> list[Comparison]:
    """Compare the checkpoints on every capability. One that the base cannot do is said, and left
    out, if there are others.

    Raises:
        ForgetguardError: a model cannot be measured, or the base can do none of the capabilities.
    """
    found, refused = [], None
    with ModelPair(plan.specs, plan.loading) as pair:
        for capability in _capabilities(plan):
            try:
                found.append(
                    compare.compare(
                        pair,
                        capability,
                        seeds=plan.seeds,
                        settings=plan.settings,
                        delta=plan.delta,
                        least_stability=plan.least_stability,
                        keep=plan.keep,
                        progress=progress,
                    )
                )
            except BaseCannotError as error:
                refused = error
                say(str(error))
    if refused is not None and not found:
        raise refused
    return found


def _capabilities(plan: Plan) -> list[Capability]:
    common: dict[str, Any] = {"readout": plan.readout, "chat_template": plan.chat_template}
    if plan.prompts:
        return [Capability(plan.name, pairs=plan.prompts, **common)]
    drawn = {"count": plan.pairs, "seed": plan.prompt_seed, **common}
    return [Capability(task, task=task, **drawn) for task in plan.tasks]
