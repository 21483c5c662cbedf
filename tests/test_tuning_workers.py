"""Workers may be killed at any moment: no trial is lost, none is run twice, the count is exact."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

import dropkit
from dropkit.apps.tuning.liveness import life
from dropkit.errors import InputError, StudyError
from tuning_objectives import (
    SPACE,
    check_exact,
    dies,
    dies_at_2,
    hangs_at_2,
    kill,
    meets,
    read,
    search_elsewhere,
    slow_bowl,
)

pytest.importorskip("optuna")


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    return path


def test_many_workers_make_as_many_trials_as_were_asked_for(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEET", "4")
    found = dropkit.search(meets, space=SPACE, trials=17, workers=4, out=tmp_path / "out")
    check_exact(notes, found, 17)
    events = read(notes)
    assert len(events) == 34
    assert len({pid for *_, pid, _ in events}) == 4
    assert all(trial.attempts == 1 for trial in found.trials)


def test_a_worker_that_dies_is_noticed_and_its_trial_made_again_once(tmp_path: Path) -> None:
    found = dropkit.search(dies_at_2, space=SPACE, trials=6, workers=2, out=tmp_path / "out")
    assert [trial.place for trial in found.trials] == ["done"] * 4 + ["failed", "done"]
    assert [trial.attempts for trial in found.trials] == [1, 1, 2, 1, 2, 1]
    assert "its worker died (process" in found.trials[4].why


def test_a_trial_that_hangs_is_killed_and_has_failed(tmp_path: Path) -> None:
    began = time.monotonic()
    found = dropkit.search(hangs_at_2, space=SPACE, trials=4, timeout=2.0, out=tmp_path / "out")
    assert time.monotonic() - began < 60
    assert [trial.place for trial in found.trials] == ["done", "done", "failed", "done"]
    assert found.trials[2].why == "it took more than 2 s, and was killed"
    assert found.trials[2].attempts == 1


def test_nothing_but_deaths_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none of the first 2 trials succeeded.*its worker died"):
        dropkit.search(dies, space=SPACE, trials=9, workers=1, timeout=60, failures=2, out=tmp_path)


def test_an_objective_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no module nowhere"):
        dropkit.search("nowhere:objective", space=SPACE, trials=3, workers=2, out=tmp_path)


WHOLE = """
found = dropkit.search(slow_bowl, space=SPACE, trials={trials}, workers={workers}, out={out!r},
    resume=True)
print(len(found.trials), flush=True)
"""


def test_workers_killed_at_random_lose_nothing(tmp_path: Path, notes: Path) -> None:
    """Workers are shot as they begin a trial, at changing delays; then the rest is counted.

    Caught: trials counted per worker, a retry that two workers both add, a death that nobody sees.
    """
    out = str(tmp_path / "out")
    code = WHOLE.format(trials=24, workers=4, out=out)
    parent = search_elsewhere(code)
    shot: set[int] = set()
    deadline = time.monotonic() + 120
    while parent.poll() is None and time.monotonic() < deadline:
        running = [pid for event, *_, pid, _ in read(notes) if event == "began"]
        fresh = [pid for pid in running if pid not in shot]
        if fresh and len(shot) < 6 and len(running) > 4 * len(shot):
            time.sleep(0.03 * (len(shot) % 4))
            shot.add(fresh[-1])
            kill(fresh[-1])
        time.sleep(0.01)
    said, errors = parent.communicate(timeout=60)
    assert said.strip() == "24", errors
    assert len(shot) == 6
    found = dropkit.search(slow_bowl, space=SPACE, trials=24, out=out, resume=True)
    check_exact(notes, found, 24)


def test_a_search_whose_head_is_killed_leaves_no_workers_and_goes_on(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    monkeypatch.setenv("SLOW", "600")
    parent = search_elsewhere(WHOLE.format(trials=6, workers=2, out=out))
    while len(read(notes)) < 2:
        time.sleep(0.01)
        assert parent.poll() is None
    parent.kill()
    parent.communicate()
    pids = {pid for *_, pid, _ in read(notes)}
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
    monkeypatch.setenv("SLOW", "0")
    found = dropkit.search(slow_bowl, space=SPACE, trials=6, out=out, resume=True)
    check_exact(notes, found, 6)
    assert [trial.attempts for trial in found.trials] == [2, 2, 1, 1, 1, 1]


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_processes_that_share_a_storage_share_the_study(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each returns when all is done, and sees the same; together they make what was asked for."""
    monkeypatch.setenv("MEET", "3")
    code = f"""
out = {str(tmp_path / "out")!r}
found = dropkit.search(meets, space=SPACE, trials=15, out=out, resume=True)
print([trial.score for trial in found.trials])
"""
    several = [search_elsewhere(code) for _ in range(3)]
    answers = [process.communicate(timeout=120) for process in several]
    assert len({said for said, _ in answers}) == 1, answers
    events = read(notes)
    assert Counter(number for event, number, *_ in events if event == "ended") == Counter(range(15))
    assert len({pid for *_, pid, _ in events}) == 3


def test_a_stopped_worker_of_this_machine_is_alive(tmp_path: Path) -> None:
    """A clock, or a pause, is no death: only the system's word counts on the same machine."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        from dropkit.apps.tuning.liveness import identity

        name = identity(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert life(name) == "alive"
    finally:
        process.kill()
        process.wait()
    assert life(name) == "dead"


def test_a_worker_elsewhere_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """Of another machine nothing is known but its signs of life, by this process's own clock."""
    from dropkit.apps.tuning import study as studies
    from dropkit.apps.tuning.spaces import space_of

    terms = studies.Terms(
        str(tmp_path / "study"), "search", space_of(SPACE), "minimize", silence=1.0
    )
    elsewhere, here = studies.Register(terms), studies.Register(terms)
    claim = elsewhere.claim(1)
    assert claim is not None
    elsewhere._note(claim, {"owner": "far|0123456789|12|34"})
    for beat in range(5):  # it lives: more than the silence goes by, and it is let be
        for _ in range(2):
            assert here.claim(1) is None
            time.sleep(0.1)
        assert elsewhere.sign(claim, beat)
    deadline = time.monotonic() + 20
    while (again := here.claim(1)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert again is not None
    assert (again.number, again.again, again.seed) == (0, True, claim.seed)
    assert again.params == claim.params
    assert not elsewhere.sign(claim, 9)  # it hears that it was given up,
    assert not elsewhere.end(claim, "done", {}, 1.0)  # and its late answer does not count
    assert here.end(again, "done", {}, 2.0)
    ledger = here.ledger(1)
    assert ledger.over
    assert here.tried(ledger)[0].score == 2.0
    assert "gave no sign of life" in str(ledger.numbers[0][0].user_attrs)


def test_a_worker_killed_between_taking_and_signing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dropkit.apps.tuning import study as studies
    from dropkit.apps.tuning.spaces import space_of

    terms = studies.Terms(str(tmp_path / "study"), "search", space_of(SPACE), "minimize")
    monkeypatch.setattr(studies, "_UNSIGNED", 0.3)
    here = studies.Register(terms)
    killed = studies.Register(terms)
    monkeypatch.setattr(killed, "_take", lambda ledger, waiting: _take_only(killed, waiting))
    with pytest.raises(ConnectionAbortedError):
        killed.claim(1)
    assert here.claim(1) is None
    time.sleep(0.35)
    again = here.claim(1)
    assert again is not None
    assert again.again


def _take_only(register: object, waiting: object) -> None:
    from optuna.trial import TrialState

    register._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)  # type: ignore[attr-defined]
    raise ConnectionAbortedError


@pytest.mark.parametrize("buried", [False, True])
def test_an_answer_that_a_database_lost_counts_and_one_too_late_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buried: bool
) -> None:
    """The write is made twice: its first answer was lost, or another buried the trial before."""
    from dropkit.apps.tuning import study as studies
    from dropkit.apps.tuning.spaces import space_of

    terms = studies.Terms(str(tmp_path / "study"), "search", space_of(SPACE), "minimize")
    here, other = studies.Register(terms), studies.Register(terms)
    claim = here.claim(1)
    assert claim is not None
    write = here._storage.set_trial_state_values

    def lost(*args: object) -> bool:
        if buried:
            other.give_up(claim, "its worker died")
        else:
            write(*args)
        return write(*args)

    monkeypatch.setattr(here._storage, "set_trial_state_values", lost)
    assert here.end(claim, "done", {}, 1.0) is not buried
    place = here.tried(here.ledger(1))[0].place
    assert place == ("waiting" if buried else "done")


def test_two_that_put_up_the_same_trial_again_make_it_once(tmp_path: Path) -> None:
    """Both saw the death and both added an attempt; the second addition is never taken."""
    from dropkit.apps.tuning import study as studies
    from dropkit.apps.tuning.ledger import RETRY
    from dropkit.apps.tuning.spaces import space_of

    terms = studies.Terms(str(tmp_path / "study"), "search", space_of(SPACE), "minimize")
    register = studies.Register(terms)
    claim = register.claim(1)
    assert claim is not None
    register.give_up(claim, "its worker died")
    register._study.enqueue_trial({}, user_attrs={RETRY: 0})
    again = register.claim(1)
    assert again is not None
    assert again.again
    register._study.enqueue_trial({}, user_attrs={RETRY: 0})  # a slow one's, who saw it earlier
    assert register.claim(1) is None
    register.end(again, "done", {}, 1.0)
    assert register.claim(1) is None
    assert register.ledger(1).over


def test_of_two_that_begin_a_study_of_unlike_spaces_at_once_one_is_refused(tmp_path: Path) -> None:
    """Both found it unmarked, and each marked it: whose trial is the first decides."""
    from dropkit.apps.tuning import study as studies
    from dropkit.apps.tuning.spaces import space_of

    where = str(tmp_path / "study")
    one = studies.Terms(where, "search", space_of(SPACE), "minimize")
    other = studies.Terms(where, "search", space_of({"y": (0.0, 1.0)}), "minimize")
    first = studies.Register(one)
    first._storage.set_study_user_attr(first._id, "dropkit", studies._mark(other))
    second = studies.Register(other)
    assert first.claim(3) is not None
    with pytest.raises(StudyError, match="another model or space, begun at this moment"):
        second.claim(3)
    assert first.claim(3) is not None
