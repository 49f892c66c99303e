"""Which bundled circuits are taken to be made for a base."""

from __future__ import annotations

import pytest

from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate import bundled
from forgetguard.gate.bundled import bundled_for
from forgetguard.gate.declaration import GateSpec


def test_an_adapter_as_base_has_the_circuits_of_the_model_under_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    def fits(circuit: GateSpec, config: object, *_: object, alias: str) -> bool:
        seen.append(config)
        return True

    monkeypatch.setattr(bundled, "fits_base", fits)
    bundled_for(resolve("tiny:lora", "base"), LoadOptions())
    assert seen
    assert all(one == full_config(resolve("tiny:base", "base")) for one in seen)
