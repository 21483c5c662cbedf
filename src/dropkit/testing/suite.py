"""All checks, by concern, and the run over them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from dropkit.errors import SettingError
from dropkit.kernel import derive
from dropkit.testing import (
    edges,
    gradients,
    independence,
    keys,
    rates,
    states,
    transforms,
    values,
)
from dropkit.testing.bench import Bench
from dropkit.testing.effort import Effort
from dropkit.testing.report import Check, Inapplicable, Report, Violation
from dropkit.testing.seeding import isolated
from dropkit.testing.subject import Subject

Test = Callable[[Bench], str]
"""Returns its evidence, or raises a `Violation` or `Inapplicable`."""

CONCERNS: dict[str, tuple[Test, ...]] = {
    "law": (
        rates.rate,
        rates.rate_by_input,
        rates.rate_by_position,
        rates.exact_count,
        rates.blocks,
        rates.noise,
    ),
    "values": (
        values.scale,
        values.half,
        values.expectation,
        values.rate_zero,
        values.rate_one,
        values.nan_and_inf,
        values.selects,
    ),
    "independence": (
        independence.shared_axes,
        independence.independent_calls,
        independence.independent_layers,
        independence.independent_elements,
    ),
    "gradients": (
        gradients.gradient_mask,
        gradients.double_backward,
        gradients.forward_mode,
        gradients.checkpointed,
    ),
    "transforms": (
        transforms.vmap_different,
        transforms.vmap_same,
        transforms.vmap_error,
        transforms.compiled,
        transforms.compiled_inductor,
    ),
    "state": (
        states.seeded,
        states.generator,
        states.eval_mode,
        states.eval_draws_nothing,
        states.switched,
        states.copies,
        states.no_trace,
    ),
    "edges": (edges.empty, edges.scalar, edges.integers, edges.in_place),
    "keys": (
        keys.key_repeats,
        keys.key_independent,
        keys.key_strides,
        keys.key_dtypes,
        keys.key_threads,
        keys.key_batch_cut,
        keys.key_shards,
        keys.key_checkpoint,
        keys.key_compiled,
        keys.key_devices,
    ),
}
"""The checks; each is a function whose docstring's first line is what it promises."""

CHECKS: dict[str, Test] = {test.__name__: test for tests in CONCERNS.values() for test in tests}
"""The checks by name, in order."""


def check(
    subject: Subject,
    *,
    only: Collection[str] | None = None,
    seed: int = 0,
    effort: Effort = "usual",
) -> Report:
    """Check a dropout against all that it claims; nothing is raised for what is found.

    A run on a right dropout reports a failure in fewer than one of two million seeds. The global
    random state and the number of threads are afterwards what they were.

    Args:
        subject: The dropout and its claims.
        only: Names of checks; by default all of `CHECKS`.
        seed: Decides every draw of the run.
        effort: How much is drawn: "usual"; "small", a quarter of the elements in a sixteenth of the
            calls, for what is slow by the call; or "thorough", 16 times the usual. The bounds are
            exact and false alarms as rare in each. Of a rate of 0.1 a small run finds a deviation
            of 0.0025 in 99 of 100 runs, a usual one 0.0013, a thorough one 0.0004; what is found in
            fewer draws is told in `dropkit.testing.effort`.

    Raises:
        SettingError: There is no such check, or no such effort.

    >>> import torch
    >>> report = check(Subject(make=torch.nn.Dropout, shape=(8, 16)), only=["rate", "in_place"])
    >>> [(c.name, c.verdict) for c in report.checks]
    [('rate', 'pass'), ('in_place', 'not applicable')]
    """
    unknown = set(only or ()) - CHECKS.keys()
    if unknown:
        raise SettingError(f"only: expected names of checks, {list(CHECKS)}; got {sorted(unknown)}")
    bench = Bench(subject, seed=seed, effort=effort)
    names = [name for name in CHECKS if only is None or name in only]
    return Report(subject.name, tuple(_verdict(name, bench) for name in names))


def _verdict(name: str, bench: Bench) -> Check:
    with isolated(bench.subject.device):
        bench.reseed(0, derive(0, *name.encode()))
        try:
            return Check(name, "pass", CHECKS[name](bench))
        except Inapplicable as reason:
            return Check(name, "not applicable", str(reason))
        except Violation as evidence:
            return Check(name, "fail", str(evidence))
        except Exception as error:  # a stranger's: whatever it raises is what was found
            first = str(error).strip().partition("\n")[0]
            return Check(name, "fail", f"raised {type(error).__name__}: {first}")
