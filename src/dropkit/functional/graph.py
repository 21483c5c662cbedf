"""Dropout of the edges and of the nodes of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_number, check_rate
from dropkit.kernel import Key


def dropout_edge(
    edge_index: Tensor,
    p: float = 0.5,
    force_undirected: bool = False,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Remove each edge of a graph with probability p.

    Args:
        edge_index: shape (2, E), integers: the source and the target of each edge.
        p: the fraction of edges removed, from 0 to 1.
        force_undirected: edges come in both directions, (i, j) and (j, i), and go together. The
            edges with i <= j decide; what is kept of them comes first, then the same mirrored.
        training: if False, all edges are kept.
        key, generator: as in `dropout`; the mask index is the edge's number.

    Returns:
        The edges that are left, shape (2, E'), and which they are: booleans of shape (E,), or in
        training with force_undirected the numbers of edges, shape (E'), with those of (i, j) also
        for (j, i); so `edge_attr[mask]` fits in either case.

    Raises:
        SettingError: p outside [0, 1]; edges of another shape or type.

    >>> import torch, dropkit.functional as F
    >>> edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> F.dropout_edge(edges, 0.5, key=4)
    (tensor([[1, 1],
            [0, 2]]), tensor([False,  True,  True, False, False, False]))
    >>> F.dropout_edge(edges, 0.5, force_undirected=True, key=4)
    (tensor([[1, 2],
            [2, 1]]), tensor([2, 2]))

    Source: Rong et al. 2020, "DropEdge: Towards Deep Graph Convolutional Networks on Node
    Classification"; arguments and results are those of torch_geometric.utils.dropout_edge, but
    that with force_undirected a loop (i, i) is not doubled.
    """
    check_number(p)
    check_rate(p)
    _check_edges(edge_index)
    if not training or p == 0:
        return edge_index, _all(edge_index, edge_index.shape[1])
    key = kernel.resolve_key(key, generator, edge_index.device)
    kept = kernel.keep(edge_index.shape[1:], p, key=key, device=edge_index.device)
    if not force_undirected:
        return edge_index[:, kept], kept
    source, target = edge_index
    number = (kept & (source <= target)).nonzero().squeeze(1)
    mirrored = number[source[number] != target[number]]
    edges = torch.cat([edge_index[:, number], edge_index[:, mirrored].flip(0)], dim=1)
    return edges, torch.cat([number, mirrored])


def dropout_node(
    edge_index: Tensor,
    p: float = 0.5,
    num_nodes: int | None = None,
    training: bool = True,
    relabel_nodes: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Remove each node of a graph with probability p, and with it all of its edges.

    Args:
        edge_index: shape (2, E), integers: the source and the target of each edge.
        p: the fraction of nodes removed, from 0 to 1.
        num_nodes: how many nodes there are; by default one more than the largest number.
        training: if False, all nodes are kept.
        relabel_nodes: whether the nodes that are left are numbered anew, from 0.
        key, generator: as in `dropout`; the mask index is the node's number.

    Returns:
        The edges that are left, shape (2, E'); booleans of shape (E,), which edges they are; and
        booleans of shape (num_nodes,), which nodes are left.

    Raises:
        SettingError: p outside [0, 1]; edges of another shape or type; too few nodes.

    >>> import torch, dropkit.functional as F
    >>> edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> F.dropout_node(edges, 0.5, key=4)
    (tensor([[1, 2],
            [2, 1]]), tensor([False, False,  True,  True, False, False]),
     tensor([False,  True,  True, False]))

    Source: Feng et al. 2020, "Graph Random Neural Networks for Semi-Supervised Learning on
    Graphs", drops nodes' features; this removes nodes with their edges. Arguments and results are
    those of torch_geometric.utils.dropout_node.
    """
    check_number(p)
    check_rate(p)
    _check_edges(edge_index)
    nodes = _node_count(edge_index) if num_nodes is None else num_nodes
    if not training or p == 0:
        return edge_index, _all(edge_index, edge_index.shape[1]), _all(edge_index, nodes)
    key = kernel.resolve_key(key, generator, edge_index.device)
    kept = kernel.keep((nodes,), p, key=key, device=edge_index.device)
    if num_nodes is not None and edge_index.is_cpu and _node_count(edge_index) > nodes:
        raise SettingError(
            f"num_nodes: expected more than the largest number of a node, {edge_index.max()}; got "
            f"{nodes}"
        )
    whole = kept[edge_index].all(dim=0)
    edges = edge_index[:, whole]
    return (kept.cumsum(0) - 1)[edges] if relabel_nodes else edges, whole, kept


def _check_edges(edge_index: Tensor) -> None:
    integral = edge_index.dtype in (torch.int64, torch.int32)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or not integral:
        raise SettingError(
            "edge_index: expected integers of shape (2, edges), int64 or int32; got "
            f"{edge_index.dtype} of shape {tuple(edge_index.shape)}"
        )


def _all(of: Tensor, count: int) -> Tensor:
    return of.new_ones(count, dtype=torch.bool)


def _node_count(edge_index: Tensor) -> int:
    return int(edge_index.max()) + 1 if edge_index.numel() else 0
