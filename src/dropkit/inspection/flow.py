"""What an operation is to a rule, and what lies around one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from dropkit.intercept.facts import BATCH_NORMS, attends
from dropkit.intercept.trace import INPUT, NOISE, PARAMETER, Node
from dropkit.records import Neighbour
from dropkit.records.sites import Step

DEPTH, MANY = 12, 40
"""How far a neighbourhood goes, in operations, and how many it has at most."""

RECURRENT = ("LSTM", "GRU", "RNN")
"""Classes of torch that run over time by themselves."""
_ACTIVATIONS = (
    *("relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "elu", "selu", "celu", "leaky_relu"),
    *("hardswish", "hardsigmoid", "hardtanh", "mish", "softplus", "threshold", "glu", "prelu"),
    *("_prelu_kernel", "log_sigmoid_forward", "rrelu_with_noise", "clamp", "clamp_min", "erf"),
)
_NAMES: dict[Step, tuple[str, ...]] = {
    "linear": ("addmm", "mm", "bmm", "baddbmm", "linear", "mkldnn_linear", "_addmm_activation"),
    "convolution": ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"),
    "batch_norm": BATCH_NORMS,
    "norm": ("native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm", "layer_norm"),
    "activation": (*_ACTIVATIONS, *(f"{name}_" for name in _ACTIVATIONS)),
    "softmax": ("_softmax", "_safe_softmax", "softmax", "_log_softmax", "_masked_softmax"),
    "embedding": ("embedding", "_embedding_bag", "_embedding_bag_forward_only"),
    "recurrence": (
        *("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"),
    ),
    "pool": (
        *("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"),
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "mean", "max"),
        *("amax", "mkldnn_max_pool2d", "avg_pool1d"),
    ),
    "add": ("add", "add_", "sub", "sub_"),
    "multiply": ("mul", "mul_", "div", "div_"),
    "input": ("input",),
    "parameter": ("parameter",),
    "constant": ("constant",),
}
_STEPS: dict[str, Step] = {name: step for step, names in _NAMES.items() for name in names}
_MOVES = frozenset(
    {
        *("cat", "stack", "clone", "_to_copy", "copy_", "index", "index_select", "gather", "pad"),
        *("constant_pad_nd", "roll", "repeat", "flip", "select_scatter", "slice_scatter", "copy"),
        *("unsafe_split", "_unsafe_view", "masked_select", "expand_copy", "reflection_pad2d"),
        *("_reshape_copy", "view_copy", "unbind_copy", "lift_fresh", "scatter", "channel_shuffle"),
        *("native_channel_shuffle", "pixel_shuffle", "upsample_nearest2d", "upsample_bilinear2d"),
    }
)


def moves(node: Node) -> bool:
    """Whether an operation only moves elements, or copies them."""
    return node.name in _MOVES


def step(node: Node) -> Step:
    """What an operation is."""
    found = _STEPS.get(node.name, "other")
    if any(source.is_noise for source in node.inputs):
        return "dropout"
    if attends(node.name):
        return "attention"
    if node.owner in RECURRENT and node.inputs:
        return "recurrence"  # which is a loop of small operations where no kernel takes it whole
    if found == "linear":
        return "linear" if any(weighs(source) for source in node.inputs) else "matmul"
    if found == "batch_norm" and "InstanceNorm" in node.owner:
        return "norm"
    if found == "other" and node.name == "rsqrt" and "norm" in node.owner.lower():
        return "norm"
    if found == "add":
        values = [source for source in node.inputs if source.origin & INPUT]
        return "residual_add" if len(values) == 2 and _is_skipped(*values) else "add"
    return found


def weighs(node: Node) -> bool:
    """Whether a value hangs on parameters and not on the input: a weight."""
    return bool(node.origin & PARAMETER) and not node.origin & INPUT and node.name != "embedding"


def _is_skipped(first: Node, second: Node) -> bool:
    """Whether one of two values was made of the other, or both of a third nearby."""
    if first.number > second.number:
        first, second = second, first
    ancestors = set[int]()
    for node in before(second, within=96):
        if node is first:
            return True
        ancestors.add(node.number)
    near = (node for node in before(first, within=24) if not weighs(node) and node.inputs)
    return any(node.number in ancestors and node.shape == first.shape for node in near)


def before(node: Node, *, within: int = 1 << 30) -> Iterator[Node]:
    """What a value was made of, nearest first, without itself."""
    return _walk(node.inputs, lambda node: node.inputs, within)


def after(node: Node, *, within: int = 1 << 30) -> Iterator[Node]:
    """What was made of a value, nearest first, without itself."""
    return _walk(node.users, lambda node: node.users, within)


def _walk(
    start: Iterable[Node], onward: Callable[[Node], Iterable[Node]], most: int
) -> Iterator[Node]:
    seen, queue = set[int](), deque(start)
    while queue and len(seen) < most:
        node = queue.popleft()
        if node.number not in seen:
            seen.add(node.number)
            yield node
            queue.extend(onward(node))


def neighbours(
    start: Iterable[Node], onward: Callable[[Node], Iterable[Node]], outputs: frozenset[int]
) -> tuple[Neighbour, ...]:
    """What lies around, nearest first; what moves elements, draws, or is constant is passed over.

    Args:
        start: the first on the way.
        onward: from one to the next.
        outputs: numbers of what the model gave.
    """
    found: list[Neighbour] = []
    seen: set[int] = set()
    queue = deque((node, 1) for node in start)
    while queue and len(found) < MANY:
        node, distance = queue.popleft()
        if node.number in seen or distance > DEPTH or node.is_noise or not node.origin & ~NOISE:
            continue
        seen.add(node.number)
        is_named = not moves(node) and not (weighs(node) and distance > 1)
        if is_named:
            found.append(Neighbour(step(node), node.name, node.path, distance, node.shape))
        if node.number in outputs:
            found.append(Neighbour("output", "output", "", distance + is_named, node.shape))
        queue.extend((following, distance + is_named) for following in onward(node))
    return tuple(found)
