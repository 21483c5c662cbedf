"""The report of a search: one self-contained page."""

from __future__ import annotations

from dropkit.apps.tuning.report.page import render

__all__ = ["render"]
