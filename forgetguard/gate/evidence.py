"""What stands beside a decision: heads, prompt pairs, controls and notes. It decides nothing.
[light]"""

from __future__ import annotations

import numpy as np

from forgetguard.gate import studentised, wording
from forgetguard.gate.case import Case
from forgetguard.gate.head_family import judged_heads, worst_first
from forgetguard.gate.verdict import ControlEvidence, HeadEvidence, PairEvidence

SMALL_CIRCUIT = 0.1  # share of the readout below which a circuit hardly carries the capability


def heads_beside(case: Case, fewest_pairs: int) -> tuple[HeadEvidence, ...]:
    """The heads beside a limit that is not about them, where they were measured; never a reason
    to stop."""
    data = case.data
    sources = [data.head_importance, data.head_damage]
    if case.limit.needs_reference:
        sources.append(data.reference_head_damage)
    if case.limit.needs_baseline:
        sources.append({} if data.baseline is None else data.baseline.head_damage)
    if case.count < fewest_pairs or not case.heads or data.circuit_importance is None:
        return ()
    if any(head not in source for source in sources for head in case.heads):
        return ()
    if not studentised.measurable(case.mean(data.circuit_importance)):
        return ()
    return worst_first(case, judged_heads(case))


def worst_pairs(case: Case, most: int) -> tuple[PairEvidence, ...]:
    """The pairs that lost most, first: by the circuit's damage for a DCV, else by the behaviour.
    Pairs that lost nothing are no evidence."""
    data = case.data
    behaviour = data.base_readout - data.tuned_readout
    damage = behaviour if data.circuit_damage is None else data.circuit_damage
    loss = damage if case.limit.key.startswith("dcv.") else behaviour
    order = [int(position) for position in np.argsort(-loss, kind="stable") if loss[position] > 0]
    return tuple(
        PairEvidence(
            clean=data.pairs[position].clean,
            counterfactual=data.pairs[position].counterfactual,
            answer=data.pairs[position].answer,
            distractor=data.pairs[position].distractor,
            base=float(data.base_readout[position]),
            patched=float(data.base_readout[position] - damage[position]),
            tuned=float(data.tuned_readout[position]),
        )
        for position in order[:most]
    )


def controls(case: Case) -> tuple[ControlEvidence, ...]:
    """Beside `dcv.circuit`: what other heads from tuned cost on the same pairs, as a share of the
    importance of this circuit, so that the numbers compare."""
    data = case.data
    if case.limit.key != "dcv.circuit" or not data.controls or data.circuit_importance is None:
        return ()
    worthless = (
        case.count < 2  # no spread to estimate
        or not studentised.measurable(case.mean(data.circuit_importance))
    )
    found = []
    for one in data.controls:
        dcv, note = None, one.note
        if one.damage is not None and worthless:
            note = "the circuit's importance cannot be told from 0, so nothing compares with it"
        elif one.damage is not None:
            dcv = case.ratio(one.damage, data.circuit_importance).estimate
        found.append(ControlEvidence(one.name, tuple(map(str, one.members)), dcv, note))
    return tuple(found)


def notes(case: Case) -> tuple[str, ...]:
    """What a reader of the verdict should know of the pairs and of the circuit."""
    data = case.data
    found = list(data.notes)
    if data.dropped:
        found.append(f"{data.dropped} of {data.dropped + case.count} pairs were dropped")
    templates = {pair.template for pair in data.pairs if pair.template}
    if templates and case.clusters is None:
        found.append(
            f"the pairs come from {len(templates)} template{'s' * (len(templates) > 1)}: the "
            "interval speaks of no others"
        )
    if data.looks:
        found.append(_drawing(data.looks, case.count))
    if data.circuit_importance is not None and case.limit.key.startswith("dcv."):
        found += _weight(float(data.circuit_importance.mean()), float(data.base_readout.mean()))
    return tuple(found)


def _drawing(looks: tuple[int, ...], pairs: int) -> str:
    most, look = looks[-1], looks.index(pairs) + 1
    saved = f": {most - pairs} pairs saved" if pairs < most else ""
    return (
        f"drawn look by look: {pairs} of at most {most} pairs, look {look} of {len(looks)}{saved}"
    )


def _weight(importance: float, readout: float) -> list[str]:
    if importance < 0:
        return [
            "patching the circuit from the counterfactual RAISES the readout: as a whole it works "
            "against the capability"
        ]
    if importance < SMALL_CIRCUIT * abs(readout):
        carried = wording.share(importance / abs(readout))
        return [
            f"the circuit carries {carried} of the readout: most of the capability lies elsewhere"
        ]
    return []
