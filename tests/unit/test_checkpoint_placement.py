"""What is in memory: never two models in a sequential pair, one load for base and adapter."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_family import (
    copy,
    edit_weights,
    write_adapter,
    write_merged,
    write_model,
    write_tokenizer,
)

from forgetguard.checkpoints import placement
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError, SpecificationError

CPU = LoadOptions(device="cpu")
IDS = torch.arange(2, 14)[None]
TARGET = "model.layers.0.self_attn.o_proj"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base")
    write_model(home / "tuned", seed=5)
    write_adapter(home / "base", home / "lora")
    write_adapter(home / "base", home / "lora2", seed=2)
    write_adapter(home / "base", home / "biased", seed=3, bias="lora_only")
    write_merged(home / "base", home / "lora", home / "merged")
    return home


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The full models and stand-alone adapters that placement loads, in order."""
    loaded: list[str] = []

    def counted(spec: Any, *rest: Any, **settings: Any) -> Any:
        loaded.append(Path(spec.location).name)
        return load_model(spec, *rest, **settings)

    monkeypatch.setattr(placement, "load_model", counted)
    return loaded


def _pair(home: Path, *names: str, **settings: Any) -> ModelPair:
    roles = ("base", "tuned", "reference")
    specs = [resolve(str(home / name), role) for name, role in zip(names, roles, strict=False)]
    return ModelPair(specs, settings.pop("options", CPU), **settings)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def _of(checkpoint: Any) -> torch.Tensor:
    with checkpoint.open() as model:
        return _logits(model)


def _alone(home: Path, name: str) -> torch.Tensor:
    return _logits(load_model(resolve(str(home / name), "base"), CPU))


def _numbers_in_memory() -> int:
    gc.collect()
    parameters = {
        id(found): found.numel()
        for found in gc.get_objects()
        if type(found) is torch.nn.Parameter and not found.is_meta
    }
    return sum(parameters.values())


# --- Two full models ----------------------------------------------------------------------------


def test_a_sequential_pair_never_holds_two_models(home: Path) -> None:
    before = _numbers_in_memory()
    with _pair(home, "base", "tuned") as pair:
        with pair.tuned.open() as tuned:
            one = _numbers_in_memory() - before
            gone = weakref.ref(tuned)
        del tuned
        with pair.base.open():
            assert gone() is None
            assert _numbers_in_memory() - before == one > 0
    assert _numbers_in_memory() == before


def test_a_model_that_someone_still_holds_gives_its_memory_back_and_cannot_be_misused(
    home: Path,
) -> None:
    before = _numbers_in_memory()
    pair = _pair(home, "base", "tuned")
    with pair.tuned.open() as stale:  # stays bound after the block
        one = _numbers_in_memory() - before
    with pair.base.open() as base:
        assert _numbers_in_memory() - before == one
        with pytest.raises((RuntimeError, NotImplementedError)):
            _logits(stale).sum().item()
        assert torch.equal(_logits(base), _alone(home, "base"))
    pair.close()


def test_opening_the_same_checkpoint_again_loads_nothing(home: Path, loads: list[str]) -> None:
    pair = _pair(home, "base", "tuned")
    with pair.base.open() as first:
        pass
    with pair.base.open() as second, pair.base.open() as nested:
        assert first is second is nested
    assert loads == ["base"]


def test_a_resident_pair_loads_each_model_once(home: Path, loads: list[str]) -> None:
    pair = _pair(home, "base", "tuned", placement="resident")
    with pair.base.open() as base, pair.tuned.open() as tuned:
        assert not torch.equal(_logits(base), _logits(tuned))
    _of(pair.base)
    assert loads == ["base", "tuned"]


def test_a_sequential_pair_refuses_two_open_models(home: Path) -> None:
    pair = _pair(home, "base", "tuned")
    with (
        pair.tuned.open() as tuned,
        pytest.raises(CheckpointError, match=r"never holds two models.*Leave that `with` first"),
        pair.base.open(),
    ):
        pass
    assert torch.equal(_logits(tuned), _alone(home, "tuned"))
    assert torch.equal(_of(pair.base), _alone(home, "base"))


def test_after_an_error_inside_the_block_the_pair_goes_on(home: Path) -> None:
    pair = _pair(home, "base", "tuned")
    with pytest.raises(ZeroDivisionError), pair.tuned.open():
        raise ZeroDivisionError
    assert torch.equal(_of(pair.base), _alone(home, "base"))


def test_a_closed_pair_can_be_opened_again(home: Path) -> None:
    pair = _pair(home, "base", "tuned")
    first = _of(pair.base)
    pair.close()
    assert torch.equal(_of(pair.base), first)


# --- Adapters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement_name", ["sequential", "resident"])
def test_an_adapter_shares_the_one_load_of_its_base(
    home: Path, loads: list[str], placement_name: str
) -> None:
    pair = _pair(home, "base", "lora", placement=placement_name)
    for checkpoint in (pair.tuned, pair.base, pair.tuned, pair.base):
        _of(checkpoint)
    assert loads == ["base"]


def test_a_base_with_its_adapter_switched_off_is_the_plain_base_bit_for_bit(home: Path) -> None:
    pair = _pair(home, "base", "lora")
    plain = _of(pair.base)
    tuned = _of(pair.tuned)
    switched_off = _of(pair.base)
    assert torch.equal(plain, _alone(home, "base"))
    assert torch.equal(switched_off, plain)
    assert not torch.allclose(tuned, plain, rtol=0, atol=1e-2)


def test_a_switched_adapter_equals_its_merged_twin(home: Path) -> None:
    tuned = _of(_pair(home, "base", "lora").tuned)
    torch.testing.assert_close(tuned, _alone(home, "merged"), rtol=0, atol=1e-5)


def test_modules_have_the_names_of_the_plain_model_with_the_adapter_on_and_off(home: Path) -> None:
    pair = _pair(home, "base", "lora")
    for checkpoint in (pair.tuned, pair.base):
        with checkpoint.open() as model:
            assert type(model).__name__ == "LlamaForCausalLM"
            assert model.get_submodule(TARGET).weight.shape == (32, 32)


def test_switching_leaves_no_gradients_and_no_dropout(home: Path) -> None:
    pair = _pair(home, "base", "lora", "lora2")
    assert pair.reference is not None
    for checkpoint in (pair.tuned, pair.base, pair.reference, pair.tuned):
        with checkpoint.open() as model:
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert not any(module.training for module in model.modules())
            assert torch.equal(_logits(model), _logits(model))


def test_two_adapters_of_one_base_do_not_mix(home: Path, loads: list[str]) -> None:
    pair = _pair(home, "base", "lora", "lora2")
    assert pair.reference is not None
    both = {"lora": pair.tuned, "lora2": pair.reference}
    found = [(name, _of(both[name])) for name in ("lora", "lora2", "lora")]
    assert loads == ["base"]
    assert torch.equal(_of(pair.base), _alone(home, "base"))
    for name, logits in found:
        torch.testing.assert_close(logits, _alone(home, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("placement_name", ["sequential", "resident"])
def test_an_adapter_and_its_base_cannot_be_open_at_once(home: Path, placement_name: str) -> None:
    pair = _pair(home, "base", "lora", placement=placement_name)
    with (
        pair.tuned.open() as tuned,
        pytest.raises(CheckpointError, match="share one load of the base"),
        pair.base.open(),
    ):
        pass
    assert torch.equal(_logits(tuned), _alone(home, "lora"))


def test_an_adapter_that_changed_biases_in_place_is_loaded_apart(
    home: Path, loads: list[str]
) -> None:
    pair = _pair(home, "base", "biased")
    tuned = _of(pair.tuned)
    assert torch.equal(_of(pair.base), _alone(home, "base"))
    assert torch.equal(tuned, _alone(home, "biased"))
    assert loads == ["base", "base"]


def test_an_adapter_is_merged_only_when_asked(home: Path) -> None:
    pair = _pair(home, "base", "lora", options=LoadOptions(device="cpu", merge_adapter=True))
    with pair.tuned.open() as model:
        assert type(model.get_submodule(TARGET)) is torch.nn.Linear
        torch.testing.assert_close(_logits(model), _alone(home, "merged"), rtol=0, atol=1e-6)
    assert torch.equal(_of(pair.base), _alone(home, "base"))


def test_an_adapter_that_fails_half_way_leaves_a_base_that_can_be_trusted(
    home: Path, tmp_path: Path
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        next(iter(tensors.values())).fill_(float("nan"))

    spoiled = edit_weights(
        copy(home / "lora", tmp_path / "spoiled"), spoil, "adapter_model.safetensors"
    )
    pair = _pair(home, "base", str(spoiled))
    plain = _of(pair.base)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="NaN"):
            _of(pair.tuned)
    with pair.base.open() as model:
        assert torch.equal(_logits(model), plain)
        assert not any("lora" in name for name, _ in model.named_modules())


def test_a_base_that_is_an_adapter_stands_on_the_checkpoint_it_names(
    home: Path, loads: list[str]
) -> None:
    pair = _pair(home, "lora", "lora2")
    assert torch.equal(_of(pair.base), _alone(home, "lora"))
    torch.testing.assert_close(_of(pair.tuned), _alone(home, "lora2"), rtol=0, atol=1e-6)
    assert loads == ["base"]


def test_two_adapters_of_two_bases_are_refused(home: Path, tmp_path: Path) -> None:
    other = write_adapter(home / "tuned", tmp_path / "other")
    pair = _pair(home, "lora", str(other))
    with pytest.raises(CheckpointError, match=r"adapter of .*base, but .*merge the base adapter"):
        _of(pair.tuned)


# --- Tokenizers, fingerprints, roles ------------------------------------------------------------


def test_an_adapter_or_a_checkpoint_without_a_tokenizer_uses_the_bases(
    home: Path, tmp_path: Path
) -> None:
    bare = copy(home / "tuned", tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    for tuned in (str(bare), "lora"):
        pair = _pair(home, "base", tuned)
        assert pair.tuned.tokenizer("w1 w2")["input_ids"] == [3, 4]
    assert _pair(home, "lora", "lora2").base.tokenizer("w1")["input_ids"] == [3]


def test_checkpoints_that_bring_the_same_tokenizer_files_share_one_tokenizer(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def counted(spec: Any, *rest: Any) -> Any:
        loaded.append(spec.role)
        return load_tokenizer(spec, *rest)

    monkeypatch.setattr(placement, "load_tokenizer", counted)
    other = copy(home / "tuned", tmp_path / "other")
    write_tokenizer(other, extra=("more",))
    pair = _pair(home, "base", "tuned", str(other))
    assert pair.reference is not None
    assert pair.base.tokenizer is pair.tuned.tokenizer
    assert pair.reference.tokenizer("more")["input_ids"] == [32]
    assert loaded == ["base", "reference"]


def test_fingerprints_are_by_role_and_load_nothing(home: Path, loads: list[str]) -> None:
    pair = _pair(home, "base", "tuned", "lora")
    found = pair.fingerprints()
    assert list(found) == ["base", "tuned", "reference"]
    assert len({fingerprint.weights for fingerprint in found.values()}) == 3
    assert found["base"] is pair.base.fingerprint
    assert loads == []


def test_a_pair_wants_each_role_once_and_a_known_placement(home: Path) -> None:
    base, tuned = (resolve(str(home / name), name) for name in ("base", "tuned"))
    with pytest.raises(SpecificationError, match="base= is missing"):
        ModelPair([tuned])
    alone = ModelPair([base])
    assert [checkpoint.role for checkpoint in alone.checkpoints] == ["base"]
    with pytest.raises(SpecificationError, match="tuned= is missing"):
        _ = alone.tuned
    with pytest.raises(SpecificationError, match="base= was given twice"):
        ModelPair([base, base, tuned])
    with pytest.raises(SpecificationError, match="'other' is not a role"):
        ModelPair([base, tuned, resolve(str(home / "base"), "other")])
    with pytest.raises(SpecificationError, match="sequential or resident"):
        ModelPair([base, tuned], CPU, "both")  # type: ignore[arg-type]
    assert ModelPair({"base": base, "tuned": tuned}).reference is None
