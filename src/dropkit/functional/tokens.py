"""Dropout of what attention looks at: tokens, patches, words and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import broadcasts, check_dropped, check_number, check_rate
from dropkit.functional.dropout import dropout
from dropkit.functional.path import kept_of
from dropkit.kernel import Key, Scaling
from dropkit.records import Shard


def token_dropout(
    x: Tensor,
    p: float = 0.1,
    training: bool = True,
    *,
    replacement: int | float | Tensor | None = None,
    spared: Tensor | None = None,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Replace whole tokens, given as ids or as vectors.

    .. math:: y_t = m_t x_t + (1 - m_t) r, \qquad P(m_t = 0) = p

    Vectors without a replacement are dropped to 0, and what is kept is divided by 1 - p.

    Args:
        x: ids, integers of any shape; or vectors (..., D), which are dropped as a whole.
        p: the fraction dropped, a number from 0 to 1.
        replacement: the id of the mask or of the unknown word, which ids need; or what becomes of
            a vector: a number, or a vector of its own, which may be learned.
        spared: booleans of the shape of ids, or of vectors without D: True where a token is never
            dropped, such as padding. It is not scaled either.
        training, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1] or a tensor; ids without an integer to replace them.

    >>> import torch, dropkit.functional as F
    >>> F.token_dropout(torch.arange(1, 9), 0.5, replacement=0, key=4)
    tensor([0, 2, 3, 0, 0, 0, 7, 8])

    Source: Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text
    Classification" (dropped to nothing); Bowman et al. 2016, "Generating Sentences from a
    Continuous Space" (replaced by the unknown word).
    """
    check_number(p)
    check_rate(p)
    vectors = x.is_floating_point() or x.is_complex()
    _check_tokens(x, vectors, replacement, spared)
    if not training or p == 0:
        return x
    shared = (-1,) if vectors else ()
    key = kernel.resolve_key(key, generator, x)
    if replacement is None and spared is None:
        return dropout(x, p, shared=shared, key=key, offset=offset)
    kept = kernel.keep(x.shape, p, key=key, shared=shared, offset=offset, device=x.device)
    if spared is not None:
        spared = spared.unsqueeze(-1) if vectors else spared
        kept = kept | spared
    if replacement is None:
        scale = 1.0 / (1.0 - p) if p < 1 else 0.0
        return torch.where(kept, x if spared is None else torch.where(spared, x, x * scale), 0)
    if isinstance(replacement, Tensor):
        return torch.where(kept, x, replacement.to(x.dtype))
    return torch.where(kept, x, replacement)


def patch_dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    prefix: int = 1,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Leave patches out of the sequence of a vision transformer, which shrinks with the rate.

    Of T patches max(1, round((1 - p) T)) stay, in their order; each sample has a subset of its own,
    and each subset is as likely as another. Nothing is scaled.

    Args:
        x: (N, prefix + T, D), the tokens of N images.
        p: the fraction dropped, a number from 0 to below 1.
        prefix: how many tokens in front, such as the class token, always stay.
        training, key, generator: as in `dropout`.

    Returns:
        The tokens that stay, and which of the T patches they are: int64 [N, kept]. Outside of
        training, or at p = 0, x itself and None.

    Raises:
        SettingError: p outside [0, 1) or a tensor; x of other than three axes, or shorter than its
            prefix.

    >>> import torch, dropkit.functional as F
    >>> x = torch.arange(9.0).view(1, 9, 1)
    >>> y, patches = F.patch_dropout(x, 0.5, key=3)
    >>> y.flatten(), patches
    (tensor([0., 2., 3., 4., 8.]), tensor([[1, 2, 3, 7]]))

    Source: Liu et al. 2022, "PatchDropout: Economizing Vision Transformers Using Patch Dropout".
    timm rounds the number kept down, and shuffles the patches unless asked for their order.
    """
    check_number(p)
    check_rate(p)
    check_patches(p, prefix)
    if x.dim() != 3 or x.shape[1] <= prefix:
        raise SettingError(
            f"x: expected (N, {prefix} + T, D) with T > 0 patches; got shape {tuple(x.shape)}"
        )
    if not training or p == 0:
        return x, None
    count = x.shape[1] - prefix
    drawn = kernel.resolve_key(key, generator, x)
    kept = kernel.subset(x.shape[0], count, kept_of(count, p), key=drawn, device=x.device)
    patches = x[:, prefix:].take_along_dim(kept.unsqueeze(-1), 1)
    return torch.cat((x[:, :prefix], patches), 1), kept


def embedding_dropout(
    x: Tensor,
    ids: Tensor,
    words: int,
    p: float = 0.1,
    training: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Drop whole words of a vocabulary, wherever in the batch they occur.

    .. math:: y_t = x_t \, m_{id(t)} / (1 - p), \qquad P(m_w = 0) = p

    The same as a lookup in a matrix whose rows are dropped, but it costs what the batch has, not
    what the vocabulary has.

    Args:
        x: (..., D), the vectors of the ids.
        ids: integers of shape (...), below `words`.
        words: the size of the vocabulary.
        p: the fraction dropped, a number from 0 to 1.
        offset: where the vocabulary begins, if its matrix is a part of a longer one, in rows.
        training, key, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1] or a tensor; shapes that do not fit.

    >>> import torch, dropkit.functional as F
    >>> matrix, ids = torch.randn(50, 8), torch.tensor([[3, 7, 3], [7, 4, 0]])
    >>> vectors = torch.nn.functional.embedding(ids, matrix)
    >>> y = F.embedding_dropout(vectors, ids, words=50, p=0.5, key=1)
    >>> rows_dropped = F.dropout(matrix, 0.5, shared=(1,), key=1)
    >>> torch.equal(y, torch.nn.functional.embedding(ids, rows_dropped))
    True

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
    Neural Networks", section 4.2; Merity et al. 2018, "Regularizing and Optimizing LSTM Language
    Models".
    """
    check_number(p)
    check_rate(p)
    if x.shape[:-1] != ids.shape:
        raise SettingError(
            f"x: expected a vector for each of the ids of shape {tuple(ids.shape)}; got shape "
            f"{tuple(x.shape)}"
        )
    if not training or p == 0:
        return x
    check_dropped(x)
    drawn = kernel.resolve_key(key, generator, x)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0

    def run(value: Tensor) -> Tensor:
        kept = kernel.keep((words,), p, key=drawn, offset=offset, device=value.device)
        return torch.where(kept[ids].unsqueeze(-1), value * scale, 0)

    return kernel.diagonal(x, run)


def head_dropout(
    x: Tensor,
    p: float | Tensor = 0.1,
    training: bool = True,
    *,
    axis: int = 1,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    r"""Drop whole attention heads of each sample.

    .. math:: y_{nh} = x_{nh} \, m_{nh} / (1 - p), \qquad P(m_{nh} = 0) = p

    Args:
        x: (N, H, T, D), what the heads give before they are joined; or (N, ..., H, ...).
        axis: the axis of the heads.
        p, training, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1]; an axis that x does not have, or that of the samples.

    >>> import torch, dropkit.functional as F
    >>> F.head_dropout(torch.ones(1, 4, 5, 3), 0.5, key=2).mean((2, 3))
    tensor([[2., 0., 2., 0.]])

    Source: Zhou et al. 2020, "Scheduled DropHead: A Regularization Method for Transformer Models".
    They divide by the share of heads that a sample kept; here by 1 - p, so that the scale does not
    depend on the draw and no sample divides by 0.
    """
    rank = x.dim()
    if not (-rank <= axis < rank and axis % rank):
        raise SettingError(
            f"axis: expected an axis of heads after that of the samples, from 1 to {rank - 1}; got "
            f"{axis}"
        )
    shared = tuple(other for other in range(1, rank) if other != axis % rank)
    return dropout(
        x, p, training, shared=shared, key=key, offset=offset, generator=generator,
        scaling=scaling,
    )  # fmt: skip


def check_patches(p: float, prefix: int) -> None:
    """A rate that leaves a patch, and a number of tokens."""
    if p == 1:
        raise SettingError(f"p: expected a rate below 1, since some patch must stay; got {p}")
    if prefix < 0:
        raise SettingError(f"prefix: expected a number of tokens, 0 or more; got {prefix}")


def _check_tokens(x: Tensor, vectors: bool, replacement: object, spared: Tensor | None) -> None:
    if vectors and not x.dim():
        raise SettingError("x: expected vectors along the last axis; got a tensor without axes")
    if not vectors and (
        replacement is None
        or isinstance(replacement, float)
        or (isinstance(replacement, Tensor) and replacement.is_floating_point())
    ):
        raise SettingError(
            f"replacement: expected an integer, such as the id of the unknown word, since x has "
            f"ids ({x.dtype}); got {replacement!r}"
        )
    shape: Sequence[int] = x.shape[:-1] if vectors else x.shape
    if spared is not None and (spared.dtype != torch.bool or not broadcasts(spared.shape, shape)):
        raise SettingError(
            f"spared: expected booleans that broadcast to {tuple(shape)}; got {spared.dtype} of "
            f"shape {tuple(spared.shape)}"
        )
