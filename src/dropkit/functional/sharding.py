"""DTensor: each rank drops its own part of a tensor, and the mask is that of the whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.kernel import Key
from dropkit.records import Shard

_checked: set[int] = set()
"""The meshes whose ranks were asked, by `id`: those of the same ranks are equal, but not one."""


def is_sharded(x: Tensor) -> bool:
    """Whether x is a DTensor; nothing is loaded to find out."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def on_shard(x: Any, run: Callable[[Tensor, Shard], Tensor]) -> Tensor:
    """`run` on this rank's part of a DTensor, placed as x is."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, start = compute_local_shape_and_global_offset(x.shape, x.device_mesh, x.placements)
    y = run(x.to_local(), Shard(tuple(x.shape), tuple(start)))
    placed: Tensor = DTensor.from_local(
        y, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride()
    )
    return placed


def keyed_shard(
    x: Tensor,
    key: Key | None,
    generator: torch.Generator | None,
    run: Callable[[Tensor, Key, Shard], Tensor],
) -> Tensor:
    """`run` on this rank's part of a DTensor, with a key that all ranks share."""
    drawn = kernel.resolve_key(key, generator, x.device)
    if key is None:
        check_alike(x, drawn)
    return on_shard(x, lambda part, place: run(part, drawn, place))


def check_alike(x: Any, key: Key) -> None:
    """Ranks that drew a key drew the same one; asked once for each mesh."""
    import torch.distributed as dist

    mesh = x.device_mesh
    if id(mesh) in _checked:
        return
    for axis in range(mesh.ndim):
        keys: list[int] = [0] * mesh.size(axis)
        dist.all_gather_object(keys, int(key), group=mesh.get_group(axis))
        if len(set(keys)) > 1:
            raise SettingError(
                "expected the ranks of a device mesh to draw one key, so that the parts fit "
                "together; they drew different ones. Try the same torch.manual_seed on each, or "
                "key="
            )
    _checked.add(id(mesh))
    finalize(mesh, _checked.discard, id(mesh))  # a later mesh may lie in the same place
