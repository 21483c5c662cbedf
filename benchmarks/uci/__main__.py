"""The table of Gal & Ghahramani 2016, by its publishers' protocol of 2018: `make reproduce-uci`.

    python -m benchmarks.uci [TABLE ...] [--data DIR] [--out DIR] [--jobs N] [--write PAGE]

A file of JSON for each table goes to --out, written again after each rate; what is in it already is
not run again. With --write a page is made of all that is there (docs/uci.md is one).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.uci.page import page
from benchmarks.uci.protocol import Settings, prepare, run
from benchmarks.uci.tables import DEFAULT, NAMES

from dropkit.apps.devices import cores
from dropkit.errors import DropkitError

RESULTS = Path("build/uci")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.uci",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(NAMES)}")
    made.add_argument("--data", type=Path, default=DEFAULT, help="the tables (%(default)s)")
    made.add_argument("--out", type=Path, default=RESULTS, help="the results (%(default)s)")
    made.add_argument("--multiplier", type=int, default=100, help="of the paper's epochs (100)")
    made.add_argument("--draws", type=int, default=10_000, help="at test (10000)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--jobs", type=int, default=cores(), help="processes (one for each core)")
    made.add_argument("--write", type=Path, help="a page of the results")
    return made


def main() -> None:
    args = parser().parse_args()
    settings = Settings(args.multiplier, args.draws, args.seed)
    prepare()
    try:
        for name in args.tables or NAMES:
            run(name, args.data, args.out, settings, args.jobs)
    except DropkitError as error:
        sys.exit(f"Error: {error}")
    if args.write:
        args.write.write_text(page(args.out), "utf-8")


if __name__ == "__main__":
    main()
