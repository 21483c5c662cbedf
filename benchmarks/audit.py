"""What an audit costs: Llama-3-70B's shape without memory, and ResNet-50.

    python benchmarks/audit.py [--json FILE]

Each is audited in a process of its own, with every rule that needs nothing but the model, after one
audit of something small (which loads what is loaded late). Building the model is not counted.
Against it stands one forward pass of the same model, in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 5


def llama() -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
    more = {"num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape, **more, attention_dropout=0.1))
    return model, {"input_ids": torch.zeros(1, 16, dtype=torch.long)}


def resnet() -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    model = ResNetForImageClassification(ResNetConfig())  # 50 layers, 25 million parameters
    return model, {"pixel_values": torch.randn(2, 3, 224, 224)}


SUBJECTS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "Llama-3-70B on meta": llama,
    "ResNet-50, 2 images of 224 x 224": resnet,
}


def measured(name: str) -> dict[str, Any]:
    import torch
    import transformers

    import dropkit

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dropkit.audit(torch.nn.Dropout(0.5), torch.ones(2, 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model, kwargs = SUBJECTS[name]()
    audits, passes = [], []
    device = "meta" if next(model.parameters()).is_meta else "cpu"
    on_device = {key: value.to(device) for key, value in kwargs.items()}
    for _ in range(REPEATS):
        began = time.perf_counter()
        report = dropkit.audit(model, example_kwargs=kwargs)
        audits.append(time.perf_counter() - began)
        began = time.perf_counter()
        with torch.no_grad():
            model.eval()(**on_device)
        passes.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "subject": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sites": len(report.sites),
        "findings": len(report.findings),
        "audit_s": statistics.median(audits),
        "audit_s_all": [round(s, 3) for s in audits],
        "pass_s": statistics.median(passes),
        "peak_gb": round(peak / 2**20, 2),
        "peak_before_gb": round(before / 2**20, 2),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.processor() or platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one)))
        return
    rows = []
    for name in SUBJECTS:
        command = [sys.executable, __file__, "--one", name]
        environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        row = json.loads(ran.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{name}: {row['audit_s']:.2f} s, {row['audit_s'] / row['pass_s']:.1f} forward passes; "
            f"peak {row['peak_gb']} GB, {row['sites']} sites, {row['findings']} findings"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
