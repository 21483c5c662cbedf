"""Bytes of a table from a file or standard input: unpacked, bounded, known to be text or not."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from dropkit.errors import TableError
from dropkit.training.wording import nearest

LINE_LIMIT = 16 * 2**20
"""Longest line in bytes. Real rows are far shorter; a longer one is a broken quote or no table."""
STDIN = "standard input"

_CHUNK = 2**20
_UTF8_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_BINARY: dict[bytes, Literal["parquet", "feather"]] = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"FEA1": "feather",
}
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive; export it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; export it as CSV",
    b"%PDF": "a PDF document; export its table as CSV",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file; export it as Parquet or CSV",
    b"SQLite format 3\x00": "an SQLite database; export the table as CSV",
    b"BZh": "packed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "packed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it first",
}
_MARKS = (  # the four-byte mark of UTF-32 begins with the two bytes of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Raw:
    """A table's bytes: text in UTF-8 without a byte order mark, or a binary format as it is."""

    name: str
    """The file as the user named it, for messages."""
    suffix: str
    """The extension in small letters, without .gz; empty for standard input."""
    form: Literal["text", "parquet", "feather"]
    data: bytes
    skipped: int = 0
    """Bytes of the file before `data`, so that messages can name offsets in the file."""


def read_raw(path: str | os.PathLike[str]) -> Raw:
    """Read a file, or standard input for "-", and unpack gzip.

    Raises TableError if there is no such file, or if what is there cannot be a table.
    """
    name = os.fspath(path)
    if name == "-":
        return _raw(STDIN, "", _standard_input())
    with _opened(name) as stream:
        return _raw(name, _suffix(name), stream)


def _opened(name: str) -> IO[bytes]:
    try:
        return open(name, "rb")
    except FileNotFoundError:
        raise TableError(f"{name}: there is no such file{_neighbours(Path(name))}") from None
    except IsADirectoryError:
        raise TableError(f"{name}: this is a folder; expected a file with a table") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TableError(f"{name}: the file cannot be read ({reason})") from error
    except ValueError as error:  # a name with a zero byte
        raise TableError(f"{name!r}: this cannot be the name of a file ({error})") from None


def _standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.isatty():
        raise TableError(
            f"{STDIN}: expected a table, but nothing is piped in; try: dropkit ... - < FILE"
        )
    return sys.stdin.buffer


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _neighbours(path: Path) -> str:
    try:
        names = sorted(other.name for other in path.parent.iterdir() if other.is_file())[:1000]
    except OSError:
        return f"; the folder {path.parent} does not exist either"
    close = nearest(path.name, names)
    return (
        f"; {close}"
        if close.startswith("did you mean")
        else f" in the folder {path.parent.absolute()}"
    )


def _raw(name: str, suffix: str, stream: IO[bytes]) -> Raw:
    chunks: Iterable[bytes] = iter(lambda: stream.read(_CHUNK), b"")
    head, chunks = _peeked(chunks)
    if head.startswith(_GZIP):
        head, chunks = _peeked(_unpacked(name, chunks))
    if not head:
        raise TableError(f"{name}: the file is empty; expected a table")
    for magic, form in _BINARY.items():
        if head.startswith(magic):
            return Raw(name, suffix, form, b"".join(chunks))
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise TableError(
                f"{name}: this is {what}; expected CSV, TSV, Parquet, Feather or JSON lines"
            )
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return Raw(name, suffix, "text", _transcoded(name, b"".join(chunks), encoding))
    skipped = len(_UTF8_MARK) if head.startswith(_UTF8_MARK) else 0
    data = b"".join(_checked(name, chunks))[skipped:]
    if not data[:_CHUNK].strip() and not data.strip():
        raise TableError(f"{name}: the file is empty; expected a table")
    return Raw(name, suffix, "text", data, skipped)


def _peeked(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first chunk, and all of them."""
    rest = iter(chunks)
    head = next((chunk for chunk in rest if chunk), b"")

    def whole() -> Iterator[bytes]:
        yield head
        yield from rest

    return head, whole()


def _unpacked(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip piece by piece, so that a small file cannot fill the memory at once."""
    inflate = zlib.decompressobj(wbits=31)
    read = 0
    for chunk in chunks:
        read += len(chunk)
        while chunk:
            if inflate.eof:  # another part follows, or zeros that pad the file
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    break
                inflate = zlib.decompressobj(wbits=31)
            try:
                piece = inflate.decompress(chunk, _CHUNK)
            except zlib.error as error:
                raise TableError(
                    f"{name}: the gzip data is damaged before byte {read} ({error}); copy it again"
                ) from error
            chunk = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            yield piece
    yield inflate.flush()
    if not inflate.eof:
        raise TableError(
            f"{name}: the gzip data breaks off after {read} bytes; the file is truncated, so copy "
            "it again"
        )


def _checked(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass text on; stop at the first zero byte and at a line that no table has."""
    offset, line, since = 0, 1, 0
    for chunk in chunks:
        zero = chunk.find(b"\0")
        if zero >= 0:
            raise TableError(
                f"{name}: byte {offset + zero} (line {line + chunk.count(10, 0, zero)}) is zero, "
                "so this is no text; expected CSV, TSV or JSON lines in UTF-8 (if it is UTF-16 "
                "without a byte order mark, save it as UTF-8)"
            )
        offset += len(chunk)
        breaks = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        since = since + len(chunk) if breaks < 0 else len(chunk) - breaks - 1
        line += chunk.count(b"\n")
        if since > LINE_LIMIT:
            raise TableError(too_long(name, line))
        yield chunk


def too_long(name: str, line: int | None) -> str:
    """What to say of a line, or a quoted cell over many lines, above the limit."""
    where = f"line {line}" if line else "a row"
    return (
        f"{name}: {where} is longer than {LINE_LIMIT // 2**20} MB; expected rows of a table. "
        "Is a quote not closed, or a whole file in one cell?"
    )


def _transcoded(name: str, data: bytes, encoding: str) -> bytes:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(
            f"{name}: the file begins as {encoding.upper()}, but byte {error.start} is not; save "
            "it as UTF-8"
        ) from error
    if not text.strip("\ufeff \t\r\n"):
        raise TableError(f"{name}: the file is empty; expected a table")
    return b"".join(_checked(name, [text.encode("utf-8", "surrogatepass")]))
