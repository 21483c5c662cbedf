"""One study by 1 to 8 workers, over a journal, PostgreSQL and two nodes of Ray; some are killed.

    make bench-search-scale

A trial waits two seconds, as for a GPU or another machine, or computes for two seconds of a
processor. Speed counts from the first trial's beginning to the last one's end. Of 200 trials whose
workers are killed at random it is counted how many were lost, and how many were run twice to their
end. Everything runs on this machine: what is shared are its cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from benchmarks.search.marks import written
from benchmarks.uci.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from cluster import cluster, postgres  # noqa: E402

SPACE = {"x": (0.0, 1.0)}
LENGTH = 2.0
"""Seconds that a trial waits or computes."""
KILLS = 20

CODE = """
import dropkit
found = dropkit.search("benchmarks.search.scale:{objective}", space={space}, trials={trials},
    workers={workers}, storage={storage!r}, study={study!r}, out={out!r}, resume=True, {options})
"""


def waiting(trial) -> float:  # type: ignore[no-untyped-def]
    """A trial whose work is done elsewhere."""
    return _noted(trial, lambda: time.sleep(LENGTH))


def computing(trial) -> float:  # type: ignore[no-untyped-def]
    """A trial that needs a core."""

    def compute() -> None:
        began = time.process_time()
        while time.process_time() - began < LENGTH:
            sum(range(1000))

    return _noted(trial, compute)


def _noted(trial, work) -> float:  # type: ignore[no-untyped-def]
    _note("began", trial.number)
    work()
    _note("ended", trial.number)
    return float((trial["x"] - 0.3) ** 2)


def _note(event: str, number: int) -> None:
    line = f"{event} {number} {os.getpid()} {time.monotonic()}\n"
    handle = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


@dataclass(frozen=True)
class Event:
    """A line of the notes."""

    name: str
    number: int
    pid: int
    at: float


def read(notes: Path) -> list[Event]:
    found = []
    for line in notes.read_text().splitlines():
        name, number, pid, at = line.split()
        found.append(Event(name, int(number), int(pid), float(at)))
    return found


@dataclass(frozen=True)
class Row:
    """A measured search."""

    over: str
    objective: str
    workers: int
    trials: int
    seconds: float
    kills: int
    again: int
    lost: int
    twice: int


@dataclass(frozen=True)
class Lab:
    """A folder, the notes in it, and where studies are kept."""

    folder: Path
    storage: str
    env: dict[str, str]

    def run(
        self,
        over: str,
        objective: str,
        workers: int,
        trials: int,
        kills: int = 0,
        options: str = "",
    ) -> Row:
        """A search in a process of its own, whose workers are shot if asked."""
        from dropkit import search

        study = f"{over}-{objective}-{workers}-{kills}"
        out = str(self.folder / study)
        storage = self.storage if over != "journal" else f"{out}/study.jsonl"
        notes = Path(self.env["NOTES"])
        notes.write_text("")
        code = CODE.format(
            objective=objective, space=SPACE, trials=trials, workers=workers, storage=storage,
            study=study, out=out, options=options,
        )  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", code], env=self.env, cwd=ROOT)
        _shoot(process, notes, kills, trials)
        if process.wait():
            raise SystemExit(f"the search {study} failed")
        events = read(notes)
        last = max(event.at for event in events if event.name == "ended")
        found = search(
            waiting, space=SPACE, trials=trials, storage=storage, study=study, out=out, resume=True
        )
        ended = Counter(event.number for event in events if event.name == "ended")
        place = [trial for trial in found.trials if trial.place == "done"]
        killed_twice = [trial for trial in found.trials if trial.attempts == 2 and trial.why]
        row = Row(
            over=over,
            objective=objective,
            workers=workers,
            trials=trials,
            seconds=last - min(event.at for event in events),
            kills=kills,
            again=sum(trial.attempts == 2 for trial in found.trials),
            lost=trials - len(place) - len(killed_twice),
            twice=sum(count > 1 for count in ended.values()),
        )
        print(row, flush=True)
        return row


def _shoot(process: subprocess.Popen[bytes], notes: Path, kills: int, trials: int) -> None:
    """Kill workers amid trials, evenly over the search, at delays that change."""
    shot = 0
    while shot < kills and process.poll() is None:
        events = read(notes)
        due = sum(event.name == "began" for event in events) > (shot + 1) * trials / (kills + 1)
        if due and events[-1].name == "began":
            time.sleep(0.1 * (shot % 5))
            try:
                os.kill(events[-1].pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            shot += 1
        time.sleep(0.005)


@contextmanager
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        place = Path(folder)
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests")])
        env = os.environ | {"NOTES": str(place / "notes"), "PYTHONPATH": path}
        env |= {"OMP_NUM_THREADS": "1"}
        yield Lab(place, server.url, env)


def measure() -> list[Row]:
    rows = []
    with lab() as bench:
        for workers in (1, 2, 4, 8):
            for over in ("journal", "PostgreSQL"):
                rows.append(bench.run(over, "waiting", workers, 10 * workers))
        for workers in (1, 2):
            rows.append(bench.run("PostgreSQL", "computing", workers, 10 * workers))
        rows.append(bench.run("journal", "waiting", 8, 200, KILLS))
        rows.append(bench.run("PostgreSQL", "waiting", 8, 200, KILLS))
        with cluster(bench.env, 4, 4) as ray:
            options = f"engine='ray', address={ray.address!r}"
            rows.append(bench.run("Ray and PostgreSQL", "waiting", 8, 80, 0, options))
            rows.append(bench.run("Ray and PostgreSQL", "waiting", 8, 200, KILLS, options))
    return rows


def page(rows: list[Row]) -> str:
    """The table and what it was measured with."""
    alone = {(r.over, r.objective): r.seconds / r.trials for r in rows if r.workers == 1}
    lines = [
        "| over | a trial | workers | trials | killed | seconds | times one worker | made again | "
        "lost | run twice |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = alone.get((row.over, row.objective), LENGTH)
        speed = one / (row.seconds / row.trials)
        what = "waits" if row.objective == "waiting" else "computes"
        lines.append(
            f"| {row.over} | {what} | {row.workers} | {row.trials} | {row.kills} | "
            f"{row.seconds:.1f} | {speed:.2f} | {row.again} | {row.lost} | {row.twice} |"
        )
    made = provenance()
    load = os.getloadavg()[2]
    facts = f"{made['cpu']}, load {load:.1f} by all that ran; commit {commit()}, {made['date']}"
    return "\n".join([*lines, "", f"{facts}. Of Ray, one worker is a trial's own {LENGTH} s."])


def commit() -> str:
    """The last one of what was measured."""
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "src/dropkit/apps/tuning"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or "none"


@click.command()
@click.option("--write", type=Path, help="The page in which the table stands between its marks.")
def main(write: Path | None) -> None:
    text = page(measure())
    print(text)
    if write is not None:
        written(write, "scale", text)


if __name__ == "__main__":
    main()
