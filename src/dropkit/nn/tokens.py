"""Layers that drop what attention looks at: tokens, patches, words and heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropkit import functional
from dropkit.functional.checks import SCALINGS, check_choice
from dropkit.functional.tokens import check_patches
from dropkit.kernel import Key, Scaling
from dropkit.nn.base import Layer, Rated
from dropkit.records import Shard


class TokenDropout(Rated):
    r"""Replace whole tokens, given as ids or as vectors, in training.

    .. math:: y_t = m_t x_t + (1 - m_t) r, \qquad P(m_t = 0) = p

    Args:
        p: the fraction replaced.
        replacement: the id of the mask or of the unknown word, which ids need; or what becomes of a
            vector: a number, or a `torch.nn.Parameter` that is learned. Vectors without one become
            0, and what is kept is divided by 1 - p.

    Shape: ids (...), or vectors (..., D); the result has the input's. Called with `spared=`,
    booleans, it leaves alone what is True there; with `key=`, `offset=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: p outside [0, 1]; ids without an integer to replace them.

    >>> import torch
    >>> from dropkit import nn
    >>> ids = torch.tensor([5, 9, 9, 4, 0, 0])
    >>> nn.TokenDropout(0.5, replacement=1)(ids, spared=ids == 0, key=4)
    tensor([1, 9, 9, 1, 0, 0])

    Source: Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text
    Classification"; Bowman et al. 2016, "Generating Sentences from a Continuous Space".
    """

    options = ("replacement",)
    replacement: int | float | nn.Parameter | None

    def __init__(
        self, p: float = 0.1, replacement: int | float | nn.Parameter | None = None
    ) -> None:
        super().__init__(p)
        self.replacement = replacement

    def forward(
        self,
        x: Tensor,
        spared: Tensor | None = None,
        *,
        key: Key | None = None,
        offset: int | Shard = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x with some tokens replaced, in training."""
        return functional.token_dropout(
            x, self.p, self.training, replacement=self.replacement, spared=spared, key=key,
            offset=offset, generator=generator,
        )  # fmt: skip


class PatchDropout(Rated):
    r"""Leave patches out of the sequence of a vision transformer in training.

    Of T patches max(1, round((1 - p) T)) stay, in their order, another subset for each sample.

    Args:
        prob: the fraction dropped, p, below 1.
        num_prefix_tokens: how many tokens in front, such as the class token, always stay.
        return_indices: return also which of the T patches stay, int64 [N, kept]; None if all do.

    Shape: (N, prefix + T, D) to (N, prefix + kept, D). Called with `key=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: prob outside [0, 1); an input that is too short or has other axes.

    >>> import torch
    >>> from dropkit import nn
    >>> layer = nn.PatchDropout(0.75)
    >>> layer(torch.randn(2, 197, 8)).shape, layer.eval()(torch.randn(2, 197, 8)).shape
    (torch.Size([2, 50, 8]), torch.Size([2, 197, 8]))

    Source: Liu et al. 2022, "PatchDropout: Economizing Vision Transformers Using Patch Dropout".
    timm rounds the number kept down, and shuffles the patches unless asked for their order.
    """

    options = ("num_prefix_tokens", "return_indices")
    num_prefix_tokens: int = 1
    return_indices: bool = False

    def __init__(
        self, prob: float = 0.5, num_prefix_tokens: int = 1, *, return_indices: bool = False
    ) -> None:
        super().__init__(prob)
        check_patches(prob, num_prefix_tokens)
        self.num_prefix_tokens, self.return_indices = num_prefix_tokens, return_indices

    def forward(
        self, x: Tensor, *, key: Key | None = None, generator: torch.Generator | None = None
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """The tokens that stay."""
        y, kept = functional.patch_dropout(
            x, self.p, self.training, prefix=self.num_prefix_tokens, key=key, generator=generator
        )
        return (y, kept) if self.return_indices else y


class EmbeddingDropout(Rated):
    r"""An embedding of which whole words are dropped, wherever in the batch they occur.

    .. math:: y_t = E_{id(t)} \, m_{id(t)} / (1 - p), \qquad P(m_w = 0) = p

    Args:
        embedding: a `torch.nn.Embedding`; it stays the owner of the matrix, as `embedding`.
        p: the fraction of the vocabulary that is dropped.

    Shape: ids (...) to (..., D). Called with `key=`, `offset=` (in rows) or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: p outside [0, 1].

    >>> import torch
    >>> from dropkit import nn
    >>> layer = nn.EmbeddingDropout(torch.nn.Embedding.from_pretrained(torch.ones(9, 2)), 0.5)
    >>> layer(torch.tensor([3, 5, 3]), key=1)
    tensor([[2., 2.],
            [0., 0.],
            [2., 2.]])

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
    Neural Networks"; Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models". They
    mask the whole matrix; here only what was looked up is touched.
    """

    def __init__(self, embedding: nn.Embedding, p: float = 0.1) -> None:
        super().__init__(p)
        self.embedding = embedding

    def forward(
        self,
        ids: Tensor,
        *,
        key: Key | None = None,
        offset: int | Shard = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The vectors of the ids, some words dropped in training."""
        return functional.embedding_dropout(
            self.embedding(ids), ids, self.embedding.num_embeddings, self.p, self.training,
            key=key, offset=offset, generator=generator,
        )  # fmt: skip


class HeadDropout(Layer):
    r"""Drop whole attention heads of each sample in training.

    .. math:: y_{nh} = x_{nh} \, m_{nh} / (1 - p), \qquad P(m_{nh} = 0) = p

    Args:
        p: the fraction dropped.
        axis: the axis of the heads.
        scaling: "inverted", or "classic": scale by 1 - p outside of training instead.

    Shape: (N, H, T, D), or another with samples along axis 0; the result has the input's. Called
    with `key=`, `offset=` or `generator=`: as `Dropout`.

    Raises:
        SettingError: p outside [0, 1]; an axis that an input does not have.
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.HeadDropout(0.5)(torch.ones(1, 4, 5, 3), key=2).mean((2, 3))
    tensor([[2., 0., 2., 0.]])

    Source: Zhou et al. 2020, "Scheduled DropHead: A Regularization Method for Transformer Models".
    They divide by the share of heads that a sample kept; here by 1 - p.
    """

    law = functional.head_dropout
    options = ("axis", "scaling")
    axis: int = 1
    scaling: Scaling = "inverted"

    def __init__(self, p: float = 0.1, *, axis: int = 1, scaling: Scaling = "inverted") -> None:
        super().__init__(p)
        check_choice("scaling", scaling, SCALINGS)
        self.axis, self.scaling = axis, scaling
