"""Two processes draw the mask of the whole: data parallel, tensor parallel, DTensor."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import dropkit.functional as F
from dropkit.errors import SettingError

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no distributed package"
)

KEY, BATCH, WIDTH, RATE = 7, 8, 12, 0.5


def network(x: torch.Tensor, first: torch.Tensor, last: torch.Tensor, *, offset: object = 0):  # type: ignore[no-untyped-def]
    hidden = F.dropout(torch.relu(x @ first), RATE, key=KEY, offset=offset)  # type: ignore[arg-type]
    return hidden @ last


def material() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole numbers, and a rate that doubles them: sums are exact in any order."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((BATCH, 5), (5, WIDTH), (WIDTH, 3))
    x, first, last = (torch.randint(-4, 5, size, generator=draw).float() for size in sizes)
    return x, first, last


def worker(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.distributed.tensor import Shard as Along

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    x, first, last = material()
    rows, columns = slice(4 * rank, 4 * rank + 4), slice(6 * rank, 6 * rank + 6)
    result = {
        "data": network(x[rows], first, last, offset=4 * rank * WIDTH),
        "tensor": network(
            x, first[:, columns], last[columns], offset=F.Shard((BATCH, WIDTH), (0, 6 * rank))
        ),
        "gradient": data_parallel(rank, x[rows], first, last),
    }
    dist.all_reduce(result["tensor"])
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.arange(1.0, 1 + BATCH * WIDTH).view(BATCH, WIDTH)
    for name, placement in (("rows", Along(0)), ("columns", Along(1)), ("copies", Replicate())):
        part = distribute_tensor(whole, mesh, [placement]).requires_grad_()
        y = F.dropout(part, RATE, key=KEY)
        assert y.placements == part.placements
        y.sum().full_tensor().backward()
        result[name] = y.full_tensor().detach()
        result[name + " gradient"] = part.grad.full_tensor()  # type: ignore[union-attr]
    torch.manual_seed(3)
    result["seeded"] = F.dropout(distribute_tensor(whole, mesh, [Along(1)])).full_tensor()
    inside = distribute_tensor(whole.clone(), mesh, [Along(1)])
    F.dropout(inside, RATE, key=KEY, inplace=True)
    result["in place"] = inside.full_tensor()
    torch.manual_seed(rank)
    other = init_device_mesh("cpu", (2,))
    try:
        F.dropout(distribute_tensor(whole, other, [Along(0)]))
        result["unlike"] = torch.tensor(False)
    except SettingError as error:
        result["unlike"] = torch.tensor("torch.manual_seed" in str(error))
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    # Torch's caches of DTensors, and the defaults of torch.distributed.nn, hold on to the group; so
    # gloo's threads are still there, and let go of their last tensors whenever a core is free. That
    # takes Python's lock, and where Python is ending, C++ ends the process with SIGABRT instead.
    # So this Python does not end: all that it was for is on the disk.
    os._exit(0)


def data_parallel(
    rank: int, x: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """The gradient of the first weights, averaged by DistributedDataParallel."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Parameter(first.clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x, self.first, last, offset=4 * rank * WIDTH)

    net = torch.nn.parallel.DistributedDataParallel(Net())
    net(x).sum().backward()
    return net.module.first.grad * 2  # type: ignore[no-any-return, union-attr, operator]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_one_process_and_two_give_the_same_bits(results: list[dict[str, torch.Tensor]]) -> None:
    x, first, last = material()
    first.requires_grad_()
    alone = network(x, first, last)
    alone.sum().backward()
    assert torch.equal(torch.cat([result["data"] for result in results]), alone)
    for result in results:
        assert torch.equal(result["tensor"], alone)
        assert torch.equal(result["gradient"], first.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("placed", ["rows", "columns", "copies"])
def test_dtensors_have_the_mask_of_the_whole(
    results: list[dict[str, torch.Tensor]], placed: str
) -> None:
    whole = torch.arange(1.0, 1 + BATCH * WIDTH).view(BATCH, WIDTH)
    expected = F.dropout(whole, RATE, key=KEY)
    for result in results:
        assert torch.equal(result[placed], expected)
        slope = F.dropout(torch.ones(BATCH, WIDTH), RATE, key=KEY)
        assert torch.equal(result[placed + " gradient"], slope)


def test_a_sharded_tensor_is_dropped_in_place(results: list[dict[str, torch.Tensor]]) -> None:
    whole = torch.arange(1.0, 1 + BATCH * WIDTH).view(BATCH, WIDTH)
    expected = F.dropout(whole, RATE, key=KEY)
    assert all(torch.equal(result["in place"], expected) for result in results)


def test_ranks_with_one_seed_draw_one_key(results: list[dict[str, torch.Tensor]]) -> None:
    torch.manual_seed(3)
    expected = F.dropout(torch.arange(1.0, 1 + BATCH * WIDTH).view(BATCH, WIDTH))
    assert all(torch.equal(result["seeded"], expected) for result in results)


def test_ranks_with_unlike_seeds_are_told(results: list[dict[str, torch.Tensor]]) -> None:
    assert all(result["unlike"] for result in results)
