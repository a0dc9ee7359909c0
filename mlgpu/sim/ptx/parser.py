"""PTX text -> `syntax.Module`, or `PtxError`."""

from __future__ import annotations

import re
from dataclasses import replace

from mlgpu.sim.ptx import declarations
from mlgpu.sim.ptx.body import Body, Call, check_call, pragma
from mlgpu.sim.ptx.constants import integer
from mlgpu.sim.ptx.lexer import Cursor, Lines, refuse, unexpected, without_comments
from mlgpu.sim.ptx.syntax import Function, Module, Variable

_FILE = re.compile(r'\.file\s+(\d{1,9})\s+"([^"\n]*)"', re.ASCII)
_VERSION = re.compile(r"\s*(\d{1,4})\.(\d{1,4})(?![\w.])", re.ASCII)
_TARGET = re.compile(r"sm_\d{2,3}[af]?", re.ASCII)
_OTHER_TARGETS = frozenset("""debug texmode_unified texmode_independent map_f64_to_f32""".split())
_SECTION = re.compile(r"\s*\.debug_\w+\s*\{[^{}]*\}", re.ASCII)
_LINKAGES = (".visible", ".extern", ".weak", ".common")
# What a kernel says of its launches: how many numbers follow, and the least of them
_NUMBERS = {".maxntid": 3, ".reqntid": 3, ".minnctapersm": 1, ".maxnctapersm": 1, ".maxnreg": 1,
            ".reqnctapercluster": 3, ".maxclusterrank": 1, ".explicitcluster": 0,
            ".blocksareclusters": 0, ".noreturn": 0, ".abi_preserve": 1,
            ".abi_preserve_control": 1}


def parse(text: str) -> Module:
    """The module that a PTX text describes; PtxError names the line where it is malformed."""
    return _Parser(without_comments(text)).module()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.files = {str(int(number)): name for number, name in _FILE.findall(text)}
        self.calls: list[Call] = []
        self.symbols: list[tuple[str, int]] = []
        self.aliases: list[tuple[str, str, int]] = []

    def module(self) -> Module:
        c = Cursor(self.text, 0)
        self.result = self._header(c)
        while c.kind != "end":
            if c.value == ".file":
                self._file(c)
            elif c.value == ".section":
                self._section(c)
            elif c.accept(".pragma"):
                pragma(c)
            elif c.accept(".alias"):
                self._alias(c)
            else:
                c = self._declaration(c)
        self._check()
        return self.result

    def _header(self, c: Cursor) -> Module:
        if c.value != ".version":
            c.unexpected("'.version' at the start of the PTX")
        version = _VERSION.match(self.text, c.stop)
        if version is None:
            c.advance()
            c.unexpected("a version such as 8.5")
        c.stop = version.end()
        c.advance()
        c.expect(".target")
        targets = [self._target(c)]
        while c.accept(","):
            targets.append(self._target(c))
        target = next((t for t in targets if t not in _OTHER_TARGETS), None)
        if target is None:
            c.unexpected("a target such as sm_90")
        size = 64
        if c.accept(".address_size"):
            if c.value not in ("32", "64"):
                c.unexpected("32 or 64")
            size = int(c.value)
            c.advance()
        return Module((int(version[1]), int(version[2])), target, size)

    def _target(self, c: Cursor) -> str:
        if c.value not in _OTHER_TARGETS and not _TARGET.fullmatch(c.value):
            c.unexpected("a target such as sm_90")
        return c.name("a target")

    # -- what stands at the outermost level -----------------------------------------------------

    def _file(self, c: Cursor) -> None:
        c.advance()
        integer(c, "the number of a file")
        if c.kind != "string":
            c.unexpected("the name of a file")
        c.advance()
        while c.accept(","):  # its time and size
            integer(c, "a number")

    def _section(self, c: Cursor) -> None:
        """Debug information, which is not used."""
        section = _SECTION.match(self.text, c.stop)
        if section is None:
            c.advance()
            c.unexpected("a debug section and its data in braces")
        c.stop = section.end()
        c.advance()

    def _alias(self, c: Cursor) -> None:
        start = c.start
        alias = c.name("the name of a function")
        c.expect(",")
        aliased = c.name("the name of a function")
        c.expect(";")
        self.aliases.append((alias, aliased, start))

    def _declaration(self, c: Cursor) -> Cursor:
        """A variable or a function; the answer is the cursor behind it."""
        linkage = ""
        if c.value in _LINKAGES:
            linkage = c.value[1:]
            c.advance()
        declarations.attribute(c)
        if c.value in (".global", ".const", ".shared"):
            space = c.value[1:]
            c.advance()
            for declared in declarations.variables(c, space, linkage):
                self._variable(declared)
            return c
        if c.value not in (".func", ".entry"):
            c.unexpected("'.func', '.entry' or a variable in .global, .const or .shared")
        return self._function(c, linkage)

    def _variable(self, declared: declarations.Declared) -> None:
        variable, known = declared.variable, self.result.variables.get(declared.variable.name)
        if variable.name in self.result.functions or (known and "extern" not in (
                known.linkage, variable.linkage)):
            refuse(self.text, declared.start, f"'{variable.name}' is declared twice")
        if known is None or known.linkage == "extern":
            self.result.variables[variable.name] = variable
        self.symbols += declared.symbols

    # -- functions --------------------------------------------------------------------------------

    def _function(self, c: Cursor, linkage: str) -> Cursor:
        entry, line = c.value == ".entry", self.lines.at(c.start)
        c.advance()
        declarations.attribute(c)
        returns = declarations.parameters(c) if c.value == "(" and not entry else []
        start = c.start
        name = c.name("the name of a function")
        params = declarations.parameters(c) if c.value == "(" else []
        if entry and any(p.variable.space == "reg" for p in params):
            refuse(self.text, start, f"the parameters of the kernel '{name}' must be .param")
        function = Function(name, entry, [p.variable for p in params],
                            [r.variable for r in returns], line=line)
        self._directives(c, function)
        self._agree(function, start)
        if c.value == "{":
            if linkage == "extern":
                refuse(self.text, start, f"'{name}' is .extern but has a body")
            self.result.functions[name] = function
            body = Body(self.text, self.lines, self.result, function, self.files)
            body.parameters(returns + params)
            c = Cursor(self.text, body.read(c.stop))
            self.calls += body.calls
            self.symbols += body.symbols
        elif c.accept(";"):
            self.result.functions.setdefault(name, function)
        else:
            c.unexpected("'{' or ';'")
        return c

    def _directives(self, c: Cursor, function: Function) -> None:
        while c.kind == "directive":
            name = c.value
            if name == ".pragma":
                c.advance()
                pragma(c)
                continue
            if name not in _NUMBERS:
                c.unexpected("'{', ';' or a directive of a function")
            c.advance()
            numbers = []
            for n in range(_NUMBERS[name]):
                if n and not c.accept(","):
                    break
                start = c.start
                numbers.append(integer(c, "a number"))
                if not numbers[-1]:
                    refuse(self.text, start, f"expected a number greater than 0 for {name}")
            ones = [1] * (_NUMBERS[name] - len(numbers))
            function.directives[name[1:]] = (*numbers, *ones)

    def _agree(self, function: Function, start: int) -> None:
        """PtxError where the function contradicts what was said of it before."""
        known = self.result.functions.get(function.name)
        if function.name in self.result.variables or (known and known.body is not None):
            refuse(self.text, start, f"'{function.name}' is declared twice")
        if known and (known.entry, _shapes(known)) != (function.entry, _shapes(function)):
            refuse(self.text, start, f"the parameters of '{function.name}' differ from its "
                                     f"declaration in line {known.line}")

    # -- at the end -------------------------------------------------------------------------------

    def _check(self) -> None:
        functions, variables = self.result.functions, self.result.variables
        for alias, aliased, start in self.aliases:
            for name in (alias, aliased):
                if name not in functions:
                    refuse(self.text, start, f"expected a declared function, found '{name}'")
            if functions[alias].body is not None or functions[aliased].body is None:
                refuse(self.text, start, f"expected a declaration, '{alias}', and a function with "
                                         f"a body, '{aliased}'")
            functions[alias] = replace(functions[aliased], name=alias)
        for call in self.calls:
            callee = functions.get(call.name)
            if callee is None or callee.entry:
                unexpected(self.text, call.start, "a declared function to call")
            check_call(self.text, call, callee)
        for name, start in self.symbols:
            if name not in functions and name not in variables:
                unexpected(self.text, start, "a declared variable or function")


def _shapes(function: Function) -> list[list[tuple[str, str, int | None]]]:
    def shape(v: Variable) -> tuple[str, str, int | None]:
        return v.space, v.type, v.count

    return [[shape(v) for v in function.returns], [shape(v) for v in function.params]]
