"""What a search found, in a page and in sentences: right, and sure of nothing that is chance."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dropkit
from dropkit.apps.tuning.ablating import ablation, instead, worths
from dropkit.apps.tuning.report import render
from dropkit.apps.tuning.report.shares import shares
from dropkit.apps.tuning.results import Search, Tried, Worth
from dropkit.apps.tuning.serving import Work
from dropkit.apps.tuning.study import Terms
from dropkit.apps.tuning.summary import next_step, sentences
from dropkit.apps.tuning.trial import Trial
from dropkit.records import Knob, Space

pytest.importorskip("optuna")

SPACE = Space(
    (
        Knob("hidden", 0.0, 0.6, kind="rate", reason="hidden <layers>"),
        Knob("lr", 1e-4, 1e-1, log=True),
        Knob("decay", 1e-6, 1e-1, log=True, optional=True),
        Knob("optimizer", kind="choice", choices=("adamw", "sgd")),
    )
)


def setting(number: int) -> dict[str, Any]:
    """Spread over the space, each knob by a step of its own."""
    return {
        "hidden": 0.6 * (number * 0.618 % 1),
        "lr": 1e-4 * 1e3 ** (number * 0.414 % 1),
        "decay": 0.0 if number % 3 == 0 else 1e-6 * 1e5 ** (number * 0.732 % 1),
        "optimizer": ("adamw", "sgd")[number * 7 // 3 % 2],
    }


def made(count: int = 40, **changes: Any) -> Search:
    """A search in which hidden decides and lr matters a little."""
    trials = []
    for number in range(count):
        params = setting(number)
        score = 4 * (params["hidden"] - 0.3) ** 2 + 0.02 * (math.log10(params["lr"]) + 2) ** 2
        trials.append(Tried(number, "done", params, number, score, 0.001, 1.0))
    return Search(SPACE, "minimize", tuple(trials), count, **changes)


# ---- shares


def test_the_knob_that_decides_explains_most() -> None:
    found = shares(made())
    assert found[0].knob == "hidden"
    assert found[0].share > 0.5
    by_name = {share.knob: share for share in found}
    assert by_name["optimizer"].share < 0.1
    assert sum(share.share for share in found) == pytest.approx(1.0, abs=0.01)
    assert all(share.error > 0 for share in found[:1])


def test_of_little_nothing_is_said() -> None:
    assert shares(made(19)) == ()
    same = Search(Space((Knob("x", 0.5, 0.5),)), "minimize", made().trials[:0])
    assert shares(same) == ()


# ---- ablation


@pytest.mark.parametrize(
    ("knob", "value", "other"),
    [
        (Knob("r", 0.0, 0.6, kind="rate"), 0.3, 0.0),
        (Knob("r", 0.1, 0.5, kind="rate"), 0.2, 0.3),
        (Knob("d", 1e-6, 1e-2, log=True, optional=True), 1e-3, 0.0),
        (Knob("lr", 1e-4, 1e-2, log=True), 0.005, 1e-3),
        (Knob("lr", 1e-4, 1e-2, log=True, default=3e-4), 0.005, 3e-4),
        (Knob("n", 1, 4, kind="int"), 4, 2),
        (Knob("o", kind="choice", choices=("a", "b")), "a", "b"),
        (Knob("o", kind="choice", choices=("a", "b"), optional=True), "a", None),
    ],
)
def test_a_knob_is_put_back_to_what_is_usual(knob: Knob, value: Any, other: Any) -> None:
    assert instead(knob, value) == other


def test_what_a_knob_was_worth_is_measured_in_pairs_of_one_seed(tmp_path: Path) -> None:
    """Caught: seeds that differ within a pair, whose noise would drown the difference."""
    seen: list[tuple[int, dict[str, Any]]] = []

    def objective(trial: Trial) -> float:
        seen.append((trial.seed, trial.params))
        noise = (trial.seed % 1000) / 10  # far larger than any difference
        return noise + 4 * (trial["hidden"] - 0.3) ** 2 + 0.5 * trial["decay"]

    found = dropkit.search(objective, space=SPACE, trials=6, out=tmp_path, ablate=3)
    assert found.best is not None
    assert len(found.trials) == 6
    again = seen[6:]
    assert len({seed for seed, _ in again}) == 3
    assert sum(params == found.best.params for _, params in again) == 3
    by_name = {worth.knob: worth for worth in found.worths}
    hidden = by_name["hidden"]
    best = found.best.params
    expected = 4 * 0.3**2 - 4 * (best["hidden"] - 0.3) ** 2
    assert hidden.loss == pytest.approx(expected, abs=1e-9)
    assert (hidden.pairs, hidden.instead, hidden.sure) == (3, 0.0, True)
    assert by_name["optimizer"].loss == pytest.approx(0.0, abs=1e-9)
    assert not by_name["optimizer"].sure


def test_an_ablation_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    count = 0

    def objective(trial: Trial) -> float:
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return float(trial["hidden"])

    with pytest.raises(KeyboardInterrupt):
        dropkit.search(objective, space=SPACE, trials=5, out=tmp_path, ablate=2)
    found = dropkit.search(objective, space=SPACE, trials=5, out=tmp_path, ablate=2, resume=True)
    assert found.worths
    assert count == 5 + 2 * (1 + len(found.worths)) + 1


def test_few_pairs_are_worth_little() -> None:
    """Caught: two errors for an interval, of which 3 pairs break 18 % by chance."""
    few, many = (Worth("x", 1, 0, 0.25, 0.1, pairs) for pairs in (3, 30))
    assert not few.sure
    assert many.sure
    assert not Worth("x", 1, 0, 9.0, None, 1).sure


def test_more_is_better_where_it_is_said() -> None:
    search = made(3, ended="")
    up = Search(SPACE, "maximize", search.trials)
    work = Work(lambda trial: 0.0, Terms("", "s", SPACE, "maximize"), "")
    without = ablation(up, work, 2)
    assert without is not None
    assert up.best is not None
    tried = [
        Tried(n, "done", params, n % 2, 5.0 if params == up.best.params else 3.0)
        for n, params in enumerate(without.terms.queue)
    ]
    found = worths(up, Search(SPACE, "maximize", tuple(tried)))
    assert {worth.loss for worth in found} == {2.0}  # lower is worse


# ---- sentences


def place(trial: Tried, **changes: Any) -> Tried:
    from dataclasses import replace

    return replace(trial, **changes)


def test_the_next_step_is_the_most_urgent_one() -> None:
    search = made()
    assert next_step(Search(SPACE, "minimize", ())).startswith("correct the objective")
    assert next_step(made(ended="time")).startswith("continue the search")
    failing = [place(t, place="failed", score=None) for t in search.trials[:15]]
    broken = Search(SPACE, "minimize", (*failing, *search.trials[15:]))
    assert "a quarter of the trials failed" in next_step(broken)
    hurt = made(worths=(Worth("decay", 0.1, 0.0, -0.5, 0.01, 5),))
    assert next_step(hurt) == "set decay to 0: the best setting is better so"
    pushed = [t.params | {"hidden": min(0.6, 1.2 * t.params["hidden"])} for t in search.trials]
    edge = [
        place(t, params=params, score=-params["hidden"])
        for t, params in zip(search.trials, pushed, strict=True)
    ]
    assert "widen the range of hidden" in next_step(Search(SPACE, "minimize", tuple(edge)))
    unknown = [place(t, error=None) for t in search.trials]
    assert "standard error" in next_step(Search(SPACE, "minimize", tuple(unknown)))
    noisy = [place(t, error=1.0) for t in search.trials]
    assert "repeat the best settings" in next_step(Search(SPACE, "minimize", tuple(noisy)))


def test_chance_is_called_chance() -> None:
    told = " ".join(
        sentences(
            made(
                worths=(
                    Worth("hidden", 0.3, 0.0, 0.4, 0.01, 5),
                    Worth("lr", 0.01, 0.001, 0.01, 0.05, 5),
                )
            )
        )
    )
    assert "without hidden it is worse by 0.4 ± 0.0278" in told
    assert "without lr is within chance" in told


# ---- the page


def test_the_page_says_what_to_set_and_why_and_runs_nothing() -> None:
    hostile = "<script>alert(1)</script>"
    failed = Tried(40, "failed", setting(1), 1, why=hostile, traceback=f"in {hostile}")
    stopped = Tried(41, "stopped", setting(2), 1, why=f"without hope {hostile}")
    search = made(worths=(Worth("hidden", 0.3, 0.0, 0.4, 0.01, 5),))
    page = render(Search(SPACE, "minimize", (*search.trials, failed, stopped), 42,
                         worths=search.worths))  # fmt: skip
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "hidden &lt;layers&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert re.search(r"hidden = 0\.\d+\nlr = ", page)
    for title in ("The best setting", "What each knob was worth", "Which knobs mattered",
                  "Score against each knob", "What failed, and why", "stopped early"):  # fmt: skip
        assert title in page
    assert page.count("<svg") == 3 + len(SPACE)
    assert "nan" not in page.lower().replace("finance", "")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_page_of_little_is_a_page(count: int) -> None:
    page = render(made(count))
    assert page.rstrip().endswith("</html>")
    assert "Not weighed: that takes 20 trials" in page


def test_a_page_of_failures_says_so() -> None:
    failed = Tried(0, "failed", setting(0), 0, why="the score is nan")
    page = render(Search(SPACE, "minimize", (failed,)))
    assert "No trial was done" in page
    assert "correct the objective" in page


def test_a_best_choice_of_none_is_said_in_words() -> None:
    space = Space((Knob("act", kind="choice", choices=("relu", "silu"), optional=True),))
    search = Search(space, "minimize", (Tried(0, "done", {"act": None}, 0, 1.0),))
    assert "# act is not used" in render(search)


# ---- what is missing


@pytest.mark.parametrize(
    ("package", "code", "said"),
    [
        ("optuna", "dropkit.search(f, space={'x': (0., 1.)}, trials=1)", "dropkit[tune]"),
        (
            "ray",
            "dropkit.search(f, space={'x': (0., 1.)}, trials=1, engine='ray', storage='s')",
            "dropkit[ray]",
        ),
        (
            "psycopg",
            "dropkit.search(f, space={'x': (0., 1.)}, trials=1, storage='postgresql://a@b/c')",
            "dropkit[postgres]",
        ),
    ],
)
def test_what_is_not_installed_is_named(tmp_path: Path, package: str, code: str, said: str) -> None:
    whole = f"import sys\nsys.modules[{package!r}] = None\nimport dropkit\nf = lambda t: 0.\n{code}"
    ran = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "MissingExtraError" in ran.stderr
    assert said in ran.stderr


def test_a_search_without_what_draws_ends_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from command import dropkit as run

    mine = tmp_path / "mine_too.py"
    mine.write_text('SPACE = {"x": (0.0, 1.0)}\ndef objective(trial):\n    return trial["x"]\n')
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "dropkit.apps.tuning.report", raising=False)
    monkeypatch.delitem(sys.modules, "dropkit.apps.tuning.report.page", raising=False)
    ran = run("tune", f"{mine}:objective", "--trials", 3, "--out", tmp_path / "out")
    assert ran.code == 0
    assert 'No report: that needs jinja2; try: pip install "dropkit[tune]"' in ran.err
