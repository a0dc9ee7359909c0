"""The body of a function: statements, scopes, places in the source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlgpu.sim.ptx import declarations
from mlgpu.sim.ptx.lexer import NAME, Cursor, Lines, refuse, unexpected
from mlgpu.sim.ptx.operands import careful, scalar, simple
from mlgpu.sim.ptx.scope import Names
from mlgpu.sim.ptx.syntax import (
    Args,
    BranchTargets,
    CallPrototype,
    Function,
    Instruction,
    Label,
    Location,
    Module,
    Operand,
    Reg,
    Statement,
    Sym,
    Target,
)

_STATEMENT = re.compile(rf"""\s*(?:
    (?P<label>{NAME})\s*:(?!:)
    | (?:@\s*(?P<negated>!?)\s*(?P<guard>{NAME})\s+)? (?P<opcode>[a-z]\w*(?:\s*\.[\w:]+)*)
    | (?P<directive>\.[a-z]\w*)
    | (?P<brace>[{{}}])
    )""", re.ASCII | re.VERBOSE)
_LOC = re.compile(r"""\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})
    (?:\s*,\s*function_name\s+[\w$]+(?:\s*\+\s*\d+)?)?
    (?:\s*,\s*inlined_at\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9}))?""", re.ASCII | re.VERBOSE)
_SPACES = ("global", "const", "shared", "local", "param")
_DEPTH = 200  # of braces
_INLINED = 64  # calls of a place in the source


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be checked when all functions are known."""

    name: str
    returns: int
    params: int
    start: int


class Body:
    """Reads the body of one function."""

    def __init__(self, text: str, lines: Lines, module: Module, function: Function,
                 files: dict[str, str]) -> None:
        self.text = text
        self.lines = lines
        self.module = module
        self.function = function
        self.files = files
        self.names = Names(module, function)
        self.statements: list[Statement] = []
        self.calls: list[Call] = []
        self.symbols: list[tuple[str, int]] = []
        self._opcodes: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._location: Location | None = None
        self._sites: dict[tuple[str, ...], tuple[str, ...]] = {}

    def parameters(self, declared: list[declarations.Declared]) -> None:
        """Make the function's parameters known."""
        for d in declared:
            self._declare(d)

    def read(self, pos: int) -> int:
        """Read the statements after the opening brace; the answer is the end of the closing one."""
        text, match, find = self.text, _STATEMENT.match, self.text.find
        while True:
            m = match(text, pos)
            if m is None:
                unexpected(text, pos, "a statement or '}'")
            kind = m.lastgroup
            pos = m.end()
            if kind == "opcode":
                end = find(";", pos)
                if end < 0:
                    careful(Cursor(text, pos), self.names)  # stops where the semicolon is missing
                self._instruction(m, pos, end)
                pos = end + 1
            elif kind == "label":
                pos = self._label(m["label"], m.start("label"), pos)
            elif kind == "directive":
                pos = self._directive(m["directive"], m.start("directive"), pos)
            elif m["brace"] == "{":
                self.names.open()
                if self.names.scope.depth > _DEPTH:
                    refuse(text, pos - 1, f"braces are nested more than {_DEPTH} deep")
            else:
                last = self.names.scope.parent is None
                for _, _, use in self.names.close():
                    unexpected(text, use, "a label of this function")
                if last:
                    self.function.body = self.statements
                    return pos

    # -- instructions -----------------------------------------------------------------------------

    def _instruction(self, m: re.Match[str], pos: int, end: int) -> None:
        text = self.text
        name = m["opcode"]
        known = self._opcodes.get(name)
        if known is None:
            opcode, *mods = "".join(name.split()).split(".")
            known = self._opcodes[name] = opcode, tuple(mods)
        opcode, mods_ = known
        location = self._location or Location("<ptx>", self.lines.at(m.start("opcode")))
        words = " ".join(text[pos:end].split())
        ins = Instruction(opcode, mods_, (), None, False, location,
                          f"{name} {words}" if words else name)
        if m["guard"] is not None:
            ins.guard = self._predicate(m)
            ins.guard_negated = m["negated"] == "!"
        if opcode in _CONTROL:
            ins.operands = _CONTROL[opcode](self, ins, Cursor(text, pos))
        elif words:
            ins.operands = simple(words, self.names) or careful(Cursor(text, pos), self.names)
        self.statements.append(ins)

    def _predicate(self, m: re.Match[str]) -> Reg:
        found = self.names.find(m["guard"])
        if not isinstance(found, Reg) or self.function.registers.get(found.name) != "pred":
            unexpected(self.text, m.start("guard"), "a predicate")
        return found

    def _branch(self, ins: Instruction, c: Cursor) -> tuple[Operand, ...]:
        """`bra label;`"""
        start = c.start
        name = c.name("a label")
        c.expect(";")
        self.names.scope.waiting.append((ins, name, start))
        return (Target(name),)

    def _indexed(self, ins: Instruction, c: Cursor) -> tuple[Operand, ...]:
        """`brx.idx index, table;`"""
        index = scalar(c, self.names)
        c.expect(",")
        start = c.start
        table = self.names.find(c.name("the name of a table of labels"))
        if not isinstance(table, BranchTargets):
            unexpected(self.text, start, "the name of a .branchtargets that stands before")
        c.expect(";")
        return index, Target(table.name)

    def _call(self, ins: Instruction, c: Cursor) -> tuple[Operand, ...]:
        """`call (results), function, (arguments), prototype;` where only the function must be.

        The operands are always results and arguments, empty if need be, around the function.
        """
        results = args = Args(())
        if c.value == "(":
            results = self._args(c)
            c.expect(",")
        start = c.start
        name = c.name("the function to call")
        callee = self.names.find(name)
        ins.text = ins.text.replace("( ", "(").replace(" )", ")").replace(" ,", ",")
        more = c.accept(",")
        if more and c.value == "(":
            args = self._args(c)
            more = c.accept(",")
        if not isinstance(callee, Reg):
            if callee is not None and callee != Sym(name):
                unexpected(self.text, start, "a function")
            if more:
                c.unexpected("the arguments of the call")
            c.expect(";")
            self.calls.append(Call(name, len(results.items), len(args.items), start))
            return results, Target(name), args
        if not more:
            c.unexpected("',' and the prototype of an indirect call")
        at = c.start
        prototype = self.names.find(c.name("the name of a prototype"))
        if not isinstance(prototype, CallPrototype):
            unexpected(self.text, at, "the name of a .callprototype that stands before")
        c.expect(";")
        check_call(self.text, Call(name, len(results.items), len(args.items), start), prototype)
        return results, callee, args, Target(prototype.name)

    def _args(self, c: Cursor) -> Args:
        c.expect("(")
        return Args(careful(c, self.names, ")"))

    # -- labels, tables, prototypes ---------------------------------------------------------------

    def _label(self, name: str, start: int, pos: int) -> int:
        c = Cursor(self.text, pos)
        unique = self.names.unique(name)
        thing: Label | BranchTargets | CallPrototype
        if c.accept(".branchtargets"):
            thing = self._table(unique, c)
        elif c.accept(".callprototype"):
            thing = self._prototype(unique, c)
        elif c.accept(".calltargets"):
            thing = self._targets(unique, c)
        else:
            thing = Label(unique)
        if not self.names.declare(name, thing):
            refuse(self.text, start, f"'{name}' is declared twice in one scope")
        self.statements.append(thing)
        return c.start

    def _table(self, name: str, c: Cursor) -> BranchTargets:
        table = BranchTargets(name, ())
        while True:
            self.names.scope.waiting.append((table, c.value, c.start))
            table.labels += (c.name("a label"),)
            if not c.accept(","):
                c.expect(";")
                return table

    def _prototype(self, name: str, c: Cursor) -> CallPrototype:
        returns = declarations.parameters(c, unnamed=True) if c.value == "(" else []
        c.expect("_")
        params = declarations.parameters(c, unnamed=True) if c.value == "(" else []
        c.accept(".noreturn")
        c.expect(";")
        return CallPrototype(name, tuple(d.variable for d in returns),
                             tuple(d.variable for d in params))

    def _targets(self, name: str, c: Cursor) -> CallPrototype:
        """`.calltargets f, g;`: as all have one signature, a list of them is a prototype."""
        start = c.start
        first = self.module.functions.get(c.name("a function"))
        while c.accept(","):
            c.name("a function")
        if first is None:
            unexpected(self.text, start, "a declared function")
        c.expect(";")
        return CallPrototype(name, tuple(first.returns), tuple(first.params))

    # -- directives -------------------------------------------------------------------------------

    def _directive(self, name: str, start: int, pos: int) -> int:
        if name == ".loc":
            return self._place(pos)
        c = Cursor(self.text, pos)
        if name == ".reg":
            for row in declarations.registers(c):
                if not self.names.declare_registers(row):
                    refuse(self.text, row.start, f"'{row.name}' is declared twice in one scope")
        elif name[1:] in _SPACES:
            for declared in declarations.variables(c, name[1:]):
                self._declare(declared)
                variable = declared.variable
                if variable.space in ("global", "const"):
                    self.module.variables[variable.name] = variable
                else:
                    self.function.variables.append(variable)
        elif name == ".pragma":
            pragma(c)
        else:
            unexpected(self.text, start, "a statement or '}'")
        return c.start

    def _declare(self, declared: declarations.Declared) -> None:
        variable = declared.variable
        name = variable.name
        if variable.space == "reg":
            known = self.names.declare_registers(
                declarations.Registers(name, variable.type, 0, None, declared.start))
        else:
            variable.name = self.names.unique(name)
            known = self.names.declare(name, Sym(variable.name))
        if not known:
            refuse(self.text, declared.start, f"'{name}' is declared twice in one scope")
        self.symbols += declared.symbols

    def _place(self, pos: int) -> int:
        """`.loc file line column, function_name label, inlined_at file line column`"""
        m = _LOC.match(self.text, pos)
        if m is None:
            unexpected(self.text, pos, "the file, line and column of a .loc")
        at, caller = m.groups()[:3], m.groups()[3:]
        calls: tuple[str, ...] = ()
        if m[4] is not None:
            calls = (f"{self.files.get(m[4], '?')}:{int(m[5])}", *self._sites.get(caller, ()))
        self._sites[at] = calls[:_INLINED]
        # Line 0 is code that the compiler attributes to no line: it stays with the line before.
        # A file without a name tells nothing: then places are lines of the PTX.
        if m[1] in self.files and int(m[2]):
            self._location = Location(self.files[m[1]], int(m[2]), calls)
        return m.end()


def pragma(c: Cursor) -> None:
    """Step over the strings and the semicolon of a `.pragma`, which are hints."""
    while True:
        if c.kind != "string":
            c.unexpected("a string")
        c.advance()
        if not c.accept(","):
            c.expect(";")
            return


def check_call(text: str, call: Call, callee: Function | CallPrototype) -> None:
    """PtxError unless the call gives and takes as many values as the function."""
    for given, wanted, what in ((call.returns, len(callee.returns), "results"),
                                (call.params, len(callee.params), "arguments")):
        if given != wanted:
            refuse(text, call.start,
                   f"expected {wanted} {what} in the call of '{call.name}', found {given}")


_CONTROL = {"bra": Body._branch, "brx": Body._indexed, "call": Body._call}
