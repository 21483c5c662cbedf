"""Monte Carlo dropout, tool by tool: which sites are sampled, what is left behind, what it costs.

    python -m benchmarks.sampling [--quick] [--only coverage speed zoo] [--write PAGE]

Peers that are not installed, or do not load, are named on the page with the reason. With --only the
other parts of the page stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.sampling.pages import PARTS, page


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few draws, rounds and models")
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options.add_argument("--write", type=Path, help="the page to write")
    asked = options.parse_args()
    there = asked.write is not None and asked.write.exists()
    before = asked.write.read_text("utf-8") if there else ""
    lines = []
    for line in page(asked.only, asked.quick, before):
        print(line, flush=True)
        lines.append(line)
    if asked.write:
        asked.write.write_text("\n".join(lines).rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
