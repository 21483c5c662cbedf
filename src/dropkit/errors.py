"""Every exception that dropkit raises on purpose.

::

    DropkitError
    ├── InputError (ValueError)      what a user handed over cannot be used
    │   ├── TableError               a file or stream that is no table
    │   ├── ColumnError              a column that is absent, doubled, or of another type
    │   ├── TargetError              a target from which nothing can be learned
    │   └── SettingError             an option outside its range
    ├── FolderError                  a folder that we may not write to, or cannot
    │   └── ModelFolderError         a model folder that is damaged, altered or from another version
    ├── MissingExtraError (ImportError)  an optional dependency that is not installed
    ├── ConformanceError (AssertionError)  a dropout that does not do what it claims
    ├── PlanError                    a model that does not drop at the rates of a plan
    ├── StudyError                   a search that cannot go on; what was found is kept
    ├── TrialStopped                 raised in a trial that is told to stop; no error of anyone's
    ├── DropoutInInferenceError      a dropout that acted while a guarded model predicted
    └── SamplingError                a model whose predictions do not vary, or cannot be sampled

Each message says what was expected, what came, and what to try.
"""

from __future__ import annotations


class DropkitError(Exception):
    """Root of all errors that dropkit raises on purpose."""


class InputError(DropkitError, ValueError):
    """What a user handed over cannot be used."""


class TableError(InputError):
    """A file or stream that is no table."""


class ColumnError(InputError):
    """A column that is absent, doubled, or of another type than expected."""


class TargetError(InputError):
    """A target from which nothing can be learned."""


class SettingError(InputError):
    """An option outside its range."""


class FolderError(DropkitError):
    """A folder that we may not write to, or cannot."""


class ModelFolderError(FolderError):
    """A model folder that is damaged, altered or from another version."""


class MissingExtraError(DropkitError, ImportError):
    """An optional dependency that is not installed."""


class ConformanceError(DropkitError, AssertionError):
    """A dropout that does not do what it claims; the message is the evidence."""


class PlanError(DropkitError):
    """A model that does not drop at the rates of a plan; nothing of it was changed."""


class StudyError(DropkitError):
    """A search that cannot go on; what it found so far is kept."""


class TrialStopped(DropkitError):
    """Raised in a trial that is told to stop: no error of anyone's."""


class DropoutInInferenceError(DropkitError):
    """A dropout that acted while a guarded model predicted; the message says which."""


class SamplingError(DropkitError):
    """A model whose predictions do not vary, or cannot be sampled."""


class DropkitWarning(UserWarning):
    """Something worked, but not as one would expect; the message says what and why."""
