"""A checkpoint that computes the base's function fails nothing, however its parts are called; and
what is damaged behind new names is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from renaming import (
    Edit,
    groups_rotated,
    head_silenced,
    heads_permuted,
    norms_folded,
    renamed_copy,
    stream_permuted,
    stream_scaled,
)
from tiny_copies import BASE

from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.samples import BASE as OF_BASE
from forgetguard.measures.samples import CIRCUIT, DAMAGE, OWN_DAMAGE, Samples

HEADS = ("L0H1", "L0H4", "L1H4", "L2H2", "L3H1")
CIRCUITS = Path(__file__).parents[2] / "circuits"
TEXT = f"""\
forgetguard: 1
capability: induction
pairs: {{file: prompts/tiny-induction.jsonl, count: 24}}
readout: logit_diff
circuit: [{", ".join(HEADS)}]
limits:
  dcv.circuit: {{max: 0.10}}
  dcv.head: {{max: 0.25}}
  dcv.all: {{max: 0.10}}
  readout.drop: {{max: 0.10}}
"""
OVER = TEXT + "  dcv.circuit.over_reference: {max: 0.10}\n"
Gate = Callable[..., tuple[dict[str, Verdict], Samples]]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    def run(
        *edits: Edit, reference: tuple[Edit, ...] = (), text: str = TEXT
    ) -> tuple[dict[str, Verdict], Samples]:
        torch.set_num_threads(1)
        given = {"base": BASE, "tuned": renamed_copy(BASE, tmp_path / "tuned", *edits)}
        if reference:
            given["reference"] = renamed_copy(BASE, tmp_path / "reference", *reference)
        spec = parse_gate(text, CIRCUITS / "a.circuit.yaml")
        specs = {role: resolve(str(where), role) for role, where in given.items()}
        with ModelPair(specs) as pair:
            session = GateSession(pair, [spec])
            data = session.measurement(spec)
            return {limit.key: judge(spec, limit, data) for limit in spec.limits}, data

    return run


def ruled_without_function(verdicts: dict[str, Verdict]) -> bool:
    """Whether a DCV would fail, were the function not looked at."""
    return any(one.facts["corrected_low"] > one.bound for one in dcv(verdicts))


def dcv(verdicts: dict[str, Verdict]) -> list[Verdict]:
    return [one for key, one in verdicts.items() if key.startswith("dcv.")]


@pytest.mark.parametrize("edit", [heads_permuted, groups_rotated])
def test_reordered_heads_are_matched_and_have_lost_nothing(gate: Gate, edit: Edit) -> None:
    verdicts, data = gate(edit)
    for one in dcv(verdicts):
        assert (one.outcome, one.code) == (Outcome.PASS, Code.SAME_FUNCTION)
        assert 0 < one.facts["largest"] < 0.05 * one.facts["tolerance"]
    # Two heads a group, three groups: each head's work is done in the next place but one, or two.
    step = {heads_permuted: lambda i: i ^ 1, groups_rotated: lambda i: (i - 2) % 6}[edit]
    expected = {name: f"{name[:3]}{step(int(name[3:]))}" for name in HEADS}
    assert verdicts["dcv.head"].facts["matches"] == expected
    for name in (*HEADS, CIRCUIT):
        worth = abs(data.need("importance", name, OF_BASE)).mean()
        assert abs(data.need(DAMAGE, name)).max() < 1e-4 * worth


@pytest.mark.parametrize("edit", [stream_permuted, stream_scaled])
def test_another_residual_stream_is_the_same_function(gate: Gate, edit: Edit) -> None:
    verdicts, data = gate(edit)
    for one in dcv(verdicts):
        assert (one.outcome, one.code) == (Outcome.PASS, Code.SAME_FUNCTION)
        assert one.facts["matches"] == {}
        assert one.facts["largest"] <= one.facts["tolerance"]
        # Read by name, what was patched in is not what the base writes.
        assert abs(data.need(DAMAGE, CIRCUIT)).max() > 20 * one.facts["tolerance"]
    assert ruled_without_function(verdicts) is (edit is stream_permuted)
    assert verdicts["readout.drop"].code is Code.WITHIN


def test_folded_norms_are_no_damage_and_no_own_damage(gate: Gate) -> None:
    verdicts, data = gate(norms_folded)
    assert {one.code for one in verdicts.values()} == {Code.WITHIN}
    for name in HEADS:
        worth = abs(data.need("importance", name, OF_BASE)).mean()
        assert abs(data.need(OWN_DAMAGE, name)).max() < 1e-4 * worth


@pytest.mark.parametrize(
    "edits", [(heads_permuted,), (groups_rotated,), (norms_folded, heads_permuted)]
)
def test_damage_behind_new_names_fails_and_is_named_by_the_base(
    gate: Gate, edits: tuple[Edit, ...]
) -> None:
    # Folding leaves rounding in heads that lost nothing, and they count among the limit's heads.
    verdicts, _ = gate(head_silenced(0, 1), *edits, text=TEXT.replace("count: 24", "count: 64"))
    for key in ("dcv.circuit", "dcv.head", "readout.drop"):
        assert (verdicts[key].outcome, verdicts[key].code) == (Outcome.FAIL, Code.BEYOND)
    worst = verdicts["dcv.head"].subjects[0]
    assert worst.subject == "L0H1"
    assert worst.own is not None
    assert worst.value is not None
    assert worst.own.value == pytest.approx(worst.value.value, rel=1e-3)
    own = {one.subject: one.own.value for one in verdicts["dcv.head"].subjects if one.own}
    assert max(abs(value) for name, value in own.items() if name != "L0H1") < 1e-3


def test_matched_damage_is_the_damage_of_the_plain_copy(gate: Gate, tmp_path: Path) -> None:
    _, renamed = gate(head_silenced(0, 1), heads_permuted)
    (tmp_path / "tuned").rename(tmp_path / "first")
    _, plain = gate(head_silenced(0, 1))
    for name in (*HEADS, CIRCUIT):
        expected = plain.need(DAMAGE, name)
        assert renamed.need(DAMAGE, name) == pytest.approx(expected, abs=1e-3)
    assert abs(plain.need(DAMAGE, CIRCUIT)).mean() > 1


def test_a_renamed_model_with_damage_elsewhere_does_not_pass_as_the_same(gate: Gate) -> None:
    """The residual stream cannot be matched, so its heads read as lost; that stands, for the
    function is another."""
    verdicts, _ = gate(head_silenced(0, 2), stream_permuted)
    assert {one.outcome for one in dcv(verdicts)} == {Outcome.FAIL}


def test_a_difference_to_a_reference_with_other_names_is_none(gate: Gate) -> None:
    verdicts, _ = gate(head_silenced(0, 1), reference=(stream_permuted,), text=OVER)
    over = verdicts["dcv.circuit.over_reference"]
    assert (over.outcome, over.code) == (Outcome.ABSTAIN, Code.RENAMED)
    assert over.facts["roles"] == ["reference"]


def test_a_reference_whose_heads_moved_is_compared_head_by_head(gate: Gate) -> None:
    verdicts, _ = gate(head_silenced(0, 1), reference=(heads_permuted,), text=OVER)
    plain = verdicts["dcv.circuit"].estimate
    over = verdicts["dcv.circuit.over_reference"].estimate
    assert plain is not None
    assert over is not None
    assert over.value == pytest.approx(plain.value, abs=1e-4)
