"""Which members of a circuit are judged one by one: by the file, before any data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.gate.records import spec_from_dict, spec_to_dict
from forgetguard.gate.schema import GateSpec, dump, parse_gate

FOUND = "found: {scores: {L0H1: 5.0, L1H2: -1.0, L2H3: 0.99}, whole_effect: 10.0}\n"


def circuit(more: str = "", heads: str = "[L0H1, L1H2, L2H3]") -> GateSpec:
    text = (
        "forgetguard: 1\ncapability: ioi\npairs: {task: ioi, count: 64}\nreadout: logit_diff\n"
        f"circuit: {heads}\nlimits:\n  dcv.head: {{max: 0.25}}\n{more}"
    )
    return parse_gate(text, Path("a.circuit.yaml"))


def alone(spec: GateSpec) -> list[str]:
    return [str(one) for one in spec.judged_alone]


def test_a_tenth_of_the_whole_effect_in_either_direction_is_judged_alone() -> None:
    assert alone(circuit(FOUND)) == ["L0H1", "L1H2"]


def test_a_member_without_a_known_effect_is_judged_alone() -> None:
    assert alone(circuit(FOUND, "[L0H1, L2H3, L3H0]")) == ["L0H1", "L3H0"]


def test_where_no_member_carries_a_tenth_the_largest_is_judged_alone() -> None:
    found = "found: {scores: {L0H1: 0.1, L1H2: 0.3, L2H3: 0.2}, whole_effect: 10.0}\n"
    assert alone(circuit(found)) == ["L1H2"]


@pytest.mark.parametrize(
    "found",
    [
        "",
        "found: {scores: {L0H1: 5.0}}\n",
        "found: {scores: {L0H1: much}, whole_effect: 10.0}\n",
        "found: {scores: {L0H1: .nan}, whole_effect: 10.0}\n",
        "found: {whole_effect: 10.0}\n",
    ],
)
def test_without_effects_all_members_are_judged_alone(found: str) -> None:
    assert alone(circuit(found)) == ["L0H1", "L1H2", "L2H3"]


def test_the_file_may_name_them_or_ask_for_all() -> None:
    assert alone(circuit(FOUND + "one_by_one: all\n")) == ["L0H1", "L1H2", "L2H3"]
    assert alone(circuit(FOUND + "one_by_one: [L2H3]\n")) == ["L2H3"]
    with pytest.raises(SpecificationError, match=r"a.circuit.yaml:8: one_by_one: L9H9 is not in"):
        circuit("one_by_one: [L9H9]\n")
    with pytest.raises(SpecificationError, match=r"one_by_one is empty"):
        circuit("one_by_one: []\n")


@pytest.mark.parametrize("more", ["", FOUND, FOUND + "one_by_one: all\n", "one_by_one: [L2H3]\n"])
def test_it_is_written_read_and_recorded(more: str) -> None:
    spec = circuit(more)
    again = parse_gate(dump(spec), Path("a.circuit.yaml"))
    assert again == spec
    assert spec_from_dict(spec_to_dict(spec)).judged_alone == spec.judged_alone


def test_other_members_in_place_of_those_named_are_all_judged_alone() -> None:
    spec = circuit("one_by_one: [L2H3]\n")
    other = replace(spec, members=spec.members[:2])
    assert other.judged_alone == other.members
