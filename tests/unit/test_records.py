"""Records hold exactly what was read and decided: nothing rounded, nothing left out."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_samples import samples

from forgetguard.anatomy.members import Head, Mlp
from forgetguard.capabilities.pairs import Prompt, PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate import checksum, records
from forgetguard.gate.declaration import (
    FilePairs,
    GateSpec,
    InlinePairs,
    Limit,
    Prompts,
    TaskPairs,
)
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.verdict import (
    Code,
    ControlEvidence,
    Estimate,
    Outcome,
    SubjectEvidence,
    UnitEvidence,
    Verdict,
)
from forgetguard.measures.samples import Key, Note, Samples
from forgetguard.report import json_file

MEMBERS = (Head(0, 1), Head(11, 4), Mlp(3))
numbers = st.floats(allow_nan=False)
texts = st.text(max_size=8)


def filled(pairs: int = 5, members: tuple[Any, ...] = MEMBERS, seed: int = 0) -> Samples:
    """Samples in which every field holds something, and every quantity is there in every role."""
    rng = np.random.default_rng(seed)

    def some() -> Any:
        # Differences of float32 numbers, as readouts are: their decimals are long.
        return rng.standard_normal(pairs).astype(np.float32).astype(np.float64) / 3

    flags = rng.random(pairs) > 0.5
    found = samples(
        [
            PromptPair(f"When Mary {i}", f"When John {i}", " y", None if i % 2 else " n", f"t{i}")
            for i in range(pairs)
        ],
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
        recorded_readout=some(),
        recorded_correct=flags,
        recorded_circuit_damage=some(),
        recorded_head_damage={head: some() for head in members},
        dropped=3,
        notes=(Note("pairs_dropped", {"count": 3, "why": "too long"}),),
        stages=(2, pairs),
        controls={"random 1": ((Head(1, 1),), some()), "b": ((), None)},
    )
    exact = {Key("rotation", "layer 3", "tuned"): 1 / 3}
    return replace(found, exact=exact, tokens={11: " the", 0: "\n\ufffd"})


def through_json(value: Any) -> Any:
    return json.loads(json_file.text_of(value))


def back(found: Samples) -> Samples:
    return records.samples_from_dict(through_json(records.samples_to_dict(found)))


def test_every_field_of_samples_comes_back_bit_for_bit() -> None:
    before = filled()
    after = back(before)
    for one in fields(Samples):
        value = getattr(before, one.name)
        assert value, f"{one.name}: fill it in, or this test says nothing about it"
        if one.name != "arrays":
            assert getattr(after, one.name) == value, one.name
    assert after.arrays.keys() == before.arrays.keys()
    for key, array in before.arrays.items():
        assert after.arrays[key].dtype == np.float64
        assert after.arrays[key].tobytes() == array.tobytes(), str(key)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_any_number_comes_back_as_it_was(values: list[float]) -> None:
    key = Key("damage", "circuit", "tuned")
    units = tuple(Prompt(f"x{i}", " y", "t") for i in range(len(values)))
    after = back(Samples(units, {key: np.array(values)}))
    assert after.units == units
    assert after.arrays[key].tobytes() == np.array(values).tobytes()  # -0.0 and subnormals, too


def test_what_was_not_measured_stays_so() -> None:
    found = Samples((Prompt("a"), Prompt("b")), {Key("readout", "", "base"): np.zeros(2)})
    data = records.samples_to_dict(found)
    assert data["arrays"] == {"readout": {"base": {"": [0.0, 0.0]}}}
    assert records.samples_from_dict(data).get("damage", "all") is None


def test_numbers_that_are_exact_need_no_unit() -> None:
    found = Samples((), {}, {Key("rotation", "layer 0", "tuned"): 0.1})
    assert back(found).exact == found.exact


@pytest.mark.parametrize(
    "spec",
    [
        TaskPairs("ioi", 64, 3, line=4, most=256),
        FilePairs(Path("/nowhere/ioi.jsonl"), 64, line=4),
        InlinePairs(()),
        Prompts(path=Path("/nowhere/p.jsonl"), count=9, line=4),
        None,
    ],
)
def test_a_circuit_comes_back_with_what_decides_its_limits(spec: Any) -> None:
    before = GateSpec(
        name="c",
        capability="ioi",
        pairs=spec,
        readout="logprob",
        members=MEMBERS,
        limits=(Limit("dcv.circuit", 0.1, 7), Limit("dcv.head", 0.25, 8, floor=0.0)),
        auto=True,
        chat_template=True,
        site="z",
        confidence=0.9,
        path=Path("/nowhere/c.circuit.yaml"),
    )
    after = records.spec_from_dict(through_json(records.spec_to_dict(before)))
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
    data = records.spec_to_dict(load_gate_file(file))
    assert data["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert data["pairs"]["sha256"] == hashlib.sha256(prompts.read_bytes()).hexdigest()
    gate = tmp_path / "c.gate.yaml"
    gate.write_text("forgetguard: 2\nprompts: {file: q.jsonl}\nlimits: {kl.forward: {max: 1}}\n")
    prompts = prompts.with_name("q.jsonl")
    prompts.write_text("".join(json.dumps({"prompt": f"a{i}"}) + "\n" for i in range(8)))
    data = records.spec_to_dict(load_gate_file(gate))
    assert data["pairs"]["sha256"] == hashlib.sha256(prompts.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "damage",
    [
        {"units": 3},
        {"units": [["one text"]]},
        {"arrays": {"readout": {"base": {"": ["x"]}}}},
        {"arrays": {"readout": {"base": {"": [1.0]}}}},  # of five units
        {"dropped": None},
    ],
)
def test_what_are_no_samples_is_refused(damage: dict[str, Any]) -> None:
    data = records.samples_to_dict(filled()) | damage
    with pytest.raises(SpecificationError, match="not what was measured"):
        records.samples_from_dict(data)


def test_another_prompt_under_the_hash_of_the_old_is_refused() -> None:
    data = records.samples_to_dict(filled())
    data["units"][0][0] = "When Sue"
    with pytest.raises(SpecificationError, match="prompts_sha256"):
        records.samples_from_dict(data)


# --- verdicts --------------------------------------------------------------------------------

estimates = st.builds(Estimate, numbers, numbers, numbers, numbers, st.integers(0, 10**6))
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | texts
facts = st.dictionaries(texts, plain | st.lists(texts, max_size=2), max_size=3)
notes = st.builds(Note, texts, facts)
several_notes = st.lists(notes, max_size=2).map(tuple)
maybe = st.none() | estimates
verdicts = st.builds(
    Verdict,
    circuit=texts,
    capability=texts,
    limit=st.sampled_from(["dcv.circuit", "accuracy.drop", "another.measure"]),
    bound=numbers,
    outcome=st.sampled_from(Outcome),
    estimate=maybe,
    code=st.sampled_from(Code),
    facts=facts,
    subjects=st.lists(
        st.builds(SubjectEvidence, texts, maybe, maybe, maybe, several_notes), max_size=2
    ).map(tuple),
    units=st.lists(
        st.builds(
            UnitEvidence,
            texts,
            numbers,
            *[st.none() | texts] * 3,
            *[st.none() | numbers] * 3,
        ),
        max_size=2,
    ).map(tuple),
    notes=several_notes,
    subject=texts,
    family=st.integers(1, 99),
    detectable=st.none() | numbers,
    budget=st.none() | st.integers(1, 99),
    controls=st.lists(
        st.builds(
            ControlEvidence,
            texts,
            st.lists(texts, max_size=2).map(tuple),
            maybe,
            st.none() | notes,
        ),
        max_size=2,
    ).map(tuple),
)
VERDICT = Verdict(
    circuit="ioi",
    capability="indirect objects",
    limit="dcv.circuit",
    bound=0.1,
    outcome=Outcome.FAIL,
    estimate=Estimate(0.3, 0.2, 0.4, coverage=0.9, n=64),
    code=Code.BEYOND,
)


@settings(deadline=None)
@given(verdicts)
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    text = json.dumps(records.verdict_to_dict(verdict), allow_nan=False)
    assert records.verdict_from_dict(json.loads(text)) == verdict


def test_not_a_number_survives_json() -> None:
    verdict = replace(VERDICT, bound=math.nan, facts={"corrected_low": -math.inf})
    text = json.dumps(records.verdict_to_dict(verdict), allow_nan=False)
    found = records.verdict_from_dict(json.loads(text))
    assert math.isnan(found.bound)
    assert float(found.facts["corrected_low"]) == -math.inf  # facts are plain values: a text


def test_numpy_numbers_become_plain() -> None:
    estimate = Estimate(*(np.float64(x) for x in (0.3, 0.2, 0.4, 0.9)), n=np.int64(64))
    data = records.verdict_to_dict(
        replace(VERDICT, estimate=estimate, facts={"right": np.float64(0.25)})
    )
    assert {type(value) for value in data["estimate"].values()} == {float, int}
    assert type(data["facts"]["right"]) is float


@pytest.mark.parametrize(
    "damage",
    [{"outcome": "passed"}, {"bound": "much"}, {"estimate": {}}, {"code": "because"}],
)
def test_a_damaged_verdict_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError, match="not a verdict"):
        records.verdict_from_dict(records.verdict_to_dict(VERDICT) | damage)


# --- hashes ----------------------------------------------------------------------------------


@given(st.permutations([PromptPair(f"x{i}", "x'", "y", "n" if i % 2 else None) for i in range(5)]))
def test_a_prompt_set_is_the_same_in_any_order(pairs: list[PromptPair]) -> None:
    assert records.digest_units(pairs) == records.digest_units(sorted(pairs, key=str))


def test_a_prompt_set_is_another_when_one_letter_is() -> None:
    pair = PromptPair("a", "b", "c", "d", "t")
    for name in ("clean", "counterfactual", "answer", "distractor", "template"):
        other = replace(pair, **{name: "z"})
        assert records.digest_units([pair]) != records.digest_units([other])


def test_a_digest_is_that_of_canonical_json() -> None:
    by_hand = hashlib.sha256(b'{"a":[1.5,null,"\\u00e9"],"b":{"c":true}}').hexdigest()
    assert checksum.digest({"b": {"c": True}, "a": [1.5, None, "é"]}) == by_hand


def document() -> dict[str, Any]:
    return checksum.with_checksum({"a": 1.25, "b": [True, None, "x"], "c": {"d": -0.0}})


def test_a_checksum_does_not_mind_spacing_or_order() -> None:
    again = json.loads(json.dumps(document(), indent=7, sort_keys=True))
    checksum.check_checksum(again, "it")


@pytest.mark.parametrize(
    "path", [("a", 1.2500000000000002), ("b", [True, None, "y"]), ("e", 1), ("c", {"d": 0})]
)
def test_a_checksum_finds_any_edit(path: tuple[str, Any]) -> None:
    edited = document() | {path[0]: path[1]}
    with pytest.raises(SpecificationError, match="does not match its checksum"):
        checksum.check_checksum(edited, "it")


@given(st.randoms(use_true_random=False))
def test_a_checksum_finds_any_number_that_is_nudged(rng: random.Random) -> None:
    data = checksum.with_checksum({"measured": records.samples_to_dict(filled())})
    values = data["measured"]["arrays"]["damage"]["tuned"][str(rng.choice(MEMBERS))]
    place = rng.randrange(len(values))
    values[place] = float(np.nextafter(values[place], np.inf))
    with pytest.raises(SpecificationError, match="checksum"):
        checksum.check_checksum(data, "it")


@pytest.mark.parametrize("given", [None, {}, "abc"])
def test_a_file_without_a_checksum_is_not_whole(given: Any) -> None:
    with pytest.raises(SpecificationError, match="no checksum"):
        checksum.check_checksum(document() | {"checksum": given}, "it")


def test_five_circuits_of_26_heads_on_64_pairs_take_a_megabyte() -> None:
    members = tuple(Head(number // 12, number % 12) for number in range(26))
    entries = [
        {"measured": records.samples_to_dict(filled(64, members, seed))} for seed in range(5)
    ]
    assert len(json_file.text_of({"circuits": entries})) < 1_100_000
