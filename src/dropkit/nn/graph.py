"""Dropout of the edges and of the nodes of a graph, as layers."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.functional.graph import dropout_edge, dropout_node
from dropkit.kernel import Key
from dropkit.nn.base import Rated


class EdgeDropout(Rated):
    """Remove each edge of a graph with probability p, in training.

    Args:
        p: the fraction of edges removed, from 0 to 1.
        force_undirected: whether (i, j) and (j, i) go together.

    Shape: edges (2, E) to edges (2, E') and which they are, as
    `dropkit.functional.dropout_edge` gives them.

    Raises:
        SettingError: p outside [0, 1]; edges of another shape or type.

    >>> import torch, dropkit.nn
    >>> edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> left, which = dropkit.nn.EdgeDropout(0.5, force_undirected=True)(edges, key=4)
    >>> left
    tensor([[1, 2],
            [2, 1]])

    Source: Rong et al. 2020, "DropEdge: Towards Deep Graph Convolutional Networks on Node
    Classification".
    """

    options = ("force_undirected",)
    force_undirected = False

    def __init__(self, p: float = 0.5, force_undirected: bool = False) -> None:
        super().__init__(p)
        self.force_undirected = force_undirected

    def forward(
        self,
        edge_index: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The edges that are left, and which they are."""
        return dropout_edge(
            edge_index, self.p, self.force_undirected, self.training, key=key, generator=generator
        )


class NodeDropout(Rated):
    """Remove each node of a graph with probability p, and with it all of its edges, in training.

    Args:
        p: the fraction of nodes removed, from 0 to 1.
        relabel_nodes: whether the nodes that are left are numbered anew, from 0.

    Shape: edges (2, E) to edges (2, E'), which edges, and which nodes are left, as
    `dropkit.functional.dropout_node` gives them.

    Raises:
        SettingError: p outside [0, 1]; edges of another shape or type; too few nodes.

    >>> import torch, dropkit.nn
    >>> edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> left, which, nodes = dropkit.nn.NodeDropout(0.5)(edges, num_nodes=4, key=4)
    >>> nodes
    tensor([False,  True,  True, False])

    Source: arguments and results are those of torch_geometric.utils.dropout_node.
    """

    options = ("relabel_nodes",)
    relabel_nodes = False

    def __init__(self, p: float = 0.5, relabel_nodes: bool = False) -> None:
        super().__init__(p)
        self.relabel_nodes = relabel_nodes

    def forward(
        self,
        edge_index: Tensor,
        num_nodes: int | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The edges that are left, which edges, and which nodes."""
        return dropout_node(
            edge_index, self.p, num_nodes, self.training, self.relabel_nodes,
            key=key, generator=generator,
        )  # fmt: skip
