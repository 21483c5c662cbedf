"""What can be named on a command line: a factory, a configuration, a folder, a frozen program."""

from dropkit.apps.targets.resolving import resolve
from dropkit.apps.targets.target import Frozen, Inputs, Target

__all__ = ["Frozen", "Inputs", "Target", "resolve"]
