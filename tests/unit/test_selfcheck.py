"""What the self-checks refuse: wrong places, wrong heads, and code that raises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from architectures import HYBRID, PLACED, build
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.errors import AnatomyError, MeasurementError
from forgetguard.patching import selfcheck
from forgetguard.patching.selfcheck import check_patching, check_sums

REFUSED = {"gpt_bigcode"}


def prompts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(3, 90, (2, 9), generator=generator)
    counterfactual = clean.clone()
    counterfactual[:, 4] += 3
    return clean, counterfactual


def check_all(anatomy: Anatomy) -> None:
    clean, counterfactual = prompts()
    check_sums(anatomy, clean)
    check_patching(anatomy, clean, counterfactual, [7, 8], anatomy.members(mlps=True), start=4)


@pytest.mark.parametrize("name", [*PLACED, *HYBRID])
def test_every_architecture_passes_or_is_refused_in_one_line(name: str) -> None:
    anatomy = locate(build(name))
    if name not in REFUSED:
        check_all(anatomy)
        return
    with pytest.raises(AnatomyError) as caught:
        check_all(anatomy)
    assert type(anatomy.model).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def _moved(anatomy: Anatomy, **changes: object) -> Anatomy:
    sites = list(anatomy.sites)
    site = sites[1]
    assert site is not None
    sites[1] = replace(site, **changes)  # type: ignore[arg-type]
    return replace(anatomy, sites=tuple(sites))


def test_another_matrix_of_the_attention_is_not_its_output_projection() -> None:
    """The query projection is linear too, so its "heads" add up."""
    anatomy = locate(build("gpt_neox"))
    query = anatomy.site(1).attention.query_key_value
    wrong = _moved(anatomy, output_projection=query)
    with pytest.raises(AnatomyError, match="layer 1"):
        check_sums(wrong, prompts()[0])


def test_heads_of_half_the_width_are_noticed() -> None:
    """Their contributions add up as well."""
    anatomy = locate(build("qwen3"))
    wrong = _moved(anatomy, n_heads=8, head_dim=8)
    with pytest.raises(AnatomyError, match=r"layer 1.*4 heads.*8"):
        check_sums(wrong, prompts()[0])


def test_an_attention_that_adds_the_residual_stream_passes() -> None:
    check_sums(locate(build("bloom")), prompts()[0])


def test_an_output_projection_that_is_never_called_is_refused() -> None:
    anatomy = locate(build("llama"))
    wrong = _moved(anatomy, output_projection=nn.Linear(64, 32))
    with pytest.raises(AnatomyError, match=r"layer 1.*fused"):
        check_sums(wrong, prompts()[0])


def _raising(anatomy: Anatomy, error: Exception) -> Anatomy:
    def fail(*_: object) -> None:
        raise error

    anatomy.layers[1].register_forward_pre_hook(fail)
    return anatomy


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), KeyError("x"), IndexError(), ValueError()])
def test_an_exception_of_the_models_code_becomes_ours(error: Exception) -> None:
    anatomy = _raising(locate(build("llama")), error)
    clean, counterfactual = prompts()
    for check in (
        lambda: check_sums(anatomy, clean),
        lambda: check_patching(anatomy, clean, counterfactual, [8], anatomy.heads),
    ):
        with pytest.raises(AnatomyError, match="LlamaForCausalLM") as caught:
            check()
        assert type(error).__name__ in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_engine_that_differs_from_a_literal_forward_pass_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wavefront = selfcheck.wavefront
    monkeypatch.setattr(selfcheck, "wavefront", lambda *given: wavefront(*given) * 1.001)
    with pytest.raises(AnatomyError, match="literal forward pass"):
        check_all(locate(build("llama")))


def test_running_out_of_memory_is_not_taken_for_an_unknown_architecture() -> None:
    anatomy = _raising(locate(build("llama")), torch.OutOfMemoryError("no room"))
    with pytest.raises(torch.OutOfMemoryError):
        check_sums(anatomy, prompts()[0])


def test_a_model_with_dropout_is_not_deterministic() -> None:
    model = build("gpt2")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
            module.train()
    clean, counterfactual = prompts()
    anatomy = locate(model)
    with pytest.raises(MeasurementError, match="not deterministic"):
        check_patching(anatomy, clean, counterfactual, [8], anatomy.heads)
