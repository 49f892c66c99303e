"""The look of the docs' figures, where the recipes' own modules take it from."""

from __future__ import annotations

from forgetguard.report.drawing import FAINT, INK, write_figures

__all__ = ["FAINT", "INK", "write_figures"]
