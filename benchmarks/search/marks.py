"""Puts what was measured into a page, between its marks."""

from __future__ import annotations

from pathlib import Path


def written(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name: begins -->` and `<!-- name: ends -->`."""
    begin, end = f"<!-- {name}: begins -->", f"<!-- {name}: ends -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not ends:
        raise SystemExit(f"expected {begin} and {end} in {page}; nothing was written")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")
