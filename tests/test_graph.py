"""Edges and nodes of a graph: who goes, and who has to go along."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.nn import EdgeDropout, NodeDropout


def ring(nodes: int, loops: bool = False) -> Tensor:
    """A ring in both directions, shuffled."""
    at = torch.arange(nodes)
    there = torch.stack([at, (at + 1) % nodes])
    edges = torch.cat([there, there.flip(0), *([torch.stack([at, at])] if loops else [])], 1)
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(1))
    return edges[:, order]


def pairs(edges: Tensor) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in edges.T]


def test_edges_are_dropped_by_their_number() -> None:
    edges = ring(500)
    left, mask = F.dropout_edge(edges, 0.3, key=4)
    assert torch.equal(left, edges[:, mask])
    assert torch.equal(mask, F.dropout(torch.ones(1000), 0.3, key=4) > 0)
    assert abs(float(mask.float().mean()) - 0.7) < 0.07  # 1 in 700,000 keys


def test_both_directions_of_an_edge_stay_or_go() -> None:
    edges = ring(200, loops=True)
    left, number = F.dropout_edge(edges, 0.5, True, key=4)
    kept = pairs(left)
    assert len(kept) == len(set(kept)), "nothing is doubled, no loop either"
    assert {(b, a) for a, b in kept} == set(kept)
    assert 0 < sum(a == b for a, b in kept) < 200
    # what an edge carries, carried alike by its mirror, fits to what is left
    value = edges.min(0).values * 1000 + edges.max(0).values
    assert torch.equal(value[number], left.min(0).values * 1000 + left.max(0).values)


@pytest.mark.parametrize("undirected", [False, True])
def test_edges_at_the_ends(undirected: bool) -> None:
    edges = ring(5)
    for p, training in ((0.0, True), (0.7, False)):
        left, mask = F.dropout_edge(edges, p, undirected, training)
        assert left is edges
        assert mask.dtype == torch.bool and bool(mask.all())
    assert F.dropout_edge(edges, 1.0, undirected)[0].shape == (2, 0)
    nothing = torch.empty(2, 0, dtype=torch.int64)
    assert F.dropout_edge(nothing, 0.5, undirected)[0].shape == (2, 0)


def test_nodes_go_with_their_edges() -> None:
    edges = ring(300)
    left, edge_mask, node_mask = F.dropout_node(edges, 0.3, key=4)
    assert torch.equal(node_mask, F.dropout(torch.ones(300), 0.3, key=4) > 0)
    assert torch.equal(edge_mask, node_mask[edges[0]] & node_mask[edges[1]])
    assert torch.equal(left, edges[:, edge_mask])


def test_nodes_that_are_left_can_be_numbered_anew() -> None:
    edges = ring(50)
    left, _, nodes = F.dropout_node(edges, 0.3, 60, key=4)
    anew, _, again = F.dropout_node(edges, 0.3, 60, relabel_nodes=True, key=4)
    assert nodes.shape == (60,) and torch.equal(nodes, again)
    assert torch.equal(nodes.nonzero().squeeze(1)[anew], left)


def test_nodes_at_the_ends() -> None:
    edges = ring(5)
    for p, training in ((0.0, True), (0.7, False)):
        left, edge_mask, node_mask = F.dropout_node(edges, p, training=training)
        assert left is edges and bool(edge_mask.all()) and node_mask.shape == (5,)
    left, _, nodes = F.dropout_node(edges, 1.0)
    assert left.shape == (2, 0) and not nodes.any()
    nothing = torch.empty(2, 0, dtype=torch.int64)
    assert F.dropout_node(nothing, 0.5)[2].shape == (0,)


def test_layers_are_the_functions() -> None:
    edges = ring(20)
    edge, node = EdgeDropout(0.5, force_undirected=True), NodeDropout(0.5, relabel_nodes=True)
    same = zip(edge(edges, key=1), F.dropout_edge(edges, 0.5, True, key=1), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    expected = F.dropout_node(edges, 0.5, 25, relabel_nodes=True, key=1)
    same = zip(node(edges, 25, key=1), expected, strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert edge.eval()(edges)[0] is edges
    assert repr(edge) == "EdgeDropout(p=0.5, force_undirected=True)"
    assert repr(node) == "NodeDropout(p=0.5, relabel_nodes=True)"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.dropout_edge(ring(4), 1.5), "between 0 and 1"),
        (lambda: F.dropout_edge(ring(4).T), r"shape \(2, edges\)"),
        (lambda: F.dropout_edge(ring(4).float()), "integers"),
        (lambda: F.dropout_node(ring(4), -0.1), "between 0 and 1"),
        (lambda: F.dropout_node(ring(4), 0.5, 3), "num_nodes"),
        (lambda: EdgeDropout(2.0), "between 0 and 1"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        call()
