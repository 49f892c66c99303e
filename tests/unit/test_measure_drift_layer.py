"""`drift.layer` from YAML: against plain transformers' streams; a turn that CKA cannot see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gated import PROMPTS, TEXTS, gated
from plain_tiny import streams_after
from tiny_copies import copy_of_base
from torch import Tensor

from forgetguard.measures.samples import Key

GATE = (
    f"forgetguard: 2\n{PROMPTS}limits: {{drift.layer: {{max: 0.05}}, cka.layer: {{max: 0.05}}}}\n"
)


def test_it_is_the_length_of_the_change_over_that_of_the_stream() -> None:
    _, samples = gated(GATE, tuned="tiny:sft")
    for at, text in enumerate(TEXTS):
        base, tuned = (streams_after(name, text).double().numpy() for name in ("base", "sft"))
        expected = np.linalg.norm(tuned - base, axis=1) / np.linalg.norm(base, axis=1)
        found = [
            samples.arrays[Key("drift.layer", f"layer {layer}", "tuned")][at] for layer in range(4)
        ]
        assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_byte_copy_reads_exactly_0_and_a_longer_stream_is_seen_where_cka_is_blind(
    tmp_path: Path,
) -> None:
    _, same = gated(GATE, tuned=copy_of_base(tmp_path / "same"))

    def scaled(by: float) -> float:
        def damage(tensors: dict[str, Tensor]) -> None:
            for name in tensors:
                if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
                    tensors[name] *= 1 + by

        _, samples = gated(GATE, tuned=copy_of_base(tmp_path / str(by), damage))
        cka, drift = (
            samples.arrays[Key(key, "layer 3", "tuned")] for key in ("cka.layer", "drift.layer")
        )
        assert np.abs(cka).max() < 1e-3
        assert drift.tolist() == pytest.approx([by] * len(TEXTS), abs=1e-3)
        return float(drift.mean())

    assert all(
        (one == 0).all() for key, one in same.arrays.items() if key.quantity == "drift.layer"
    )
    assert scaled(0.05) < scaled(0.2)
