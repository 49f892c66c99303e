"""What the unit tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("forgetguard.checkpoints.placement.load_model", refuse)
