"""`dropkit audit`, `sites`, `rules` and `explain`, from their arguments to their exit codes."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from sarif_kit import validate

from command import Ran, dropkit
from dropkit.apps.formats import sites as maps
from dropkit.apps.targets.inputs import parsed
from dropkit.errors import SettingError
from dropkit.rules import every

SOURCE = '''
"""Models to judge."""
import torch
from torch import nn
from torch.nn import functional as F

print("a model that talks")


class Net(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.first = nn.Linear(20, hidden)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(),
                                                  nn.Dropout(0.2)) for _ in range(3))
        self.last = nn.Linear(hidden, 3)

    def forward(self, x):
        x = F.dropout(self.first(x), 0.3)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Clean(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


class Needs(nn.Module):
    def __init__(self, width, depth):
        super().__init__()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, left, right, bias=None):
        return self.inner(left) + right


class Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4 * 26 * 26, 2)

    def forward(self, x):
        return self.out(F.dropout(self.conv(x).flatten(1), 0.1, self.training))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, ids):
        return self.out(self.table(ids))


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        raise KeyError("no such table")


def boom():
    raise ValueError("no weights\\nin this file")


def training(model):
    return {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "loss": nn.CrossEntropyLoss()}


def example():
    return {"x": torch.ones(5, 20)}


ready = nn.Dropout(0.5)
number = 3
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with models in it; what is imported there is forgotten."""
    (tmp_path / "models_to_judge.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("models_to_judge", "unimportable"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def audit(name: str, *options: object) -> Ran:
    return dropkit("audit", f"models_to_judge.py:{name}", *options)


# What comes out


def test_findings_end_with_1_and_a_report_that_stands_alone(place: Path) -> None:
    ran = audit("Net", "--select", "DK101")
    assert ran.code == 1, ran.err
    assert ran.out.startswith("Net of models_to_judge.py:Net, called with x=8x20 (guessed)\n")
    assert "always-on-dropout DK101" in ran.out
    assert "models_to_judge.py:19" in ran.out
    assert "1 error; 1 rule judged 4 sites." in ran.out
    assert ran.err == "a model that talks\n"


def test_a_clean_model_ends_with_0(place: Path) -> None:
    ran = audit("Clean", "--select", "DK1", "--fail-on", "note")
    assert ran.code == 0, ran.out + ran.err
    assert "Nothing found" in ran.out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--fail-on", "never"], 0),
        (["--allow", "always-on-dropout"], 0),
        (["--allow", "DK101=blocks"], 1),
        (["--ignore", "always-on-dropout"], 0),
    ],
)
def test_what_counts_can_be_said(place: Path, options: Sequence[str], code: int) -> None:
    ran = audit("Net", "--select", "DK101", *options)
    assert ran.code == code, ran.out + ran.err


def test_allowed_findings_are_counted(place: Path) -> None:
    content = json.loads(
        audit("Net", "--select", "DK101", "--allow", "DK101", "--format", "json").out
    )
    assert content["findings"] == []
    assert [finding["rule"] for finding in content["allowed"]] == ["always-on-dropout"]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("report.json", b'{\n "format": "dropkit-report"'),
        ("report.sarif", b'{\n "$schema"'),
        ("report.xml", b"<?xml"),
        ("report.html", b"<!DOCTYPE html>"),
        ("report.log", b"Net of "),
    ],
)
def test_the_ending_of_a_file_says_its_format(place: Path, name: str, begins: bytes) -> None:
    ran = audit("Net", "--select", "DK101", "--out", name)
    assert (ran.code, ran.out) == (1, ""), ran.err
    assert (place / name).read_bytes().startswith(begins)
    assert f"Written to {name}." in ran.err


def test_sarif_of_a_real_audit_is_valid_and_names_the_file(place: Path) -> None:
    log = json.loads(audit("Net", "--format", "sarif").out)
    assert validate.validation_errors(log) == []
    results = log["runs"][0]["results"]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results}
    assert uris == {"models_to_judge.py"}


def test_colour_can_be_asked_for(place: Path) -> None:
    assert "\x1b[1;31merror" in audit("Net", "--select", "DK101", "--color", "always").out


# Maps


def test_a_map_as_a_table_a_tree_and_json(place: Path) -> None:
    table = dropkit("sites", "models_to_judge.py:Net")
    assert table.code == 0, table.err
    assert "blocks.[0-2].2  dropout x3" in table.out
    tree = dropkit("sites", "models_to_judge.py:Net", "--format", "tree")
    assert "└── blocks.[0-2].2  dropout x3 p=0.2, hidden, train" in tree.out
    again = maps.from_json(dropkit("sites", "models_to_judge.py:Net", "--format", "json").out)
    assert len(again.sites) == 4
    page = dropkit("sites", "models_to_judge.py:Net", "--format", "html")
    assert page.out.startswith("<div>")


def test_what_trains_a_model_can_be_told(place: Path) -> None:
    def lacking(*options: object) -> list[str]:
        content = json.loads(audit("Clean", "--format", "json", "--fail-on", "never", *options).out)
        return [entry["rule"] for entry in content["not_applicable"]]

    name = "models_to_judge.py:training"
    told = {"dropout-without-weight-decay", "dropout-between-softmax-and-loss"}
    assert told <= set(lacking())
    assert not told & set(lacking("--training", name))
    ran = audit("Clean", "--training", "models_to_judge.py:Two")
    assert ran.code == 2
    assert "Traceback" not in ran.err


# Targets that are refused


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("models_to_judge.py", "Try models_to_judge.py:Net or models_to_judge.py:Clean"),
        ("models_to_judge.py:", "expected package.module:factory"),
        ("models_to_judge.py:Nett", "has no Nett; it has Net"),
        ("models_to_judge.py:Needs", "cannot be called without width, depth"),
        ("models_to_judge.py:boom", "raised ValueError: no weights in this file ("),
        ("models_to_judge.py:number", "or to give one; got 3 of type int"),
        ("models_to_judge.py:example", "or to give one; got"),
        ("models_to_judge.py:Two", "forward takes left, right. Try --input left=8x16"),
        ("models_to_judge.py:Broken", "no such table"),
        ("no_such_module:build", "there is no module no_such_module here"),
        ("no/such/file.py:build", "there is no file no/such/file.py"),
        ("weights.pt", "run whatever code they hold"),
        ("no.onnx", "there is no file no.onnx"),
        (".", "has neither"),
    ],
)
def test_a_target_that_cannot_be_judged_is_explained(place: Path, target: str, says: str) -> None:
    ran = dropkit("audit", target)
    assert ran.code == 2
    assert says in ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_does_not_import_is_explained(place: Path, code: str, says: str) -> None:
    (place / "unimportable.py").write_text(code, encoding="utf-8")
    ran = dropkit("audit", "unimportable.py:build")
    assert ran.code == 2
    assert "unimportable cannot be imported" in ran.err
    assert says in ran.err


def test_an_error_of_a_stranger_steers_no_terminal(place: Path) -> None:
    code = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
    code += "        raise ValueError('\\x1b[31m\\x07 red')\n"
    (place / "unimportable.py").write_text(code, encoding="utf-8")
    ran = dropkit("audit", "unimportable.py:Net", "--input", "2x2")
    assert ran.code == 2
    assert "\\x1b[31m\\x07 red" in ran.err
    assert "\x1b" not in ran.err


def test_a_report_that_cannot_be_written_is_explained(place: Path) -> None:
    ran = audit("Clean", "--select", "DK101", "--out", "no/such/folder/report.json")
    assert ran.code == 2
    assert "no/such/folder" in ran.err


def test_a_file_within_a_package_keeps_its_relative_imports(place: Path) -> None:
    package = place / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "parts.py").write_text("from torch import nn\nRATE = 0.5\n", encoding="utf-8")
    body = "from .parts import RATE, nn\nmodel = nn.Sequential(nn.Linear(2, 2), nn.Dropout(RATE))\n"
    (package / "net.py").write_text(body, encoding="utf-8")
    ran = dropkit("sites", "some_package/net.py:model")
    assert ran.code == 0, ran.err
    assert "0.5" in ran.out


# Inputs


@pytest.mark.parametrize(
    ("name", "guessed"), [("Picture", "x=4x1x28x28"), ("Tokens", "ids=8x16"), ("Net", "x=8x20")]
)
def test_inputs_are_guessed_and_said(place: Path, name: str, guessed: str) -> None:
    ran = audit(name, "--select", "DK101", "--fail-on", "never")
    assert ran.code == 0, ran.err
    assert f"called with {guessed} (guessed)" in ran.out


def test_inputs_from_a_function(place: Path) -> None:
    options = ("--inputs", "models_to_judge.py:example", "--format", "json")
    ran = dropkit("sites", "models_to_judge.py:Net", *options)
    assert ran.code == 0, ran.err
    assert [site.shape for site in maps.from_json(ran.out).sites] == [(5, 64)] * 4


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("8x30", "first (Linear) expected ...x20; it got 8x30 of float32"),
        ("y=8x20", "Net.forward needs x"),
        ("8x20:int64", "first (Linear) expected ...x20; it got 8x20 of int64"),
    ],
)
def test_inputs_that_do_not_fit_are_explained(place: Path, spec: str, says: str) -> None:
    ran = audit("Net", "--input", spec)
    assert ran.code == 2
    assert says in ran.err


def test_numbers_beyond_a_table_are_explained(place: Path) -> None:
    ran = audit("Tokens", "--input", "8x16:int64<99")
    assert ran.code == 2
    assert "table (Embedding) expected whole numbers below 7" in ran.err


def test_specifications_of_inputs() -> None:
    inputs = parsed(["2x3", "ids=4x5:int64<7", "mask=4:bool", "n=2,2<9", "half=3:float16"])
    (first,) = inputs.args
    assert (tuple(first.shape), first.dtype.is_floating_point) == ((2, 3), True)
    assert (first != 0).all()
    ids = inputs.kwargs["ids"]
    assert (int(ids.min()), int(ids.max()), str(ids.dtype)) == (0, 6, "torch.int64")
    assert {name: str(value.dtype) for name, value in inputs.kwargs.items()} == {
        "ids": "torch.int64",
        "mask": "torch.bool",
        "n": "torch.int64",
        "half": "torch.float16",
    }


@pytest.mark.parametrize(
    "spec",
    ["", "8by3", "x=", "8x3:flot", "8x3:float32<4", "8<0", "1x=3", "999999x999999x9", "8x-1"],
)
def test_what_is_no_specification_is_refused(spec: str) -> None:
    with pytest.raises(SettingError):
        parsed([spec])


# Frozen programs


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of export, on any LSTM
def test_an_exported_program_is_read_and_not_run(place: Path) -> None:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.LSTM(4, 4, 2, dropout=0.25))
    for name in ("train", "eval"):
        model.train(name == "train")
        program = torch.export.export(model, (torch.ones(2, 4),))
        torch.export.save(program, place / f"{name}.pt2")
    with zipfile.ZipFile("train.pt2") as archive:
        assert [name for name in archive.namelist() if name.endswith("models/model.json")]
    ran = dropkit("audit", "train.pt2", "--format", "json")
    assert ran.code == 1, ran.err
    found = json.loads(ran.out)["findings"]
    assert [(f["rule"], f["path"]) for f in found] == [
        ("left-in-train-mode", "1"),
        ("left-in-train-mode", "2"),
    ]
    assert dropkit("audit", "eval.pt2").code == 0
    assert dropkit("audit", "train.pt2", "--purpose", "train").code == 0
    assert "0.25" in dropkit("sites", "train.pt2").out


@pytest.mark.parametrize("content", [b"", b"no program", b"PK\x05\x06" + b"\0" * 18])
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_what_is_no_program_is_refused(place: Path, content: bytes, ending: str) -> None:
    (place / f"it.{ending}").write_bytes(content or b"\xff")
    ran = dropkit("audit", f"it.{ending}")
    assert ran.code == 2
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("graph", ['{"nodes": [1, {"target": 3}, {"inputs": [4]}]}', "[[[]]]", "7"])
def test_a_strange_graph_is_read_as_far_as_it_goes(place: Path, graph: str) -> None:
    with zipfile.ZipFile("strange.pt2", "w") as archive:
        archive.writestr("it/models/model.json", graph)
    assert dropkit("sites", "strange.pt2").code == 0


def onnx_model(path: Path, opset: int, switch: str) -> None:
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs, constants = [value("x", TensorProto.FLOAT, [2, 4])], []
    names = ["x"]
    if opset >= 12:
        constants.append(helper.make_tensor("rate", TensorProto.FLOAT, [], [0.25]))
        names.append("rate")
    if switch == "on":
        constants.append(helper.make_tensor("switch", TensorProto.BOOL, [], [True]))
        names.append("switch")
    if switch == "asked":
        inputs.append(value("switch", TensorProto.BOOL, []))
        names.append("switch")
    node = helper.make_node("Dropout", names, ["y"], name="/encoder/drop/Dropout")
    outputs = [value("y", TensorProto.FLOAT, [2, 4])]
    graph = helper.make_graph([node], "net", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)


@pytest.mark.parametrize(
    ("opset", "switch", "code", "says"),
    [
        (17, "on", 1, "encoder.drop"),
        (17, "off", 0, "Nothing found"),
        (17, "asked", 0, "its training switch, switch, is an input"),
        (9, "off", 0, "Nothing found"),
        (6, "off", 1, "0.5"),
    ],
)
def test_an_onnx_file_is_read(place: Path, opset: int, switch: str, code: int, says: str) -> None:
    onnx_model(place / "net.onnx", opset, switch)
    ran = dropkit("audit", "net.onnx")
    assert ran.code == code, ran.err
    assert says in ran.out


# Transformers, and folders of dropkit fit


def test_a_configuration_of_transformers(place: Path) -> None:
    pytest.importorskip("transformers")
    folder = place / "tiny"
    folder.mkdir()
    config = {
        **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2},
        **{"n_embd": 32, "n_head": 2, "vocab_size": 99, "auto_map": {"AutoModel": "evil.Code"}},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ran = dropkit("audit", folder, "--device", "meta", "--format", "json", "--fail-on", "never")
    assert ran.code == 0, ran.err
    content = json.loads(ran.out)
    assert "GPT2LMHeadModel of" in content["target"]
    assert "on meta tensors" in content["target"]
    assert {site["path"] for site in content["sites"]} >= {"transformer.h.1.attn"}
    assert any("it is not run" in what for what in content["unseen"])


@pytest.mark.parametrize(
    ("content", "says"), [("[1]", "names its model_type"), ("{", "expected JSON"), ("{}", "it has")]
)
def test_what_is_no_configuration_is_refused(place: Path, content: str, says: str) -> None:
    (place / "config.json").write_text(content, encoding="utf-8")
    ran = dropkit("audit", "config.json")
    assert ran.code == 2
    assert says in ran.err


def test_a_model_folder_of_a_fit(model: Path) -> None:
    ran = dropkit("audit", model)
    assert ran.code == 0, ran.err + ran.out
    assert "holds masks in no mode" in " ".join(ran.out.split())


# Rules and their pages


def test_every_rule_is_listed_and_explained() -> None:
    listed, content = dropkit("rules"), json.loads(dropkit("rules", "--format", "json").out)
    assert [rule["name"] for rule in content] == [rule.name for rule in every()]
    for rule in every():
        assert f"{rule.code} {rule.severity:7} {rule.name}" in listed.out
        page = dropkit("explain", rule.name)
        assert page.code == 0
        assert page.out == dropkit("explain", rule.code).out
        for part in (rule.name, rule.code, "How to fix", "When to allow"):
            assert part in page.out
        assert "`" not in page.out


def test_an_unknown_rule_gets_the_nearest() -> None:
    ran = dropkit("explain", "always-on-dropuot")
    assert ran.code == 2
    assert "Try always-on-dropout" in ran.err
