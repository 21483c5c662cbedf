"""Random bits as a function of a key; the only room that draws them."""

from dropkit.kernel.streams import Stream, derive

__all__ = ["Stream", "derive"]
