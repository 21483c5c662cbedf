"""Schedules of rates in the training loops of Lightning, Transformers and skorch."""

from dropkit.apps.callbacks import lightning, skorch, transformers

__all__ = ["lightning", "skorch", "transformers"]
