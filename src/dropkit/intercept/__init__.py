"""The one interposer: sees what a model draws as it runs, whoever calls it.

`attach` brings a model's dropouts before a handler, from now on; `watching` looks on for as long as
a block lasts, at all that is random; `untouched` gives a model back as it was.
"""

from dropkit.intercept.attaching import attach, detach, turned
from dropkit.intercept.operations import Handler, Operation, operation
from dropkit.intercept.untouched import forgetting, untouched
from dropkit.intercept.watching import Watch, uncompiled, watching

__all__ = [
    "Handler",
    "Operation",
    "Watch",
    "attach",
    "detach",
    "forgetting",
    "operation",
    "turned",
    "uncompiled",
    "untouched",
    "watching",
]
