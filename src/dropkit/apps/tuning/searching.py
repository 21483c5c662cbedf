"""`dropkit.search`: the settings of a space that an objective likes best."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dropkit.apps.saving import explained
from dropkit.apps.tuning.ablating import ablation, worths
from dropkit.apps.tuning.pruning import Patience
from dropkit.apps.tuning.ranks import conduct, several
from dropkit.apps.tuning.results import Direction, Search
from dropkit.apps.tuning.serving import Shift, Work, found, load
from dropkit.apps.tuning.spaces import SpaceLike, space_of
from dropkit.apps.tuning.storage import require_optuna
from dropkit.apps.tuning.study import Register, Terms
from dropkit.apps.tuning.trial import Objective
from dropkit.errors import SettingError

if TYPE_CHECKING:
    from torch import nn

JOURNAL = "study.jsonl"
"""In the folder of a search: its study, where no other storage is named."""

Engine = Literal["local", "ray"]


def search(
    objective: Objective | str,
    *,
    space: SpaceLike | None = None,
    model: nn.Module | None = None,
    inputs: Sequence[Any] = (),
    classes: bool = False,
    trials: int | None = None,
    seconds: float | None = None,
    direction: Direction = "minimize",
    out: str | Path = "dropkit-search",
    storage: str | None = None,
    study: str = "search",
    resume: bool = False,
    workers: int | None = None,
    timeout: float | None = None,
    engine: Engine = "local",
    address: str | None = None,
    stopping: Patience | None = Patience(),  # noqa: B008  frozen
    keep: int = 3,
    failures: int = 5,
    ablate: int = 0,
    silence: float = 60.0,
    patience: float = 60.0,
    key: int = 0,
    watch: Callable[[Search], object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Search:
    """Try settings of a space, and learn from each where to look next.

    Args:
        objective: from a trial to a score; to (score, standard error); or to None, if it has
            reported. Or where it is: module:function, file.py:function.
        space: a `Space`, or for each name a `Knob`, (low, high), (low, high, "log") or choices; or
            the plan of a model, `dropkit.rates(model, *inputs)`.
        model: in place of a space: it is discovered from the model. For each role that drops, if
            it does and how much, around what is usual; with the learning rate and weight decay.
        inputs: what the model is called with.
        classes: whether it tells classes, whose labels can be smoothed.
        trials: how many settings are tried in the whole study, by all that work on it.
        seconds: how long trials may begin. One of the two has to be given.
        direction: "minimize" or "maximize" the score.
        out: a folder for the study and for the weights that are kept.
        storage: a file, or the URL of a database; by default a file in the folder. Processes that
            name the same one share the study; each of them returns when it is done.
        study: its name in the storage.
        resume: continue or join a study that is there; without it, one that has trials is refused.
        workers: processes. None: one, this one; with Ray one for each processor.
        timeout: seconds after which a trial is killed, and has failed.
        engine: "local", or "ray" for the cluster at an address.
        address: of the head of the cluster; None: Ray is started here.
        stopping: when a trial is stopped early; None: never.
        keep: of how many of the best trials weights are kept.
        failures: trials that fail before any succeeds, until the search is given up.
        ablate: how often the best setting is tried again, and without each of its knobs, at the
            end, to say what each was worth.
        silence: seconds without a sign of life until a worker elsewhere counts as dead.
        patience: seconds for which a storage that does not answer is asked again.
        key: names the draws: what is asked first, and the seed of each trial.
        watch: called with what was found, whenever something may have changed.
        stop: asked now and then whether to end; trials that run are ended first.

    Raises:
        SettingError: an option outside its range.
        StudyError: a study of another space; a storage out of reach; nothing but failures.

    >>> import tempfile, dropkit
    >>> def objective(trial):
    ...     return (trial["lr"] - 0.1) ** 2
    >>> with tempfile.TemporaryDirectory() as out:
    ...     found = dropkit.search(objective, space={"lr": (0.0, 1.0)}, trials=20, out=out)
    >>> len(found.trials), abs(found.best.params["lr"] - 0.1) < 0.1
    (20, True)
    """
    require_optuna()
    folder = Path(out).resolve()
    place = storage or str(folder / JOURNAL)
    asked = space_of(_given(space, model, inputs, classes))
    terms = Terms(place, study, asked, direction, key, silence, patience)
    left = math.inf if seconds is None else seconds
    work = Work(
        objective, terms, str(folder), trials, left, keep, stopping, failures, timeout=timeout
    )
    how = _How(engine, address, workers, resume, ablate, watch, stop or (lambda: False))
    _check(work, how, storage)
    if several():
        return conduct(load(objective), lambda mine: _run(replace(work, objective=mine), how))
    return _run(work, how)


def _given(
    space: SpaceLike | None, model: nn.Module | None, inputs: Sequence[Any], classes: bool
) -> SpaceLike:
    if space is not None and model is None:
        return space
    if space is not None or model is None:
        raise SettingError(
            "expected a space, or a model with its inputs, of which it is discovered; got "
            f"{'neither' if space is None else 'both'}"
        )
    from dropkit.planning.discovering import discover
    from dropkit.planning.plan import rates

    return discover(rates(model, *inputs), classes=classes)


@dataclass(frozen=True, slots=True)
class _How:
    """What does not belong to the work itself."""

    engine: str
    address: str | None
    workers: int | None
    resume: bool
    ablate: int
    watch: Callable[[Search], object] | None
    stop: Callable[[], bool]


def _run(work: Work, how: _How) -> Search:
    with explained(Path(work.out)):
        Path(work.out).mkdir(parents=True, exist_ok=True)
    search = _opened(work, how)
    without = ablation(search, work, how.ablate) if how.ablate and not search.ended else None
    if without is None:
        return search
    ablated = _opened(without, replace(how, resume=True))
    return replace(search, worths=worths(search, ablated))


def _opened(work: Work, how: _How) -> Search:
    with contextlib.closing(Register(work.terms)) as register:
        return _served(work, how, register)


def _served(work: Work, how: _How, register: Register) -> Search:
    if not how.resume:
        register.refuse_if_begun()
    ended = [trial.number for trial in register.tried(register.ledger(work.wanted)) if trial.ended]
    work = replace(work, known=frozenset(ended))

    def look(*_: object) -> None:
        if how.watch is not None:
            how.watch(found(work, register))

    look()
    if how.engine == "ray":
        from dropkit.apps.tuning.rays import Fleet

        Fleet(work, register, how.workers, how.address).serve(how.stop, look)
    elif (how.workers or 1) > 1 or work.timeout is not None:
        from dropkit.apps.tuning.workers import Crew

        Crew(work, register, how.workers or 1).serve(how.stop, look)
    else:
        Shift(work, register, look, how.stop).serve()
    over = register.ledger(work.wanted).over
    return found(work, register, "" if over else "stopped" if how.stop() else "time")


def _check(work: Work, how: _How, storage: str | None) -> None:
    """Raise `SettingError` for what cannot be searched."""
    if not callable(work.objective) and not isinstance(work.objective, str):
        raise SettingError(f"objective: expected a function of a trial; got {work.objective!r}")
    if work.trials is None and work.left == math.inf:
        raise SettingError("expected an end: trials=, seconds=, or both; got neither")
    if work.terms.direction not in ("minimize", "maximize"):
        raise SettingError(
            f"direction: expected minimize or maximize; got {work.terms.direction!r}"
        )
    if how.engine not in ("local", "ray"):
        raise SettingError(f"engine: expected local or ray; got {how.engine!r}")
    if how.engine == "ray" and storage is None:
        raise SettingError(
            "engine='ray': expected a storage that all nodes reach: the URL of a database, or a "
            "file on a disk that they share; got none"
        )
    if how.engine == "local" and how.address is not None:
        raise SettingError("address: expected with engine='ray' only")
    for name, value in (("trials", work.trials), ("workers", how.workers)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise SettingError(f"{name}: expected a whole number, 1 or more; got {value!r}")
    for name, span in (
        ("seconds", work.left),
        ("timeout", work.timeout),
        ("silence", work.terms.silence),
        ("patience", work.terms.patience),
    ):
        if span is not None and not span > 0:
            raise SettingError(f"{name}: expected seconds above 0; got {span!r}")
    if work.keep < 0 or work.failures < 1 or how.ablate < 0:
        raise SettingError("expected keep and ablate of 0 or more, and failures of 1 or more")
    if several() and ((how.workers or 1) > 1 or work.timeout or how.engine != "local"):
        raise SettingError(
            "expected one worker, no timeout and engine='local' within torch.distributed: its "
            "ranks are the processes of one trial"
        )
