"""The journal of a study survives whatever happens to those who write it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dropkit.apps.tuning import journal as journals
from dropkit.apps.tuning.journal import Journal, Lock
from dropkit.apps.tuning.liveness import Watch, identity, life, machine
from dropkit.errors import StudyError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study.jsonl"


def dead() -> str:
    """A process of this machine that was there, and is gone."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    name = identity(process.pid)
    assert life(name) == "alive"
    process.kill()
    process.wait()
    return name


def test_what_is_appended_is_read_in_order(file: Path) -> None:
    one, other = Journal(file), Journal(file)
    one.append_logs([{"n": 0}, {"n": 1}])
    assert list(other.read_logs(0)) == [{"n": 0}, {"n": 1}]
    other.append_logs([{"n": 2}])
    assert list(other.read_logs(2)) == [{"n": 2}]
    assert list(one.read_logs(0)) == list(other.read_logs(0)) == [{"n": n} for n in range(3)]


@pytest.mark.parametrize("tail", [b'{"n": 1', b"{", b'{"n": "' + b"x" * 9000])
def test_a_writer_killed_within_a_line_costs_that_line_alone(file: Path, tail: bytes) -> None:
    """Caught: appending behind the tail, which makes one line of two that nobody can read."""
    Journal(file).append_logs([{"n": 0}])
    with open(file, "ab") as half:
        half.write(tail)
    reader = Journal(file)
    assert list(reader.read_logs(0)) == [{"n": 0}]
    Journal(file).append_logs([{"n": 2}])
    assert list(reader.read_logs(1)) == [{"n": 2}]
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"n": 0}, {"n": 2}]


def test_a_full_disk_stops_clearly_and_leaves_whole_lines(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Journal(file)
    written.append_logs([{"n": 0}])
    real = os.write

    def half(handle: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, content[:10])

    monkeypatch.setattr(journals.os, "write", half)
    with pytest.raises(StudyError, match=r"no space left.*kept; free some space.*resume"):
        written.append_logs([{"n": "a line that the disk has no room for"}])
    monkeypatch.undo()
    assert file.read_bytes() == b'{"n":0}\n'
    written.append_logs([{"n": 1}])
    assert list(written.read_logs(0)) == [{"n": 0}, {"n": 1}]


def test_a_file_that_is_no_journal_is_refused(file: Path) -> None:
    file.write_text("a,b\n1,2\n")
    with pytest.raises(StudyError, match=r"no journal of a study: line 1 is 'a,b"):
        list(Journal(file).read_logs(0))


def test_the_lock_of_a_dead_process_is_taken_over_at_once(file: Path) -> None:
    """Caught: waiting for a grace period, for which every worker stands still after a kill."""
    os.symlink(f"{dead()}#1.1", f"{file}.lock")
    began = time.monotonic()
    with Lock(file, abandoned=1e9).held():
        assert time.monotonic() - began < 10
    assert not os.path.lexists(f"{file}.lock")


def test_the_lock_of_the_living_is_waited_for(file: Path) -> None:
    os.symlink(f"{identity()}#0.0", f"{file}.lock")
    threading.Timer(0.3, os.unlink, [f"{file}.lock"]).start()
    began = time.monotonic()
    with Lock(file, abandoned=0.01).held():
        assert time.monotonic() - began > 0.25


def test_a_lock_of_another_machine_is_left_after_it_stood_still(file: Path) -> None:
    os.symlink("elsewhere|boot|12|34#1.1", f"{file}.lock")
    began = time.monotonic()
    with Lock(file, abandoned=0.3).held():
        assert 0.25 < time.monotonic() - began < 10


WRITER = """
import sys
from pathlib import Path
from dropkit.apps.tuning.journal import Journal
journal, name = Journal(Path(sys.argv[1])), sys.argv[2]
for n in range(100000):
    journal.append_logs([{"of": name, "n": n}])
    print(n, flush=True)
"""


def test_writers_killed_at_any_moment_lose_nothing_that_was_acknowledged(file: Path) -> None:
    """Six processes append at once, each is killed somewhere; two rounds."""
    said: dict[str, int] = {}
    for round_ in range(2):
        writers = {
            f"{round_}.{n}": subprocess.Popen(
                [sys.executable, "-c", WRITER, str(file), f"{round_}.{n}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(6)
        }
        for n, (name, writer) in enumerate(writers.items()):
            assert writer.stdout is not None
            for _ in range(10 + 3 * n):
                said[name] = int(writer.stdout.readline())
            writer.kill()
        for name, writer in writers.items():
            rest = writer.communicate()[0].splitlines()
            said[name] = int(rest[-1]) if rest else said[name]
    Journal(file).append_logs([{"of": "last", "n": 0}])
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for name, last in said.items():
        mine = [record["n"] for record in records if record["of"] == name]
        assert mine in (list(range(last + 1)), list(range(last + 2)))  # or not yet acknowledged


def test_life_is_told_by_number_and_beginning() -> None:
    assert life(identity()) == "alive"
    assert life(dead()) == "dead"
    assert life(f"{machine()}|{os.getpid()}|1") == "dead"  # the number was given anew
    assert life("elsewhere|boot|12|34") == "unknown"


def test_a_process_that_waits_to_be_buried_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    name = identity(process.pid)
    process.kill()
    deadline = time.monotonic() + 10
    while life(name) == "alive" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert life(name) == "dead"  # nobody has waited for it yet
    process.wait()


def test_a_watch_counts_by_no_clock_of_a_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    assert watch.still("a", 1) == 0
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert watch.still("a", 1) < 10
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert watch.still("a", 1) > 90
    assert watch.still("a", 2) == 0
