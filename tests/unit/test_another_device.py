"""Patching stays on the model's device, shown on one that is emulated; and what is emulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import literal
import pytest
import torch
from another_device import DEVICE, AnotherDevice
from architectures import build
from random_pairs import random_capability
from torch import Tensor

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.measures.ablation import ABLATIONS
from forgetguard.measures.faithfulness import faithfulness
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.selfcheck import check_patching
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

IDS, OTHER = torch.randint(3, 90, (2, 3, 7), generator=torch.Generator().manual_seed(3))
START = 2
OTHER[:, :START] = IDS[:, :START]
MEMBERS: tuple[Member, ...] = (Head(0, 1), Mlp(0), Head(1, 3), Mlp(2))


@pytest.fixture
def device() -> Iterator[torch.device]:
    with AnotherDevice():
        yield DEVICE


def moved(name: str, seed: int = 0) -> Anatomy:
    return locate(build(name, seed=seed).float().to(DEVICE))


def patched(base: Anatomy, tuned: Anatomy) -> Tensor:
    """The logits with each member as it is in another model, and as it is on another prompt."""
    foreign = Source(literal.activations(tuned, IDS), output_slices(tuned, MEMBERS))
    own = Source(literal.activations(base, OTHER), start=START)
    runs = [Run((one,), source) for source in (foreign, own) for one in MEMBERS]
    with torch.no_grad():
        return wavefront(clean_pass(base, IDS, [6], MEMBERS), runs, lambda logits, _: logits)


# OPT's MLP is given all tokens in one axis, Falcon's beside the attention, Mixtral's is routed.
@pytest.mark.parametrize("name", ["qwen3", "opt", "falcon", "mixtral"])
def test_heads_and_mlps_are_patched_where_the_model_is(name: str, device: torch.device) -> None:
    base, tuned = moved(name), moved(name, seed=1)
    found = patched(base, tuned)
    assert found.device == device
    check_patching(base, IDS, OTHER, [6], MEMBERS, start=START)


def test_ablations_of_mlps_are_measured_where_the_model_is(device: torch.device) -> None:
    anatomy = moved("qwen3")
    members = anatomy.members(mlps=True)
    capability = random_capability(4)
    for kind in ABLATIONS:
        found = faithfulness(anatomy, capability, [members[::2]], members, kind=kind)
        assert found.circuits.shape == (1, 4)


BROKEN: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a sum": lambda there, here: there + here,
    "a product": torch.nn.functional.linear,
    "an index": lambda there, here: there.index_select(0, torch.tensor([0])),
    "a view": lambda there, here: there[0] * here.T[0],
    "a gradient": lambda there, here: (
        torch.autograd.grad((there.requires_grad_() ** 2).sum(), there)[0] + here
    ),
    "a parameter": lambda there, here: torch.nn.Linear(2, 2).to(DEVICE)(here),
    "an index from the device": lambda there, here: here[there.argmax(0)],
    "a random number": lambda there, here: torch.rand(2, 2, device=DEVICE) - here,
    "a random number of the CPU's": lambda there, here: torch.rand(
        2, generator=torch.Generator(), device=DEVICE
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_mixes_devices_is_refused(what: str, device: torch.device) -> None:
    here = torch.ones(2, 2)
    there = here.to(device)
    with pytest.raises(RuntimeError, match="same device"):
        BROKEN[what](there, here)


def test_what_a_gpu_allows_is_allowed(device: torch.device) -> None:
    here = torch.arange(4.0)
    there = here.to(device)
    assert (there.device, there[1:].device, there.cpu().device) == (DEVICE, DEVICE, here.device)
    assert (there * torch.tensor(2.0))[torch.tensor([3])].tolist() == [6.0]
    there[:2] = torch.tensor([7.0, 8.0])
    assert there.tolist() == [7.0, 8.0, 2.0, 3.0]
    assert here.tolist() == [0.0, 1.0, 2.0, 3.0], "a copy was moved"
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
