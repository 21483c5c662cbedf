"""The 'only' sentences of the house, each one test over the syntax trees of src.

Only `kernel` draws random bits. Only `apps` prints or touches the disk. Only `planning/apply`
writes a model that a user brought, and only `intercept` hangs hooks into it.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "dropkit"

# All patterns match whole names as `mentions` gives them: aliases followed, () where called,
# ? for what is not imported.
DRAWS = re.compile(
    r"""
      (random|secrets)(\..*)?
    | os\.urandom.* | uuid\.uuid[14].*
    | numpy\.random\.(?!(RandomState|Generator|SeedSequence)$).*  # uncalled, these are types
    | torch\.(rand|randn|randint|randperm)(_like)?(\(\))?
    | torch\.(normal|bernoulli|multinomial|poisson|binomial|rrelu|\w*dropout)_?(\(\))?
    | torch\.(random\.|cuda\.)?(seed|manual_seed|default_generator)\w*(\(\))?
    | torch\.Generator\(\)
    | torch\.distributions\..*
    | torch\.nn\.functional\.(\w*dropout\w*|gumbel_softmax|rrelu_?)(\(\))?
    | torch\.nn\.(\w*Dropout\w*|RReLU)(\(\))?
    | torch\.nn\.init\.(?!zeros_|ones_|constant_|eye_).*
    | torch\.nn\.(\w*Linear|Embedding\w*|Conv\w+|RNN\w*|LSTM\w*|GRU\w*)\(\)  # born of draws
    | torch\.nn\.(MultiheadAttention|Transformer\w*)\(\)
    | .*\.(normal|uniform|bernoulli|random|exponential|geometric|cauchy|log_normal)_\(\)
    | .*\.(bernoulli|multinomial)\(\)
    """,
    re.VERBOSE,
)
TALKS = re.compile(
    r"""
      (print|open|breakpoint)(\(\))? | input\(\)  # uncalled, input is what torch calls an argument
    | sys\.(__)?(stdout|stderr|stdin)(__)?(\..*)?
    | (pathlib|shutil|tempfile|glob|fileinput|logging|subprocess|socket|urllib|http)(\..*)?
    | (click|rich|tqdm|pickle|shelve|sqlite3|mmap)(\..*)?
    | io\.(open|FileIO).*
    | os\.(?!environ|getenv|cpu_count|process_cpu_count|sched_getaffinity|PathLike|fspath).*
    | json\.(load|dump)(\(\))?
    | pandas\.(read_\w+|ExcelWriter|HDFStore)(\(\))?
    | numpy\.(load|save|fromfile|genfromtxt|memmap)\w*(\(\))?
    | torch\.(load|save|from_file)(\(\))?
    | safetensors\.(.*_file|safe_open)(\(\))?
    | pyarrow\.(parquet|feather|csv|json|orc|dataset|fs|OSFile|memory_map|\w+_stream)\b.*
    | .*\.(write|read)_(text|bytes)\(\)
    | .*\.to_(csv|parquet|feather|json|pickle|excel|hdf|sql|html)\(\)
    | .*\.(tofile|unlink|iterdir|mkdir)\(\)
    """,
    re.VERBOSE,
)
WRITES = re.compile(
    r"""
      .*\.(register_(\w+_)?hook|register_(module|parameter|buffer)|add_module|set_submodule)\(\)
    | .*\._(forward|backward|state_dict|load_state_dict)\w*_hooks(\..*)?
    | .*\._(modules|parameters|buffers)(\..*)?
    | .*\.(apply_|set_extra_state|load_state_dict|requires_grad_)\(\)
    | setattr(\(\))? | delattr(\(\))?
    """,
    re.VERBOSE,
)
DRAWS_WITHIN = re.compile(  # other libraries' own draws: for apps alone, and with a seed
    r"""
      sklearn\..*\.(train_test_split|\w*ShuffleSplit|resample|shuffle|permutation_importance)\(\)
    | sklearn\..*\.(HistGradientBoosting|RandomForest|ExtraTrees|MLP)\w+\(\)
    | (?!dropkit\.).*\.sample\(\)
    """,
    re.VERBOSE,
)


def breaches(source: str, law: re.Pattern[str]) -> list[str]:
    """Where a source imports, names or calls what the law matches."""
    found = mentions(ast.parse(source))
    return [f"line {node.lineno}: {name}" for node, name in found if law.fullmatch(name)]


def unseeded(source: str) -> list[str]:
    """Where a source lets another library draw without handing it a seed."""
    tree = ast.parse(source)
    spelt = any(isinstance(n, ast.Constant) and n.value == "random_state" for n in ast.walk(tree))
    enough = {"random_state", None} if spelt else {"random_state"}  # None: **settings
    seeded = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any(word.arg in enough for word in node.keywords)
    }
    return [
        f"line {node.lineno}: {name}"
        for node, name in mentions(tree)
        if DRAWS_WITHIN.fullmatch(name) and id(node) not in seeded
    ]


def mentions(tree: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """(where, full name) of all that a source imports, names or calls."""
    nodes = list(ast.walk(tree))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    full = {name: name for name in vars(builtins)}
    for node in nodes:
        for name, bound, meaning in imported(node):
            full[bound] = meaning
            yield node, name
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute):
            yield node, dotted(node, full) + "()" * (id(node) in called)


def imported(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(full name of what is imported, the name that it binds, what that then means)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]  # import a.b binds a
            yield alias.name, alias.asname or top, alias.name if alias.asname else top
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name, alias.asname or alias.name, name


def dotted(node: ast.expr, full: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, full)}.{node.attr}"
    return full.get(node.id, "?") if isinstance(node, ast.Name) else "?"


def sources(*, outside: str) -> dict[str, str]:
    """Every module of src that is not in the room."""
    paths = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))
    assert any(path.parts[0] == outside for path in paths), f"the room {outside} is gone"
    return {str(p): (SRC / p).read_text("utf-8") for p in paths if p.parts[0] != outside}


def test_only_kernel_draws_random_bits() -> None:
    """But for one module of the test suite, which has to seed the strangers that it examines."""
    modules = sources(outside="kernel")
    del modules["testing/seeding.py"]
    found = {path: breaches(text, DRAWS) for path, text in modules.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_only_apps_lets_others_draw_and_hands_them_a_seed() -> None:
    everywhere = sources(outside="kernel") | sources(outside="training")
    found = {
        path: unseeded(text) if path.startswith("apps") else breaches(text, DRAWS_WITHIN)
        for path, text in everywhere.items()
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_only_apps_prints_or_touches_the_disk() -> None:
    """But for one module of the test suite, which pickles a layer, in memory."""
    modules = sources(outside="apps")
    del modules["testing/states.py"]
    found = {path: breaches(text, TALKS) for path, text in modules.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_only_apply_and_intercept_write_a_users_model() -> None:
    """The layers write themselves, the population its own networks, the test suite its copies."""
    rooms = ("functional", "kernel", "acceleration.py", "inspection", "rules", "fixing.py")
    modules = {
        path: text for path, text in sources(outside="apps").items() if Path(path).parts[0] in rooms
    }
    del modules["inspection/passes.py"]  # its copies of what a model is called with
    found = {path: breaches(text, WRITES) for path, text in modules.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "mutant",
    [
        "import torch\nx = torch.rand(3)",
        "import torch\nx = torch.empty(3).uniform_()",
        "import torch\nx = torch.bernoulli(p)",
        "import torch\nmap(torch.randn_like, xs)",
        "from torch import randperm as shuffled",
        "import torch\ntorch.manual_seed(0)",
        "import torch.nn.functional as F\ny = F.dropout(x, 0.5)",
        "from torch import nn\nlayer = nn.Linear(3, 4)",
        "from torch import nn\nlayer = nn.AlphaDropout(0.5)",
        "import torch\ntorch.nn.init.kaiming_uniform_(w)",
        "import numpy as np\nx = np.random.default_rng(0).normal()",
        "from numpy.random import default_rng",
        "def late():\n    import random\n    return random.random()",
        "import os\nkey = os.urandom(8)",
    ],
)
def test_mutants_that_draw_are_caught(mutant: str) -> None:
    assert breaches(mutant, DRAWS)


@pytest.mark.parametrize(
    "mutant",
    [
        "print('epoch 1')",
        "show = print",
        "with open('x') as file: pass",
        "from pathlib import Path",
        "import sys\nsys.stderr.write('!')",
        "import os\nos.makedirs('x')",
        "import torch\ntorch.save(x, 'x.pt')",
        "import pandas as pd\nframe = pd.read_csv('x.csv')",
        "def save(frame, path):\n    frame.to_csv(path)",
        "def late(path):\n    return path.read_text()",
        "import json\njson.dump({}, file)",
        "import pyarrow.parquet as pq",
        "from safetensors.torch import save_file",
        "import logging",
        "import click",
    ],
)
def test_mutants_that_talk_are_caught(mutant: str) -> None:
    assert breaches(mutant, TALKS)


@pytest.mark.parametrize(
    "mutant",
    [
        "model.register_forward_hook(note)",
        "model._modules['drop'] = other",
        "setattr(model, name, other)",
        "del model._forward_pre_hooks[0]",
    ],
)
def test_mutants_that_write_a_model_are_caught(mutant: str) -> None:
    assert breaches(mutant, WRITES)


@pytest.mark.parametrize(
    "mutant",
    [
        "from sklearn.model_selection import train_test_split\ntrain_test_split(x, y)",
        "import sklearn.ensemble as e\ne.HistGradientBoostingClassifier(max_iter=9)",
        "rows = frame.sample(frac=1)",
        "from sklearn.utils import shuffle\nshuffle(x, **settings)",
    ],
)
def test_mutants_without_a_seed_are_caught(mutant: str) -> None:
    assert unseeded(mutant)


def test_the_innocent_go_free() -> None:
    source = """
import numpy as np, torch, json, os
from sklearn.model_selection import train_test_split
from dropkit.kernel import streams

def split(frame, random: np.random.RandomState, normal: float, threads=os.cpu_count()):
    mask = streams.bernoulli_mask(normal)
    train_test_split(frame, random_state=3)
    return json.dumps({"open": torch.zeros(3).tolist()})
"""
    assert breaches(source, DRAWS) == breaches(source, TALKS) == unseeded(source) == []
