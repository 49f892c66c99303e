"""The one hook of this plugin, for whoever measures by other means than forgetguard's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_forgetguard.backend import Backend
    from pytest_forgetguard.settings import Settings


@pytest.hookspec(firstresult=True)
def pytest_forgetguard_backend(config: pytest.Config, settings: Settings) -> Backend | None:
    """Return what loads circuits and measures them, in place of `ModelBackend`; None declines.

    Called once in every process of an active run: the session's own and each xdist worker.
    """
