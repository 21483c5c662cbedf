"""What several tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from command import fit, rows, write


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """No test leaves another number of threads: on shared cores all after it would crawl."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fit of the colours left, beside its table `people.csv`; not to be changed."""
    place = tmp_path_factory.mktemp("fitted")
    table = write(place / "people.csv", rows())
    ran = fit(table, "colour", "--out", place / "model", "--id", "key")
    assert ran.code == 0, ran.err
    return place / "model"


@pytest.fixture
def model(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be changed."""
    return Path(shutil.copytree(fitted, tmp_path / "model"))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A table, in a folder of its own."""
    return write(tmp_path / "people.csv", rows())
