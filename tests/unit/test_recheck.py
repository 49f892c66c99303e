"""A results file is confirmed by its own numbers, and by nothing else."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_samples import samples

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.cli import main
from forgetguard.errors import SpecificationError
from forgetguard.gate import records
from forgetguard.gate.checksum import digest, with_checksum
from forgetguard.gate.declaration import GateSpec, Limit, TaskPairs
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Outcome
from forgetguard.measures.samples import CORRECT, READOUT, Samples
from forgetguard.report import json_file, terminal, wording
from forgetguard.report.recheck import recheck

HEADS = (Head(2, 1), Head(0, 4))
LIMITS = (Limit("dcv.circuit", 0.1, 7), Limit("dcv.head", 0.25, 8), Limit("accuracy.drop", 0.2, 9))
CONFIRMED, NOT_CONFIRMED, UNUSABLE = 0, 1, 2


def measured(dcv: float = 0.02, pairs: int = 64, stages: tuple[int, ...] = ()) -> Samples:
    rng = np.random.default_rng(0)
    importance = 3 + 0.5 * rng.standard_normal(pairs)
    readout = 5 + 0.5 * rng.standard_normal(pairs)
    damage = dcv * importance + 0.1 * rng.standard_normal(pairs)
    right = np.ones(pairs, dtype=bool)
    return samples(
        tuple(PromptPair(f"x{i}", f"x'{i}", " y", " n") for i in range(pairs)),
        base_readout=readout,
        tuned_readout=readout - damage,
        base_correct=right,
        tuned_correct=right,
        circuit_importance=importance,
        circuit_damage=damage,
        head_importance=dict.fromkeys(HEADS, importance / 2),
        head_damage=dict.fromkeys(HEADS, damage / 2),
        stages=stages,
    )


def judged(spec: GateSpec, limit: Limit, data: Samples, family: int) -> Any:
    """As the session does: the first stage that decides."""
    for stage in data.stages or (data.count,):
        verdict = judge(spec, limit, data.at(slice(stage)), seed=3, family=family)
        if verdict.outcome is not Outcome.ABSTAIN or stage == data.count:
            return verdict
    raise AssertionError("the last stage is the number of pairs")


def document(
    dcv: float = 0.02,
    data: Samples | None = None,
    *,
    name: str = "c",
    family: int = len(LIMITS),
) -> dict[str, Any]:
    """A results file as the plugin writes it, without pytest."""
    data = measured(dcv) if data is None else data
    path = Path(f"/nowhere/{name}.circuit.yaml")
    spec = GateSpec(name, "ioi", TaskPairs("ioi", 64), "logit_diff", HEADS, LIMITS, path=path)
    declared = records.spec_to_dict(spec)
    results = []
    for limit in LIMITS:
        verdict = judged(spec, limit, data, family)
        written = records.verdict_to_dict(verdict)
        results.append(
            {
                "id": f"{name}.circuit.yaml::{name}::{limit.key}",
                "outcome": verdict.outcome.value,
                "message": "",
                "verdicts": [written | {"circuit_digest": digest(declared)}],
            }
        )
    passed = all(result["outcome"] == "pass" for result in results)
    return {
        "schema": json_file.SCHEMA,
        "schema_version": json_file.SCHEMA_VERSION,
        "complete": True,
        "exit_status": 0 if passed else 1,
        "started": "2026-01-01T00:00:00+00:00",
        "options": {"base": "b", "tuned": "t", "allow_abstain": False},
        "seed": 3,
        "selection": {"by_name": False},
        "errors": [],
        "results": results,
        "circuits": [
            {
                "name": name,
                "digest": digest(declared),
                "declared": declared,
                "environment": {},
                "measured": records.samples_to_dict(data),
            }
        ],
        "not_run": [],
        "deselected": [],
        "allowed_to_abstain": [],
    }


def written(folder: Path, content: dict[str, Any], *, checksum: bool = True) -> Path:
    path = folder / "out.json"
    path.write_text(json.dumps(with_checksum(content) if checksum else content))
    return path


@pytest.mark.parametrize(("dcv", "passed"), [(0.02, True), (0.3, False), (0.1, False)])
def test_an_honest_file_is_confirmed_whatever_the_run_came_to(
    dcv: float, passed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, document(dcv))
    assert main(["verify", str(path)]) == CONFIRMED
    output = capsys.readouterr().out
    assert "CONFIRMED" in output
    assert ("NOT A PASS" in output) is not passed
    assert main(["verify", str(path), "--require-pass"]) == (CONFIRMED if passed else 1)


def set_verdict(place: int, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["results"][place]["verdicts"][0][name] = value

    return edit


def set_fact(place: int, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["results"][place]["verdicts"][0]["facts"][name] = value

    return edit


def set_estimate(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["results"][0]["verdicts"][0]["estimate"][name] = value

    return edit


def set_measured(
    quantity: str, role: str, subject: str, value: float
) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["circuits"][0]["measured"]["arrays"][quantity][role][subject][5] = value

    return edit


def forge_a_pass(content: dict[str, Any]) -> None:
    for result in content["results"]:
        result["outcome"] = result["verdicts"][0]["outcome"] = "pass"
    content["exit_status"] = 0


def loosen_the_limit(content: dict[str, Any]) -> None:
    """In the verdict, not in the circuit that was declared."""
    content["results"][0]["verdicts"][0]["bound"] = 0.9


def loosen_the_declaration(content: dict[str, Any]) -> None:
    entry = content["circuits"][0]
    entry["declared"]["limits"][0]["maximum"] = 0.9
    entry["digest"] = digest(entry["declared"])
    for result in content["results"]:
        result["verdicts"][0]["circuit_digest"] = entry["digest"]


def drop_what_failed(content: dict[str, Any]) -> None:
    """Nothing that is left is untrue; but a declared limit has no verdict."""
    content["results"] = [one for one in content["results"] if one["outcome"] == "pass"]
    content["exit_status"] = 0


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop_what_failed, "dcv.circuit is declared, and there is no verdict on it"),
        (set_verdict(0, "outcome", "pass"), "outcome is written as 'pass', found 'fail'"),
        (set_verdict(0, "code", "identical"), "code is written as 'identical', found 'beyond'"),
        (set_fact(0, "corrected_low", 0.0), "facts.corrected_low"),
        (set_fact(0, "against", True), "facts.against"),
        (set_verdict(0, "family", 1), "dcv.circuit: "),
        (set_verdict(0, "detectable", 0.001), "detectable"),
        (set_verdict(0, "capability", "sums"), "capability"),
        (set_verdict(0, "circuit_digest", "abc"), "no such measurement"),
        (set_verdict(1, "subject", "L2H1"), "dcv.head: subject"),
        (set_estimate("value", 0.31), "estimate.value"),
        (set_estimate("low", 0.0), "estimate.low"),
        (set_estimate("n", 65), "estimate.n"),
        (set_measured("damage", "tuned", "circuit", 9.0), "estimate.value"),
        (set_measured("readout", "base", "", 9.0), "facts.lost"),
        (set_measured("correct", "tuned", "", 0.0), "accuracy.drop"),
        (lambda content: content.update(seed=4), "estimate"),
        (lambda content: content.update(exit_status=0), "the run: exit_status is written as 0"),
        (forge_a_pass, "outcome is written as 'pass', found 'fail'"),
        (loosen_the_limit, "bound is written as 0.9, found 0.1"),
        (loosen_the_declaration, "bound is written as 0.1, found 0.9"),
    ],
)  # fmt: skip
def test_what_does_not_follow_from_the_numbers_is_found_and_named(
    edit: Callable[[dict[str, Any]], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = document(0.3)
    edit(content)
    path = written(tmp_path, content)  # with a checksum computed anew: that is no obstacle
    assert main(["verify", str(path)]) == NOT_CONFIRMED
    output = capsys.readouterr().out
    assert said in output
    assert "NOT CONFIRMED" in output


def test_a_limit_that_was_deselected_needs_no_verdict(tmp_path: Path) -> None:
    content = document(0.3)
    gone = [one["id"] for one in content["results"] if one["outcome"] != "pass"]
    drop_what_failed(content)
    content["deselected"] = gone
    assert main(["verify", str(written(tmp_path, content)), "--require-pass"]) == CONFIRMED


def test_a_python_gate_judges_the_limits_that_it_likes(tmp_path: Path) -> None:
    content = document(0.02)
    content["results"] = content["results"][:1]
    content["results"][0]["id"] = "test_gate.py::test_ioi"
    assert main(["verify", str(written(tmp_path, content)), "--require-pass"]) == CONFIRMED


def test_an_edit_without_a_new_checksum_is_found_even_where_no_verdict_hangs_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = with_checksum(document())
    content["options"]["tuned"] = "another"
    path = written(tmp_path, content, checksum=False)
    assert main(["verify", str(path)]) == NOT_CONFIRMED
    output = capsys.readouterr().out
    assert "checksum    DIFFERS" in output
    assert "all the same" in output


def test_a_prompt_edited_by_hand_is_not_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = with_checksum(document())
    content["circuits"][0]["measured"]["units"][0][0] = "another prompt"
    path = written(tmp_path, content, checksum=False)
    assert main(["verify", str(path)]) == NOT_CONFIRMED
    assert "prompts_sha256" in capsys.readouterr().out


def unfinished(content: dict[str, Any]) -> None:
    content.update(complete=False, exit_status=None, results=[], circuits=[])


@pytest.mark.parametrize(
    "edit",
    [
        unfinished,
        lambda content: content.update(schema_version=2),
        lambda content: content.update(schema="another"),
        lambda content: content.pop("circuits"),
        lambda content: content.pop("seed"),
        lambda content: content["circuits"][0].update(digest="abc"),
    ],
)
def test_a_file_that_cannot_be_used_is_neither(
    edit: Callable[[dict[str, Any]], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = document()
    edit(content)
    assert main(["verify", str(written(tmp_path, content))]) == UNUSABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("forgetguard verify: ")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_what_is_no_json_document_cannot_be_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text(text)
    assert main(["verify", str(path)]) == UNUSABLE
    assert main(["verify", str(tmp_path / "gone.json")]) == UNUSABLE


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["FILE", "base=b"],
        ["FILE", "--device", "cpu"],
        ["FILE", "--recompute", "0"],
        ["FILE", "--recompute", "8", "reference=r"],
        ["FILE", "--recompute", "8", "model=r"],
    ],
)
def test_misuse_is_refused(arguments: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, document())
    given = [str(path) if one == "FILE" else one for one in arguments]
    assert main(["verify", *given]) == UNUSABLE


def test_a_verdict_reached_at_an_early_stage_is_decided_again_at_that_stage() -> None:
    data = measured(0.02, 128, stages=(32, 64, 128))
    content = document(data=data)
    early = [result["verdicts"][0]["estimate"]["n"] for result in content["results"]]
    assert min(early) < 128
    assert recheck(content).differences == ()


def unable() -> dict[str, Any]:
    """A file whose base gets every pair wrong, and whose one passing limit is another circuit's."""
    able, content = measured(), document()
    wrong = {
        key: -values if key.quantity == READOUT else np.zeros_like(values)
        for key, values in able.arrays.items()
        if key.quantity in (READOUT, CORRECT)
    }
    other = document(data=able.with_arrays(wrong), name="other")
    for key in ("results", "circuits"):
        content[key] += other[key]
    return content


def test_allowed_abstentions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = unable()
    abstained = [one["id"] for one in content["results"] if one["outcome"] == "abstain"]
    assert len(abstained) == 3
    content["allowed_to_abstain"] = abstained
    content["options"]["allow_abstain"] = True
    content["exit_status"] = 0
    assert main(["verify", str(written(tmp_path, content)), "--require-pass"]) == CONFIRMED
    assert f"ALLOWED TO ABSTAIN, so shown to be kept by nothing: {abstained[0]}" in (
        capsys.readouterr().out
    )
    content["options"]["allow_abstain"] = False
    assert main(["verify", str(written(tmp_path, content))]) == NOT_CONFIRMED


def test_what_is_undecided_may_not_have_been_allowed_to_abstain() -> None:
    content = document(0.1)
    abstained = [one["id"] for one in content["results"] if one["outcome"] == "abstain"]
    codes = [one["verdicts"][0]["code"] for one in content["results"] if one["id"] in abstained]
    assert codes
    assert set(codes) == {"undecided"}
    content |= {"allowed_to_abstain": abstained, "exit_status": 0}
    content["options"]["allow_abstain"] = True
    found = {(one.where, one.field, one.found) for one in recheck(content).differences}
    assert found == {(gate, "allowed_to_abstain", "undecided") for gate in abstained}


@pytest.mark.parametrize(
    ("option", "value", "field", "written"),
    [("family", 5, "family", 3), ("prompt_seed", 7, "declared.prompt_seed", None)],
)
def test_a_run_that_was_judged_otherwise_than_asked_for_is_told(
    option: str, value: int, field: str, written: int | None
) -> None:
    content = document()
    content["options"][option] = value
    found = {(one.where, one.field, one.written, one.found) for one in recheck(content).differences}
    assert found == {(one["id"], field, written, value) for one in content["results"]}


def test_a_family_of_more_limits_than_were_collected_is_told() -> None:
    content = document(family=4)
    assert {(one.field, one.written, one.found) for one in recheck(content).differences} == {
        ("family", 4, 3)
    }
    content["deselected"] = ["c.circuit.yaml::c::readout.drop"]
    assert recheck(content).differences == ()
    content = document(family=4)
    content["options"]["family"] = 4
    assert recheck(content).differences == ()


def test_another_version_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = document() | {"versions": json_file.versions() | {"scipy": "0.1"}}
    assert main(["verify", str(written(tmp_path, content))]) == CONFIRMED
    assert "versions    written with scipy 0.1, now " in capsys.readouterr().out
    content["versions"] = json_file.versions()
    main(["verify", str(written(tmp_path, content))])
    assert "versions" not in capsys.readouterr().out


def test_a_circuit_is_what_its_digest_says() -> None:
    content = copy.deepcopy(document())
    content["circuits"][0]["declared"]["confidence"] = 0.9
    with pytest.raises(SpecificationError, match="digest"):
        recheck(content)


def test_other_words_for_the_same_verdicts_change_no_file_and_confirm_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = document(0.3)
    path = written(tmp_path, content)
    before = recheck(content)
    assert main(["verify", str(path)]) == CONFIRMED
    said = capsys.readouterr().out
    words = {
        name: function
        for name, function in inspect.getmembers(wording, inspect.isfunction)
        if function.__module__ == wording.__name__
    }
    for name, function in words.items():
        for module in (wording, terminal):  # which holds some of them by name
            if getattr(module, name, None) is function:
                monkeypatch.setattr(module, name, lambda *_, **__: "OTHER WORDS")
    assert "OTHER WORDS" in terminal.headline(before.verdicts[0])
    assert document(0.3) == content
    assert recheck(content) == before
    assert before.differences == ()
    assert main(["verify", str(path)]) == CONFIRMED
    assert "OTHER WORDS" in capsys.readouterr().out != said


def not_had(content: dict[str, Any], folder: str) -> dict[str, Any]:
    """Every limit of it told as one whose capability the base has not."""
    for result in content["results"]:
        result |= {"outcome": "not_had", "id": f"{folder}/{result['id']}"}
    return content


def cannot() -> Samples:
    """A base that gets every pair wrong."""
    data, wrong = measured(), np.zeros(64, dtype=bool)
    readout = -np.abs(data.need("readout", role="base"))
    return samples(
        data.units, base_readout=readout, tuned_readout=readout, base_correct=wrong,
        tuned_correct=wrong, circuit_importance=-readout, circuit_damage=readout * 0,
        head_importance=dict.fromkeys(HEADS, -readout),
        head_damage=dict.fromkeys(HEADS, 0 * readout),
    )  # fmt: skip


def test_a_default_that_the_base_cannot_do_is_confirmed_and_alone_is_no_pass(
    tmp_path: Path,
) -> None:
    content = not_had(document(data=cannot()), "forgetguard_circuits")
    assert content["results"][0]["verdicts"][0]["code"] == "base_wrong"
    path = written(tmp_path, content)
    assert main(["verify", str(path)]) == CONFIRMED
    assert main(["verify", str(path), "--require-pass"]) == NOT_CONFIRMED


@pytest.mark.parametrize(
    ("dcv", "data", "folder"),
    [(0.3, None, "forgetguard_circuits"), (0.02, cannot(), "mine")],
    ids=["a loss", "a file of the user's own"],
)
def test_what_was_lost_or_declared_is_not_passed_over_as_not_had(
    dcv: float, data: Samples | None, folder: str, tmp_path: Path
) -> None:
    content = not_had(document(dcv, data), folder)
    assert main(["verify", str(written(tmp_path, content))]) == NOT_CONFIRMED


def test_what_no_circuit_was_found_for_is_not_passed_over_as_not_had() -> None:
    """The base was looked at and may have the capability."""
    spec = GateSpec(
        "c", "ioi", TaskPairs("ioi", 64), "logit_diff", (), LIMITS,
        path=Path("/nowhere/c.circuit.yaml"), auto=True,
    )  # fmt: skip
    declared = records.spec_to_dict(spec)
    content = document()
    content["circuits"][0] |= {"declared": declared, "digest": digest(declared)}
    for result, limit in zip(content["results"], LIMITS, strict=True):
        verdict = judged(spec, limit, measured(), len(LIMITS))
        plain = records.verdict_to_dict(verdict) | {"circuit_digest": digest(declared)}
        result |= {"id": f"forgetguard_circuits/{result['id']}", "verdicts": [plain]}
        if verdict.outcome is not Outcome.PASS:
            result["outcome"] = "not_had"
    found = [(one.field, one.written, one.found) for one in recheck(content).differences]
    assert found == [("outcome", "not_had", "no_circuit")] * 2


@pytest.mark.parametrize("other", [False, True], ids=["none", "of another limit"])
def test_a_declared_limit_passes_by_its_own_verdict_alone(other: bool) -> None:
    content = document(0.3)
    content["exit_status"] = 0
    (good,) = (one for one in content["results"] if one["outcome"] == "pass")
    for result in content["results"]:
        if result is not good:
            verdicts = copy.deepcopy(good["verdicts"]) if other else []
            result |= {"outcome": "pass", "verdicts": verdicts}
    found = [(one.where, one.field) for one in recheck(content).differences]
    gates = ("c.circuit.yaml::c::dcv.circuit", "c.circuit.yaml::c::dcv.head")
    assert found == [(gate, "verdicts") for gate in gates]
