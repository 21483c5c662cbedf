"""The forms in which dropout is written: those that are bugs, and those that are rightly gated."""

from __future__ import annotations

import textwrap

import pytest

from dropkit.inspection.source import SourceFile, parse
from dropkit.records import Finding
from dropkit.rules import every
from dropkit.rules.linting import judged

HEAD = """\
import torch
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, rate, flag=False):
        super().__init__()
        self.rate = rate
        self.flag = flag
        self.drop = nn.Dropout(rate)
"""


def found(text: str, path: str = "net.py") -> tuple[Finding, ...]:
    file = parse(text, path)
    assert isinstance(file, SourceFile)
    return judged(file, every()).findings


def method(body: str, signature: str = "forward(self, x)") -> str:
    """A module with one method more."""
    inner = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 8)
    return f"{HEAD}\n    def {signature}:\n{inner}\n"


ALWAYS_ON = {
    "no mode": "return F.dropout(x, self.rate)",
    "the default rate": "return F.dropout(x)",
    "by name": "return F.dropout(x, p=0.5, inplace=True)",
    "told to train": "return F.dropout(x, 0.5, True)",
    "channels": "return F.dropout2d(x, 0.5)",
    "low level": "return torch.dropout(x, 0.5, train=True)",
    "under a switch of no mode": "if self.flag:\n    x = F.dropout(x, 0.5)\nreturn x",
    "in a loop": "for i in range(3):\n    if i < 2:\n        x = F.dropout(x, 0.5)\nreturn x",
    "by a variable": "rate = self.rate\nreturn F.dropout(x, rate * 0.5)",
    "by a setting": "return F.dropout(x, self.config.hidden.dropout)",
    "through a list": "for rate in self.rates:\n    x = F.dropout(x, rate)\nreturn x",
    "in a lambda": "return (lambda y: F.dropout(y, 0.5))(x)",
    "where the rate is above 0": "if self.rate > 0:\n    return F.dropout(x, self.rate)\nreturn x",
    "after a question of another kind": "if x is None:\n    return x\nreturn F.dropout(x, 0.5)",
}


@pytest.mark.parametrize("form", ALWAYS_ON)
def test_always_on_dropout_is_found(form: str) -> None:
    assert [f.rule for f in found(method(ALWAYS_ON[form]))] == ["always-on-dropout"]


GATED = {
    "the mode": "return F.dropout(x, self.rate, training=self.training)",
    "the mode by place": "return F.dropout(x, self.rate, self.training)",
    "another mode": "return F.dropout(x, self.rate, training=self.flag)",
    "within if": "if self.training:\n    x = F.dropout(x, 0.5)\nreturn x",
    "within else": "if not self.training:\n    pass\nelse:\n    x = F.dropout(x, 0.5)\nreturn x",
    "within if and more": "if self.training and self.rate > 0:\n    x = F.dropout(x)\nreturn x",
    "in a conditional": "return F.dropout(x, 0.5) if self.training else x",
    "after and": "return self.training and F.dropout(x, 0.5)",
    "after a return": "if not self.training or self.rate == 0:\n    return x\nreturn F.dropout(x)",
    "after an assertion": "assert self.training\nreturn F.dropout(x)",
    "by a variable": "rate = self.rate if self.training else 0.0\nreturn F.dropout(x, rate)",
    "by a variable twice": "on = self.training\nrate = 0.5 if on else 0\nreturn F.dropout(x, rate)",
    "by a variable set later": (
        "r = self.rate\nif not self.training:\n    r = 0\nreturn F.dropout(x, r)"
    ),
    "by a flag": "on = self.training\nif on:\n    x = F.dropout(x)\nreturn x",
    "a rate of unknown source": "return F.dropout(x, self.current_rate())",
    "stars": "return F.dropout(x, **self.settings)",
    "a comment": "return F.dropout(x, 0.5)  # always on, also at inference",
    "a comment above": "# kept on in evaluation, for uncertainty\nreturn F.dropout(x, 0.5)",
}


@pytest.mark.parametrize("form", GATED)
def test_what_is_gated_is_left_alone(form: str) -> None:
    assert found(method(GATED[form])) == ()


MUTANTS = [
    ("the mode", ", training=self.training", ""),
    ("the mode by place", "self.training", "True"),
    ("within if", "if self.training", "if self.flag"),
    ("in a conditional", "if self.training", "if self.flag"),
    ("after a return", "not self.training or ", ""),
    ("by a variable", "self.rate if self.training else 0.0", "self.rate"),
    ("by a flag", "on = self.training", "on = self.flag"),
    ("a comment", "  # always on, also at inference", ""),
]


@pytest.mark.parametrize(("form", "old", "new"), MUTANTS)
def test_mutants_of_what_is_gated_are_found(form: str, old: str, new: str) -> None:
    assert old in GATED[form]
    assert [f.rule for f in found(method(GATED[form].replace(old, new)))] == ["always-on-dropout"]


LEFT_TO_OTHERS = {
    "a parameter": ("forward(self, x, rate=0.5)", "return F.dropout(x, rate)"),
    "a caller's switch": ("forward(self, x, on)", "return F.dropout(x) if on else x"),
    "a switch among the inputs": (
        "forward(self, inputs)",
        "x, on = inputs\nif self.rate > 0 and on:\n    x = F.dropout(x, self.rate)\nreturn x",
    ),
    "a method that nobody calls": ("mixed(self, x)", "return F.dropout(x, 0.5)"),
    "a loss": ("compute_loss(self, x)", "return F.dropout(x, 0.5)"),
    "a step of training": ("training_step(self, x)", "return F.dropout(x, 0.5)"),
    "Monte Carlo": ("mc_forward(self, x)", "return F.dropout(x, 0.5)"),
    "augmentation": ("forward_augmented(self, x)", "return F.dropout(x, 0.5)"),
}


@pytest.mark.parametrize("form", LEFT_TO_OTHERS)
def test_what_source_cannot_decide_is_left_alone(form: str) -> None:
    signature, body = LEFT_TO_OTHERS[form]
    assert found(method(body, signature)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "import torch.nn.functional as F\ndef augmented(x):\n    return F.dropout(x, 0.1)\n",
        "import torch.nn.functional as F\nx = F.dropout(x, 0.1)\n",
        "import torch.nn.functional as F\nclass Data(Dataset):\n"
        "    def forward(self, x):\n        return F.dropout(x)\n",
        "import torch.nn.functional as F\nfrom torch.autograd import Function\n"
        "class Op(Function):\n    def forward(ctx, x):\n        return F.dropout(x)\n",
        "import jax, torch\nfrom flax import linen as nn\nimport mine as F\n"
        "class Net(torch.nn.Module):\n    def forward(self, x):\n        return F.dropout(x)\n",
        "import torch\ndef f(dropout):\n    return dropout(torch.ones(3), 0.5)\n",
    ],
)
def test_what_is_no_forward_of_a_module_is_left_alone(text: str) -> None:
    assert found(text) == ()


def test_tests_are_left_alone() -> None:
    text = method("return F.dropout(x, 0.5)")
    assert found(text, "tests/nets.py") == found(text, "pkg/test_net.py") == ()
    assert len(found(text, "latest/net.py")) == 1


@pytest.mark.parametrize("name", ["Prenet", "PreNet", "MCDropout", "AlwaysDropout", "BayesianNet"])
def test_names_of_what_is_on_by_design_are_known(name: str) -> None:
    assert found(method("return F.dropout(x, 0.5)").replace("class Net", f"class {name}")) == ()


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from torch.nn import functional as F", "F.dropout(x, 0.5)"),
        ("from torch.nn.functional import dropout", "dropout(x, 0.5)"),
        ("from torch.nn.functional import dropout as thinned", "thinned(x, 0.5)"),
        ("import torch.nn as nn", "nn.functional.dropout(x, 0.5)"),
        ("import torch", "torch.nn.functional.dropout(x, 0.5)"),
        ("from torch.nn.functional import *", "dropout(x, 0.5)"),
        ("from fastai.vision.all import *", "F.dropout(x, 0.5)"),
        (
            "try:\n    import torch.nn.functional as F\nexcept ImportError:\n    F = None",
            "F.dropout(x)",
        ),
    ],
)
def test_dropout_is_known_by_any_name(imports: str, call: str) -> None:
    text = f"import torch\n{imports}\nclass Net(torch.nn.Module):\n"
    text += f"    def forward(self, x):\n        return {call}\n"
    assert [f.rule for f in found(text)] == ["always-on-dropout"]


@pytest.mark.parametrize(
    "bases",
    [
        "class Base(nn.Module):\n    pass\nclass Mid(Base):\n    pass\nclass Net(Mid):",
        "from elsewhere import Layer\nclass Net(Layer):",
        "import pytorch_lightning as pl\nclass Net(pl.LightningModule):",
        "if True:\n    class Base(nn.Module):\n        pass\nclass Net(Base):",
        "class Net(nn.Linear):",
        "def made():\n  class Net(nn.Module):",
    ],
)
def test_modules_are_known_by_their_bases(bases: str) -> None:
    text = f"import torch\nfrom torch import nn\nimport torch.nn.functional as F\n{bases}\n"
    text += "    def forward(self, x):\n        return F.dropout(x, 0.5)\n"
    assert [f.rule for f in found(text)] == ["always-on-dropout"]


def test_rates_that_others_change_are_left_to_them() -> None:
    text = method("return F.dropout(x, self.rate)")
    assert found(f"{text}\n    def anneal(self):\n        self.rate = 0.0\n") == ()
    assert found(f"{text}\ndef quiet(net):\n    net.rate = 0.0\n") == ()
    property_ = "\n    @property\n    def now(self):\n        return 0.0\n"
    assert found(text.replace("x, self.rate", "x, self.now") + property_) == ()


def test_a_helper_is_as_gated_as_its_calls() -> None:
    helper = method("return F.dropout(x, 0.5)", "thin(self, x)")
    forward = "\n    def forward(self, x):\n        return {}\n"
    assert len(found(helper + forward.format("self.thin(x)"))) == 1
    assert found(helper + forward.format("self.thin(x) if self.training else x")) == ()


ATTENTION = {
    "F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)": 1,
    "F.scaled_dot_product_attention(x, x, x, None, self.rate)": 1,
    "F.scaled_dot_product_attention(x, x, x, dropout_p=self.drop.p)": 1,
    "F.scaled_dot_product_attention(x, x, x)": 0,
    "F.scaled_dot_product_attention(x, x, x, dropout_p=0.0)": 0,
    "F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate if self.training else 0)": 0,
    "F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate * self.training)": 0,
    "F.multi_head_attention_forward(x, dropout_p=self.rate)": 1,
    "F.multi_head_attention_forward(x, dropout_p=self.rate, training=self.training)": 0,
}


@pytest.mark.parametrize("call", ATTENTION)
def test_attention_is_gated_or_found(call: str) -> None:
    findings = found(method(f"return {call}"))
    assert [f.rule for f in findings] == ["ungated-attention-dropout"] * ATTENTION[call]


BUILT = {
    "return nn.Dropout(0.5)(x)": 1,
    "return nn.Dropout(self.rate)(x)": 1,
    "return nn.Sequential(nn.ReLU(), nn.Dropout(0.5))(x)": 1,
    "self.tail = nn.Dropout(0.5)\nreturn self.tail(x)": 1,
    "if self.tail is None:\n    self.tail = nn.Dropout(0.5)\nreturn self.tail(x)": 0,
    "drop = nn.Dropout(0.5).eval()\nreturn drop(x)": 0,
    "return nn.Dropout(0.5 if self.training else 0.0)(x)": 0,
    "return nn.Dropout(0.0)(x)": 0,
    "return nn.Dropout(0.5)": 0,
}


@pytest.mark.parametrize("body", BUILT)
def test_modules_built_in_forward_are_found_where_they_are_called(body: str) -> None:
    assert [f.rule for f in found(method(body))] == ["dropout-built-in-forward"] * BUILT[body]


ROWS = {
    "nn.Sequential(nn.Dropout(), nn.BatchNorm1d(8))": ["DK201"],
    "nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.BatchNorm1d(8))": ["DK201"],
    "nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(8, 8, 3), nn.SyncBatchNorm(8))": ["DK201"],
    "nn.Sequential(*[nn.Dropout(0.5), nn.BatchNorm1d(8)])": ["DK201"],
    "nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8))": [],
    "nn.Sequential(nn.Dropout(0.5), *more, nn.BatchNorm1d(8))": [],
    "nn.Sequential(nn.Dropout(0.5) if on else nn.Identity(), nn.BatchNorm1d(8))": [],
    "nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))": ["DK208"],
    "nn.Sequential(nn.Dropout(0.5), nn.Identity(), nn.Dropout(0.5))": ["DK208"],
    "nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.5))": [],
    "nn.ModuleList([nn.Dropout(0.5), nn.Dropout(0.5)])": [],
    "nn.GRU(8, 8, 1, True, False, 0.5)": ["DK304"],
    "nn.RNN(8, 8, 1, 'tanh', True, False, 0.5)": ["DK304"],
    "nn.LSTM(8, 8, dropout=rate)": ["DK304"],
    "nn.LSTM(8, 8, num_layers=n, dropout=rate)": [],
    "nn.LSTM(8, 8, dropout=rate if n > 1 else 0.0)": [],
    "nn.LSTM(8, 8, dropout=rate, **more)": [],
    "nn.LSTM(*sizes, dropout=rate)": [],
    "F.feature_alpha_dropout(x, 0.5)": ["DK304"],
    "F.alpha_dropout(x, 0.5, False)": [],
    "nn.Dropout(p_keep)": ["DK302"],
    "nn.Dropout2d(p=config.keep_prob)": ["DK302"],
    "nn.Dropout(1 - keep_prob)": [],
    "nn.Dropout(upkeep)": [],
}


@pytest.mark.parametrize("call", ROWS)
def test_calls_are_judged_by_what_they_say(call: str) -> None:
    text = "import torch.nn.functional as F\nfrom torch import nn\n\ndef made(x):\n"
    assert [f.code for f in found(f"{text}    return {call}\n")] == ROWS[call]


def test_places_are_counted_in_characters_from_one() -> None:
    text = method('é = "éé"; y = F.dropout(x, 0.5); return y')
    (finding,) = found(text)
    assert finding.place is not None
    line = text.splitlines()[finding.place.line - 1]
    assert line[finding.place.column - 1 :].startswith("F.dropout")
    assert finding.place.function == "Net.forward"
