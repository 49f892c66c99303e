"""Every adapter that the installed peft can make: read through it the base is the base, and the
adapter the tuned model that was saved; or it is refused, for a reason that is true."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from checkpoint_family import VOCABULARY, copy, edit_json, edit_weights, write_adapter, write_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from forgetguard.checkpoints import adapted, placement
from forgetguard.checkpoints.adapters import SUPPORTED, adapter_config
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError, ForgetguardError

TINY = Path(placement.__file__).parent / "tiny" / "base"
CPU = LoadOptions(device="cpu")
IDS = torch.arange(3, 39)[None]
KINDS = sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
TARGETS = {"target_modules": ["q_proj", "o_proj"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10, **TARGETS},
    "C3A": {"block_size": 32, **TARGETS},
    "FOURIERFT": {"n_frequency": 8, **TARGETS},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "ROAD": {"group_size": 32, **TARGETS},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6, 7], "target_modules": ["embed_tokens"]},
    "VBLORA": {"vector_length": 32, "num_vectors": 8, **TARGETS},
}
# Ways to initialise or to shape LoRA. Whether the base can be had back by switching it off is
# found out, and here written down.
LORA: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({}, True),
    "gaussian": ({"init_lora_weights": "gaussian"}, True),
    "eva": ({"init_lora_weights": "eva"}, True),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, True),
    "mica": ({"init_lora_weights": "mica"}, True),
    "pissa": ({"init_lora_weights": "pissa"}, False),
    "olora": ({"init_lora_weights": "olora"}, False),
    "kasa": ({"kasa_config": peft.tuners.lora.config.KasaConfig()}, False),
    "dora": ({"use_dora": True}, True),
    "rslora": ({"use_rslora": True}, True),
    "parameters": ({"target_modules": [], "target_parameters": ["q_proj.weight"]}, True),
    "embedding": ({"target_modules": ["embed_tokens"]}, True),
    "output embedding": ({"target_modules": ["lm_head"]}, True),
    "both embeddings": ({"target_modules": ["lm_head", "embed_tokens"]}, True),
    "both embeddings tied": (
        {"target_modules": ["lm_head", "embed_tokens"], "ensure_weight_tying": True},
        True,
    ),
    "embedding saved whole": ({"modules_to_save": ["embed_tokens"]}, True),
    "output embedding saved whole": ({"modules_to_save": ["lm_head"]}, True),
    "norms saved whole": ({"modules_to_save": ["norm"]}, True),
    "tokens": ({"trainable_token_indices": [5, 6]}, True),
    "other tokens": ({"trainable_token_indices": [9, 16]}, True),
}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def _of(checkpoint: Any) -> torch.Tensor:
    with checkpoint.open() as model:
        return _logits(model)


def _write(directory: Path, config: Any, base: Path = TINY, *, scale: float = 0.05) -> torch.Tensor:
    """Save an adapter of `base` as if it had been trained; the logits that it had when saved."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        tuned = peft.get_peft_model(model, config)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter.add_(scale * torch.randn(parameter.shape))
        logits = _logits(tuned.eval())
        tuned.save_pretrained(str(directory))
    return logits


def _lora(**settings: Any) -> peft.LoraConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.LoraConfig(task_type="CAUSAL_LM", **(TARGETS | settings))


def _pair(*tuned: Path, base: Path = TINY, **options: Any) -> ModelPair:
    roles = ("base", "tuned", "reference")
    specs = [resolve(str(d), role) for d, role in zip((base, *tuned), roles, strict=False)]
    return ModelPair(specs, LoadOptions(device="cpu", **options))


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return _logits(load_model(resolve(str(TINY), "base"), CPU))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, torch.Tensor]]:
    """Name -> directory of a LoRA adapter of tiny:base, and its logits when it was saved."""
    home, made = tmp_path_factory.mktemp("lora"), {}

    def of(name: str) -> tuple[Path, torch.Tensor]:
        if name not in made:
            made[name] = home / name, _write(home / name, _lora(**LORA[name][0]))
        return made[name]

    return of


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loaded: list[str] = []

    def counted(spec: Any, *rest: Any, **settings: Any) -> Any:
        loaded.append(spec.role)
        return load_model(spec, *rest, **settings)

    monkeypatch.setattr(placement, "load_model", counted)
    return loaded


# --- Every kind ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_through_an_adapter_of_any_kind_both_models_are_what_they_are(
    kind: str, plain: torch.Tensor, tmp_path: Path
) -> None:
    directory = tmp_path / kind
    if kind not in SUPPORTED:
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
        save_file({"x": torch.ones(1)}, directory / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=f"adapter of type {kind}, which"):
            check(resolve(str(TINY), "base"), resolve(str(directory), "tuned"))
        return
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
    trained = _write(directory, config(task_type="CAUSAL_LM", **SETTINGS.get(kind, TARGETS)))
    assert check(resolve(str(TINY), "base"), resolve(str(directory), "tuned")) == ()
    pair = _pair(directory)
    assert not torch.allclose(trained, plain, rtol=0, atol=1e-3)
    for _ in range(2):
        torch.testing.assert_close(_of(pair.tuned), trained, rtol=0, atol=1e-4)
        assert torch.equal(_of(pair.base), plain)
    assert pair.notes == ()


@pytest.mark.parametrize("name", LORA)
def test_lora_is_switched_off_where_that_gives_the_base_and_loaded_apart_where_not(
    name: str, plain: torch.Tensor, lora: Any, loads: list[str]
) -> None:
    directory, trained = lora(name)
    pair = _pair(directory)
    assert check(pair.base.spec, pair.tuned.spec) == ()
    torch.testing.assert_close(_of(pair.tuned), trained, rtol=0, atol=1e-4)
    assert torch.equal(_of(pair.base), plain)
    assert loads == (["base"] if LORA[name][1] else ["base", "base"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("plain", "dora"),
        ("plain", "pissa"),
        ("pissa", "olora"),
        ("tokens", "plain"),  # the second was a KeyError of peft's in this order
        ("tokens", "other tokens"),
        ("parameters", "dora"),  # no two of these can be in one model
        ("embedding", "embedding saved whole"),
    ],
)
def test_two_adapters_of_one_base_are_right_in_either_order(
    one: str, other: str, plain: torch.Tensor, lora: Any
) -> None:
    for names in ((one, other), (other, one)):
        pair = _pair(*(lora(name)[0] for name in names))
        checkpoints = (pair.tuned, pair.reference, pair.tuned)
        for checkpoint, name in zip(checkpoints, (*names, names[0]), strict=True):
            torch.testing.assert_close(_of(checkpoint), lora(name)[1], rtol=0, atol=1e-4)
        assert torch.equal(_of(pair.base), plain)


@pytest.mark.parametrize("blind", ["small_batch_logits", "_equals_its_file"])
def test_either_of_the_two_proofs_sees_that_the_base_is_gone(
    blind: str, plain: torch.Tensor, lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits before and after, and the weights in the files."""
    blinded = torch.zeros(2, 8, 4) if blind == "small_batch_logits" else True
    monkeypatch.setattr(adapted, blind, lambda *_: blinded)
    pair = _pair(lora("pissa")[0])
    torch.testing.assert_close(_of(pair.tuned), lora("pissa")[1], rtol=0, atol=1e-4)
    assert torch.equal(_of(pair.base), plain)


def test_two_resident_models_are_both_what_they_are(
    plain: torch.Tensor, lora: Any, loads: list[str]
) -> None:
    directory, trained = lora("pissa")
    specs = [resolve(str(TINY), "base"), resolve(str(directory), "tuned")]
    pair = ModelPair(specs, CPU, "resident")
    for _ in range(2):
        assert torch.equal(_of(pair.base), plain)
        torch.testing.assert_close(_of(pair.tuned), trained, rtol=0, atol=1e-4)
    with pair.base.open() as base, pair.tuned.open() as tuned:
        assert torch.equal(_logits(base), plain)
        torch.testing.assert_close(_logits(tuned), trained, rtol=0, atol=1e-4)
    assert loads == ["base", "base"]


@pytest.mark.parametrize("init", ["pissa_niter_4", "corda", "lora_ga"])
def test_a_start_that_the_files_cannot_repeat_is_refused(init: str, tmp_path: Path) -> None:
    _write(tmp_path, _lora())
    edit_json(tmp_path, "adapter_config.json", init_lora_weights=init)
    with pytest.raises(CheckpointError, match=f"init_lora_weights {init}.*cannot repeat"):
        adapter_config(tmp_path)


def test_a_kind_that_nobody_tried_is_not_said_to_be_outside_the_modules(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "BONE"}')
    with pytest.raises(CheckpointError, match="BONE, which forgetguard has not been tested with"):
        adapter_config(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_base_is_the_base_in_a_number_format_that_it_is_not_stored_in(
    dtype: str, lora: Any, loads: list[str]
) -> None:
    options = LoadOptions(device="cpu", dtype=dtype)
    alone = _logits(load_model(resolve(str(TINY), "base"), options))
    for name, times in (("plain", 1), ("pissa", 2)):
        loads.clear()
        pair = _pair(lora(name)[0], dtype=dtype)
        _of(pair.tuned)
        assert torch.equal(_of(pair.base), alone)
        assert loads == ["base"] * times


def test_an_adapter_that_brings_weights_of_its_base_does_not_change_the_base(
    plain: torch.Tensor, lora: Any, tmp_path: Path
) -> None:
    """peft stores an embedding's own weight beside its LoRA, and loads it into the base."""
    directory, trained = lora("embedding")
    own = "base_model.model.model.embed_tokens.base_layer.weight"
    other = copy(directory, tmp_path / "other")
    edit_weights(other, lambda tensors: tensors[own][264].add_(1.0), "adapter_model.safetensors")
    pair = _pair(other)
    assert not torch.equal(_of(pair.tuned), trained)
    assert torch.equal(_of(pair.base), plain)


# --- Merging ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", LORA)
def test_a_merged_adapter_computes_what_it_computes_unmerged(
    name: str, plain: torch.Tensor, lora: Any, tmp_path: Path
) -> None:
    directory, trained = lora(name)
    pair = _pair(directory, merge_adapter=True)
    torch.testing.assert_close(_of(pair.tuned), trained, rtol=0, atol=1e-4)
    assert torch.equal(_of(pair.base), plain)
    pair.close()
    if "embedding" in name:  # saved, it is the same model
        with pair.tuned.open() as model, quiet():
            model.save_pretrained(tmp_path)
        again = load_model(resolve(str(tmp_path), "tuned"), CPU)
        torch.testing.assert_close(_logits(again), trained, rtol=0, atol=1e-4)


def test_a_merge_that_makes_another_model_is_refused(
    lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a weight of its own for the output embedding, as peft merges it."""
    monkeypatch.setattr("forgetguard.checkpoints.merging._untie", lambda model: None)
    pair = _pair(lora("embedding")[0], merge_adapter=True)
    with pytest.raises(CheckpointError, match="merged into its base it is another model"):
        _of(pair.tuned)


# --- Adapters that do nothing -------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"init_lora_weights": "mica"}, {"target_modules": ["embed_tokens"]},
     {"target_modules": ["lm_head", "q_proj"]}],
)  # fmt: skip
def test_an_untrained_lora_is_refused_and_where_allowed_noted(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    _write(tmp_path, _lora(**settings), scale=0.0)
    file = tmp_path / "adapter_model.safetensors"
    low_rank = {k: v for k, v in load_file(file).items() if "base_layer" not in k}
    save_file(low_rank, file)
    base, tuned = resolve(str(TINY), "base"), resolve(str(tmp_path), "tuned")
    with pytest.raises(CheckpointError, match="the adapter changes nothing"):
        check(base, tuned)
    (note,) = check(base, tuned, allow_same=True)
    assert "changes nothing" in note


@pytest.mark.parametrize(
    "config",
    [_lora(init_lora_weights="pissa"), peft.IA3Config(**SETTINGS["IA3"]),
     _lora(modules_to_save=["norm"])],
    ids=["pissa", "ia3", "saved whole"],
)  # fmt: skip
def test_an_adapter_that_loading_shows_to_do_nothing_is_noted_by_the_pair(
    config: Any, tmp_path: Path
) -> None:
    _write(tmp_path, config, scale=0.0)
    pair = _pair(tmp_path)
    assert pair.notes == ()
    _of(pair.tuned)
    (note,) = pair.notes
    assert "the adapter changes nothing" in note


def test_a_pissa_adapter_of_zero_is_not_one_that_does_nothing(tmp_path: Path) -> None:
    """Its base has lost what the adapter was to hold."""
    _write(tmp_path, _lora(init_lora_weights="pissa"))
    edit_weights(
        tmp_path,
        lambda tensors: [t.zero_() for name, t in tensors.items() if "lora_B" in name],
        "adapter_model.safetensors",
    )
    assert check(resolve(str(TINY), "base"), resolve(str(tmp_path), "tuned")) == ()
    pair = _pair(tmp_path)
    _of(pair.tuned)
    assert pair.notes == ()


# --- Files --------------------------------------------------------------------------------------


def test_an_empty_adapter_is_refused_before_the_base_is_loaded(
    lora: Any, tmp_path: Path, nothing_computed: None
) -> None:
    config = (lora("plain")[0] / "adapter_config.json").read_text()
    names = load_file(lora("plain")[0] / "adapter_model.safetensors")
    for tensors in ({name: torch.empty(0) for name in names}, {}):
        (tmp_path / "adapter_config.json").write_text(config)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        with pytest.raises(ForgetguardError, match=r"is empty.*gather the weights"):
            check(resolve(str(TINY), "base"), resolve(str(tmp_path), "tuned"))


def test_a_base_whose_weights_are_named_otherwise_in_its_files_is_loaded_apart(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be held against the files is not taken for the base."""
    base = write_model(tmp_path / "base")
    adapter = write_adapter(base, tmp_path / "lora")
    monkeypatch.setattr("forgetguard.checkpoints.adapted._entry", lambda name, entries: None)
    pair = _pair(adapter, base=base)
    ids = IDS % VOCABULARY
    with pair.tuned.open() as model:
        tuned = model(ids).logits
    with pair.base.open() as model:
        assert not torch.equal(model(ids).logits, tuned)
    assert loads == ["base", "base"]


def test_the_files_of_an_inner_model_are_the_bases_too(tmp_path: Path, loads: list[str]) -> None:
    """GPT-2's files on the hub say `h.0.attn`, the model `transformer.h.0.attn`."""
    base = write_model(tmp_path / "base", family="gpt2")
    adapter = write_adapter(base, tmp_path / "lora", target_modules=["c_attn"])
    stored = load_file(base / "model.safetensors")
    inner = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    assert inner.keys() != stored.keys()
    save_file(inner, base / "model.safetensors", metadata={"format": "pt"})
    pair = _pair(adapter, base=base)
    with pair.tuned.open():
        pass
    with pair.base.open():
        assert loads == ["base"]
