"""What judges: one file for each rule, which is the rule, its page and its examples.

A rule needs no registration: a file in `mode`, `placement`, `rate`, `scaling` or `combination`
that ends with `RULE = Rule(...)` is found. Nothing here imports torch; what a rule asks of a model
it asks of the evidence that it is given.
"""

from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.registry import every, named

__all__ = ["NotApplicable", "Rule", "every", "named"]
