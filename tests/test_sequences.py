"""Masks that hold for a whole sequence: locked dropout, variational RNNs, zoneout."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.nn import (
    LockedDropout,
    VariationalGRU,
    VariationalLSTM,
    Zoneout,
    ZoneoutGRUCell,
    ZoneoutLSTMCell,
)
from dropkit.nn.recurrent import chunk

LENGTHS = torch.tensor([3, 5, 1, 5])  # not sorted, so that packing reorders the batch
PAIRS = [(VariationalLSTM, nn.LSTM), (VariationalGRU, nn.GRU)]
RATES = {
    "locked": {"input_dropout": 0.4, "output_dropout": 0.3},
    "between": {"dropout": 0.4, "num_layers": 2},
    "weights": {"weight_dropout": 0.4, "num_layers": 2},
    "columns": {"recurrent_dropout": 0.4, "recurrent_mask": "batch"},
    "steps": {"recurrent_dropout": 0.4, "num_layers": 2},
    "all": {
        "input_dropout": 0.4, "recurrent_dropout": 0.3, "output_dropout": 0.2,
        "weight_dropout": 0.3, "dropout": 0.2, "num_layers": 2, "bidirectional": True,
    },
}  # fmt: skip
SETTINGS = pytest.mark.parametrize("settings", RATES.values(), ids=RATES.keys())
KINDS = pytest.mark.parametrize(("kind", "torchs"), PAIRS, ids=["LSTM", "GRU"])


def sequences(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def packed(x: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, LENGTHS, enforce_sorted=False)


def flat(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


# ---- locked


def test_one_mask_for_all_time_steps() -> None:
    y = F.locked_dropout(torch.ones(9, 4, 16), 0.5, key=3)
    assert torch.equal(y, y[:1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[0], F.dropout(torch.ones(4, 16), 0.5, key=3))


def test_a_mask_follows_its_sequence_through_every_layout() -> None:
    x = sequences(5, 4, 16)
    y = F.locked_dropout(x, 0.5, key=3)
    turned = F.locked_dropout(x.transpose(0, 1), 0.5, batch_first=True, key=3)
    assert torch.equal(turned.transpose(0, 1), y)
    dropped = F.locked_dropout(packed(x), 0.5, key=3)
    assert torch.equal(dropped.data, packed(y).data)
    in_order = pack_padded_sequence(x, torch.tensor([5, 5, 3, 1]))
    assert torch.equal(
        F.locked_dropout(in_order, 0.5, key=3).data,
        pack_padded_sequence(y, torch.tensor([5, 5, 3, 1])).data,
    )


def test_the_gradient_of_packed_data_has_its_mask() -> None:
    x = packed(torch.ones(5, 4, 16))
    x.data.requires_grad_()
    y = F.locked_dropout(x, 0.5, key=3).data
    assert torch.equal(*torch.autograd.grad(y.sum(), x.data), y.detach())


def test_the_layer_is_the_function() -> None:
    layer, x = LockedDropout(0.5, batch_first=True), sequences(4, 5, 16)
    assert torch.equal(layer(x, key=1), F.locked_dropout(x, 0.5, batch_first=True, key=1))
    assert layer.eval()(x) is x
    assert repr(layer) == "LockedDropout(p=0.5, batch_first=True)"
    assert pickle.loads(pickle.dumps(layer)).batch_first


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.locked_dropout(torch.ones(3)), "time axis"),
        (lambda: F.locked_dropout(packed(torch.ones(5, 4, 2)), offset=4), "offset"),
        (lambda: F.locked_dropout(packed(torch.ones(5, 4, 2)), 1.5), "between 0 and 1"),
        (lambda: F.zoneout(torch.ones(3), torch.ones(2)), "shape"),
        (lambda: F.zoneout(torch.ones(3), torch.ones(3), -0.5), "between 0 and 1"),
        (lambda: VariationalLSTM(2, 3, input_dropout=2.0), "between 0 and 1"),
        (lambda: VariationalLSTM(2, 3, recurrent_mask="row"), "sample, batch"),
        (lambda: VariationalGRU(2, 3, input_dropout=0.5)(torch.ones(2)), "2 dimensions"),
        (lambda: ZoneoutLSTMCell(2, 3, cell_zoneout=7.0), "between 0 and 1"),
        (lambda: Zoneout(nn.LSTMCell(2, 3), [0.1])(torch.ones(1, 2)), "2 parts"),
        (lambda: F.split(1, -1), "count"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        call()


# ---- keys within keys


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15])
def test_a_key_in_a_tensor_splits_as_an_integer_does(key: int) -> None:
    held = torch.tensor(key - 2**64 if key >> 63 else key)
    expected = [F.derive(key, n) for n in range(5)]
    assert list(F.split(key, 5)) == expected
    assert [int(part) % 2**64 for part in F.split(held, 5)] == expected
    assert F.split(held, 0) == ()


# ---- variational RNNs


@KINDS
@SETTINGS
def test_eval_mode_is_torchs_bit_for_bit(kind: Any, torchs: Any, settings: dict[str, Any]) -> None:
    ours = kind(6, 8, **settings).eval()
    theirs = torchs(
        6, 8, ours.num_layers, bidirectional=ours.bidirectional
    )  # the rates are not in the state
    assert str(theirs.load_state_dict(ours.state_dict())) == "<All keys matched successfully>"
    ours.load_state_dict(theirs.state_dict())
    for x in (sequences(5, 4, 6), sequences(5, 6), packed(sequences(5, 4, 6))):
        (mine, state), (other, last) = ours(x), theirs(x)
        assert torch.equal(*(y.data if isinstance(y, PackedSequence) else y for y in (mine, other)))
        assert all(map(torch.equal, flat(state), flat(last)))


@KINDS
@SETTINGS
def test_every_layout_gives_the_same(kind: Any, torchs: Any, settings: dict[str, Any]) -> None:
    rnn = kind(6, 8, **settings)
    turned = kind(6, 8, batch_first=True, **settings)
    turned.load_state_dict(rnn.state_dict())
    x = sequences(5, 4, 6)
    y, state = rnn(x, key=7)
    other, last = turned(x.transpose(0, 1), key=7)
    torch.testing.assert_close(other.transpose(0, 1), y)
    torch.testing.assert_close(flat(last), flat(state))
    short, ends = rnn(packed(x), key=7)
    padded, _ = pad_packed_sequence(short)
    for n, length in enumerate(LENGTHS.tolist()):
        one = x[:length].clone()
        one[:, [m for m in range(4) if m != n]] = 0.0  # what is alone keeps its mask
        alone, end = rnn(one, key=7)
        torch.testing.assert_close(padded[:length, n], alone[:, n])
        assert not padded[length:, n].any()
        torch.testing.assert_close([s[:, n] for s in flat(ends)], [s[:, n] for s in flat(end)])


@KINDS
def test_an_unbatched_sequence_is_a_batch_of_one(kind: Any, torchs: Any) -> None:
    x = sequences(5, 6)
    for settings in RATES.values():
        rnn = kind(6, 8, batch_first=True, **settings)
        first = tuple(torch.ones(rnn.num_layers * rnn._directions, 8) for _ in rnn._widths)
        hx = first if kind is VariationalLSTM else first[0]
        batch = tuple(part.unsqueeze(1) for part in first)
        y, state = rnn(x, hx, key=3)
        one, last = rnn(x[None], batch if kind is VariationalLSTM else batch[0], key=3)
        torch.testing.assert_close(y, one[0])
        torch.testing.assert_close(flat(state), tuple(part.squeeze(1) for part in flat(last)))


@KINDS
def test_input_and_output_masks_are_those_of_locked_dropout(kind: Any, torchs: Any) -> None:
    rnn = kind(6, 8, input_dropout=0.4, output_dropout=0.3)
    plain, x = torchs(6, 8), sequences(5, 4, 6)
    plain.load_state_dict(rnn.state_dict())
    keys = F.split(9, 2)
    y, _ = plain(F.locked_dropout(x, 0.4, key=keys[0]))
    assert torch.equal(rnn(x, key=9)[0], F.locked_dropout(y, 0.3, key=keys[1]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "torchs", "settings"),
    [(*PAIRS[0], {}), (*PAIRS[0], {"proj_size": 3}), (*PAIRS[1], {})],
    ids=["LSTM", "projected LSTM", "GRU"],
)
def test_the_loop_over_time_is_torchs_recurrence(
    kind: Any, torchs: Any, settings: dict[str, int], bias: bool
) -> None:
    rnn = kind(
        6, 8, 2, bias, bidirectional=True, recurrent_dropout=2.0**-50, **settings
    ).double()  # the loop runs, and its threshold rounds to nothing dropped
    plain = torchs(6, 8, 2, bias, bidirectional=True, **settings).double()
    plain.load_state_dict(rnn.state_dict())
    for x in (sequences(5, 4, 6, dtype=torch.float64), sequences(1, 4, 6, dtype=torch.float64)):
        (y, state), (other, last) = rnn(x), plain(x)
        torch.testing.assert_close(y, other)
        torch.testing.assert_close(flat(state), flat(last))
    x = packed(sequences(5, 4, 6, dtype=torch.float64))
    first = tuple(sequences(4, 4, size, dtype=torch.float64) for size in rnn._widths)
    hx = first if kind is VariationalLSTM else first[0]
    (short, state), (other, last) = rnn(x, hx), plain(x, hx)
    torch.testing.assert_close(short.data, other.data)
    torch.testing.assert_close(flat(state), flat(last))


@KINDS
def test_between_layers_there_is_a_locked_mask(kind: Any, torchs: Any) -> None:
    rnn, x = kind(6, 8, 2, dropout=0.4), sequences(5, 4, 6)
    first, last = torchs(6, 8), torchs(8, 8)
    for number, layer in enumerate((first, last)):
        weights = {n: rnn.state_dict()[f"{n[:-1]}{number}"] for n in layer.state_dict()}
        layer.load_state_dict(weights)
    y, key = first(x)[0], F.split(7, 4)[3]
    expected = last(F.locked_dropout(y, 0.4, key=key))[0]
    torch.testing.assert_close(rnn(x, key=7)[0], expected)


@KINDS
def test_a_mask_for_the_batch_is_one_for_each_sample_folded_in(kind: Any, torchs: Any) -> None:
    """With one sample both laws are the same; only the kernels differ."""
    folded = kind(6, 8, recurrent_dropout=0.5, recurrent_mask="batch")
    looped = kind(6, 8, recurrent_dropout=0.5)
    looped.load_state_dict(folded.state_dict())
    x = sequences(5, 1, 6)
    torch.testing.assert_close(folded(x, key=2)[0], looped(x, key=2)[0])


def test_a_recurrent_mask_is_another_for_each_sample() -> None:
    rnn = VariationalLSTM(2, 16, recurrent_dropout=0.5)
    y, _ = rnn(torch.ones(3, 2, 2), (torch.ones(1, 2, 16), torch.ones(1, 2, 16)), key=1)
    assert not torch.equal(y[:, 0], y[:, 1])
    rnn.recurrent_mask = "batch"
    y, _ = rnn(torch.ones(3, 2, 2), (torch.ones(1, 2, 16), torch.ones(1, 2, 16)), key=1)
    torch.testing.assert_close(y[:, 0], y[:, 1])


@KINDS
def test_weight_drop_leaves_the_parameters_as_they_are(kind: Any, torchs: Any) -> None:
    rnn = kind(6, 8, 2, weight_dropout=0.5, bidirectional=True)
    before = {name: value.clone() for name, value in rnn.state_dict().items()}
    names = [name for name, _ in rnn.named_parameters()]
    places = {name: id(value) for name, value in rnn.named_parameters()}
    y, _ = rnn(sequences(5, 4, 6), key=3)
    y.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in rnn.state_dict().items())
    assert [name for name, _ in torchs(6, 8, 2, bidirectional=True).named_parameters()] == names
    assert {name: id(value) for name, value in rnn.named_parameters()} == places
    for name, weight in rnn.named_parameters():
        assert weight.grad is not None
        zeros = (weight.grad == 0).double().mean()
        assert zeros > 0.3 if "weight_hh" in name else zeros < 0.1


@KINDS
@pytest.mark.parametrize("name", ["all", "weights", "columns"])
def test_gradients(kind: Any, torchs: Any, name: str) -> None:
    rnn = kind(2, 3, **RATES[name]).double()
    x = sequences(3, 2, 2, dtype=torch.float64).requires_grad_()

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        names = [name for name, _ in rnn.named_parameters()]
        y, _ = torch.func.functional_call(
            rnn, dict(zip(names, weights, strict=True)), (x,), {"key": 5}
        )
        return y

    weights = [w.detach().clone().requires_grad_() for w in rnn.parameters()]
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@KINDS
def test_keys_generators_copies(kind: Any, torchs: Any) -> None:
    rnn, x = kind(6, 8, **RATES["all"]), sequences(5, 4, 6)
    y, _ = rnn(x, key=11)
    for other in (copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        assert torch.equal(other(x, key=11)[0], y)
    assert torch.equal(rnn(x, key=torch.tensor(11))[0], y)
    assert not torch.equal(rnn(x, key=12)[0], y)
    drawn = [rnn(x, generator=torch.Generator().manual_seed(4))[0] for _ in range(2)]
    assert torch.equal(*drawn)
    assert "weight_dropout=0.3" in repr(rnn)


def test_weights_for_cudnn_are_one_chunk() -> None:
    lstm = nn.LSTM(6, 8, 2, bidirectional=True)
    weights = list(lstm.parameters())
    views = chunk(weights)
    assert all(map(torch.equal, views, weights))
    size, end = sum(weight.numel() for weight in weights), 0
    for view in sorted(views, key=Tensor.data_ptr):
        assert view.is_contiguous() and view.storage_offset() == end
        end += view.numel()
    assert end == size == views[0].untyped_storage().nbytes() // 4
    assert max(v.storage_offset() for v in views if v.dim() == 2) < min(
        v.storage_offset() for v in views if v.dim() == 1
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (VariationalLSTM, {"input_dropout": 0.4, "recurrent_dropout": 0.3}),
        (VariationalGRU, {"output_dropout": 0.4, "weight_dropout": 0.3}),  # torch fails on an LSTM
    ],
)
def test_rnns_compile_where_torchs_do(kind: Any, settings: dict[str, Any]) -> None:
    rnn, x = kind(6, 8, **settings), sequences(2, 4, 6)
    with torch._dynamo.config.patch(allow_rnn=True):  # torch's own need it as well
        run = torch.compile(lambda x, key: rnn(x, key=key)[0], fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(run(x, torch.tensor(7)), rnn(x, key=7)[0])


def test_autocast() -> None:
    x = sequences(5, 4, 6)
    for name in ("locked", "weights", "steps"):
        rnn = VariationalGRU(6, 8, **RATES[name])
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = rnn(x, key=1)
        torch.testing.assert_close(y.float(), rnn(x, key=1)[0], atol=0.05, rtol=0.05)


# ---- zoneout


def test_a_unit_has_one_of_both_values() -> None:
    new, old = sequences(64, 32), sequences(65, 32)[1:]
    y = F.zoneout(new, old, 0.25, key=2)
    kept = y == old
    assert torch.equal(y, torch.where(kept, old, new))
    assert abs(float(kept.float().mean()) - 0.25) < 0.05
    dropped = F.dropout(torch.ones_like(new), 0.25, key=2) == 0
    assert torch.equal(kept, dropped)


def test_zoneout_takes_one_of_both_whatever_the_other_is() -> None:
    """Mutant: old - dropped(old), which is nan where old is infinite."""
    whole, other = torch.full((64,), torch.inf), torch.ones(64)
    for new, old in ((whole, other), (other, whole), (whole * 0, other)):
        y = F.zoneout(new, old, 0.5, key=3)
        kept = F.dropout(torch.ones(64), 0.5, key=3) > 0
        assert torch.equal(y[kept].nan_to_num(7), new[kept].nan_to_num(7))
        assert torch.equal(y[~kept].nan_to_num(7), old[~kept].nan_to_num(7))


def test_a_mean_has_the_type_of_its_state() -> None:
    half, rate = torch.ones(2, dtype=torch.bfloat16), torch.tensor([0.5], dtype=torch.float64)
    assert F.zoneout(half, half, rate, training=False).dtype == torch.bfloat16
    assert F.dropout(half, rate, training=False, scaling="classic").dtype == torch.bfloat16


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_zoneout_at_the_ends(p: float) -> None:
    new, old = sequences(4, 3), sequences(5, 3)[1:]
    for training in (True, False):
        assert torch.equal(F.zoneout(new, old, p, training, key=1), old if p else new)


@pytest.mark.parametrize("rate", [0.0, 1.0, torch.tensor([0.0, 1.0])], ids=["0", "1", "both"])
def test_no_share_of_an_infinity_is_none(rate: float | torch.Tensor) -> None:
    whole = torch.tensor([torch.inf, -torch.inf])
    ends = torch.as_tensor(rate).expand(2).bool()
    for new, old in ((whole, torch.ones(2)), (torch.ones(2), whole), (whole, -whole)):
        y = F.zoneout(new, old, rate, training=False)
        assert torch.equal(y, torch.where(ends, old, new))


def test_eval_mode_is_the_expectation() -> None:
    new, old = sequences(4, 8), sequences(5, 8)[1:]
    many = (400, 4, 8)
    draws = F.zoneout(new.expand(many), old.expand(many), 0.3, key=6)
    expected = F.zoneout(new, old, 0.3, training=False)
    torch.testing.assert_close(expected, 0.7 * new + 0.3 * old)
    error = (new - old).abs() * (0.3 * 0.7 / 400) ** 0.5
    assert bool(((draws.mean(0) - expected).abs() <= 4.5 * error + 1e-6).all())  # 1 in 5,000 runs


def test_gradients_of_zoneout() -> None:
    pair = [t.double().requires_grad_() for t in (sequences(4, 3), sequences(5, 3)[1:])]
    for training in (True, False):
        run = lambda new, old, on=training: F.zoneout(new, old, 0.5, on, key=3)  # noqa: E731
        assert torch.autograd.gradcheck(run, pair)
        assert torch.autograd.gradgradcheck(run, pair)


def test_zoneout_cells_are_torchs_without_it() -> None:
    x = sequences(4, 6)
    lstm, plain = ZoneoutLSTMCell(6, 8, cell_zoneout=0.0, hidden_zoneout=0.0), nn.LSTMCell(6, 8)
    plain.load_state_dict(lstm.state_dict())
    assert all(map(torch.equal, lstm(x), plain(x)))
    gru, cell = ZoneoutGRUCell(6, 8, p=0.0), nn.GRUCell(6, 8)
    cell.load_state_dict(gru.state_dict())
    assert torch.equal(gru(x), cell(x))


def test_zoneout_of_a_cell_is_zoneout_of_its_state() -> None:
    x, state = sequences(4, 6), (torch.ones(4, 8), torch.zeros(4, 8))
    lstm, plain = ZoneoutLSTMCell(6, 8), nn.LSTMCell(6, 8)
    plain.load_state_dict(lstm.state_dict())
    new, keys = plain(x, state), F.split(5, 2)
    expected = [F.zoneout(new[n], state[n], (0.05, 0.5)[n], key=keys[n]) for n in range(2)]
    assert all(map(torch.equal, lstm(x, state, key=5), expected))
    wrapped = Zoneout(plain, (0.05, 0.5))
    assert all(map(torch.equal, wrapped(x, state, key=5), expected))
    gru, cell = ZoneoutGRUCell(6, 8, p=0.3), nn.GRUCell(6, 8)
    cell.load_state_dict(gru.state_dict())
    expected_h = F.zoneout(cell(x), torch.zeros(4, 8), 0.3, training=False)
    assert torch.equal(gru.eval()(x), expected_h)
    assert torch.equal(Zoneout(cell, 0.3).eval()(x), expected_h)


def test_zoneout_cells_compile() -> None:
    cell = ZoneoutLSTMCell(6, 8)
    run = torch.compile(
        lambda x, state, key: cell(x, state, key=key), fullgraph=True, backend="aot_eager"
    )
    x, state = sequences(4, 6), (torch.ones(4, 8), torch.zeros(4, 8))
    torch.testing.assert_close(run(x, state, torch.tensor(5)), cell(x, state, key=5))
