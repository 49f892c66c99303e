"""Known doses on the tiny base: what is planted is what is read, and nulls read nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import literal
import numpy as np
import pytest
import torch
from tiny_copies import output_slice_zeroed

import forgetguard as fg
from examples.studies.drift.weights import parameter_drift
from examples.studies.sensitivity.detection import ANY
from examples.studies.sensitivity.dose_response import Sensitivity, sensitivity
from examples.studies.sensitivity.mixture import mixed_head
from examples.studies.sensitivity.planting import EDITS, edit, output_slice
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.calibration.calibrating import calibrate
from forgetguard.calibration.copies import (
    changed_copy,
    describe_plain,
    moved,
    perturbation,
    temporary_copy,
)
from forgetguard.calibration.nulls import (
    Setting,
    batches_readings,
    patched,
    read_dtype,
    read_kernel,
)
from forgetguard.calibration.prepared import Prepared, measured, prepare
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.errors import BaseCannotError, CheckpointError, SpecificationError
from forgetguard.gate.runner import OtherReading, capability_of
from forgetguard.gate.schema import GateSpec, load_gate_file
from forgetguard.measures.parameter_drift import weight_pairs

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
# The largest |DCV| of circuits and of heads worth a tenth of them, measured on the tiny circuits:
# other kernels 3e-7, other batches 0 (on one thread), bfloat16 8e-4 for circuits, 3e-3 for heads.
KERNEL, BATCHES, DTYPE = 1e-5, 1e-5, 0.02


def circuit(task: str, count: int = 16) -> GateSpec:
    """A bundled circuit on its first pairs."""
    spec = load_gate_file(CIRCUITS / f"tiny-{task}.circuit.yaml")
    return replace(spec, pairs=replace(spec.pairs, count=count))


def base() -> CheckpointSpec:
    return resolve("tiny:base", "base")


@pytest.fixture
def pair() -> Iterator[ModelPair]:
    with ModelPair({"base": base()}) as found:
        yield found


def prepared(pair: ModelPair, spec: GateSpec) -> Prepared:
    return prepare(pair, [spec]).ready[0]


# --- the mixture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["ioi", "key_value"])
@pytest.mark.parametrize("dose", [0.0, 0.3, 1.0])
def test_a_mixture_reads_what_a_literal_forward_pass_reads(
    pair: ModelPair, task: str, dose: float
) -> None:
    """The planted head's DCV, recomputed with plain hooks pair by pair: mixed z, written over."""
    one = prepared(pair, circuit(task))
    head = max(h for h in one.spec.members if isinstance(h, Head) and h.layer < 2)
    capability = capability_of(one.part)
    with pair.base.open() as model:
        anatomy = locate(model)
        foreign = mixed_head(anatomy, capability, one.spec.members, head, dose)
        found = measured(anatomy, one, {"mixed": OtherReading(foreign)}, located=True)["mixed"]
        damage, importance = [], []
        for batch in capability.batches:
            rows = torch.arange(len(batch.pairs))
            assert batch.distractor is not None
            ours, theirs = (
                literal.activations(anatomy, ids)[head]
                for ids in (batch.clean, batch.counterfactual)
            )

            def readout(z: torch.Tensor, batch=batch, rows=rows) -> torch.Tensor:  # type: ignore[no-untyped-def]
                logits = literal.logits(anatomy, batch.clean, {head: z})[:, batch.positions[-1]]
                return logits[rows, batch.answer[:, 0]] - logits[rows, batch.distractor[:, 0]]

            clean = readout(ours)
            damage.append((clean - readout((1 - dose) * ours + dose * theirs)).double())
            importance.append((clean - readout(theirs)).double())
    expected = float(torch.cat(damage).mean() / torch.cat(importance).mean())
    worth = found.need("importance", str(head), "base").mean()
    dcv = found.need("damage", str(head)).mean() / worth
    assert dcv == pytest.approx(expected, abs=2e-5)
    if dose in (0.0, 1.0):
        assert dcv == pytest.approx(dose, abs=1e-6)
    own = found.need("own_damage", str(head)).mean() / worth
    assert own == pytest.approx(dcv, abs=1e-6), "its inputs are the base's: all of it is its own"
    for other in one.spec.members:
        if other.layer <= head.layer and other != head:
            assert not found.need("damage", str(other)).any(), f"{other} is not after {head}"
        if other != head and isinstance(other, Head):
            assert not found.need("own_damage", str(other)).any()


# --- copies ---------------------------------------------------------------------------------------


def test_a_copy_without_changes_is_the_base(tmp_path: Path) -> None:
    copy = changed_copy(base(), tmp_path / "copy", {})
    assert fingerprint(copy) == fingerprint(base())


def test_a_full_scale_plant_is_the_zeroed_slice(pair: ModelPair, tmp_path: Path) -> None:
    """Against the tests' own way of zeroing a head's output slice, which knows the tiny layout."""
    from safetensors.torch import load_file

    head = Head(1, 4)
    with pair.base.open() as model:
        where = output_slice(locate(model), head, describe_plain(base(), LoadOptions()))
    copy = changed_copy(base(), tmp_path / "copy", edit(where, "scale", 1.0))
    expected = load_file(Path(base().location) / "model.safetensors")
    output_slice_zeroed(head)(expected)
    found = load_file(copy.directory / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("plant", sorted(EDITS))
def test_a_plant_in_a_sharded_bfloat16_checkpoint_rewrites_one_shard(
    plant: str, tmp_path: Path
) -> None:
    from forgetguard.checkpoints.loading import load_model

    load_model(base(), LoadOptions(dtype="bfloat16")).save_pretrained(
        tmp_path / "sharded", max_shard_size="200KB"
    )
    sharded = resolve(str(tmp_path / "sharded"), "base")
    with ModelPair({"base": sharded}) as pair, pair.base.open() as model:
        where = output_slice(locate(model), Head(2, 1), describe_plain(sharded, LoadOptions()))
    copy = changed_copy(sharded, tmp_path / "copy", edit(where, plant, 0.5))
    shards = sorted(copy.directory.glob("*.safetensors"))
    assert len(shards) > 2
    assert sum(not shard.is_symlink() for shard in shards) == 1
    changed = [one.name for one in parameter_drift(sharded, copy).tensors if one.drift.change]
    assert changed == [where.name]


def test_a_tied_embedding_saved_twice_changes_twice(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "twice"
    changed_copy(base(), folder, {"model.norm.weight": lambda tensor: tensor})
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    twice = resolve(str(folder), "base")
    copy = changed_copy(twice, tmp_path / "copy", {"model.embed_tokens.weight": lambda w: w + 1})
    found = load_file(copy.directory / "model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], tensors["lm_head.weight"])


def test_an_adapter_cannot_be_copied_tensor_by_tensor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is an adapter"):
        changed_copy(resolve("tiny:lora", "base"), tmp_path / "copy", {})


@pytest.mark.parametrize("tuned", ["tiny:sft", "tiny:lora"])
def test_a_random_change_moves_every_matrix_as_far_as_tuning_did(tuned: str) -> None:
    """Read back from the written checkpoint by the measure of drift, which knows nothing of it."""
    weights = weight_pairs(base(), resolve(tuned, "tuned"))
    changes = perturbation(moved(weights), seed=5)
    with temporary_copy(base(), changes) as copy:
        found = {one.name: one.drift for one in parameter_drift(base(), copy).tensors}
    expected = parameter_drift(base(), resolve(tuned, "tuned"))
    assert any(one.drift.change for one in expected.tensors)
    for one in expected.tensors:
        assert found[one.name].change == pytest.approx(one.drift.change, rel=1e-5, abs=1e-12)


# --- nulls ----------------------------------------------------------------------------------------


def test_harmless_nulls_read_next_to_nothing(pair: ModelPair) -> None:
    specs = [circuit("ioi"), circuit("fact_recall")]
    setting = Setting(pair, prepare(pair, specs).ready, None)
    kernel = read_kernel(setting)
    assert not isinstance(kernel, str)
    readings = [
        *patched(setting, [read_dtype(setting), kernel]),
        *batches_readings(setting, 2),
    ]
    assert [reading.null.kind for reading in readings] == ["dtype", "kernel", "batches", "batches"]
    bounds = {"dtype": DTYPE, "kernel": KERNEL, "batches": BATCHES}
    for reading in readings:
        for measurement in reading.samples.values():
            whole = measurement.need("importance", "circuit", "base").mean()
            for name in measurement.subjects("damage"):
                damage = measurement.need("damage", name)
                worth = measurement.need("importance", name, "base").mean()
                if abs(worth) >= 0.1 * whole:
                    assert abs(damage.mean() / worth) <= bounds[reading.null.kind]
            if reading.null.kind == "dtype":
                assert measurement.need("damage", "circuit").any(), "bfloat16 changes nothing"


def test_a_calibration_reads_every_null_and_states_its_rate() -> None:
    spec = circuit("ioi", 32)
    found = calibrate(fg.load(base="tiny:base", tuned="tiny:sft"), [spec], draws=3, alarm=0.25)
    (one,) = found.circuits
    kinds = [row.null.kind for row in one.rows]
    assert sorted(set(kinds)) == ["batches", "dtype", "kernel", "matched"]
    assert kinds.count("matched") == 3
    assert one.tuned is not None
    assert one.sets is not None
    assert [len(chosen) for chosen in one.sets.sets] == [len(spec.members)] * 3
    for advice in one.advice:
        assert advice.passes is not None
        assert advice.passes.as_asked, "3 draws can state a quarter"
        assert not advice.held_harmless
        matched = [row.held[advice.limit.key] for row in one.of("matched")]
        assert advice.suggested >= max(each.passes for each in matched) - 1e-9
        assert advice.not_fails is not None
        assert advice.not_fails.limit <= advice.passes.limit
    # One seed, one answer.
    again = calibrate(fg.load(base="tiny:base", tuned="tiny:sft"), [spec], draws=3, alarm=0.25)
    assert [row.circuit for row in again.circuits[0].rows] == [row.circuit for row in one.rows]
    assert np.array_equal(again.circuits[0].sets.values, one.sets.values)  # type: ignore[union-attr]


def test_without_a_tuned_model_limits_are_never_lowered() -> None:
    spec = circuit("ioi")
    found = calibrate(fg.load(base="tiny:base"), [spec], draws=3)
    assert found.moved is None
    (one,) = found.circuits
    assert one.tuned is None
    assert one.sets is None
    assert {row.null.kind for row in one.rows} == {"batches", "dtype", "kernel"}
    for advice in one.advice:
        assert advice.passes is None
        assert advice.written >= advice.limit.maximum


# --- the dose-response ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    return sensitivity(
        fg.load(base="tiny:base"),
        [circuit("ioi", 32)],
        plants=("mixture", "scale"),
        doses=(0.25, 0.5, 1.0),
        draws=5,
    )


def test_a_mixture_grows_with_its_dose_up_to_a_dcv_of_one(found: Sensitivity) -> None:
    curve = found.curves[0]
    assert curve.plant == "mixture"
    assert curve.doses == (0.0, 0.25, 0.5, 1.0)
    planted = [point.planted for point in curve.points]
    assert all(one is not None for one in planted)
    values = [one.value for one in planted if one is not None]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == pytest.approx(1.0, abs=1e-6)
    circuits = [one.circuit.value for one in curve.points if one.circuit is not None]
    assert circuits == sorted(circuits)
    readouts = [point.readout for point in curve.points]
    assert readouts == sorted(readouts, reverse=True)
    for point in curve.points:
        assert point.own is not None
        assert point.planted is not None
        assert point.own.value == pytest.approx(point.planted.value, abs=1e-6)


def test_the_undamaged_base_passes_every_draw_and_the_ruined_one_fails(found: Sensitivity) -> None:
    for curve in found.curves:
        first = curve.points[0].shares
        assert all(one.passed == 1.0 for key, one in first.items() if key.startswith("dcv"))
        assert first[ANY].failed == 0
        for point in curve.points:
            for one in point.shares.values():
                assert one.passed + one.failed + one.abstained == pytest.approx(1.0)
    mixture = found.curves[0]
    assert mixture.points[-1].shares["dcv.circuit"].failed == 1.0
    seen = mixture.detected["dcv.circuit"]
    assert seen.dose is not None
    assert seen.below is not None
    assert mixture.detected[ANY].dose is not None
    assert mixture.detected[ANY].dose <= seen.dose


def test_a_scaled_slice_is_the_heads_own_damage(found: Sensitivity) -> None:
    curve = found.curves[1]
    assert curve.plant == "scale"
    values = [point.planted.value for point in curve.points if point.planted is not None]
    assert values == sorted(values)
    last = curve.points[-1]
    assert last.own is not None
    assert last.planted is not None
    assert last.own.value == pytest.approx(last.planted.value, abs=1e-5)
    assert 0 < last.planted.value < 1, "silence does less harm than a wrong prompt's head"


def test_one_seed_gives_one_answer(found: Sensitivity) -> None:
    again = sensitivity(
        fg.load(base="tiny:base"),
        [circuit("ioi", 32)],
        plants=("scale",),
        doses=(0.5,),
        draws=5,
    )
    ours = next(point for point in found.curves[1].points if point.dose == 0.5)
    theirs = next(point for point in again.curves[0].points if point.dose == 0.5)
    assert ours == theirs


# --- misuse ---------------------------------------------------------------------------------------


def test_what_the_base_cannot_do_is_said_and_left_out(tmp_path: Path) -> None:
    spec = circuit("ioi")
    pairs = spec.pairs.pairs[:16]  # type: ignore[union-attr]
    swapped = tuple(
        replace(one, answer=one.distractor or "", distractor=one.answer) for one in pairs
    )
    wrong = replace(spec, name="wrong", pairs=replace(spec.pairs, pairs=swapped))  # type: ignore[call-arg]
    pair = fg.load(base="tiny:base")
    found = prepare(pair, [wrong, spec])
    assert [one.spec.name for one in found.ready] == ["tiny-ioi"]
    assert "THE BASE CANNOT DO 'ioi'" in found.refused[0]
    with pytest.raises(BaseCannotError, match="CANNOT DO"):
        prepare(pair, [wrong])


def test_doses_and_plants_that_do_not_exist_are_refused() -> None:
    pair = fg.load(base="tiny:base")
    with pytest.raises(SpecificationError, match=r"dose 1\.5 is not from 0"):
        sensitivity(pair, [circuit("ioi")], doses=(1.5,))
    with pytest.raises(SpecificationError, match="unknown plant 'poison'"):
        sensitivity(pair, [circuit("ioi")], plants=("poison",))
    with pytest.raises(SpecificationError, match="no circuits"):
        sensitivity(pair, [])
