"""A gate file is a circuit file without a circuit: prompts, or nothing, and measures that need no
more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from forgetguard.capabilities.pairs import Prompt
from forgetguard.errors import SpecificationError
from forgetguard.gate import schema
from forgetguard.gate.declaration import GateSpec, Limit, Prompts, TaskPairs
from forgetguard.gate.schema import load_gate_file, parse_gate
from forgetguard.measures import registry
from forgetguard.measures.measure import NATS, RATIO_TO_CONTROL, Estimator, Measure, Sampled

GOOD = """\
forgetguard: 2
prompts:
  - The capital of France is
  - {prompt: Two and two are, completion: " four", template: sums}
limits:
  toy.nats: {max: 1.5}
"""
TOYS = (
    Measure(
        "toy.nats",
        "over prompts",
        NATS,
        Sampled.PROMPTS,
        read=lambda opened: len(opened.passages),
        compare=lambda opened, _: {"": np.zeros(len(opened.passages))},
    ),
    Measure(
        "toy.exact",
        "of the files alone",
        RATIO_TO_CONTROL,
        Sampled.NOTHING,
        estimator=Estimator.EXACT,
        on_disk=lambda *_: {"": 0.0},
    ),
)


@pytest.fixture(autouse=True)
def other_distribution(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measures as another distribution gives them."""
    dist = SimpleNamespace(name="toys")
    points = {
        toy.key: (SimpleNamespace(load=lambda toy=toy: toy, dist=dist, value="toys"),)
        for toy in TOYS
    }
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def parse(text: str = GOOD, name: str = "capitals.gate.yaml") -> GateSpec:
    return parse_gate(text, name)


def refusal(text: str, name: str = "capitals.gate.yaml") -> str:
    with pytest.raises(SpecificationError) as caught:
        parse(text, name)
    return str(caught.value)


def limited(limits: str, source: str = "prompts: [a b, c d]") -> str:
    return f"forgetguard: 2\n{source}\nlimits: {limits}\n"


def test_a_gate_file_reads_as_written() -> None:
    spec = parse()
    assert (spec.name, spec.capability, spec.has_circuit, spec.has_pairs) == (
        "capitals", "", False, False,
    )  # fmt: skip
    assert isinstance(spec.pairs, Prompts)
    assert spec.pairs.prompts == (
        Prompt("The capital of France is", line=3),
        Prompt("Two and two are", " four", "sums", line=4),
    )
    assert spec.limits == (Limit("toy.nats", 1.5),)
    assert (spec.limits[0].line, spec.limits[0].measure.source) == (6, "toys")


def test_prompts_of_a_file_are_found_beside_it(tmp_path: Path) -> None:
    lines = [{"prompt": f"{i} b", "completion": " c"} for i in range(5)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = tmp_path / "x.gate.yaml"
    file.write_text(limited("{toy.nats: {max: 1}}", "prompts: {file: p.jsonl, count: 3}"))
    spec = load_gate_file(file)
    assert isinstance(spec.pairs, Prompts)
    assert spec.pairs.path == (tmp_path / "p.jsonl").resolve()
    assert [(one.completion, one.line) for one in spec.pairs.prompts] == [
        (" c", 1), (" c", 2), (" c", 3), (" c", 4), (" c", 5),
    ]  # fmt: skip


def test_a_measure_of_the_files_alone_needs_no_prompts() -> None:
    spec = parse("forgetguard: 2\nlimits: {toy.exact: {max: 3}}\n")
    assert spec.pairs is None
    assert not spec.limits[0].measure.needs_prompts


def test_a_gate_file_may_give_pairs_without_a_circuit() -> None:
    source = "capability: ioi\npairs: {task: ioi, count: 64}\nreadout: logit_diff"
    spec = parse(limited("{readout.drop: {max: 0.1}, toy.nats: {max: 1}}", source))
    assert spec.pairs == TaskPairs("ioi", 64)
    assert not spec.has_circuit


@pytest.mark.parametrize("source", ["prompts: [a, {prompt: b, template: t}, c]", "", "file"])
def test_what_is_saved_reads_back_equal(source: str, tmp_path: Path) -> None:
    if source == "file":
        source = "prompts: {file: p.jsonl, count: 2}"
        (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    key = "toy.nats" if source else "toy.exact"
    file = tmp_path / "x.gate.yaml"
    file.write_text(limited(f"{{{key}: {{max: 0.5}}, {key}.over_reference: {{max: 0}}}}", source))
    spec = load_gate_file(file)
    assert schema.save(spec, file) == spec
    assert load_gate_file(file) == spec


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD.replace(": 2\n", ": 1\n"), 1, "forgetguard must be 2"),
        (limited("{toy.natz: {max: 1}}"), 3, "unknown limit 'toy.natz': did you mean 'toy.nats'"),
        (limited("{zzz: {max: 1}}"), 3, f"the measures are {', '.join(registry.BUILT_IN)}"),
        (limited("{toy.nats.over_base: {max: 1}}"), 3, "unknown limit"),
        (limited("{toy.nats: {max: -0.1}}"), 3, "limits.toy.nats: max must be 0 or more"),
        (limited("{toy.nats: {max: 1, floor: 0}}"), 3, "unknown key 'floor'"),
        (limited("{dcv.circuit: {max: 0.1}}"), 3, "limits.dcv.circuit needs a circuit"),
        (limited("{readout.drop: {max: 0.1}}"), 3, "limits.readout.drop needs prompt pairs"),
        (
            limited("{accuracy.drop.over_reference: {max: 0.1}}"),
            3,
            "limits.accuracy.drop.over_reference needs prompt pairs",
        ),
        ("forgetguard: 2\nlimits: {toy.nats: {max: 1}}", 2, "limits.toy.nats needs prompts"),
        (limited("{toy.nats: {max: 1}}", "prompts: [a]"), 2, "prompts: holds 1, at least 2"),
        (limited("{toy.nats: {max: 1}}", "prompts: [a, b, a]"), 2, "the same prompt as on line 2"),
        (limited("{toy.nats: {max: 1}}", "prompts: [a, 12, b]"), 2, "must be text, got 12"),
        (limited("{toy.nats: {max: 1}}", "prompts: [a, '', b]"), 2, "must not be empty"),
        (limited("{toy.nats: {max: 1}}", "prompts: a"), 2, "prompts must be a list"),
        (
            limited("{toy.nats: {max: 1}}", "prompts: [a, b, {promt: c}]"),
            2,
            "unknown key 'promt': did you mean 'prompt'",
        ),
        (
            limited("{toy.nats: {max: 1}}", "prompts: {file: p.jsonl, cout: 3}"),
            2,
            "unknown key 'cout': did you mean 'count'",
        ),
        (
            limited("{toy.nats: {max: 1}}", "circuit: [L0H1]\nprompts: [a, b]"),
            2,
            "unknown key 'circuit'",
        ),
        (
            limited("{toy.nats: {max: 1}}", "prompts: [a, b]\npairs: {task: ioi, count: 64}"),
            2,
            "give prompts or pairs, not both",
        ),
        (
            limited("{toy.nats: {max: 1}}", "pairs: {task: ioi, count: 64}"),
            2,
            "'readout' is missing",
        ),
        (limited("{}"), 3, "nothing is gated"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, line: int, said: str) -> None:
    told = [one for one in refusal(text).split("\n") if said in one]
    assert len(told) == 1, refusal(text)
    assert told[0].startswith(f"capitals.gate.yaml:{line}: ")


@pytest.mark.parametrize("key", ["readout.drop", "readout.drop.over_reference", "accuracy.drop"])
def test_a_share_of_all_is_no_limit(key: str) -> None:
    source = "capability: ioi\npairs: {task: ioi, count: 64}\nreadout: logit_diff"
    assert refusal(limited(f"{{{key}: {{max: 1}}}}", source)).startswith(
        f"capitals.gate.yaml:5: limits.{key}: max must be below 1"
    )


def test_nats_and_ratios_have_no_upper_end() -> None:
    assert parse(limited("{toy.nats: {max: 40}, toy.exact: {max: 40}}")).limits[0].maximum == 40


def test_what_is_wrong_with_a_prompt_file_is_told_below_the_line_that_names_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "a"}\n{"prompts": "b"}\n')
    file = tmp_path / "x.gate.yaml"
    file.write_text(limited("{toy.nats: {max: 1}}", "prompts: {file: p.jsonl}"))
    with pytest.raises(SpecificationError) as caught:
        load_gate_file(file)
    named, *wrong = str(caught.value).split("\n")
    assert named == f"{file}:2: prompts: file:"
    places = [one.strip().removeprefix(f"{tmp_path}/p.jsonl:").partition(":")[0] for one in wrong]
    assert places == ["2", "3", "3"]


def test_a_measure_that_two_distributions_give_is_an_error_when_it_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, theirs = (SimpleNamespace(dist=SimpleNamespace(name=name)) for name in ("a", "b"))
    monkeypatch.setattr(registry, "_entry_points", lambda: {"toy.nats": (mine, theirs)})
    registry._load.cache_clear()
    found = parse().limits[0].measure
    assert found.on_disk is not None
    with pytest.raises(Exception, match="given by a and by b"):
        found.on_disk(None, None, None)  # type: ignore[arg-type]
