"""What a number was made with."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch

import dropkit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("benchmarks/uci", "src/dropkit/kernel", "src/dropkit/functional")
"""What the results depend on."""


def provenance() -> dict[str, str]:
    """Machine, versions, commit and date."""
    return {
        "cpu": f"{cpu()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dropkit": dropkit.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def cpu() -> str:
    """The processor's name, as Linux has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The last commit of the sources, with a plus if they were changed since."""
    last = _git("log", "-1", "--format=%h", "--", *SOURCES)
    if not last:
        return "none"
    return last + ("+" if _git("status", "--porcelain", "--", *SOURCES) else "")


def _git(*words: str) -> str:
    try:
        asked = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    except OSError:
        return ""
    return asked.stdout.strip()
