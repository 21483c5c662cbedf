"""For tests of models: `assert_clean`, as a fixture and as a function.

pytest finds this module by its entry point; nothing heavy is loaded before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["assert_clean"]


def assert_clean(
    model: nn.Module,
    *inputs: Any,
    allow: Collection[str] = (),
    fail_on: Literal["error", "warning", "note"] = "warning",
    **settings: Any,
) -> None:
    """Fail unless an audit of a model finds nothing that is bad.

    Args:
        model: any module.
        inputs: what it is called with.
        allow: rules to let pass, as `always-on-dropout`, or within a module as
            `always-on-dropout=decoder.prenet`.
        fail_on: the least severity that fails.
        settings: what else `dropkit.audit` takes, or the model by name.

    Raises:
        AssertionError: there are findings; the message is the report.
    """
    __tracebackhide__ = True
    from dropkit.apps.allowing import allowing
    from dropkit.apps.formats import render
    from dropkit.apps.formats.reading import fails
    from dropkit.rules.auditing import audit

    words = [allow] if isinstance(allow, str) else allow
    report = allowing(audit(model, *inputs, **settings), words)
    if fails(report, fail_on):
        raise AssertionError(render(report, "text", width=100))


@pytest.fixture(name="assert_clean")
def _assert_clean() -> Callable[..., None]:
    """`assert_clean(model, *inputs, allow=())` fails unless the model's dropout is in order."""
    return assert_clean
