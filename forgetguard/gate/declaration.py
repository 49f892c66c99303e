"""What a gate file declares: prompt pairs or prompts, perhaps a circuit, and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import ChatTemplate, Prompt, PromptPair
from forgetguard.measures import registry
from forgetguard.measures.documents import EvalTasks
from forgetguard.measures.measure import Measure

SITES = ("contribution", "z")
DEFAULT_CONFIDENCE = 0.95
# Share of the circuit's importance that a head is held as worth at least.
DEFAULT_FLOOR = 0.10
# Share of the whole effect from which on a member is judged alone, by the effects in the file.
ALONE_FROM = 0.10


@dataclass(frozen=True, slots=True)
class Limit:
    """A declared maximum of one measure; `key` is the measure's, with or without a modifier
    (measures/registry.py). `maximum` is 0 or more: it is the loss allowed. `line` (1-based) is
    where it was declared.

    `floor`, 0 to 1, is for measures that have one: the damage of a head that is worth less than
    that share of the circuit is held to the limit relative to that share of the circuit's
    importance (gate/family.py).

    `guard`, 0 or more, is for ratios: the limit is passed only where it would be kept with one more
    pair that loses so many importances (gate/guard.py); 0: there is no such pair.
    """

    key: str
    maximum: float
    line: int = field(default=0, compare=False)
    floor: float = DEFAULT_FLOOR
    guard: float = 0.0

    @property
    def measure(self) -> Measure:
        """What it bounds (raises SpecificationError: there is no such measure)."""
        return registry.find(self.key)

    @property
    def over(self) -> str:
        """What it compares tuned with beside the base: "reference", "baseline", or nothing."""
        return registry.split(self.key)[1]


@dataclass(frozen=True, slots=True)
class TaskPairs:
    """`count` pairs from the generator `task`, drawn with `seed`. With `most`, up to that many are
    drawn, stage by stage, until every limit is decided (gate/stages.py)."""

    task: str
    count: int
    seed: int = 0
    line: int = field(default=0, compare=False)
    most: int | None = None


@dataclass(frozen=True, slots=True)
class FilePairs:
    """The first `count` pairs (None: all) of a JSONL file, or with a prompt seed `count` others of
    them; `path` is absolute, `pairs` all that it holds. `most` as in `TaskPairs`."""

    path: Path
    count: int | None = None
    pairs: tuple[PromptPair, ...] = field(default=(), compare=False, repr=False)
    line: int = field(default=0, compare=False)
    most: int | None = None


@dataclass(frozen=True, slots=True)
class InlinePairs:
    """Pairs written into the circuit file itself."""

    pairs: tuple[PromptPair, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts without counterfactuals, of a JSONL file (`path` is absolute) or of the gate file
    itself. Equal when their texts and templates are."""

    prompts: tuple[Prompt, ...] = ()
    path: Path | None = field(default=None, compare=False)
    count: int | None = field(default=None, compare=False)
    line: int = field(default=0, compare=False)


Source: TypeAlias = TaskPairs | FilePairs | InlinePairs | Prompts | EvalTasks


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


def carrying(members: tuple[Member, ...], scores: Any, whole: Any) -> tuple[Member, ...]:
    """Of `members`, those whose own effect is at least a tenth of the whole one, and at least the
    one of the largest effect; a member without an effect is among them, and all are where the
    effects are no numbers.

    Args:
        scores: effects in nats by member's name.
        whole: F(all) - F(none) in nats.
    """
    effects = scores if isinstance(scores, Mapping) else {}
    if not _is_number(whole) or not all(map(_is_number, effects.values())):
        return members
    sizes = {one: abs(effects.get(str(one), math.inf)) for one in members}
    least = min(ALONE_FROM * abs(whole), max(sizes.values(), default=0.0))
    return tuple(one for one in members if sizes[one] >= least)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class GateSpec:
    """One gate file: `*.circuit.yaml`, or `*.gate.yaml` where it declares no circuit. Lines and the
    path say where it came from and are no part of equality.

    `members` are the circuit's heads and MLP layers; they are empty, and `auto` true, for `circuit:
    auto`, and empty where there is no circuit. `pairs` is None where no measure needs prompts.
    `one_by_one`: the members that limits on each member judge, or "all"; None: see `judged_alone`.
    `confidence` is the one-sided level of each decision. `found` is provenance, kept verbatim.
    `core`: of the bundled circuits of one base, whether it is among those that a run judges where
    nobody names any. `prompt_seed`, of the run, draws prompts anew: others of a task (of held-out
    words and templates too), others of a file that holds more than are drawn; None: those that the
    file fixes. `new_task`: prompts of what tuned was trained on, for measures that compare the two.
    """

    name: str
    capability: str
    pairs: Source | None
    readout: str
    members: tuple[Member, ...]
    limits: tuple[Limit, ...]
    auto: bool = False
    description: str = ""
    fits: Fits | None = None
    core: bool = False
    chat_template: ChatTemplate = field(default=False, hash=False)
    site: str = "contribution"
    confidence: float = DEFAULT_CONFIDENCE
    prompt_seed: int | None = None
    found: Mapping[str, Any] | None = field(default=None, hash=False)
    one_by_one: tuple[Member, ...] | Literal["all"] | None = None
    new_task: Prompts | None = None
    path: Path | None = field(default=None, compare=False)
    member_lines: tuple[int, ...] = field(default=(), compare=False)
    circuit_line: int = field(default=0, compare=False)

    @property
    def has_circuit(self) -> bool:
        """Whether it declares one, or asks for one to be found."""
        return self.auto or bool(self.members)

    @property
    def has_pairs(self) -> bool:
        """Whether it gives prompt pairs, and not prompts alone, or nothing."""
        return isinstance(self.pairs, TaskPairs | FilePairs | InlinePairs)

    @property
    def judged_alone(self) -> tuple[Member, ...]:
        """The members that limits on each member hold, one by one: those named in `one_by_one`; by
        default those that carry the capability by the effects in `found` (`carrying`), and all
        where the file has none. Known before any data: what is judged is not chosen on it."""
        if self.one_by_one is None:
            found = self.found or {}
            return carrying(self.members, found.get("scores"), found.get("whole_effect"))
        if self.one_by_one == "all":
            return self.members
        return tuple(one for one in self.members if one in self.one_by_one) or self.members

    @property
    def judges_all(self) -> bool:
        """Whether every member is judged alone."""
        return self.judged_alone == self.members

    def where(self, line: int) -> str:
        """`file:line` for a message; the circuit's name where it came from no file."""
        return f"{self.path}:{line}" if self.path else f"circuit {self.name!r}"
