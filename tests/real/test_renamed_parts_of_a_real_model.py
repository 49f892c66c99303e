"""On a real model: renamed parts are no damage, damage behind new names is found, and the margin
sees what a difference of two logits does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from record.copies import HEAD, LAYER
from record.real_runs import HEADS, circuit
from renaming import (
    Edit,
    final_norm_scaled,
    groups_rotated,
    head_silenced,
    heads_permuted,
    norms_folded,
    renamed_copy,
    stream_permuted,
    stream_scaled,
    unembedding_noised,
)

from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.samples import CIRCUIT, DAMAGE, IMPORTANCE, OWN_DAMAGE, Samples

PAIRS = 16
LIMITS = {"dcv.circuit": 0.10, "dcv.head": 0.25, "readout.drop": 0.20}
PLANTED = f"L{LAYER}H{HEAD}"
Gate = Callable[..., tuple[dict[str, Verdict], Samples]]


@pytest.fixture
def gate(base: Path, tmp_path: Path) -> Gate:
    def run(
        *edits: Edit, task: str = "induction", readout: str = "logit_diff", pairs: int = PAIRS
    ) -> tuple[dict[str, Verdict], Samples]:
        torch.set_num_threads(1)
        text = circuit(task, pairs, LIMITS).replace("readout: logit_diff", f"readout: {readout}")
        spec = parse_gate(text, tmp_path / "a.circuit.yaml")
        tuned = renamed_copy(base, tmp_path / "tuned", *edits)
        with ModelPair([resolve(str(base), "base"), resolve(str(tuned), "tuned")]) as pair:
            session = GateSession(pair, [spec])
            data = session.measurement(spec)
            return {limit.key: judge(spec, limit, data) for limit in spec.limits}, data

    return run


@pytest.mark.parametrize(
    ("edit", "matched"),
    [
        (heads_permuted, True),
        pytest.param(groups_rotated, True, marks=pytest.mark.slow),
        (stream_permuted, False),
        pytest.param(stream_scaled, False, marks=pytest.mark.slow),
    ],
)
def test_renamed_parts_are_the_same_function(gate: Gate, edit: Edit, matched: bool) -> None:
    verdicts, data = gate(edit)
    for key in ("dcv.circuit", "dcv.head"):
        one = verdicts[key]
        assert (one.outcome, one.code) == (Outcome.PASS, Code.SAME_FUNCTION)
        # Measured: 3e-5 nats, 5e-3 where the stream is scaled and the norms' epsilon is not.
        assert one.facts["largest"] <= one.facts["tolerance"] < 0.02
        assert sorted(one.facts["matches"]) == sorted(HEADS["induction"].split(", ") * matched)
    share = data.need(DAMAGE, CIRCUIT).mean() / data.need(IMPORTANCE, CIRCUIT, "base").mean()
    assert bool(abs(share) < 1e-4) is matched
    assert verdicts["readout.drop"].outcome is not Outcome.FAIL


def test_folded_norms_are_no_damage_and_no_own_damage(gate: Gate) -> None:
    verdicts, data = gate(norms_folded)
    assert {one.outcome for one in verdicts.values()} == {Outcome.PASS}
    for name in HEADS["induction"].split(", "):
        assert abs(data.need(OWN_DAMAGE, name)).max() < 1e-3


@pytest.mark.parametrize(
    "edits",
    [
        (heads_permuted,),
        pytest.param((groups_rotated, norms_folded), marks=pytest.mark.slow),
    ],
)
def test_damage_behind_new_names_fails_and_is_named_by_the_base(
    gate: Gate, edits: tuple[Edit, ...]
) -> None:
    verdicts, data = gate(head_silenced(LAYER, HEAD), *edits)
    assert (verdicts["dcv.circuit"].outcome, verdicts["dcv.circuit"].code) == (
        Outcome.FAIL,
        Code.BEYOND,
    )
    damage, own = data.need(DAMAGE, PLANTED), data.need(OWN_DAMAGE, PLANTED)
    assert damage.mean() / data.need(IMPORTANCE, PLANTED, "base").mean() > 0.5
    assert own == pytest.approx(damage, abs=1e-3)
    assert verdicts["dcv.head"].subjects[0].subject == PLANTED


@pytest.mark.parametrize(
    ("edit", "least"),
    [
        (final_norm_scaled, 0.0),
        pytest.param(unembedding_noised, 0.5, marks=pytest.mark.slow),
    ],
)
def test_the_margin_is_moved_by_a_lost_first_place_and_by_no_scale(
    gate: Gate, edit: Edit, least: float
) -> None:
    """In standard deviations of the logits; the base's own mean is too near 0 on so few pairs for
    a share of it to be judged."""
    verdicts, data = gate(edit, task="ioi", readout="margin")
    lost = data.need("readout", role="base") - data.need("readout")
    if least:
        assert lost.mean() > least
    else:
        assert lost == pytest.approx(0.0, abs=1e-4)
        assert verdicts["readout.drop"].outcome is not Outcome.FAIL
