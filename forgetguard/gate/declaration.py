"""What a circuit file declares: prompt pairs, a circuit, and its limits. [light]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.prompt_files import pair_texts

READOUTS = ("logit_diff", "logprob")
SITES = ("contribution", "z")
LIMITS = {
    "dcv.circuit": "DCV of the whole circuit, all its heads patched at once",
    "dcv.all": "DCV of all heads of the model at once, the circuit's and the others",
    "dcv.head": "DCV of every head of the circuit, one by one, corrected for their number",
    "accuracy.drop": "accuracy of base minus accuracy of tuned",
    "readout.drop": "(mean F(base) - mean F(tuned)) / |mean F(base)|",
    "dcv.circuit.over_reference": "DCV of the circuit, tuned minus reference",
    "dcv.head.over_reference": "DCV of every head, tuned minus reference",
    "dcv.circuit.over_baseline": "DCV of the circuit, tuned minus what the baseline recorded",
    "dcv.head.over_baseline": "DCV of every head, tuned minus what the baseline recorded",
    "accuracy.drop.over_baseline": "accuracy that the baseline recorded minus accuracy of tuned",
}
# Share of the circuit's importance that a head is held as worth at least.
DEFAULT_FLOOR = 0.10


@dataclass(frozen=True, slots=True)
class Limit:
    """A declared maximum of one measure; `key` is one of `LIMITS`. Being out of bounds is a loss,
    so `maximum` is 0 or more. `line` (1-based) is where it was declared.

    `floor`, 0 to 1, is for limits on every head: the damage of a head that is worth less than that
    share of the circuit is held to the limit relative to that share of the circuit's importance
    (gate/head_family.py).
    """

    key: str
    maximum: float
    line: int = field(default=0, compare=False)
    floor: float = DEFAULT_FLOOR

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with a third checkpoint."""
        return self.key.endswith(".over_reference")

    @property
    def needs_baseline(self) -> bool:
        """Whether it compares with what a baseline recorded."""
        return self.key.endswith(".over_baseline")

    @property
    def over(self) -> str:
        """What it compares tuned with beside the base: "reference", "baseline", or nothing."""
        return "reference" * self.needs_reference + "baseline" * self.needs_baseline

    @property
    def is_on_heads(self) -> bool:
        """Whether it bounds every head of the circuit, one by one."""
        return self.key.startswith("dcv.head")

    @property
    def needs_all_heads(self) -> bool:
        """Whether it patches every head of the model."""
        return self.key == "dcv.all"


@dataclass(frozen=True, slots=True)
class TaskPairs:
    """`count` pairs from the generator `task`, drawn with `seed`. With `most`, up to that many are
    drawn, look by look, until every limit is decided (gate/looks.py)."""

    task: str
    count: int
    seed: int = 0
    line: int = field(default=0, compare=False)
    most: int | None = None


@dataclass(frozen=True, slots=True)
class FilePairs:
    """The first `count` pairs (None: all) of a JSONL file; `path` is absolute, `pairs` its content
    as read with the circuit file. `most` as in `TaskPairs`."""

    path: Path
    count: int | None = None
    pairs: tuple[PromptPair, ...] = field(default=(), compare=False, repr=False)
    line: int = field(default=0, compare=False)
    most: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class InlinePairs:
    """Pairs written into the circuit file itself. Equal when their texts and templates are."""

    pairs: tuple[PromptPair, ...]
    line: int = 0

    def _texts(self) -> tuple[object, ...]:
        return tuple((pair_texts(pair), pair.template) for pair in self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InlinePairs) and self._texts() == other._texts()

    def __hash__(self) -> int:
        return hash(self._texts())


@dataclass(frozen=True, slots=True)
class Fits:
    """Which base a circuit belongs to; what is None is not compared. `alias`: the names that a user
    may give the base (an alias, a hub id). `any_base`, written `fits: any`: whichever it is."""

    alias: tuple[str, ...] | None = None
    architecture: str | None = None
    layers: int | None = None
    heads: int | None = None
    weights: str | None = None
    any_base: bool = False


@dataclass(frozen=True, slots=True)
class CircuitSpec:
    """One circuit file. Lines and the path say where it came from and are no part of equality.

    `heads` are its heads and MLP layers; it is empty and `auto` true for `circuit: auto`.
    `confidence` is the one-sided level of each decision. `found` is provenance, kept verbatim.
    """

    name: str
    capability: str
    pairs: TaskPairs | FilePairs | InlinePairs
    readout: str
    heads: tuple[Member, ...]
    limits: tuple[Limit, ...]
    auto: bool = False
    description: str = ""
    fits: Fits | None = None
    chat_template: bool = False
    site: str = "contribution"
    confidence: float = 0.95
    found: Mapping[str, Any] | None = field(default=None, hash=False)
    path: Path | None = field(default=None, compare=False)
    head_lines: tuple[int, ...] = field(default=(), compare=False)
    circuit_line: int = field(default=0, compare=False)

    def where(self, line: int) -> str:
        """`file:line` for a message; the circuit's name where it came from no file."""
        return f"{self.path}:{line}" if self.path else f"circuit {self.name!r}"
