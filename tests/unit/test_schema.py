"""A circuit file says one thing, and everything wrong with it is told with its line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forgetguard.anatomy.members import Head, Mlp
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate import schema, suitability
from forgetguard.gate.schema import (
    FilePairs,
    Fits,
    GateSpec,
    InlinePairs,
    Limit,
    TaskPairs,
    load_gate_file,
    parse_gate,
)
from forgetguard.gate.stages import as_capability
from forgetguard.gate.suitability import check_fits

GOOD = """\
forgetguard: 1
capability: ioi
pairs: {task: ioi, count: 64, seed: 3}
readout: logit_diff
circuit: [L2H1, L2H2, L0H4]
limits:
  dcv.circuit: {max: 0.10}
  dcv.head: {max: 0.5}
"""
ABC = "0abc" * 16
PAIR: dict[str, object] = {
    "clean": "a b",
    "counterfactual": "a c",
    "answer": " b",
    "distractor": " c",
}


def parse(text: str = GOOD, name: str = "ioi.circuit.yaml") -> GateSpec:
    return parse_gate(text, name)


def refusal(text: str, name: str = "ioi.circuit.yaml") -> str:
    with pytest.raises(SpecificationError) as caught:
        parse(text, name)
    return str(caught.value)


def changed(line: int, text: str) -> str:
    """GOOD with one line (1-based) replaced."""
    lines = GOOD.splitlines()
    lines[line - 1] = text
    return "\n".join(lines) + "\n"


def test_a_circuit_file_reads_as_written() -> None:
    spec = parse()
    assert spec.name == "ioi"
    assert spec.pairs == TaskPairs("ioi", 64, 3)
    assert spec.members == (Head(2, 1), Head(2, 2), Head(0, 4))
    assert spec.limits == (Limit("dcv.circuit", 0.1), Limit("dcv.head", 0.5))
    assert [limit.line for limit in spec.limits] == [7, 8]
    assert (spec.site, spec.confidence, spec.chat_template) == ("contribution", 0.95, False)


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (7, "  dcv.circuit: {max: ten}", ":7: limits.dcv.circuit: max must be a number, got 'ten'"),
        (7, "  dcv.circuit: {max: '0.1'}", ":7: limits.dcv.circuit: max must be a number"),
        (7, "  dcv.circuit: {max: .nan}", ":7: limits.dcv.circuit: max must be a finite number"),
        (7, "  dcv.circuit: {max: 1e999}", ":7: limits.dcv.circuit: max must be a"),
        (7, "  dcv.circuit: {max: 1:30}", ":7: limits.dcv.circuit: max must be a number"),
        (7, "  dcv.circuit: {max: -0.1}", ":7: limits.dcv.circuit: max must be 0 or more"),
        (7, "  dcv.circuit: {maximum: 1}", ":7: limits.dcv.circuit: unknown key 'maximum': did"),
        (7, "  dcv.circuit: 0.1", ":7: limits.dcv.circuit: must be a mapping"),
        (
            7,
            "  dcv.circiut: {max: 1}",
            "limits: unknown limit 'dcv.circiut': did you mean 'dcv.circuit'",
        ),
        (7, "  dcv.head: {max: 0.5}", ":8: limits: 'dcv.head' is given twice, on lines 7 and 8"),
        (7, "  accuracy.drop: {max: 2}", ":7: limits.accuracy.drop: max must be below 1"),
        (
            7,
            "  dcv.circuit: {max: 10}",
            ":7: limits.dcv.circuit: max must be below 1 (share), got 10",
        ),
        (
            7,
            "  readout.drop: {max: 1}",
            ":7: limits.readout.drop: max must be below 1 (share)",
        ),
        (
            2,
            "capability: x\nfits: {weights: 48b8...}",
            ":3: fits: weights must be a",
        ),
        (4, "readout: logit_dif", ":4: unknown readout 'logit_dif': did you mean 'logit_diff'"),
        (4, "readouts: logprob", ":4: unknown key 'readouts': did you mean 'readout'"),
        (4, "readout: true", ":4: readout must be text, got true (put it in quotes"),
        (5, "circuit: []", ":5: circuit is empty"),
        (5, "circuit: L2H1", ":5: circuit must be a list, got 'L2H1'"),
        (5, "circuit: [L2H1, L0H4, L2H1]", ":5: circuit: L2H1 is given twice"),
        (5, "circuit: [L2H1, 2.1]", ":5: circuit: a head must be text, got 2.1"),
        (5, "circuit: [L2-H1]", ":5: circuit: 'L2-H1' is neither a head nor an MLP"),
        (3, "pairs: {task: iio, count: 9}", ":3: pairs: unknown task 'iio': did you mean 'ioi'"),
        (3, "pairs: {task: ioi, count: 1}", ":3: pairs: count must be between 8 and"),
        (3, "pairs: {task: ioi, count: many}", ":3: pairs: count must be a whole number"),
        (3, "pairs: {task: ioi, count: 9, seed: -1}", ":3: pairs: seed must be 0 or more"),
        (3, "pairs: {task: ioi}", ":3: pairs: 'count' is missing"),
        (3, "pairs: {count: 3}", ":3: pairs: 'task' or 'file' is missing"),
        (3, "pairs: {task: ioi, file: x, count: 3}", ":3: pairs: give task or file, not both"),
        (3, "pairs: {task: ioi, count: 9, most: 9}", ":3: pairs: most must be above count (9)"),
        (3, "pairs: {task: ioi, count: 9, most: lots}", ":3: pairs: most must be a whole number"),
        (3, "pairs: {task: ioi, most: 9}", ":3: pairs: 'count' is missing"),
        (3, "pairs: {file: gone.jsonl, most: 9}", ":3: pairs: most needs count"),
        (7, "  dcv.circuit: {max: 0.5, floor: 0}", ":7: limits.dcv.circuit: unknown key 'floor'"),
        (8, "  dcv.head: {max: 0.5, floor: 10}", ":8: limits.dcv.head: floor must be between 0"),
        (8, "  dcv.head: {max: 0.5, floor: -0.1}", ":8: limits.dcv.head: floor must be between 0"),
        (8, "  dcv.head: {max: 0.5, floor: low}", ":8: limits.dcv.head: floor must be a number"),
        (8, "  dcv.head: {floor: 0.1}", ":8: limits.dcv.head: 'max' is missing"),
        (3, "pairs: ioi", ":3: pairs must be"),
        (3, "pairs: []", ":3: pairs: holds 0, at least 2 are needed"),
        (3, "pairs: {file: gone.jsonl}", "gone.jsonl: no such prompt file"),
        (2, "capability: ", ":2: capability must be text, got nothing"),
        (2, "capability: x\nname: a b", ":3: name 'a b' cannot name a test"),
        (2, "capability: x\nconfidence: 95", ":3: confidence must be above 0.5"),
        (2, "capability: x\nsite: q", ":3: unknown site 'q'"),
        (2, "capability: x\nchat_template: maybe", ":3: chat_template must be true or false"),
        (2, "capability: x\ncore: often", ":3: core must be true or false"),
        (2, "capability: x\nchat_template: {}", ":3: chat_template gives no arguments"),
        (2, "capability: x\nchat_template: {tokenize: true}", ":3: chat_template: tokenize is the"),
        (2, "capability: x\nchat_template:\n  day: 2025-01-01", ":4: chat_template: day must be"),
        (2, "capability: x\nchat_template: {a: 1, a: 2}", ":3: chat_template: 'a' is given twice"),
        (2, "capability: x\nfits: {}", ":3: fits: says nothing"),
        (2, "capability: x\nfits: {layer: 4}", ":3: fits: unknown key 'layer': did you mean"),
        (2, "capability: x\nfound: [1]", ":3: found must be a mapping"),
        (2, "capability: x\nfound: {a: {b: 1, b: 2}}", ":3: found: 'b' is given twice, on line 3"),
        (2, "capability: x\nfound: {a: !!python/name:os.x 1}", ":3: found:"),
        (2, "capability: x\nfound: &a {b: *a}", ":3: found contains itself"),
        (1, "forgetguard: 3", ":1: forgetguard must be 1"),
        (1, "forgetgaurd: 1", ":1: 'forgetguard' is missing"),
    ],
)
def test_a_mistake_is_told_with_its_line(line: int, text: str, complaint: str) -> None:
    assert complaint in refusal(changed(line, text))


def test_either_version_of_a_circuit_file_says_the_same() -> None:
    assert parse(changed(1, "forgetguard: 2")) == parse()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: the file is empty"),
        ("# only a comment\n", ":1: the file is empty"),
        ("- a\n- b\n", ":1: a gate file must be a mapping"),
        ("a: 1\n\tb: 2\n", ":2: not valid YAML"),
        ("a: 1\nb: [1\n", ":3: not valid YAML"),
        ("a: 1\nb: \x07\n", ":2: not valid YAML: character U+0007"),
        (GOOD + "---\na: 1\n", ":9: not valid YAML"),
        ("a: " + "[" * 600, "nested too deeply"),
    ],
)
def test_what_is_no_circuit_file_at_all_is_told(text: str, complaint: str) -> None:
    assert complaint in refusal(text)


def test_every_mistake_is_told_at_once_and_in_the_order_of_the_lines() -> None:
    text = changed(5, "circuit: [H1]").replace("0.10", "ten").replace("logit_diff", "nats")
    found = refusal(text).split("\n")
    assert [line.split(":")[1] for line in found] == ["4", "5", "7"]


def test_a_key_that_is_required_is_missed_by_name() -> None:
    for line, key in ((2, "capability"), (3, "pairs"), (4, "readout"), (5, "circuit")):
        assert f"'{key}' is missing" in refusal(changed(line, ""))
    assert "'limits' is missing" in refusal("\n".join(GOOD.splitlines()[:5]))


def test_a_file_without_limits_gates_nothing_and_is_refused() -> None:
    text = "\n".join(GOOD.splitlines()[:5]) + "\nlimits: {}\n"
    assert "nothing is gated" in refusal(text)


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "x.circuit.yaml"
    file.write_bytes(b"forgetguard: 1\ncapability: caf\xe9\n")
    with pytest.raises(SpecificationError, match=r":2: byte 0xe9 is not UTF-8"):
        load_gate_file(file)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "x.circuit.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_gate_file(file).name == "x"


def test_a_path_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="no such circuit file"):
        load_gate_file(tmp_path / "gone.circuit.yaml")
    with pytest.raises(SpecificationError, match="cannot be read"):
        load_gate_file(tmp_path)


def inline(*pairs: dict[str, object]) -> str:
    return changed(3, "pairs:\n" + "\n".join(f"  - {json.dumps(pair)}" for pair in pairs))


def test_inline_pairs_carry_their_lines() -> None:
    spec = parse(inline(PAIR, PAIR | {"clean": "d b", "template": "t"}))
    assert isinstance(spec.pairs, InlinePairs)
    assert spec.pairs.pairs[1] == PromptPair("d b", "a c", " b", " c", "t", 5)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"clean": "x", "counterfactual": "y", "answer": " b"}, "logit_diff needs a distractor"),
        (PAIR, "the same pair as on line 4"),
        (PAIR | {"clean": "a c"}, "the counterfactual equals the clean prompt"),
        (PAIR | {"answer": " c"}, "the distractor equals the answer"),
        (PAIR | {"answer": ""}, "pairs: answer must not be empty"),
        (PAIR | {"answer": 12}, "pairs: answer must be text, got 12 (put it in quotes: '12')"),
        (PAIR | {"answers": "x"}, "pairs: answers must be a list of texts, got 'x'"),
        (PAIR | {"answers": [3]}, "pairs: answers: each must be text, got 3"),
        (PAIR | {"answers": [" c"]}, "' c' stands twice among the answers and distractors"),
        (PAIR | {"anwser": "x"}, "pairs: unknown key 'anwser': did you mean 'answer'"),
        ({"clean": "x", "answer": "y"}, "pairs: 'counterfactual' is missing"),
    ],
)
def test_a_bad_inline_pair_is_told_with_its_own_line(
    second: dict[str, object], complaint: str
) -> None:
    assert f"ioi.circuit.yaml:5: {complaint}" in refusal(inline(PAIR, second)).replace(
        "readout ", ""
    )


def test_an_unknown_readout_is_not_blamed_on_the_pairs() -> None:
    bare = {key: text for key, text in PAIR.items() if key != "distractor"}
    text = inline(bare, bare | {"clean": "z"}).replace("readout: logit_diff", "readout: nats")
    assert "distractor" not in refusal(text)


def test_a_prompt_file_is_found_beside_the_circuit_file(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.jsonl").write_text(
        "\n".join(json.dumps(PAIR | {"clean": f"{i} b"}) for i in range(5))
    )
    file = tmp_path / "x.circuit.yaml"
    file.write_text(changed(3, "pairs: {file: prompts/p.jsonl, count: 3}"))
    spec = load_gate_file(file)
    assert isinstance(spec.pairs, FilePairs)
    assert [pair.line for pair in as_capability(spec).pairs] == [1, 2, 3]
    # A run with a prompt seed draws from all of the file.
    seeded = [as_capability(replace(spec, prompt_seed=seed)).pairs for seed in range(9)]
    assert {len(pairs) for pairs in seeded} == {3}
    drawn = {pair.line for pairs in seeded for pair in pairs}
    assert drawn == {1, 2, 3, 4, 5}
    file.write_text(changed(3, "pairs: {file: prompts/p.jsonl, count: 6}"))
    with pytest.raises(SpecificationError, match=r"x.circuit.yaml:3: (.|\n)*holds 5 prompt pairs"):
        load_gate_file(file)


def test_a_head_limit_may_set_its_floor() -> None:
    first, second = parse().limits
    assert second.floor == 0.10
    given = parse(changed(8, "  dcv.head: {max: 0.5, floor: 0}")).limits[1]
    assert given == Limit("dcv.head", 0.5, floor=0.0)
    assert given != second
    assert "floor" not in schema.dump(parse())
    assert (first.measure.has_floor, second.measure.has_floor) == (False, True)


def test_pairs_may_be_drawn_stage_by_stage(tmp_path: Path) -> None:
    spec = parse(changed(3, "pairs: {task: ioi, count: 64, most: 256}"))
    assert spec.pairs == TaskPairs("ioi", 64, most=256)
    assert spec.pairs != TaskPairs("ioi", 64)
    (tmp_path / "p.jsonl").write_text(
        "\n".join(json.dumps(PAIR | {"clean": f"{i} b"}) for i in range(5))
    )
    file = tmp_path / "x.circuit.yaml"
    file.write_text(changed(3, "pairs: {file: p.jsonl, count: 2, most: 4}"))
    assert [pair.line for pair in as_capability(load_gate_file(file)).pairs] == [1, 2, 3, 4]
    file.write_text(changed(3, "pairs: {file: p.jsonl, count: 2, most: 6}"))
    with pytest.raises(SpecificationError, match=r"x.circuit.yaml:3: (.|\n)*holds 5 prompt pairs"):
        load_gate_file(file)


def test_a_circuit_may_be_of_the_core_set() -> None:
    spec = parse(changed(2, "capability: x\ncore: true"))
    assert (spec.core, parse().core) == (True, False)
    assert parse(schema.dump(spec)) == spec
    assert "core" not in schema.dump(parse())


def test_auto_names_no_heads() -> None:
    spec = parse(changed(5, "circuit: auto"))
    assert spec.auto
    assert spec.members == ()


def test_a_circuit_may_hold_mlp_layers() -> None:
    spec = parse(changed(5, "circuit: [L2H1, L1MLP]"))
    assert spec.members == (Head(2, 1), Mlp(1))
    assert parse(schema.dump(spec)) == spec
    suitability.check_heads(spec, layers=3, heads_per_layer=2)
    with pytest.raises(SpecificationError, match=r"L1MLP is not in this base"):
        suitability.check_heads(parse(changed(5, "circuit: [L1MLP]")), layers=1, heads_per_layer=2)


def test_two_circuits_of_one_name_are_told_with_both_files() -> None:
    specs = [parse(name="a/ioi.circuit.yaml"), parse(name="b/ioi.circuit.yaml")]
    with pytest.raises(SpecificationError, match=r"b/ioi.*'ioi'.*a/ioi"):
        suitability.check_names(specs)
    suitability.check_names([specs[0], parse(name="other.circuit.yaml")])


def test_heads_that_a_base_does_not_have_are_told_with_their_lines() -> None:
    spec = parse(changed(5, "circuit:\n  - L2H1\n  - L4H0\n  - L0H6"))
    with pytest.raises(SpecificationError) as caught:
        suitability.check_heads(spec, layers=4, heads_per_layer=6)
    first, second = str(caught.value).split("\n")
    assert "ioi.circuit.yaml:7: circuit: L4H0 is not in this base" in first
    assert "ioi.circuit.yaml:8: circuit: L0H6" in second
    suitability.check_heads(spec, layers=5, heads_per_layer=7)


def test_a_limit_over_the_reference_needs_one() -> None:
    spec = parse(changed(8, "  dcv.head.over_reference: {max: 0.1}"))
    with pytest.raises(SpecificationError, match=r":8: limits.dcv.head.over_reference needs"):
        suitability.check_given([spec], reference=False, baseline=True)
    suitability.check_given([spec], reference=True, baseline=False)
    suitability.check_given([parse()], reference=False, baseline=False)


CONFIG = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "num_attention_heads": 6}


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        ("{architecture: LlamaForCausalLM, layers: 4, heads: 6}", True),
        ("{architecture: LlamaForCausalLM, layers: 5}", False),
        ("{architecture: GPT2LMHeadModel}", False),
        (f"{{heads: 6, weights: {ABC}}}", True),
        (f"{{weights: {ABC[:-1]}d}}", False),
        ("{alias: 'tiny:base'}", True),
        ("{alias: [gpt2, 'tiny:base']}", True),
        ("any", True),
        ("{alias: 'tiny:sft'}", False),
    ],
)
def test_a_circuit_fits_a_base_where_all_that_is_given_matches(fits: str, expected: bool) -> None:
    spec = parse(changed(2, f"capability: x\nfits: {fits}"))
    assert suitability.fits_base(spec, CONFIG, lambda: ABC, alias="tiny:base") is expected


def test_a_circuit_fits_no_base_it_cannot_know() -> None:
    assert not suitability.fits_base(parse(), CONFIG, lambda: ABC, alias="x")
    unknown = parse(changed(2, "capability: x\nfits: {weights: " + ABC + "}"))
    assert not suitability.fits_base(unknown, CONFIG, lambda: None, alias="x")
    beyond = parse(changed(2, "capability: x\nfits: {layers: 2}"))
    smaller = CONFIG | {"num_hidden_layers": 2}
    assert not suitability.fits_base(beyond, smaller, lambda: None, alias="x")


@pytest.mark.parametrize(
    ("fits", "named"),
    [
        ("any", None),
        ("{alias: gpt2}", None),  # a name only
        (f"{{architecture: LlamaForCausalLM, layers: 4, heads: 6, weights: {ABC}}}", None),
        (
            "{architecture: GPT2LMHeadModel}",
            "architecture is GPT2LMHeadModel, this base's is",
        ),
        ("{layers: 99}", "layers is 99, this base's is 4"),
        (f"{{heads: 8, weights: {ABC}}}", "heads is 8, this base's is 6"),
        (f"{{weights: {ABC[:-1]}d}}", f"this base's is {ABC}"),
    ],
)
def test_a_circuit_of_another_base_is_refused(fits: str, named: str | None) -> None:
    spec = parse(changed(2, f"capability: x\nfits: {fits}"))
    if named is None:
        check_fits(spec, CONFIG, lambda: ABC)
        return
    with pytest.raises(SpecificationError, match="is of another base") as caught:
        check_fits(spec, CONFIG, lambda: ABC)
    assert named in str(caught.value)
    assert "take fits: out" in str(caught.value)


def test_weights_are_read_only_where_all_else_fits() -> None:
    def never() -> str:
        raise AssertionError("the weights were read")

    check_fits(parse(), CONFIG, never)
    check_fits(parse(changed(2, "capability: x\nfits: {layers: 4}")), CONFIG, never)
    spec = parse(changed(2, f"capability: x\nfits: {{layers: 5, weights: {ABC}}}"))
    with pytest.raises(SpecificationError, match="layers is 5"):
        check_fits(spec, CONFIG, never)


@pytest.mark.parametrize("maximum", [True, "0.1", float("nan"), float("inf"), -0.1, 1.0, 10, None])
@pytest.mark.parametrize("key", ["dcv.circuit", "accuracy.drop", "readout.drop.over_baseline"])
def test_no_such_maximum_gates_anything(key: str, maximum: object) -> None:
    assert "max must be" in str(schema.check_maximum(key, maximum))  # type: ignore[arg-type]
    assert schema.check_maximum(key, 0.0) is schema.check_maximum(key, 0.999) is None


def test_what_is_saved_reads_back_equal(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps(PAIR | {"clean": f"{i} b"}) for i in range(5)))
    base = parse()
    spec = GateSpec(
        "tiny-ioi", "ioi", base.pairs, "logprob", (Head(10, 0), Head(0, 10)),
        (Limit("dcv.circuit", 1e-7), Limit("dcv.head", 0.5, floor=0.05)),
        description="yes: 'it' is\nlong",
        fits=Fits(alias=("tiny:base", "t"), weights="0123e4" + "0" * 58, layers=4),
        chat_template=True, site="z", confidence=0.9,
        found={"method": "patching", "scores": {"L1H0": 0.25}, "note": "1e-3", "nothing": None},
    )  # fmt: skip
    texts = (
        PromptPair("no", "yes", " 12", None, "t"),
        PromptPair("a\nb ", " é#: -", "\t1.0", "null"),
        PromptPair("c", "d", " 4", " 1", answers=(" 5", "6"), distractors=(" 0",)),
    )
    sources = (
        spec.pairs,
        InlinePairs(texts),
        FilePairs(prompts.resolve(), 4),
        TaskPairs("ioi", 64, 3, most=200),
        FilePairs(prompts.resolve(), 2, most=4),
    )
    (tmp_path / "deep").mkdir()
    for number, pairs in enumerate(sources):
        before = replace(spec, pairs=pairs)
        file = tmp_path / "deep" / f"c{number}.circuit.yaml"
        assert schema.save(before, file) == before
        assert load_gate_file(file) == before
        assert hash(load_gate_file(file)) == hash(before)
    arguments = replace(spec, chat_template={"enable_thinking": False, "n": 1, "more": ["a"]})
    schema.save(arguments, file)
    assert load_gate_file(file) == arguments
    assert "../p.jsonl" in (tmp_path / "deep" / "c2.circuit.yaml").read_text()


def test_inline_pairs_keep_their_classes(tmp_path: Path) -> None:
    given = {"order": "abba", "count": "3"}
    pairs = InlinePairs((
        PromptPair("a", "b", " 1", " 2", classes=given), PromptPair("c", "d", " 1", " 2"),
    ))  # fmt: skip
    schema.save(replace(parse(), pairs=pairs), tmp_path / "x.circuit.yaml")
    read = load_gate_file(tmp_path / "x.circuit.yaml").pairs
    assert isinstance(read, InlinePairs)
    assert [pair.classes for pair in read.pairs] == [given, {}]


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [("abba", "classes must be a mapping of texts"), ("{order: 3}", "order must be text"),
     ("{order: [a]}", "order must be text"), ("{'': a}", "must have a name")],
)  # fmt: skip
def test_classes_that_are_no_texts_are_told_with_their_line(classes: str, complaint: str) -> None:
    entry = (
        f"  - {{clean: a, counterfactual: b, answer: ' x', distractor: ' y', classes: {classes}}}"
    )
    second = "  - {clean: c, counterfactual: d, answer: ' x', distractor: ' y'}"
    with pytest.raises(SpecificationError) as caught:
        parse(changed(3, f"pairs:\n{entry}\n{second}"))
    assert ":4: pairs: classes" in str(caught.value)
    assert complaint in str(caught.value)


def test_a_class_may_be_named_by_a_number() -> None:
    entry = "  - {{clean: {}, counterfactual: b, answer: ' x', distractor: ' y', classes: {{{}}}}}"
    text = changed(3, "\n".join(["pairs:", entry.format("a", "1: x"), entry.format("c", "010: y")]))
    read = parse(text).pairs
    assert isinstance(read, InlinePairs)
    assert [pair.classes for pair in read.pairs] == [{"1": "x"}, {"010": "y"}]


def test_a_circuit_that_cannot_be_gated_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "ioi.circuit.yaml"
    file.write_text(GOOD)
    for bad in (
        replace(parse(), limits=()),
        replace(parse(), name="a b"),
        replace(parse(), found={"x": object()}),
        replace(parse(), found={"x": float("nan")}),
    ):
        with pytest.raises(SpecificationError):
            schema.save(bad, file)
    assert file.read_text() == GOOD
    assert [path.name for path in tmp_path.iterdir()] == ["ioi.circuit.yaml"]
