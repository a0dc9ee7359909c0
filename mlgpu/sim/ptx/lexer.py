"""PTX text cut into tokens, and the errors that name its lines."""

from __future__ import annotations

import re
from typing import NoReturn

from mlgpu.sim.errors import PtxError

NAME = r"(?:[A-Za-z][\w$]*|[_$%][\w$]+)"
_TOKEN = re.compile(rf"""\s*(?:
    (?P<number>(?:0[fF][0-9a-fA-F]{{8}} | 0[dD][0-9a-fA-F]{{16}}
        | 0[xX][0-9a-fA-F]+U? | 0[bB][01]+U?
        | (?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)? | \d+[eE][+-]?\d+ | \d+U?)(?![\w$]))
    | (?P<name>{NAME})
    | (?P<directive>\.[A-Za-z_]\w*)
    | (?P<string>"[^"\n]*")
    | (?P<symbol><<|>>|<=|>=|==|!=|&&|\|\||\S)
    | (?P<end>\Z))""", re.ASCII | re.VERBOSE)
_SHOWN = re.compile(r'\s*((?:::|[\w$%.])+|"[^"\n]*"?|<<|>>|\S|\Z)', re.ASCII)
_LONGEST = 200  # characters of an error: names can be of any length
_COMMENT = re.compile(r'"[^"\n]*"|//[^\n]*|/\*(?:[\s\S]*?\*/)?')


def without_comments(text: str) -> str:
    """The text with its comments blanked; every line keeps its number."""
    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] == '"':
            return found
        if found == "/*":
            refuse(text, match.start(), "this comment has no end, '*/'")
        return "\n" * found.count("\n") if "\n" in found else " "

    return _COMMENT.sub(blank, text)


class Lines:
    """Numbers of lines, for positions that mostly go forward."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line, self._pos = 1, 0

    def at(self, pos: int) -> int:
        """The number of the line of a position."""
        if pos < self._pos:
            self._line, self._pos = 1, 0
        self._line += self._text.count("\n", self._pos, pos)
        self._pos = pos
        return self._line


def refuse(text: str, pos: int, why: str) -> NoReturn:
    """PtxError about the text at pos."""
    why = why if len(why) <= _LONGEST else why[:_LONGEST] + "…"
    raise PtxError(f"PTX line {Lines(text).at(pos)}: {why}")


def unexpected(text: str, pos: int, expected: str) -> NoReturn:
    """PtxError: something else than what was expected follows pos."""
    match = _SHOWN.match(text, pos)
    assert match is not None  # it matches anything
    found = f"'{match[1][:60]}'" if match[1] else "the end of the text"
    refuse(text, match.start(1), f"expected {expected}, found {found}")


class Cursor:
    """The token at a place in the text: its kind, value and start; `advance` goes to the next.

    Kinds are "number", "name", "directive" (with its dot), "string", "symbol" and "end".
    """

    __slots__ = ("kind", "start", "stop", "text", "value")

    def __init__(self, text: str, pos: int) -> None:
        self.text = text
        self.stop = pos
        self.advance()

    def advance(self) -> None:
        """Go to the next token."""
        match = _TOKEN.match(self.text, self.stop)
        assert match is not None  # a token is any character
        assert match.lastgroup is not None
        self.kind = match.lastgroup
        self.value = match[self.kind]
        self.start = match.start(self.kind)
        self.stop = match.end()

    def accept(self, value: str) -> bool:
        """Step over the token if it is this one."""
        if self.value != value or self.kind == "string":
            return False
        self.advance()
        return True

    def expect(self, value: str) -> None:
        """Step over this token; PtxError if it is another."""
        if not self.accept(value):
            self.unexpected(f"'{value}'")

    def name(self, what: str) -> str:
        """Step over a name."""
        if self.kind != "name":
            self.unexpected(what)
        name = self.value
        self.advance()
        return name

    def unexpected(self, expected: str) -> NoReturn:
        """PtxError: this token is not what was expected."""
        unexpected(self.text, self.start, expected)
