"""The report of a fit: one self-contained page, and its verdict in words."""

from __future__ import annotations

from dropkit.apps.report.page import render
from dropkit.apps.report.verdict import verdict

__all__ = ["render", "verdict"]
