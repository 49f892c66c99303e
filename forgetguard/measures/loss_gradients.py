"""The loss of a model on prompts with completions, and what measures take of it: gradients with
respect to the weights, and products of its Hessian with a vector.

The loss of a prompt is the mean negative log-likelihood of its completion's tokens, in nats. Of a
model with an adapter the weights are those beneath it: a plain LoRA adds to them, so the gradient
there is that with respect to the merged weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage, batches
from forgetguard.measures.origin_weights import plain_names
from forgetguard.patching.budget import free_bytes, memory_errors
from forgetguard.patching.forward import check_finite, forward, frozen, full_float32

_CHUNK = 512  # tokens whose graph is held at once
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Vector = Float[Tensor, "weight"]


class Loss:
    """A model's loss as a function of its weights. Made by `differentiated`.

    Attributes:
        weights: by name, each once, tied ones too.
    """

    def __init__(
        self, anatomy: Anatomy, weights: dict[str, nn.Parameter], vocabulary: int | None
    ) -> None:
        self._anatomy, self.weights, self._vocabulary = anatomy, weights, vocabulary
        self._listed = list(weights.values())
        self.count = sum(one.numel() for one in self._listed)
        self.device = self._listed[0].device

    def gradient(self, prompt: Passage) -> tuple[Tensor, ...]:
        """Of one prompt's loss, in the order of `weights`.

        Raises:
            MeasurementError: logits are not finite, or memory does not suffice.
        """
        with memory_errors("a gradient of the loss"), full_float32():
            return self._gradient(self._loss([prompt]))

    def curved(self, prompts: Sequence[Passage], vector: Vector) -> Vector:
        """The Hessian of the prompts' mean loss times a vector (Pearlmutter 1994), float32 or as
        the weights are (errors as `gradient`)."""
        total = torch.zeros_like(vector)
        parts = vector.split([one.numel() for one in self._listed])
        against = [p.view_as(w).to(w.device) for p, w in zip(parts, self._listed, strict=True)]
        with memory_errors("a product with the loss's Hessian"), full_float32():
            for rows in batches(prompts):
                step = max(1, _CHUNK // len(prompts[rows[0]].ids))
                for start in range(0, len(rows), step):
                    some = [prompts[row] for row in rows[start : start + step]]
                    # The fused kernels of attention have no second derivative.
                    with sdpa_kernel(SDPBackend.MATH):
                        found = self._gradient(self._loss(some), graph=True)
                        # A weight that the loss does not depend on has a slope of no graph.
                        pairs = [
                            both
                            for both in zip(found, against, strict=True)
                            if both[0].requires_grad
                        ]
                        again = self._gradient(*zip(*pairs, strict=True))
                    total += self.flat(again) * (len(some) / len(prompts))
        return total

    def flat(self, tensors: Sequence[Tensor]) -> Vector:
        """Tensors in the order of `weights`, one after another."""
        return torch.cat([one.detach().reshape(-1).to(self.device) for one in tensors])

    def _loss(self, prompts: Sequence[Passage]) -> Tensor:
        """The mean over prompts of one shape."""
        ids = torch.tensor([one.ids for one in prompts])
        with torch.enable_grad():
            logits = forward(self._anatomy, ids, prompts[0].positions)[..., : self._vocabulary]
            check_finite(logits.detach(), "a prompt")
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            targets = torch.tensor([one.targets for one in prompts], device=logits.device)
            return nn.functional.cross_entropy(wide.flatten(0, 1), targets.flatten())

    def _gradient(
        self,
        values: Tensor | Sequence[Tensor],
        against: Sequence[Tensor] | None = None,
        *,
        graph: bool = False,
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            values,
            self._listed,
            against,
            create_graph=graph,
            allow_unused=True,
            materialize_grads=True,
        )


def dot(one: Vector, other: Vector) -> float:
    """In blocks summed in float64: millions of float32 products lose digits."""
    blocks = zip(one.split(1 << 20), other.split(1 << 20), strict=True)
    return sum(float(a @ b) for a, b in blocks)


@contextmanager
def differentiated(
    anatomy: Anatomy,
    prompts: Sequence[Passage],
    *,
    copies: int,
    vocabulary: int | None = None,
    twice: bool = False,
) -> Iterator[Loss]:
    """While inside, the model's weights take gradients; afterwards it is as it was.

    Args:
        prompts: on which the loss will be taken.
        copies: of all weights that will be held beside the model at once.
        vocabulary: cuts the logits to that many ids.
        twice: whether second derivatives will be taken. In half precision they are noise, so such
            a model is one of float32 meanwhile.

    Raises:
        MeasurementError: a prompt has no completion; weights are quantised, or not in memory; or
            memory does not suffice.
    """
    bare = sum(not one.targets for one in prompts)
    if bare:
        raise MeasurementError(
            f"{bare} of {len(prompts)} prompts have no completion, so a model has no loss on them: "
            "write {prompt: ..., completion: ...}"
        )
    weights = _plain_weights(anatomy.model)
    size = sum(one.numel() * max(one.element_size(), 4 * twice) for one in weights.values())
    free = free_bytes(next(iter(weights.values())).device)
    if copies * size > free:
        raise MeasurementError(
            f"gradients of {size / 2**30:.1f} GiB of weights, {copies} of them held at once, do "
            f"not fit into the {free / 2**30:.1f} GiB that are free: take a device with more "
            "memory, or leave this limit out"
        )
    with frozen(anatomy.model), _in_float32(anatomy.model) if twice else nullcontext():
        for one in weights.values():
            one.requires_grad_(True)
        yield Loss(anatomy, weights, vocabulary)


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """Inside, what the model holds in half precision is float32; afterwards it is what it was."""
    with ExitStack() as stack:
        for one in (*model.parameters(), *model.buffers()):
            if one.dtype in _PLAIN[2:]:
                stack.callback(setattr, one, "data", one.data)
                one.data = one.data.float()
        yield


def _plain_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, one in plain_names(model).items():
        if id(one) in seen or ".lora_" in name:
            continue
        seen.add(id(one))
        found[name] = one
        if one.is_meta or one.dtype not in _PLAIN or getattr(model, "is_quantized", False):
            what = "not in memory" if one.is_meta else "quantised"
            raise MeasurementError(
                f"gradients need plain weights, and {name} is {what}: load the checkpoint "
                "unquantised, whole on its devices"
            )
    return found
