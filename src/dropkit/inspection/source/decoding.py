"""Bytes of a file into text, as Python itself reads them: PEP 263, byte order marks, line ends."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from itertools import accumulate

_DECLARED = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")
_BLANK = re.compile(rb"^[ \t\f]*(?:#.*)?$")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file could not be looked at."""

    path: str
    why: str
    line: int = 0
    """0: it is of the file as a whole."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}" if self.line else f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and how it was written."""

    text: str
    encoding: str = "utf-8"
    mark: bytes = b""
    """The byte order mark that stood before it."""

    def encoded(self, text: str) -> bytes:
        """Another text, written in the same way."""
        return self.mark + text.encode(self.encoding)


def decode(data: bytes, path: str) -> Decoded | Unreadable:
    """Read the bytes of a Python file; its newlines stay as they are."""
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    body = data[len(mark) :]
    if b"\0" in body:
        return Unreadable(path, "it holds null bytes, so it is no Python source")
    encoding = "utf-8" if mark else _declared(body)
    try:
        return Decoded(body.decode(encoding), encoding, mark)
    except LookupError:
        return Unreadable(path, f"it declares the encoding {encoding!r}, which Python lacks")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        said = "declares" if _declared(body) != "utf-8" else "declares no encoding, so should be"
        return Unreadable(path, f"it {said} {encoding}, and is not: {error.reason}", line)
    except (UnicodeError, AttributeError, TypeError) as error:  # hex, zip: no encodings of text
        return Unreadable(path, f"it cannot be read as {encoding!r}: {error}")


def _declared(body: bytes) -> str:
    """The encoding that a comment in the first two lines names."""
    for line in body.split(b"\n", 2)[:2]:
        found = _DECLARED.match(line)
        if found:
            return found.group(1).decode("ascii")
        if not _BLANK.match(line.rstrip(b"\r")):
            break
    return "utf-8"


class Lines:
    """The lines of a text as Python counts them, and where each begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        if "\r" in text:
            self.starts = [0, *(end.end() for end in _LINE_END.finditer(text))]
        else:
            self.starts = [0, *accumulate(len(line) + 1 for line in text.split("\n")[:-1])]
        if self.starts[-1] != len(text) or not text:
            self.starts.append(len(text))

    def __len__(self) -> int:
        return max(len(self.starts) - 1, 1)

    def __getitem__(self, number: int) -> str:
        """A line, counted from 1, without its end; empty where there is none."""
        if not 0 < number < len(self.starts):
            return ""
        return self.text[self.starts[number - 1] : self.starts[number]].rstrip("\r\n")

    def offset(self, number: int, column: int) -> int:
        """The offset in characters of a column that is counted in bytes of UTF-8, as ast does."""
        start = self.starts[number - 1]
        line = self[number]
        if line.isascii():
            return start + column
        return start + len(line.encode()[:column].decode("utf-8", "ignore"))

    @property
    def newline(self) -> str:
        """How the first line ends."""
        found = _LINE_END.search(self.text)
        return found.group() if found else "\n"
