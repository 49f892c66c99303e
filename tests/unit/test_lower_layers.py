"""The clean run below the first patched layer: kept, it changes no bit of any number, and nothing
of another model or other prompts is taken up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from architectures import HYBRID, PLACED, build
from packaging.version import Version
from random_pairs import random_capability
from torch import nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures import lower_layers
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import FloatArray, Intervened, Intervention, intervene

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST = 1  # of three layers
NOT_PATCHED = ("gpt_bigcode", "lfm2")  # no MLP, or no continued prefix, to patch them all with
# Their layers hand on more than hidden states (two of them until transformers 5.24), or are not
# known to be plain.
OF_OLD = ("gptj", "codegen") if Version(transformers.__version__) < Version("5.24") else ()
RUN_WHOLE = ("bloom", "mpt", *OF_OLD, *HYBRID)


class Memory(dict[str, FloatArray]):
    """Keeps in memory, as gate/kept.py gives back: float64."""

    def load(self, key: str) -> FloatArray | None:
        return self.get(key)

    def save(self, key: str, values: FloatArray) -> None:
        self[key] = values.astype(np.float64)


def members(anatomy: Anatomy) -> list[Member]:
    return [one for one in anatomy.members(mlps=True) if one.layer >= FIRST]


def read(
    anatomy: Anatomy, capability: EncodedCapability, memory: Memory | None
) -> tuple[Intervened, int]:
    """All members from `FIRST` on, alone and together, and how often layer 0 was computed."""
    chosen = members(anatomy)
    plan = [Intervention(tuple(one)) for one in ([one] for one in chosen)]
    plan.append(Intervention(tuple(chosen)))
    computed: list[None] = []
    part = next(one for one in anatomy.layers[0].modules() if not [*one.children()])
    with_hook = part.register_forward_hook(lambda *_: computed.append(None))
    found = intervene(
        anatomy,
        capability,
        plan,
        ablation(anatomy, capability, chosen),
        saved=memory,
        kept=("counterfactual",),
    )
    with_hook.remove()
    return found, len(computed)


def same(one: Intervened, other: Intervened) -> bool:
    return np.array_equal(one.readout, other.readout) and np.array_equal(
        one.clean.readout, other.clean.readout
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [one for one in (*PLACED, *HYBRID) if one not in NOT_PATCHED])
def test_no_bit_depends_on_what_was_kept(name: str, dtype: torch.dtype) -> None:
    anatomy, capability = locate(build(name).to(dtype)), random_capability(5)
    memory = Memory()
    without, _ = read(anatomy, capability, None)
    first, cold = read(anatomy, capability, memory)
    again, warm = read(anatomy, capability, memory)
    assert same(first, without)
    assert same(again, without)
    if name in RUN_WHOLE:
        assert warm >= len(capability.batches)
    else:
        assert warm == 1 < cold  # the one prompt by which what was kept is known again


def test_what_enters_is_kept_for_every_batch() -> None:
    anatomy, capability, memory = locate(build("llama")), random_capability(5), Memory()
    read(anatomy, capability, memory)
    shapes = [values.shape[:2] for values in memory.values() if values.ndim == 3]
    assert sorted(shapes) == sorted(tuple(one.clean.shape) for one in capability.batches)


def test_a_model_that_differs_below_is_not_served_and_one_that_differs_above_may_be() -> None:
    capability, memory = random_capability(5), Memory()
    mine = locate(build("llama"))
    read(mine, capability, memory)
    for layer, served in ((0, False), (2, True)):
        model = build("llama")
        other = locate(model)
        with torch.no_grad():
            for parameter in other.layers[layer].parameters():
                parameter.mul_(1.01)
        theirs, computed = read(other, capability, memory)
        assert same(theirs, read(other, capability, None)[0])
        assert not same(theirs, read(mine, capability, None)[0])
        # One prompt, and the counterfactual runs with their prefixes; and where it is not served
        # the clean runs.
        batches = len(capability.batches)
        assert computed == 1 + 2 * batches + batches * (not served)


def test_other_prompts_are_not_served() -> None:
    anatomy, memory = locate(build("llama")), Memory()
    read(anatomy, random_capability(5), memory)
    other = random_capability(5, seed=1)
    found, computed = read(anatomy, other, memory)
    assert same(found, read(anatomy, other, None)[0])
    assert computed > 1


def test_what_has_another_shape_is_computed_again() -> None:
    anatomy, capability, memory = locate(build("llama")), random_capability(5), Memory()
    without, _ = read(anatomy, capability, memory)
    for key, values in memory.items():
        memory[key] = values[..., :-1] if values.ndim == 3 else values
    found, computed = read(anatomy, capability, memory)
    assert same(found, without)
    assert computed > 1


def test_a_model_that_hands_on_more_than_its_stream_is_run_whole() -> None:
    """Its last layer adds what the first one was given: from layer 1 on it computes otherwise."""
    model = build("llama")
    anatomy, capability, memory = locate(model), random_capability(5), Memory()
    given: list[torch.Tensor] = []

    def remember(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        given.append(args[0])

    def add(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        last = given.pop() if given else torch.zeros(1)
        return (args[0] + last, *args[1:])

    inner = next(one for one in anatomy.layers[0].modules() if not [*one.children()])
    inner.register_forward_pre_hook(remember)
    anatomy.layers[2].register_forward_pre_hook(add)
    read(anatomy, capability, memory)
    assert not [values for values in memory.values() if values.ndim == 3]


def test_what_takes_too_much_room_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy, capability = locate(build("llama")), random_capability(5)
    taken = sum(one.clean.numel() for one in capability.batches) * 4
    taken *= anatomy.model.config.hidden_size
    for most, count in ((taken, len(capability.batches)), (taken - 1, 0)):
        monkeypatch.setattr(lower_layers, "MOST_BYTES", most)
        memory = Memory()
        read(anatomy, capability, memory)
        assert len([values for values in memory.values() if values.ndim == 3]) == count
