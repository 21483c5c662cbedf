"""Schedules in the training loops of others: a run that is gone on with has the rates of one whole.

Each library is used as it is, where it is installed (`make test-loops` installs all).
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropkit
from dropkit import callbacks
from dropkit.errors import MissingExtraError, SettingError
from dropkit.planning.schedules import Schedule, early, linear
from dropkit.planning.scheduling import RateSchedule

FALLING = linear(0.5, 0.0, steps=8)
ROWS = 12


class Net(nn.Module):
    """Notes the rate at which each training pass runs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.drop, self.head = nn.Linear(4, 8), nn.Dropout(0.9), nn.Linear(8, 1)
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(self.drop.p)
        y: Tensor = self.head(self.drop(self.hidden(x).relu()))
        return y


def schedule(net: Net, falling: Schedule = FALLING) -> RateSchedule:
    return RateSchedule(dropkit.rates(net, torch.ones(2, 4)), {"hidden": falling})


def expected(batches: int, accumulated: int = 1) -> list[float]:
    return [FALLING(batch // accumulated) for batch in range(batches)]


def test_a_plain_loop_takes_two_lines() -> None:
    net = Net()
    rates = schedule(net)
    for _ in range(10):
        net(torch.ones(2, 4)).sum().backward()
        rates.step()
    assert net.seen == expected(10)


# ---- Lightning, under both of its names


def lightning_module(package: str, net: Net, rows: int = ROWS) -> Any:
    library = import_module(package)

    class Module(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: list[Tensor], number: int) -> Tensor:
            return self.net(batch[0]).square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def train_dataloader(self) -> Any:
            data = torch.utils.data.TensorDataset(torch.ones(rows, 4))
            return torch.utils.data.DataLoader(data, batch_size=2)

    return Module()


def lightning_trainer(package: str, root: Path, callback: Any, epochs: int, **more: Any) -> Any:
    return import_module(package).Trainer(
        max_epochs=epochs, callbacks=[callback], default_root_dir=root, accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False, **more,
    )  # fmt: skip


PACKAGES = ("lightning.pytorch", "pytorch_lightning")
lightning_is_loud = (
    pytest.mark.filterwarnings(  # of loaders without workers, of its own use of torch
        "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
    )
)


@lightning_is_loud
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_lightning_goes_on_with_the_rates_of_a_whole_run(
    package: str, accumulated: int, tmp_path: Path
) -> None:
    """Catches a callback that counts batches, and one whose count begins anew."""
    pytest.importorskip(package)
    more = {"accumulate_grad_batches": accumulated, "enable_checkpointing": False}
    whole = Net()
    callback = callbacks.lightning(schedule(whole))
    lightning_trainer(package, tmp_path, callback, 2, **more).fit(lightning_module(package, whole))
    assert whole.seen == expected(12, accumulated)
    first = Net()
    trainer = lightning_trainer(package, tmp_path, callbacks.lightning(schedule(first)), 1, **more)
    trainer.fit(lightning_module(package, first))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = Net()
    callback = callbacks.lightning(schedule(second))
    lightning_trainer(package, tmp_path, callback, 2, **more).fit(
        lightning_module(package, second), ckpt_path=tmp_path / "half.ckpt"
    )
    assert first.seen + second.seen == whole.seen
    other = callbacks.lightning(schedule(Net(), early(0.5, 3)))
    with pytest.raises(SettingError, match=r"hidden: here early.*, saved linear"):
        lightning_trainer(package, tmp_path, other, 2, **more).fit(
            lightning_module(package, Net()), ckpt_path=tmp_path / "half.ckpt"
        )


@lightning_is_loud
def test_lightning_makes_a_schedule_of_its_module(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    net = Net()
    callback = callbacks.lightning(lambda module: schedule(module.net))  # type: ignore[arg-type]
    lightning_trainer("lightning.pytorch", tmp_path, callback, 1, enable_checkpointing=False).fit(
        lightning_module("lightning.pytorch", net)
    )
    assert net.seen == expected(6)


# ---- Transformers


def transformers_trainer(root: Path, net: Net, callback: Any, steps: int, **more: Any) -> Any:
    library = import_module("transformers")

    class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, at: int) -> dict[str, Tensor]:
            return {"x": torch.ones(4), "labels": torch.ones(1)}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.net(x) - labels).square().mean()}

    settings = library.TrainingArguments(
        output_dir=str(root), max_steps=steps, per_device_train_batch_size=2, report_to=[],
        save_steps=3, use_cpu=True, disable_tqdm=True, logging_steps=1000, **more,
    )  # fmt: skip
    return library.Trainer(
        model=Model(), args=settings, train_dataset=Rows(), callbacks=[callback] if callback else []
    )


transformers_is_loud = pytest.mark.filterwarnings(  # of the CPU, of its own use of torch
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@transformers_is_loud
@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("restored", [False, True])
def test_transformers_goes_on_with_the_rates_of_a_whole_run(
    accumulated: int, restored: bool, tmp_path: Path
) -> None:
    """Also where the trainer makes the callback anew of what it saved."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    more: dict[str, Any] = {
        "gradient_accumulation_steps": accumulated,
        "restore_callback_states_from_checkpoint": restored,
    }
    whole = Net()
    transformers_trainer(
        tmp_path / "whole", whole, callbacks.transformers(schedule(whole)), 7, **more
    ).train()
    assert whole.seen == expected(7 * accumulated, accumulated)
    first, second = Net(), Net()
    root = tmp_path / "parts"
    transformers_trainer(root, first, callbacks.transformers(schedule(first)), 3, **more).train()
    trainer = transformers_trainer(
        root, second, callbacks.transformers(schedule(second)), 7, **more
    )
    trainer.train(resume_from_checkpoint=True)
    assert first.seen + second.seen == whole.seen
    saved = (root / "checkpoint-6" / "trainer_state.json").read_text("utf-8")
    assert "linear(start=0.5, end=0.0, steps=8)" in saved
    other = Net()
    trainer = transformers_trainer(
        root, other, callbacks.transformers(schedule(other, early(0.5, 3))), 9, **more
    )
    with pytest.raises(SettingError, match=r"hidden: here early.*, saved linear"):
        trainer.train(resume_from_checkpoint=True)
    assert other.seen == []


@transformers_is_loud
def test_transformers_goes_on_from_a_run_without_a_schedule(tmp_path: Path) -> None:
    """Its trainer fails at the next checkpoint where a callback is not in the state it loaded."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    transformers_trainer(tmp_path, Net(), None, 3).train()
    net = Net()
    made: list[nn.Module] = []

    def make(model: nn.Module) -> RateSchedule:
        made.append(model)
        return schedule(net)

    trainer = transformers_trainer(tmp_path, net, callbacks.transformers(make), 7)
    trainer.train(resume_from_checkpoint=True)
    assert net.seen == expected(7)[3:]
    assert made == [trainer.model]


# ---- skorch


def skorch_net(callback: Any) -> Any:
    library = import_module("skorch")
    return library.NeuralNetRegressor(
        Net, max_epochs=2, batch_size=2, lr=0.1, callbacks=[("rates", callback)], verbose=0
    )


def test_skorch_goes_on_with_the_rates_of_a_whole_run(tmp_path: Path) -> None:
    """A fifth of the rows are for validation: batches that are no steps."""
    pytest.importorskip("skorch")
    x, y = torch.ones(15, 4).numpy(), torch.ones(15, 1).numpy()
    net = skorch_net(callbacks.skorch(schedule))  # type: ignore[arg-type]
    net.fit(x, y)
    assert net.module_.seen == expected(12)
    net.partial_fit(x, y)
    assert net.module_.seen == expected(24)
    net.fit(x, y)  # another module, from the beginning
    assert net.module_.seen == expected(12)
    net.save_params(f_params=tmp_path / "p.pt", f_history=tmp_path / "h.json")
    later = skorch_net(callbacks.skorch(schedule))  # type: ignore[arg-type]
    later.initialize().load_params(f_params=tmp_path / "p.pt", f_history=tmp_path / "h.json")
    later.partial_fit(x, y)
    assert later.module_.seen == expected(24)[12:]


def test_skorch_nets_with_schedules_are_copied_as_estimators_are() -> None:
    pytest.importorskip("skorch")
    base = pytest.importorskip("sklearn.base")
    x, y = torch.ones(15, 4).numpy(), torch.ones(15, 1).numpy()
    net = skorch_net(callbacks.skorch(schedule))  # type: ignore[arg-type]
    for other in (base.clone(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other.fit(x, y)
        assert other.module_.seen == expected(12)


def test_skorch_refuses_the_schedule_of_one_module() -> None:
    with pytest.raises(SettingError, match="skorch makes a new module"):
        callbacks.skorch(schedule(Net()))  # type: ignore[arg-type]


# ---- all of them

MADE: dict[str, Callable[[Any], Any]] = {
    "lightning": callbacks.lightning,
    "transformers": callbacks.transformers,
    "skorch": callbacks.skorch,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_is_no_schedule_is_refused(make: Callable[[Any], Any]) -> None:
    for wrong in (None, 0.1, FALLING.law, RateSchedule):
        with pytest.raises(SettingError, match=r"expected a dropkit\.RateSchedule"):
            make(wrong)


@pytest.mark.parametrize("name", MADE)
def test_a_library_that_is_not_there_is_named(name: str) -> None:
    """In another process, where none of them can be imported."""
    code = (
        "import sys, importlib.util as u\n"
        "gone = ('lightning', 'pytorch_lightning', 'transformers', 'skorch')\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in gone else find(name, *a)\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in gone:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from dropkit import callbacks\n"
        f"callbacks.{name}(lambda model: None)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in ran.stderr, ran.stderr
    assert f"pip install {name}" in ran.stderr


def test_no_library_is_loaded_before_a_callback_is_made() -> None:
    code = (
        "import sys, dropkit.callbacks\n"
        "print({'lightning', 'pytorch_lightning', 'transformers', 'skorch'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_the_error_is_that_of_a_missing_extra() -> None:
    assert issubclass(MissingExtraError, ImportError)
