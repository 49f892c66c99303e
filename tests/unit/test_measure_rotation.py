"""`rotation` from YAML: against principal angles from plain SVDs, and changes that turn nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gated import gated
from plain_tiny import plain_model
from scipy.linalg import subspace_angles
from tiny_copies import copy_of_base

from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key

GATE = "forgetguard: 2\nlimits: {rotation: {max: LIMIT}}\n"
NAME = "model.layers.1.self_attn.v_proj.weight"


def mean_angle(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Over the k leading left and right directions, by scipy."""
    one, other = np.linalg.svd(first), np.linalg.svd(second)
    left = subspace_angles(one[0][:, :k], other[0][:, :k])
    right = subspace_angles(one[2][:k].T, other[2][:k].T)
    return float(np.concatenate([left, right]).mean())


def test_each_matrix_turns_by_its_angle_over_that_of_a_random_change_as_large() -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0.05"), tuned="tiny:sft")
    values = {key.subject: value for key, value in samples.exact.items()}
    assert len(values) == 4 * 4  # layers, kinds
    base, tuned = (
        dict(plain_model(name).named_parameters())[NAME].detach().double().numpy()
        for name in ("base", "sft")
    )
    k = round(0.25 * min(base.shape))
    rng, size = np.random.default_rng(1), np.linalg.norm(tuned - base)
    drawn = [rng.standard_normal(base.shape) for _ in range(8)]
    control = [mean_angle(base, base + one * size / np.linalg.norm(one), k) for one in drawn]
    # The measure draws once, of its own seed: within the spread of such draws.
    ratio = mean_angle(base, tuned, k) / np.mean(control)
    assert values[NAME] == pytest.approx(ratio, rel=5 * np.std(control) / np.mean(control))
    verdict = verdicts["rotation"]
    assert verdict.subject == max(values, key=lambda name: values[name])
    assert (verdict.outcome, verdict.code) == (Outcome.FAIL, Code.BEYOND)
    assert verdict.facts["of"] == len(values)
    assert set(verdict.facts["others"]) < set(values)


def test_a_matrix_scaled_turns_nothing_and_one_transposed_in_its_columns_does(
    tmp_path: Path,
) -> None:
    def scale(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME] *= 1.5

    def shuffle(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME] = tensors[NAME].flip(1).contiguous()

    verdicts, samples = gated(GATE.replace("LIMIT", "0.001"), tuned=copy_of_base(tmp_path, scale))
    assert verdicts["rotation"].outcome is Outcome.PASS
    assert samples.exact[Key("rotation", NAME, "tuned")] < 1e-6
    verdicts, samples = gated(
        GATE.replace("LIMIT", "0.5"), tuned=copy_of_base(tmp_path / "shuffled", shuffle)
    )
    assert verdicts["rotation"].outcome is Outcome.FAIL
    assert verdicts["rotation"].subject == NAME
    assert not any(value for key, value in samples.exact.items() if key.subject != NAME)


def test_the_random_change_is_one_of_the_base(tmp_path: Path) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME] = 20 * tensors[NAME].flip(1).contiguous()

    # Beside a change 20 times its size nothing of the base's directions is left.
    _, samples = gated(GATE.replace("LIMIT", "2"), tuned=copy_of_base(tmp_path, turn))
    base = dict(plain_model("base").named_parameters())[NAME].detach().double().numpy()
    noise = np.random.default_rng(1).standard_normal(base.shape)
    k = round(0.25 * min(base.shape))
    ratio = mean_angle(base, base[:, ::-1], k) / mean_angle(base, noise, k)
    assert samples.exact[Key("rotation", NAME, "tuned")] == pytest.approx(ratio, rel=0.1)
