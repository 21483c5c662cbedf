"""Dropout done right: exact masks for any PyTorch model, and regularized networks from tables.

This module computes nothing. What needs torch or pandas is loaded when its name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropkit.errors import (
    ColumnError,
    ConformanceError,
    DropkitError,
    DropkitWarning,
    DropoutInInferenceError,
    FolderError,
    InputError,
    MissingExtraError,
    ModelFolderError,
    PlanError,
    SamplingError,
    SettingError,
    StudyError,
    TableError,
    TargetError,
    TrialStopped,
)

__version__ = "0.5.0"

__all__ = [
    "ColumnError",
    "ConformanceError",
    "DropkitError",
    "DropkitWarning",
    "DropoutClassifier",
    "DropoutInInferenceError",
    "DropoutRegressor",
    "FolderError",
    "InputError",
    "LearnedRates",
    "MissingExtraError",
    "ModelFolderError",
    "PlanError",
    "RatePopulation",
    "RateSchedule",
    "SamplingError",
    "SettingError",
    "StudyError",
    "TableError",
    "TargetError",
    "TrialStopped",
    "__version__",
    "accelerate",
    "audit",
    "callbacks",
    "depth_ramp",
    "disable",
    "ensemble",
    "fix",
    "functional",
    "guard",
    "insert",
    "load",
    "logprob_consistency",
    "nn",
    "rates",
    "recommend",
    "restore",
    "retune",
    "sample",
    "sampling_program",
    "schedules",
    "search",
    "sites",
    "testing",
]

_LATE = {
    "DropoutClassifier": "dropkit.apps.estimators",
    "DropoutRegressor": "dropkit.apps.estimators",
    "LearnedRates": "dropkit.planning.learning",
    "RatePopulation": "dropkit.planning.evolving",
    "RateSchedule": "dropkit.planning.scheduling",
    "accelerate": "dropkit.acceleration",
    "audit": "dropkit.rules.auditing",
    "depth_ramp": "dropkit.planning.depth",
    "disable": "dropkit.planning.disabling",
    "fix": "dropkit.fixing",
    "guard": "dropkit.apps.guard",
    "insert": "dropkit.planning.insertion",
    "load": "dropkit.apps.estimators",
    "logprob_consistency": "dropkit.posterior.consistency",
    "rates": "dropkit.planning.plan",
    "recommend": "dropkit.planning.recommending",
    "restore": "dropkit.acceleration",
    "retune": "dropkit.posterior.retuning",
    "sample": "dropkit.posterior.sampling",
    "sampling_program": "dropkit.posterior.program",
    "search": "dropkit.apps.tuning.searching",
    "sites": "dropkit.inspection.sitemap",
}
_ROOMS = {"callbacks", "ensemble", "functional", "nn", "schedules", "testing"}

if TYPE_CHECKING:  # a checker sees the names themselves, and still reports a misspelt one
    from dropkit import callbacks, ensemble, functional, nn, schedules, testing
    from dropkit.acceleration import accelerate, restore
    from dropkit.apps.estimators import DropoutClassifier, DropoutRegressor, load
    from dropkit.apps.guard import guard
    from dropkit.apps.tuning.searching import search
    from dropkit.fixing import fix
    from dropkit.inspection.sitemap import sites
    from dropkit.planning.depth import depth_ramp
    from dropkit.planning.disabling import disable
    from dropkit.planning.evolving import RatePopulation
    from dropkit.planning.insertion import insert
    from dropkit.planning.learning import LearnedRates
    from dropkit.planning.plan import rates
    from dropkit.planning.recommending import recommend
    from dropkit.planning.scheduling import RateSchedule
    from dropkit.posterior.consistency import logprob_consistency
    from dropkit.posterior.program import sampling_program
    from dropkit.posterior.retuning import retune
    from dropkit.posterior.sampling import sample
    from dropkit.rules.auditing import audit
else:

    def __getattr__(name: str) -> object:
        import importlib

        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(_LATE[name]), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == __name__:
                raise
            raise MissingExtraError(
                f"dropkit.{name} needs the package {missing}, which is not installed; "
                f'try: pip install "dropkit[tables]"'
            ) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
