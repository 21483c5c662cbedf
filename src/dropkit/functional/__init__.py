"""Every dropout of the field as a function: the same call on any device draws the same mask."""

from dropkit.functional.dropout import dropout
from dropkit.functional.fused import activation_dropout, dropout_add
from dropkit.kernel import derive, keyed, replayed_keys
from dropkit.records import Shard

__all__ = [
    "Shard",
    "activation_dropout",
    "derive",
    "dropout",
    "dropout_add",
    "keyed",
    "replayed_keys",
]
