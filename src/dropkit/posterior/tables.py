"""Draws as a table, one row for each row of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dropkit.errors import MissingExtraError, SettingError
from dropkit.posterior import montecarlo
from dropkit.posterior.leaves import Kept, Leaf

if TYPE_CHECKING:
    from pandas import DataFrame

_Columns = dict[str, Tensor]


def frame(leaves: Sequence[Leaf]) -> DataFrame:
    """The table of one or several tensors' draws."""
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'to_frame needs the package pandas, which is not installed; try: pip install "dropkit'
            '[tables]"'
        ) from error
    columns: _Columns = {}
    for leaf in leaves:
        name = f"_{leaf.form.name.strip('[].').strip(chr(39))}" if len(leaves) > 1 else ""
        columns |= {f"{title}{name}": x for title, x in _columns(leaf).items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise SettingError(
            f"to_frame: expected as many rows in each part of the outputs; got {sorted(rows)}. Try "
            'one of them: draws["logits"].to_frame()'
        )
    return pd.DataFrame({title: column.cpu().numpy() for title, column in columns.items()})


def _columns(leaf: Leaf) -> _Columns:
    form = leaf.form
    if form.outputs == "values":
        found = {} if not form.dtype.is_floating_point else _of_values(leaf)
    else:
        found = _of_classes(leaf)
    if not found:
        found = {"variation_ratio": montecarlo.variation_ratio(leaf)}
    return {t: x for title, values in found.items() for t, x in _apart(title, values).items()}


def _of_values(leaf: Leaf) -> _Columns:
    found = {"mean": montecarlo.mean(leaf), "std": montecarlo.deviation(leaf)}
    if isinstance(leaf, Kept):
        low, high = montecarlo.ends(0.9)
        found |= {"low": montecarlo.quantile(leaf, low), "high": montecarlo.quantile(leaf, high)}
    return found


def _of_classes(leaf: Leaf) -> _Columns:
    shares = montecarlo.probabilities(leaf).movedim(leaf.form.axis, 0)
    found = {"prediction": shares.argmax(0)}
    found |= {f"probability_{place}": share for place, share in enumerate(shares)}
    found["entropy"] = montecarlo.total_entropy(leaf)
    found["mutual_information"] = montecarlo.information(leaf)
    found["variation_ratio"] = montecarlo.variation_ratio(leaf)
    return found


def _apart(title: str, values: Tensor) -> _Columns:
    """Columns of shape (rows,): where a row has several values, with the place of each behind."""
    if not values.dim():
        raise SettingError("to_frame: expected draws with rows; got draws of a single number")
    if values.dim() == 1 or values[0].numel() == 1:
        return {title: values.reshape(-1)}
    flat = values.reshape(len(values), -1)
    return {f"{title}_{place}": flat[:, place] for place in range(flat.shape[1])}
