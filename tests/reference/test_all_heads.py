"""Loss that a circuit's own heads do not show: in the other heads, and in MLP layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import literal
import numpy as np
import pytest
import torch
from random_pairs import readouts
from tiny_copies import BASE, Damage, copy_of_base
from torch import Tensor

import forgetguard as fg
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, Member, Mlp, heads_of
from forgetguard.capabilities.encoding import EncodedPair
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import GateSpec, Limit, TaskPairs, load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
LIMITS = (Limit("dcv.circuit", 0.10), Limit("dcv.all", 0.10), Limit("dcv.head", 0.25))
# L0H4, the head that matters most, is left out of the circuit.
OUTSIDE = Head(0, 4)
HEADS: tuple[Member, ...] = (Head(0, 0), Head(0, 3), Head(2, 2))


def circuit(
    heads: Sequence[Member] = HEADS, limits: tuple[Limit, ...] = LIMITS, task: str = "ioi"
) -> GateSpec:
    spec = load_gate_file(CIRCUITS / f"tiny-{task}.circuit.yaml")
    pairs = TaskPairs(task, 32, 11)
    return replace(spec, members=tuple(heads), limits=limits, pairs=pairs, member_lines=())


def facts(members: Sequence[Member]) -> GateSpec:
    """Of the tiny model's capabilities the one that rests on MLP layers."""
    return circuit(members, (LIMITS[0], LIMITS[2]), "fact_recall")


def session(tuned: Path, *circuits: GateSpec) -> GateSession:
    pair = fg.load(base=str(BASE), tuned=str(tuned), allow_same=True)
    return GateSession(pair, circuits)


def verdicts(tuned: Path, spec: GateSpec) -> dict[str, Verdict]:
    measured = session(tuned, spec)
    return {limit.key: measured.judge(spec, limit) for limit in spec.limits}


def output_of_head(head: Head) -> Damage:
    def damage(tensors: dict[str, Tensor]) -> None:
        weight = tensors[f"model.layers.{head.layer}.self_attn.o_proj.weight"]
        weight[:, head.index * 16 : (head.index + 1) * 16] = 0.0

    return damage


def output_of_mlp(layer: int) -> Damage:
    def damage(tensors: dict[str, Tensor]) -> None:
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()

    return damage


def test_damage_outside_the_circuit_is_seen_by_all_heads_together(tmp_path: Path) -> None:
    """In a head of the same layer as the circuit's first ones, which therefore inherit nothing."""
    spec = circuit(HEADS[:2])
    found = verdicts(copy_of_base(tmp_path, output_of_head(OUTSIDE)), spec)
    assert found["dcv.circuit"].outcome is Outcome.PASS
    assert found["dcv.head"].outcome is Outcome.PASS
    assert found["dcv.all"].outcome is Outcome.FAIL
    whole, every = (found[key].estimate for key in ("dcv.circuit", "dcv.all"))
    assert whole is not None
    assert every is not None
    assert (whole.value, whole.low, whole.high) == (0.0, 0.0, 0.0)
    assert every.low > 0.1


def test_all_heads_of_a_byte_copy_read_exactly_zero(tmp_path: Path) -> None:
    spec = circuit()
    copy = copy_of_base(tmp_path)
    measurement = session(copy, spec).measurement(spec)
    assert not measurement.need("damage", "all").any()
    assert measurement.need("importance", "all", "base").mean() > 1.0
    verdict = verdicts(copy, spec)["dcv.all"]
    assert verdict.outcome is Outcome.PASS
    assert verdict.estimate is not None
    assert (verdict.estimate.value, *verdict.estimate.interval) == (0.0, 0.0, 0.0)


def test_all_heads_equal_a_literal_patch_of_all_heads(tmp_path: Path) -> None:
    spec = replace(circuit(), pairs=TaskPairs("ioi", 12, 4))
    copy = copy_of_base(tmp_path, output_of_head(OUTSIDE))
    measurement = session(copy, spec).measurement(spec)
    base, tuned = (locate(load_model(resolve(str(at), "base"))) for at in (BASE, copy))
    ioi = fg.capability("ioi", pairs=12, seed=4).encoded(fg.load(base=str(BASE)).base.tokenizer)
    assert [pair.pair for pair in ioi.encoded.pairs] == list(measurement.units)

    def from_tuned(pair: EncodedPair) -> dict[Member, Tensor]:
        z = literal.activations(tuned, torch.tensor([pair.clean]))
        return {head: z[head] for head in base.heads}

    def from_counterfactual(pair: EncodedPair) -> dict[Member, Tensor]:
        z = literal.activations(base, torch.tensor([pair.counterfactual]))
        return {head: z[head] for head in base.heads}

    clean = readouts(base, ioi)
    damage = clean - readouts(base, ioi, from_tuned, tuned)
    importance = clean - readouts(base, ioi, from_counterfactual)
    np.testing.assert_allclose(measurement.need("damage", "all"), damage, atol=2e-4)
    np.testing.assert_allclose(measurement.need("importance", "all", "base"), importance, atol=2e-4)
    assert damage.mean() / importance.mean() > 0.05


def test_all_heads_are_not_patched_where_no_limit_asks(tmp_path: Path) -> None:
    spec = circuit(limits=LIMITS[:1])
    measurement = session(copy_of_base(tmp_path), spec).measurement(spec)
    assert measurement.get("damage", "all") is None


def test_a_circuit_of_all_heads_has_the_dcv_of_all_heads(tmp_path: Path) -> None:
    heads = tuple(Head(layer, index) for layer in range(4) for index in range(6))
    spec = circuit(heads[::-1])
    copy = copy_of_base(tmp_path, output_of_head(OUTSIDE))
    measurement = session(copy, spec).measurement(spec)
    np.testing.assert_allclose(
        measurement.need("damage", "all"), measurement.need("damage", "circuit"), atol=1e-5
    )


# --- MLP layers -----------------------------------------------------------------------------------

WITH_MLP: tuple[Member, ...] = (Head(0, 4), Mlp(0), Mlp(1), Head(2, 2))


def test_a_damaged_mlp_of_the_circuit_is_found_and_named(tmp_path: Path) -> None:
    spec = facts(WITH_MLP)
    found = verdicts(copy_of_base(tmp_path, output_of_mlp(1)), spec)
    assert found["dcv.circuit"].outcome is Outcome.FAIL
    assert found["dcv.head"].outcome is Outcome.FAIL
    estimate = found["dcv.circuit"].estimate
    assert estimate is not None
    assert estimate.low > 0.1
    evidence = {one.subject: one for one in found["dcv.head"].subjects}
    assert set(evidence) == {"L0H4", "L0MLP", "L1MLP", "L2H2"}
    mlp = evidence["L1MLP"].value
    assert mlp is not None
    assert mlp.low > 0.25
    for name in ("L0H4", "L0MLP"):  # before the damage
        before = evidence[name].value
        assert before is None or before.value == 0.0


def test_own_damage_is_of_heads_only(tmp_path: Path) -> None:
    spec = facts(WITH_MLP)
    measured = session(copy_of_base(tmp_path, output_of_mlp(1)), spec)
    measurement = measured.measurement(spec)
    assert set(measurement.subjects("own_damage")) == {str(head) for head in heads_of(WITH_MLP)}
    for head in heads_of(WITH_MLP):  # their own weights are the base's
        assert not measurement.need("own_damage", str(head)).any(), head
    verdict = measured.judge(spec, spec.limits[1])
    told = [one for one in verdict.subjects if one.value is not None]
    assert any(not one.subject.endswith("MLP") for one in told)
    for one in told:
        assert (one.own is None) == one.subject.endswith("MLP"), one


@pytest.mark.parametrize("members", [WITH_MLP, (Mlp(0),), (Mlp(3), Mlp(1))])
def test_a_byte_copy_reads_exactly_zero_with_mlps_too(
    members: tuple[Member, ...], tmp_path: Path
) -> None:
    spec = facts(members)
    measurement = session(copy_of_base(tmp_path), spec).measurement(spec)
    assert not measurement.need("damage", "circuit").any()
    for quantity in ("damage", "own_damage"):
        for name in measurement.subjects(quantity):
            assert not measurement.need(quantity, name).any(), (quantity, name)
    assert set(measurement.subjects("damage")) == {"circuit", *map(str, members)}


def test_a_circuit_of_one_mlp_gates(tmp_path: Path) -> None:
    """Nothing of it is a head, so nothing is an attention to keep."""
    spec = facts((Mlp(1),))
    found = verdicts(copy_of_base(tmp_path, output_of_mlp(1)), spec)
    assert found["dcv.circuit"].outcome is Outcome.FAIL
    (evidence,) = found["dcv.head"].subjects
    assert (evidence.subject, evidence.own) == ("L1MLP", None)
