"""An adapter added into the weights it stands on, held to what it computes unmerged: two roads to
one model are compared by the logits of one small batch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.checkpoints.trusted import explained, frozen
from forgetguard.errors import CheckpointError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_ROWS, _POSITIONS = 2, 8

# How far apart the logits of an adapter and of its merged twin may be, in standard deviations of
# the logits. Measured on tiny:base, a 24-layer Llama and a 12-layer GPT-2 with LoRA of three sizes
# on linear layers and embeddings, in units of the number format's epsilon: at most 36 in float32
# and 16 in the 16-bit formats; allowed are 2048 and 64. A wrong merge is off by the adapter.
APART = {"float32": 2.4e-4, "bfloat16": 0.5, "float16": 0.06}
# Two ways of computing one model in float32, as a weight and the parts it was taken apart into.
IDLE = 1e-5


def merged(model: PeftModel, spec: CheckpointSpec, options: LoadOptions) -> PreTrainedModel:
    """The plain model that the adapter, switched on, makes of its base; `model` is used up.

    Raises:
        CheckpointError: peft cannot merge this kind, the merged weights are not finite, or the
            merged model computes something else than the adapter does.
    """
    inner: Any = model.get_base_model()
    tuner: Any = model  # its annotations say that merge_and_unload is a tensor
    with explained(spec, options), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what may go wrong, and is checked here
        unmerged = small_batch_logits(inner)
        _untie(inner)
        plain = cast("PreTrainedModel", frozen(spec, tuner.merge_and_unload(), options))
        _say_untied(plain)
        apart = difference(unmerged, small_batch_logits(plain))
    if not apart <= APART[options.dtype]:  # NaN too
        raise CheckpointError(
            f"{spec}: merged into its base it is another model than it is unmerged (logits differ "
            f"by {apart:.3g} standard deviations, where rounding in {options.dtype} explains "
            f"{APART[options.dtype]:.3g}): leave out --forgetguard-merge-adapter (merge_adapter)"
        )
    return plain


def _untie(model: Any) -> None:
    """Give each of two tied embeddings a weight of its own where an adapter is on one of them.

    Unmerged, an adapter changes the embedding that it is on and not the one that shares its
    weight; merged into the shared weight it would change both.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    if None in ends or not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    first, last = [getattr(end, "base_layer", end) for end in ends]
    if first.weight is last.weight:
        last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)


def _say_untied(model: Any) -> None:
    """What the configuration says of tied embeddings, for whoever saves the model."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if last is not None and first.weight is not last.weight:
        model.config.get_text_config().tie_word_embeddings = False


def small_batch_logits(model: PreTrainedModel) -> Float[Tensor, "row position vocabulary"]:
    """Logits in float32 on the CPU of 16 ids that are spread over the vocabulary. [2, 8, words]"""
    embedding = cast("Tensor", model.get_input_embeddings().weight)
    ids = torch.linspace(0, embedding.shape[0] - 1, _ROWS * _POSITIONS).round().long()
    with torch.no_grad():
        logits: Tensor = model(
            input_ids=ids.view(_POSITIONS, _ROWS).T.to(embedding.device), use_cache=False
        ).logits
    return logits.to("cpu", torch.float32)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two such logits, in standard deviations of the first."""
    return 0.0 if torch.equal(one, other) else float((one - other).abs().max() / one.std())
