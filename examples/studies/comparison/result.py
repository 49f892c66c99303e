"""What a comparison found, as plain values: one column a model, and what stands between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from examples.studies.comparison.mask_shift import Mask, VulnerableHeads
from examples.studies.comparison.retention import Agreement, Retention, Spread
from forgetguard.anatomy.members import Head, Member, Mlp


@dataclass(frozen=True, slots=True)
class Split:
    """How many prompt pairs were used for what: masks learned on `learned_on`, everything but the
    behaviour read on the `held_out` others; `dropped` did not suit the tokenizer."""

    learned_on: int
    held_out: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Column:
    """One model. Spreads are over seeds; what is not defined is None, and `undefined` says why.

    Attributes:
        able: it can do the capability: at least half its answers are right (and its mean logit
            difference is above 0). Without that it has no circuit, and no mask is learned.
        accuracy, readout, probability: share of right answers, mean readout in nats, and mean
            geometric-mean probability of the answer, on all pairs.
        whole: F(all) - F(none) on the held-out pairs, in nats, none of its heads left.
        masks: one a seed; sizes: of their circuits, m > 0.5.
        faithfulness: of its own circuits, normalised; paper_faithfulness: F(C|M) / F(M) in
            geometric-mean probability; switched: see docs/comparison.md.
        transfer, paper_transfer: the same two of the base's circuits in this model.
        stability: its circuits among each other.
        necessity, sufficiency: by head, as shares of `whole`.
        shift: mask, averaged over seeds, minus the base's; mean_shift: the mean size of it.
        run_shift: mean size of the difference of one run's mask from one of the base's, over all
            such pairs of runs; in the base's own column, of different runs of the base.
        retention: of the base's circuit in this model; its `across` stands beside the ceiling.
        pearson, spearman: of necessity over heads, base against this model; in the base's own
            column, of one half of the held-out pairs against the other.
    """

    role: str
    checkpoint: str
    able: bool
    accuracy: float
    readout: float
    probability: float
    whole: float
    masks: tuple[Mask, ...]
    sizes: tuple[int, ...]
    faithfulness: Spread | None
    paper_faithfulness: Spread | None
    switched: Spread | None
    transfer: Spread | None
    paper_transfer: Spread | None
    stability: Agreement | None
    necessity: Mapping[Member, float] | None
    sufficiency: Mapping[Member, float] | None
    shift: Mapping[Member, float] | None
    mean_shift: float | None
    run_shift: Spread | None
    retention: Retention | None
    pearson: float | None
    spearman: float | None
    undefined: Mapping[str, str]

    def most_moved(self, most: int) -> tuple[Member, ...]:
        """The members whose mask moved most, the largest shift first."""
        shift = self.shift or {}
        moved = [member for member in shift if shift[member]]
        return tuple(sorted(moved, key=lambda one: (-abs(shift[one]), one))[:most])


@dataclass(frozen=True, slots=True)
class Comparison:
    """A capability in two or three models.

    Attributes:
        columns: base, tuned and, where there is one, the reference.
        heads: how many there are to choose from.
        settings: of the mask's learning.
        ablation: what takes heads away wherever some are.
        ceiling: agreement of the base's circuits found on one half of all pairs with those found
            on the other. What a model reaches of it is its `retention.across`, not its retention.
        vulnerable: C_vuln of tuned against `against`; only with a reference is it the paper's.
    """

    capability: str
    readout: str
    columns: tuple[Column, ...]
    heads: int
    split: Split
    seeds: tuple[int, ...]
    settings: Mapping[str, object]
    ablation: str
    delta: float
    least_stability: float
    ceiling: Agreement | None
    vulnerable: VulnerableHeads | None
    vulnerable_undefined: str | None
    against: str
    notes: tuple[str, ...]

    def column(self, role: str) -> Column:
        """The column of `base`, `tuned` or `reference` (raises KeyError)."""
        return {column.role: column for column in self.columns}[role]

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON holds; heads become their names."""
        found: dict[str, Any] = _plain(self)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, (Head, Mlp)):
        return str(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Set):
        return [_plain(one) for one in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
