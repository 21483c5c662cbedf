"""Where a study is kept: a journal in a file, or a database; patient with both."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dropkit.apps.clock import words
from dropkit.apps.tuning.journal import Journal
from dropkit.errors import MissingExtraError, SettingError, StudyError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for which a storage that does not answer is asked again: a database's restart."""

_ENGINE = "dropkit_engine"

_WAITS = (0.1, 5.0)
"""Seconds between two attempts: the first, and the longest."""


def open_storage(url: str, patience: float = PATIENCE) -> BaseStorage:
    """The storage at a URL, or the journal in a file.

    Raises `StudyError` if it cannot be reached within `patience` seconds, `MissingExtraError`
    without Optuna or without the database's driver.
    """
    require_optuna()
    with calm():
        if "://" not in url:
            return _journal(Path(url))  # a disk that does not write will not do so in a minute
        return _patient(_asked(lambda: _database(url), url, patience), url, patience)


def close(storage: BaseStorage) -> None:
    """Let go of a storage's connections."""
    engine = getattr(storage, _ENGINE, None)
    if engine is not None:
        storage.remove_session()
        engine.dispose()


def require_optuna() -> None:
    """Raise `MissingExtraError` where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise MissingExtraError(
            'a search needs the package optuna, which is not installed; try: pip install "dropkit'
            '[tune]"'
        )


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Optuna says nothing meanwhile: what it does here is said by us, or is known to hold."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def hidden(url: str) -> str:
    """A URL without its password, for messages.

    >>> hidden("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    """
    scheme, slashes, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{slashes}{user}{':***' if colon else ''}{at}{host}"


def _journal(file: Path) -> BaseStorage:
    from optuna.storages import JournalStorage

    try:
        return JournalStorage(Journal(file.resolve()))  # type: ignore[arg-type]
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StudyError(
            f"cannot open the study {file}: {why}. Expected a file that can be written, or the "
            "URL of a database such as postgresql://user@host/name"
        ) from error


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        arguments["connect_args"] = {"connect_timeout": 10}
    try:
        return get_storage(RDBStorage(with_driver(url), engine_kwargs=arguments))
    except ImportError as error:
        raise MissingExtraError(
            f"{hidden(url)} needs a driver that is not installed ({error.__cause__ or error}); "
            'for PostgreSQL try: pip install "dropkit[postgres]"'
        ) from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingError(
            f"storage: expected a file, or a URL such as postgresql://user@host/name; got "
            f"{hidden(url)!r} ({error})"
        ) from error


def with_driver(url: str) -> str:
    """A URL of PostgreSQL that names the driver which is there: psycopg 3, unless one is named."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        driver = "psycopg2" if find_spec("psycopg") is None and find_spec("psycopg2") else "psycopg"
        return f"postgresql+{driver}://{rest}"
    return url


# ---- patience


def _asked(ask: Callable[[], T], url: str, patience: float) -> T:
    """What a storage answers, asked again while it fails in ways that pass."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DatabaseError, InterfaceError

    began, wait = time.monotonic(), _WAITS[0]
    while True:
        try:
            return ask()
        except (StorageInternalError, DatabaseError, InterfaceError) as error:
            why = error.__cause__ if isinstance(error, StorageInternalError) else error
            waited = time.monotonic() - began
            if waited + wait > patience:
                raise StudyError(
                    f"the storage {hidden(url)} has not answered for {words(waited)}: "
                    f"{_first_line(why or error)}. All that was told before is kept; see that it "
                    "can be reached, and continue with resume"
                ) from error
        time.sleep(wait)
        wait = min(2 * wait, _WAITS[1])


def _patient(inner: BaseStorage, url: str, patience: float) -> BaseStorage:
    """A storage that passes every question on, and asks again where it has to."""
    from optuna.storages import BaseStorage

    def passed_on(name: str) -> Callable[..., Any]:
        def method(_: BaseStorage, *args: Any, **options: Any) -> Any:
            return _asked(lambda: getattr(inner, name)(*args, **options), url, patience)

        return method

    names = [name for name in vars(BaseStorage) if not name.startswith("_")]
    parts: dict[str, Any] = {name: passed_on(name) for name in names}
    parts[_ENGINE] = getattr(getattr(inner, "_backend", None), "engine", None)
    return type("PatientStorage", (BaseStorage,), parts)()  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
