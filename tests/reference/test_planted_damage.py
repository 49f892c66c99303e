"""Known answers on the tiny family: planted damage is found and named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_copies import (
    BASE,
    Damage,
    copy_of_base,
    group_of,
    group_values_zeroed,
    output_slice_zeroed,
    query_rows_noised,
)

import forgetguard as fg
from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import GateSpec, Limit, load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import Samples

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
# Tighter than a release's limits: what is planted here reads 0.10 to 0.46 for the circuit.
DCV = (Limit("dcv.circuit", 0.05), Limit("dcv.head", 0.15))


def spec(task: str) -> GateSpec:
    return load_gate_file(CIRCUITS / f"tiny-{task}.circuit.yaml")


def most_important(circuit: GateSpec) -> Head:
    """The head with the highest score in the circuit file."""
    assert circuit.found is not None
    scores = circuit.found["scores"]
    return Head.parse(max(scores, key=scores.__getitem__))


def measured(tuned: Path | str, *circuits: GateSpec, **options: object) -> list[Samples]:
    pair = fg.load(base=str(BASE), tuned=str(tuned), allow_same=True, **options)  # type: ignore[arg-type]
    session = GateSession(pair, circuits)
    return [session.measurement(circuit) for circuit in circuits]


def verdicts(tuned: Path, circuit: GateSpec) -> tuple[Verdict, Verdict]:
    """On dcv.circuit and on dcv.head."""
    pair = fg.load(base=str(BASE), tuned=str(tuned), allow_same=True)
    session = GateSession(pair, [circuit])
    whole, heads = (session.judge(circuit, limit) for limit in DCV)
    return whole, heads


@pytest.mark.parametrize("task", ["ioi", "key_value", "greater_than"])
def test_a_byte_copy_of_the_base_reads_exactly_zero(task: str, tmp_path: Path) -> None:
    circuit = spec(task)
    pair = fg.load(base=str(BASE), tuned=str(copy_of_base(tmp_path)), allow_same=True)
    session = GateSession(pair, [circuit])
    measurement = session.measurement(circuit)
    assert {str(head) for head in circuit.members} < set(measurement.subjects("damage"))
    assert not any(measurement.need("damage", one).any() for one in measurement.subjects("damage"))
    assert (measurement.need("readout", role="base") == measurement.need("readout")).all()
    for verdict in [session.judge(circuit, limit) for limit in DCV]:
        assert verdict.outcome is Outcome.PASS
        assert verdict.estimate is not None
        assert (verdict.estimate.value, *verdict.estimate.interval) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("task", ["ioi", "induction", "key_value"])
@pytest.mark.parametrize("plant", [query_rows_noised, output_slice_zeroed, group_values_zeroed])
def test_damage_to_one_circuit_head_is_found_and_named_first(
    task: str, plant: Callable[[Head], Damage], tmp_path: Path
) -> None:
    circuit = spec(task)
    head = most_important(circuit)
    whole, heads = verdicts(copy_of_base(tmp_path, plant(head)), circuit)
    assert Outcome.FAIL in (whole.outcome, heads.outcome)
    assert Outcome.PASS not in (whole.outcome, heads.outcome)
    expected = group_of(head) if plant is group_values_zeroed else {str(head)}
    for verdict in (whole, heads):
        worst = verdict.subjects[0]
        assert worst.subject in expected
        assert worst.own is not None
        assert worst.own.low > 0
        inherited = [other for other in verdict.subjects if other.subject not in expected]
        assert all(other.own is not None and other.own.value == 0.0 for other in inherited)
    assert whole.units
    assert whole.units[0].loss > 0


def test_damage_to_the_output_projection_is_invisible_to_z_alone(tmp_path: Path) -> None:
    circuit = spec("key_value")
    damaged = copy_of_base(tmp_path, output_slice_zeroed(most_important(circuit)))
    last = max(circuit.members).layer
    (at_z,) = measured(damaged, replace(circuit, name="at-z", site="z"))
    (contribution,) = measured(damaged, circuit)
    head = most_important(circuit)
    assert contribution.need("damage", str(head)).mean() > 0.1
    assert not at_z.need("damage", str(head)).any(), f"layers up to {last} feed it nothing new"


def test_destroying_a_head_outside_the_circuit_does_not_fail_it(tmp_path: Path) -> None:
    circuit = spec("ioi")
    last = 3
    outside = next(
        head for head in (Head(last, index) for index in range(6)) if head not in circuit.members
    )
    for plant in (output_slice_zeroed, query_rows_noised):
        for verdict in verdicts(copy_of_base(tmp_path / plant.__name__, plant(outside)), circuit):
            assert verdict.outcome is Outcome.PASS, verdict.code


def random_adapter(directory: Path) -> Path:
    """A LoRA adapter on every projection of the attention, the output's too, with random weights:
    the shipped one leaves some of them alone."""
    from peft import LoraConfig, get_peft_model

    modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = get_peft_model(load_model(resolve("tiny:base", "base")), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    model.save_pretrained(directory / "adapter")
    return directory / "adapter"


@pytest.mark.parametrize("which", ["tiny:lora", "random"])
def test_a_lora_adapter_reads_like_its_merged_twin(which: str, tmp_path: Path) -> None:
    from peft import PeftModel

    given = str(random_adapter(tmp_path)) if which == "random" else which
    circuits = [spec("ioi"), spec("induction")]
    adapter = measured(given, *circuits)
    base = load_model(resolve("tiny:base", "base"))
    merged = PeftModel.from_pretrained(base, resolve(given, "tuned").location).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    twin = measured(tmp_path / "merged", *circuits)
    for ours, theirs in zip(adapter, twin, strict=True):
        assert dcvs(ours) == pytest.approx(dcvs(theirs), abs=1e-4)
        assert any(abs(value) > 1e-3 for value in dcvs(ours)), "an adapter that does nothing"


def dcvs(measurement: Samples) -> list[float]:
    """DCV of the circuit and of every head."""
    return [
        measurement.need("damage", one).mean() / measurement.need("importance", one, "base").mean()
        for one in measurement.subjects("damage")
    ]


def test_placement_and_order_do_not_change_a_number() -> None:
    circuits = [spec("ioi"), spec("key_value")]
    first = measured("tiny:sft", *circuits)
    second = measured("tiny:sft", *reversed(circuits), placement="resident")
    for ours, theirs in zip(first, reversed(second), strict=True):
        assert (ours.need("damage", "circuit") == theirs.need("damage", "circuit")).all()


def test_bfloat16_agrees_with_float32() -> None:
    circuit = spec("ioi")
    (full,), (half,) = (
        measured("tiny:sft", circuit),
        measured("tiny:sft", circuit, dtype="bfloat16"),
    )
    of_both = [one.need("importance", "circuit", "base").mean() for one in (half, full)]
    ratio = of_both[0] / of_both[1]
    assert ratio == pytest.approx(1.0, abs=0.1)


def test_python_reads_what_the_gate_reads() -> None:
    circuit = spec("ioi")
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    capability = fg.capability("ioi", pairs=CIRCUITS / "prompts" / "tiny-ioi.jsonl")
    result = fg.vulnerability(pair, capability, circuit.members)
    verdict = GateSession(pair, [circuit]).judge(circuit, Limit("dcv.circuit", 0.10))
    assert verdict.estimate is not None
    assert result.circuit.value == pytest.approx(verdict.estimate.value, abs=1e-12)
    low, high = result.circuit.interval
    assert low <= result.circuit.value <= high
    assert set(result.heads) | set(result.abstained) == {str(head) for head in circuit.members}


def test_a_vocabulary_that_fine_tuning_has_grown_is_compared_on_the_shared_ids(
    tmp_path: Path,
) -> None:
    circuit = spec("ioi")
    model = load_model(resolve("tiny:base", "base"))
    grown = model.get_input_embeddings().weight.shape[0] + 3
    model.resize_token_embeddings(grown, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[-3:] = 100.0  # would win every argmax
    model.save_pretrained(tmp_path / "grown")
    (measurement,) = measured(tmp_path / "grown", circuit)
    assert not measurement.need("damage", "circuit").any()
    for quantity in ("readout", "correct"):
        assert (measurement.need(quantity, role="base") == measurement.need(quantity)).all()


def test_a_sharded_checkpoint_reads_like_the_whole_one(tmp_path: Path) -> None:
    circuit = spec("ioi")
    model = load_model(resolve("tiny:sft", "tuned"))
    model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    (sharded,), (whole,) = measured(tmp_path / "sharded", circuit), measured("tiny:sft", circuit)
    assert dcvs(sharded) == dcvs(whole)
