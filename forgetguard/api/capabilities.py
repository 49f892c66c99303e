"""Names a capability and where its prompt pairs come from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.pairs import ChatTemplate, PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import find_task, task_names
from forgetguard.errors import SpecificationError
from forgetguard.gate.prompt_files import read_prompt_file


def capability(
    name: str,
    *,
    pairs: int | str | Path | Iterable[PromptPair] = 64,
    seed: int = 0,
    readout: str = "logit_diff",
    chat_template: ChatTemplate = False,
    held_out: bool = False,
) -> Capability:
    """A capability: `pairs` is how many to draw from the task `name` (bundled, or an entry point's
    of group `forgetguard.tasks`), a JSONL file, or the prompt pairs themselves. `chat_template`:
    true, or arguments to the tokenizer's. `held_out`: draw from the words and sentence frames that
    are otherwise held out, too.

    Raises:
        SpecificationError: no such task or readout, or the file cannot be read.
        CapabilityError: the task is another distribution's and cannot be loaded.
    """
    if readout not in READOUTS:
        raise SpecificationError(f"unknown readout {readout!r}; there are {', '.join(READOUTS)}")
    if isinstance(pairs, int):
        if name not in task_names():
            raise SpecificationError(
                f"there is no task {name!r} to draw pairs from; there are "
                f"{', '.join(task_names())}; or give pairs= a JSONL file or a list of PromptPair"
            )
        find_task(name)  # an entry point that cannot be loaded is said now
        return Capability(
            name,
            readout,
            task=name,
            count=pairs,
            seed=seed,
            chat_template=chat_template,
            held_out=held_out,
        )
    if isinstance(pairs, (str, Path)):
        pairs = read_prompt_file(pairs, readout=readout)
    return Capability(name, readout, pairs=tuple(pairs), chat_template=chat_template)
