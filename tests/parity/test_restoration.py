"""Restoration against plain cross-model patching, and on damage that one head alone suffered."""

from __future__ import annotations

from pathlib import Path

import literal
import numpy as np
import pytest
from architectures import build
from random_pairs import close, ids, random_capability, readouts
from tiny_copies import BASE, copy_of_base, output_slice_zeroed
from torch import Tensor

import forgetguard as fg
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.encoding import EncodedPair
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.measures.restoration import Restored, restored
from forgetguard.measures.vulnerability import capture_heads

pytestmark = pytest.mark.usefixtures("one_thread")

MEMBERS: tuple[Member, ...] = (Head(0, 1), Head(1, 2), Mlp(1), Head(2, 3))


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "opt", "falcon", "mixtral"])
def test_restoration_equals_a_literal_patch_across_models(name: str) -> None:
    """The base's z through the base's own output projection, added to the tuned model."""
    base, tuned = locate(build(name)), locate(build(name, seed=1))
    capability = random_capability(5)
    found = restored(tuned, capability, MEMBERS, capture_heads(base, capability, MEMBERS))
    before = readouts(tuned, capability)
    close(found.tuned.readout, before)
    close(found.lost, readouts(base, capability) - before)

    def given_back(*members: Member) -> np.ndarray:
        def patch(pair: EncodedPair) -> dict[Member, Tensor]:
            z = literal.activations(base, ids(pair.clean, pair))
            return {member: z[member] for member in members}

        return readouts(tuned, capability, patch, base) - before

    for member in MEMBERS:
        expected = given_back(member)
        close(found.gained.heads[member], expected)
        assert np.abs(expected).max() > 1e-2, member
    close(found.gained.circuit, given_back(*MEMBERS))


def on_copy(tmp_path: Path, damaged: Head | None) -> Restored:
    """Every head and MLP of tiny:base given back to a copy of it, one by one."""
    damage = None if damaged is None else output_slice_zeroed(damaged)
    folders = str(BASE), str(copy_of_base(tmp_path, damage))
    base, tuned = (locate(load_model(resolve(folder, "base"))) for folder in folders)
    ioi = fg.capability("ioi", pairs=24, seed=5).encoded(fg.load(base=folders[0]).base.tokenizer)
    members = base.members(mlps=True)
    return restored(tuned, ioi, members, capture_heads(base, ioi, members))


def test_giving_the_damaged_head_back_returns_all_that_was_lost(tmp_path: Path) -> None:
    """Pair by pair, since all else is equal; heads after it give back what they had inherited."""
    head = Head(1, 4)
    found = on_copy(tmp_path, head)
    assert found.lost.mean() > 0.2
    shares = {one: gain.mean() / found.lost.mean() for one, gain in found.gained.heads.items()}
    np.testing.assert_allclose(found.gained.heads[head], found.lost, rtol=0, atol=1e-4)
    assert shares[head] == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(found.gained.circuit, found.lost, rtol=0, atol=1e-4)
    for one, share in shares.items():
        if one.layer < head.layer or (one.layer == head.layer and one != head and one != Mlp(1)):
            assert found.gained.heads[one].tolist() == [0.0] * 24, one  # equal, bit for bit
        elif one != head:
            assert share < 0.9, one


def test_damage_in_the_last_layer_is_given_back_by_its_head_alone(tmp_path: Path) -> None:
    head = Head(3, 2)
    found = on_copy(tmp_path, head)
    for one, gain in found.gained.heads.items():
        if one == head:
            np.testing.assert_allclose(gain, found.lost, rtol=0, atol=1e-4)
        elif one != Mlp(3):
            assert not gain.any(), one


def test_an_undamaged_copy_has_lost_nothing_and_is_given_nothing(tmp_path: Path) -> None:
    found = on_copy(tmp_path, None)
    assert not found.lost.any()
    assert not found.gained.circuit.any()
    assert not any(gain.any() for gain in found.gained.heads.values())
