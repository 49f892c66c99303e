"""Comparisons of the tiny family: a byte copy reads no change, and interrupted work is taken up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import literal
import numpy as np
import pytest
import torch
from tiny_copies import copy_of_base

from examples.studies.comparison.compare import compare
from examples.studies.comparison.reading import circuit_of
from examples.studies.comparison.result import Comparison
from examples.studies.comparison.table import comparison_text
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.variants import halves
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.store import Store
from forgetguard.errors import BaseCannotError, CapabilityError, SpecificationError

INDUCTION = Capability("induction", task="induction", count=32)
FEW: dict[str, Any] = {"seeds": (0, 1), "settings": {"steps": 55}}  # state is kept at 50


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the file, so that no mask is learned twice but where a test is about that."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETGUARD_CACHE", str(cache))


@pytest.fixture(scope="module")
def finished(cache: Path) -> Comparison:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FORGETGUARD_CACHE", str(cache))
        return compare(models(reference="tiny:lora"), INDUCTION, **FEW)


def models(tuned: str | Path = "tiny:sft", reference: str | Path | None = None) -> ModelPair:
    given = {"base": "tiny:base", "tuned": tuned, "reference": reference}
    return ModelPair({role: resolve(str(at), role) for role, at in given.items() if at is not None})


def test_a_byte_copy_of_the_base_reads_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "none"))
    pair = models(copy_of_base(tmp_path), copy_of_base(tmp_path / "other"))
    found = compare(pair, INDUCTION, keep=False, seeds=(0, 1), settings={"steps": 20})
    base, copies = found.columns[0], found.columns[1:]
    assert found.ceiling is not None
    assert found.ceiling.corrected is not None
    assert 0 < found.ceiling.corrected.mean < 1, "at 1 nothing would tell it from retention"
    assert base.masks[0] != base.masks[1], "two seeds of one mask: this test would see nothing"
    for copy in copies:
        assert copy.masks == base.masks
        assert set((copy.shift or {}).values()) == {0.0}
        assert copy.transfer == copy.faithfulness == base.faithfulness
        assert copy.paper_transfer == copy.paper_faithfulness == base.paper_faithfulness
        assert copy.necessity == base.necessity
        assert copy.spearman == pytest.approx(1)
        assert (copy.accuracy, copy.readout) == (base.accuracy, base.readout)
        assert copy.retention is not None
        # Runs in the order of product(): equal seeds are the first and the last.
        equal = [copy.retention.retained.overlaps[i] for i in (0, 3)]
        assert [one.containment for one in equal] == [1.0, 1.0]
        assert copy.retention.across == found.ceiling
        assert copy.retention.relative == 1.0
    assert found.vulnerable is not None
    assert found.vulnerable.members == ()
    assert not (tmp_path / "none").exists(), "keep=False must leave nothing behind"


class _StoppedError(Exception):
    pass


def _stop_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break off at the saving of that number, before it is done."""
    save, count = Store.save, iter(range(number))

    def stopping(store: Store, key: str, values: np.ndarray) -> None:
        if next(count, None) is None:
            raise _StoppedError
        save(store, key, values)

    monkeypatch.setattr(Store, "save", stopping)


def _learned(reports: Sequence[str], role: str) -> int:
    return sum(what.startswith(role) and "learning a mask" in what for what in reports)


def test_an_interrupted_comparison_goes_on_to_the_same_numbers(
    finished: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(models(), INDUCTION, **FEW)  # all of it from the cache
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "another"))
    for stop in (3, 9):  # in the middle of the base's masks, and of what is read after them
        with monkeypatch.context() as patched:
            _stop_at(stop, patched)
            with pytest.raises(_StoppedError):
                compare(models(), INDUCTION, **FEW)
    reports: list[str] = []
    resumed = compare(
        models(),
        INDUCTION,
        progress=lambda what, *_: reports.append(what),
        **FEW,
    )
    assert resumed.to_dict() == whole.to_dict()
    assert whole.column("base") == finished.column("base")
    assert _learned(reports, "base") == 0
    assert _learned(reports, "tuned") > 0


def test_work_on_a_model_serves_every_comparison_it_is_in(finished: Comparison) -> None:
    reports: list[str] = []
    found = compare(
        models("tiny:lora"), INDUCTION, progress=lambda what, *_: reports.append(what), **FEW
    )
    assert found.column("base") == finished.column("base")
    assert found.column("tuned").masks == finished.column("reference").masks
    assert _learned(reports, "base") == _learned(reports, "tuned") == 0
    assert found.against == "base"


def test_what_stands_in_the_columns_is_what_the_models_do(finished: Comparison) -> None:
    base, tuned, reference = finished.columns
    assert base.accuracy > 0.95 > tuned.accuracy
    assert reference.accuracy > tuned.accuracy
    assert finished.against == "reference"
    assert finished.split.learned_on == finished.split.held_out == 16
    assert finished.heads == 24
    assert base.pearson is not None
    assert base.pearson > 0.8
    assert len(base.sizes) == len(base.masks) == 2


def test_circuits_are_read_on_held_out_pairs_as_a_naive_loop_reads_them(
    finished: Comparison,
) -> None:
    tuned = locate(load_model(resolve("tiny:sft", "tuned")))
    _, held_out = halves(INDUCTION.encoded(models().base.tokenizer))
    column = finished.column("tuned")
    circuits = [circuit_of(mask) for mask in column.masks]
    assert circuits[0], "an empty circuit would show nothing"
    alone, switched = np.zeros((2, held_out.n_pairs)), np.zeros((2, held_out.n_pairs))
    whole = np.zeros((2, held_out.n_pairs))
    for i, one in enumerate(held_out.encoded.pairs):
        clean, counterfactual = torch.tensor([one.clean]), torch.tensor([one.counterfactual])
        z = literal.activations(tuned, counterfactual)

        def probability(ids: torch.Tensor, answer: int, patch: dict[Head, torch.Tensor]) -> float:
            return float(literal.logits(tuned, ids, patch)[0, -1].softmax(-1)[answer])

        answer, other = one.answer[0], one.distractor[0]
        whole[:, i] = probability(clean, answer, {}), probability(counterfactual, other, {})
        for seed, circuit in enumerate(circuits):
            outside = {head: z[head] for head in tuned.heads if head not in circuit}
            alone[seed, i] = probability(clean, answer, outside)
            switched[seed, i] = probability(clean, other, {head: z[head] for head in circuit})
    assert column.paper_faithfulness is not None
    assert column.switched is not None
    ratios = alone.mean(axis=1) / whole[0].mean()
    assert column.paper_faithfulness.mean == pytest.approx(ratios.mean(), rel=1e-4)
    assert column.paper_faithfulness.high == pytest.approx(ratios.max(), rel=1e-4)
    ratios = switched.mean(axis=1) / whole[1].mean()
    assert column.switched.mean == pytest.approx(ratios.mean(), rel=1e-4)


def test_a_finished_comparison_prints(finished: Comparison) -> None:
    text = comparison_text(finished)
    assert max(map(len, text.splitlines())) <= 100
    for role, given in (("base", "base"), ("tuned", "sft"), ("reference", "lora")):
        assert f"  {role}: tiny:{given}" in text


def test_a_base_that_cannot_do_the_capability_stops_the_comparison() -> None:
    pair = models()
    wrong = tuple(
        replace(one.pair, answer=one.pair.distractor or "", distractor=one.pair.answer)
        for one in INDUCTION.encoded(pair.base.tokenizer).encoded.pairs
    )
    with pytest.raises(BaseCannotError, match="THE BASE CANNOT DO"):
        compare(pair, Capability("reversed", pairs=wrong), **FEW)


def test_a_tuned_model_that_cannot_is_a_column_without_a_circuit(tmp_path: Path) -> None:
    def silent(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("o_proj.weight"):
                tensor.zero_()

    found = compare(models(copy_of_base(tmp_path, silent)), INDUCTION, **FEW)
    tuned = found.column("tuned")
    assert not tuned.able
    assert "cannot do 'induction' any more" in tuned.undefined["circuit"]
    assert tuned.retention is None
    assert "no circuit" in comparison_text(found)


def test_pairs_without_a_distractor_are_refused_before_a_model_is_loaded() -> None:
    tokenizer = models().base.tokenizer
    pairs = tuple(
        replace(one.pair, distractor=None) for one in INDUCTION.encoded(tokenizer).encoded.pairs
    )
    with pytest.raises(CapabilityError, match="distractor"):
        compare(models(), Capability("induction", "logprob", pairs), **FEW)


def test_nothing_to_compare_with_is_refused() -> None:
    pair = ModelPair({"base": resolve("tiny:base", "base")})
    with pytest.raises(SpecificationError, match="tuned="):
        compare(pair, INDUCTION, **FEW)
