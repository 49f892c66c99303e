"""A certificate holds exactly what was measured: nothing rounded, nothing left out."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forgetguard.gate.measurement import Control, Measurement
from forgetguard.gate.recorded import Recorded
from hypothesis import given
from hypothesis import strategies as st

from forgetguard.anatomy.members import Head, Mlp
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate import certificate, seal
from forgetguard.gate.declaration import CircuitSpec, FilePairs, InlinePairs, Limit, TaskPairs
from forgetguard.gate.schema import load_circuit_file
from forgetguard.report import json_file

MEMBERS = (Head(0, 1), Head(11, 4), Mlp(3))
numbers = st.floats(allow_nan=False)
texts = st.text(max_size=8)


def filled(pairs: int = 5, members: tuple[Any, ...] = MEMBERS, seed: int = 0) -> Measurement:
    """A measurement in which every field holds something."""
    rng = np.random.default_rng(seed)

    def some() -> Any:
        # Differences of float32 numbers, as readouts are: their decimals are long.
        return rng.standard_normal(pairs).astype(np.float32).astype(np.float64) / 3

    flags = rng.random(pairs) > 0.5
    return Measurement(
        pairs=tuple(
            PromptPair(f"When Mary {i}", f"When John {i}", " y", None if i % 2 else " n", f"t{i}")
            for i in range(pairs)
        ),
        base_readout=some(),
        tuned_readout=some(),
        base_correct=flags,
        tuned_correct=~flags,
        circuit_importance=some(),
        circuit_damage=some(),
        all_importance=some(),
        all_damage=some(),
        head_importance={head: some() for head in members},
        head_damage={head: some() for head in members},
        head_own_damage={head: some() for head in members},
        reference_circuit_damage=some(),
        reference_head_damage={head: some() for head in members},
        dropped=3,
        notes=("dropped 3: too long",),
        looks=(2, pairs),
        controls=(Control("random 1", (Head(1, 1),), some()), Control("b", (), None, "shared")),
        baseline=Recorded(some(), flags, some(), some(), {head: some() for head in members}),
    )


def through_json(value: Any) -> Any:
    return json.loads(json_file.text_of(value))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and bool(np.array_equal(left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (Recorded, Control)):
        names = [one.name for one in fields(left)]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_every_field_of_a_measurement_comes_back_bit_for_bit() -> None:
    before = filled()
    after = certificate.measurement_from_dict(through_json(certificate.measurement_to_dict(before)))
    for one in fields(Measurement):
        value = getattr(before, one.name)
        assert value is not None, f"{one.name}: fill it in, or this test says nothing about it"
        assert value not in ((), {}, 0) if not isinstance(value, np.ndarray) else value.size
        assert same(value, getattr(after, one.name)), one.name


@given(st.lists(numbers, min_size=1, max_size=9))
def test_any_number_comes_back_as_it_was(values: list[float]) -> None:
    array = np.array(values)
    flags = np.ones(len(values), dtype=bool)
    pairs = tuple(PromptPair(f"x{i}", "x'", "y") for i in range(len(values)))
    before = Measurement(pairs, array, array, flags, flags, circuit_damage=array)
    after = certificate.measurement_from_dict(through_json(certificate.measurement_to_dict(before)))
    assert after.circuit_damage is not None
    assert after.circuit_damage.tobytes() == array.tobytes()  # -0.0 and subnormals, too


def test_what_was_not_measured_stays_so() -> None:
    array, flags = np.zeros(2), np.ones(2, dtype=bool)
    pairs = (PromptPair("a", "b", "c"), PromptPair("d", "e", "f"))
    data = certificate.measurement_to_dict(Measurement(pairs, array, array, flags, flags))
    assert "all_damage" not in data
    assert certificate.measurement_from_dict(data).all_damage is None
    assert certificate.measurement_from_dict(data).baseline is None


@pytest.mark.parametrize(
    "spec",
    [
        TaskPairs("ioi", 64, 3, line=4, most=256),
        FilePairs(Path("/nowhere/ioi.jsonl"), 64, line=4),
        InlinePairs(()),
    ],
)
def test_a_circuit_comes_back_with_what_decides_its_limits(spec: Any) -> None:
    before = CircuitSpec(
        name="c",
        capability="ioi",
        pairs=spec,
        readout="logprob",
        heads=MEMBERS,
        limits=(Limit("dcv.circuit", 0.1, 7), Limit("dcv.head", 0.25, 8, floor=0.0)),
        auto=True,
        chat_template=True,
        site="z",
        confidence=0.9,
        path=Path("/nowhere/c.circuit.yaml"),
    )
    after = certificate.circuit_from_dict(through_json(certificate.circuit_to_dict(before)))
    assert after == before
    assert after.path == before.path
    assert [limit.line for limit in after.limits] == [7, 8]


def test_a_circuit_file_and_its_prompts_are_named_by_the_hash_of_their_bytes(
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "p.jsonl"
    pair = {"counterfactual": "b", "answer": "c", "distractor": "d"}
    prompts.write_text("".join(json.dumps({"clean": f"a{i}", **pair}) + "\n" for i in range(8)))
    file = tmp_path / "c.circuit.yaml"
    file.write_text(
        "forgetguard: 1\ncapability: x\npairs: {file: p.jsonl}\nreadout: logit_diff\n"
        "circuit: [L0H1]\nlimits: {dcv.circuit: {max: 0.1}}\n"
    )
    data = certificate.circuit_to_dict(load_circuit_file(file))
    assert data["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert data["pairs"]["sha256"] == hashlib.sha256(prompts.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", [{"pairs": 3}, {"base_readout": ["x"]}, {"dropped": None}])
def test_what_is_no_measurement_is_refused(damage: dict[str, Any]) -> None:
    data = certificate.measurement_to_dict(filled()) | damage
    with pytest.raises(SpecificationError, match="not a measurement"):
        certificate.measurement_from_dict(data)


def test_another_prompt_under_the_hash_of_the_old_is_refused() -> None:
    data = certificate.measurement_to_dict(filled())
    data["pairs"][0][0] = "When Sue"
    with pytest.raises(SpecificationError, match="prompts_sha256"):
        certificate.measurement_from_dict(data)


# --- hashes ----------------------------------------------------------------------------------


@given(st.permutations([PromptPair(f"x{i}", "x'", "y", "n" if i % 2 else None) for i in range(5)]))
def test_a_prompt_set_is_the_same_in_any_order(pairs: list[PromptPair]) -> None:
    assert certificate.digest_pairs(pairs) == certificate.digest_pairs(sorted(pairs, key=str))


def test_a_prompt_set_is_another_when_one_letter_is() -> None:
    pair = PromptPair("a", "b", "c", "d", "t")
    for name in ("clean", "counterfactual", "answer", "distractor", "template"):
        other = replace(pair, **{name: "z"})
        assert certificate.digest_pairs([pair]) != certificate.digest_pairs([other])


def test_a_digest_is_that_of_canonical_json() -> None:
    by_hand = hashlib.sha256(b'{"a":[1.5,null,"\\u00e9"],"b":{"c":true}}').hexdigest()
    assert seal.digest({"b": {"c": True}, "a": [1.5, None, "é"]}) == by_hand


def document() -> dict[str, Any]:
    return seal.sealed({"a": 1.25, "b": [True, None, "x"], "c": {"d": -0.0}})


def test_a_seal_does_not_mind_spacing_or_order() -> None:
    again = json.loads(json.dumps(document(), indent=7, sort_keys=True))
    seal.check_seal(again, "it")


@pytest.mark.parametrize(
    "path", [("a", 1.2500000000000002), ("b", [True, None, "y"]), ("e", 1), ("c", {"d": 0})]
)
def test_a_seal_finds_any_edit(path: tuple[str, Any]) -> None:
    edited = document() | {path[0]: path[1]}
    with pytest.raises(SpecificationError, match="does not match its checksum"):
        seal.check_seal(edited, "it")


@given(st.randoms(use_true_random=False))
def test_a_seal_finds_any_number_that_is_nudged(rng: random.Random) -> None:
    data = seal.sealed({"measured": certificate.measurement_to_dict(filled())})
    values = data["measured"]["head_damage"][str(rng.choice(MEMBERS))]
    place = rng.randrange(len(values))
    values[place] = float(np.nextafter(values[place], np.inf))
    with pytest.raises(SpecificationError, match="checksum"):
        seal.check_seal(data, "it")


@pytest.mark.parametrize("checksum", [None, {}, "abc"])
def test_a_file_without_a_checksum_is_not_whole(checksum: Any) -> None:
    with pytest.raises(SpecificationError, match="no checksum"):
        seal.check_seal(document() | {"checksum": checksum}, "it")


def test_five_circuits_of_26_heads_on_64_pairs_take_a_megabyte() -> None:
    members = tuple(Head(number // 12, number % 12) for number in range(26))
    entries = [
        {"measured": certificate.measurement_to_dict(filled(64, members, seed))}
        for seed in range(5)
    ]
    assert len(json_file.text_of({"circuits": entries})) < 1_100_000
