"""The one hook of this plugin, for whoever measures by other means than forgetguard's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_forgetguard.backend import ModelBackend
    from pytest_forgetguard.settings import Settings


@pytest.hookspec(firstresult=True)
def pytest_forgetguard_backend(config: pytest.Config, settings: Settings) -> ModelBackend | None:
    """Return what does all that `ModelBackend` does, in its place; None declines.

    Called once in every process of an active run: the session's own and each xdist worker.
    """
