"""The bundled tasks by name: each an endless, seeded stream of prompt pairs for one capability.

A task is a function `generate(rng, fits) -> Iterator[PromptPair]`. `fits(word)` says whether
" word" is one token in place of the tokenizer at hand (and a token it knows, not its unknown one);
the words that carry the answer are filtered with it once, before the first pair is drawn. Light: no
torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import (
    fact_recall,
    greater_than,
    indirect_object,
    induction,
    key_value,
)

Task = Callable[[random.Random, Callable[[str], bool]], Iterator[PromptPair]]

TASKS: dict[str, Task] = {
    "induction": induction.generate,
    "ioi": indirect_object.generate,
    "key_value": key_value.generate,
    "greater_than": greater_than.generate,
    "fact_recall": fact_recall.generate,
}
