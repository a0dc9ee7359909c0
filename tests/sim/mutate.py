"""Random damage to PTX that leaves it plausible: one thing exchanged for another of its kind."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from mlgpu.sim.isa import INSTRUCTIONS
from mlgpu.sim.ptx.syntax import SIZES

WORDS = re.compile(r"[\w$]+")
REGISTER = re.compile(r"%[A-Za-z_]\w*(?:\.[xyzw]\b)?")
INTEGER = re.compile(r"(?<![\w.%$])-?(?:0x[0-9A-Fa-f]+|0[fd][0-9A-Fa-f]+|\d+)\b")
MODIFIER = re.compile(r"(?<=[\w>])\.[a-z_]\w*(?:::\w+)*")
STATEMENT = re.compile(r"^(\s*(?:@!?%\w+\s+)?)([a-z]\w*)((?:\.[\w:]+)*)([^;\n]*;)\s*$")
TYPES = sorted(SIZES)
# Modifiers of instructions, valid ones of all families and a few that no instruction has.
MODIFIERS = """global shared local param const v2 v4 v8 rn rz rm rp rni rzi rmi rpi ftz sat approx
    full lo hi wide eq ne lt le gt ge ltu geu num nan and or xor popc add min max inc dec cas exch
    to sync aligned warp arrive red cta gpu sys cluster acquire release acq_rel relaxed volatile
    weak up down bfly idx all any uni ballot async bulk ca cg wait_group wait_all commit_group
    x1 x2 x4 trans row col m16n16k16 m8n8k4 m16n8k16 m8n8 init inval try_wait test_wait parity
    expect_tx noinc nc L1::no_allocate L2::cache_hint shared::cta shared::cluster cc l r wrap
    clamp shiftamt satfinite relu NaN xorsign abs pack unified noftz tensor gl sc foo""".split()
NUMBERS = """0 1 -1 2 3 4 5 7 8 12 15 16 17 31 32 33 63 64 96 100 127 128 255 256 1000 1024 4095
    4096 32767 32768 65535 65536 99999 2147483647 2147483648 4294967295 4294967296 -2147483648
    9223372036854775807 9223372036854775808 18446744073709551615 0x7F00000000000000
    0x7F10000000000000 0xFFFFFFFFFFFFFFF0 0f00000000 0f3F800000 0f7F800000 0f7FC00000 0fFF800000
    0f00000001 0d0000000000000000 0d3FF0000000000000 0d7FF8000000000000 1.5 0.0 1e300""".split()
SPECIALS = """%tid.x %tid.y %tid.w %ntid.x %ctaid.x %nctaid.z %laneid %warpid %clock %clock64
    %clock_hi %globaltimer %lanemask_lt %envreg3 %smid %gridid %pm0 %is_explicit_cluster
    %cluster_ctaid.x %dynamic_smem_size %reserved_smem_offset_begin %nosuch""".split()
OPCODES = sorted({*(o for o in INSTRUCTIONS if o.isidentifier()), *"""bra brx call ret exit trap bar
    barrier wgmma tcgen05 tensormap mapa tex suld alloca brkpt multimem nosuch""".split()})
LINES = [
    "bar.sync 0;", "bar.sync 1, 32;", "bar.warp.sync -1;", "barrier.cluster.arrive;", "membar.gl;",
    "ret;", "exit;", "trap;", "HERE:", "bra HERE;", "@%p1 bra HERE;", "{", "}",
    "mov.u32 %r1, %clock;", "st.shared.u32 [%r1], %r2;", "ld.local.u32 %r1, [%rd1];",
    ".reg .b32 %q<9>;", ".reg .pred %p<99999999999>;", ".shared .b8 big[99999999999];",
    ".local .b64 far[123456789];", ".local .align 8 .b8 some[64];",
    ".shared .align 1024 .b8 tile[256];", ".global .b8 huge[99999999999];"]
CHARACTERS = "{}()[];,:@!|+-<>=.%_\"/* \n09aUxé\0"

Change = Callable[[str, random.Random], str]


def swapped(pattern: re.Pattern[str], others: Callable[[str, str], list[str]]) -> Change:
    """Replace a match of a pattern by another string, chosen from the text or the match."""
    def change(text: str, rng: random.Random) -> str:
        found = list(pattern.finditer(text))
        if not found:
            return text
        at = rng.choice(found)
        choice = others(text, at[0])
        return text[:at.start()] + rng.choice(choice or [at[0]]) + text[at.end():]
    return change


def other_registers(text: str, old: str) -> list[str]:
    """Registers of the text, most often of the same class."""
    every = sorted(set(REGISTER.findall(text)))
    same = [r for r in every if r.rstrip("0123456789") == old.rstrip("0123456789")]
    return same * (1 + 2 * len(every) // max(len(same), 1)) + every + SPECIALS


def other_modifiers(text: str, old: str) -> list[str]:
    """A type for a type (or none at all), a modifier for a modifier."""
    if old[1:] in SIZES:
        return [*(f".{t}" for t in TYPES), *(f".{t}" for t in ("u32", "s32", "b32", "f32") * 4), ""]
    return [*(f".{m}" for m in MODIFIERS), *MODIFIER.findall(text), ""]


def of_statement(edit: Callable[[list[str], str, random.Random], list[str] | None]) -> Change:
    """Edit the parts of an instruction: guard, opcode, modifiers, operands."""
    def change(text: str, rng: random.Random) -> str:
        lines = text.split("\n")
        places = [k for k, line in enumerate(lines) if STATEMENT.match(line)]
        if not places:
            return text
        k = rng.choice(places)
        match = STATEMENT.match(lines[k])
        assert match is not None
        parts = edit(list(match.groups()), text, rng)
        if parts is not None:
            lines[k] = "".join(parts)
        return "\n".join(lines)
    return change


def opcode(parts: list[str], text: str, rng: random.Random) -> list[str]:
    """Another opcode, often one of the same text."""
    here = [m[2] for line in text.split("\n") if (m := STATEMENT.match(line))]
    return [parts[0], rng.choice([rng.choice(here), rng.choice(OPCODES)]), *parts[2:]]


def head(parts: list[str], text: str, rng: random.Random) -> list[str]:
    """Opcode and modifiers of another instruction of the text."""
    other = rng.choice([m for line in text.split("\n") if (m := STATEMENT.match(line))])
    return [parts[0], other[2], other[3], parts[3]]


def more_modifiers(parts: list[str], text: str, rng: random.Random) -> list[str]:
    """A modifier more, at any place."""
    mods = re.findall(r"\.[\w:]+", parts[2])
    mods.insert(rng.randint(0, len(mods)), "." + rng.choice(MODIFIERS + TYPES))
    return [parts[0], parts[1], "".join(mods), parts[3]]


def operands(parts: list[str], text: str, rng: random.Random) -> list[str]:
    """Operands dropped, doubled, exchanged, bracketed, or taken from elsewhere."""
    given = [o.strip() for o in re.split(r",(?![^{\[(]*[}\])])", parts[3].rstrip("; "))]
    k = rng.randrange(len(given))
    other = rng.choice([*REGISTER.findall(text), rng.choice(NUMBERS), rng.choice(SPECIALS)])
    action = rng.randrange(10)
    if action == 0:
        del given[k]
    elif action == 1:
        given.insert(k, given[k])
    elif action == 2:
        j = rng.randrange(len(given))
        given[k], given[j] = given[j], given[k]
    elif action == 3:
        given[k] = f"[{given[k].strip('[]')}]"
    elif action == 4:
        given[k] = given[k].strip("[]{}")
    elif action == 5:
        given[k] = "{" + ", ".join([given[k].strip("{}")] * rng.choice([1, 2, 3, 4, 8])) + "}"
    elif action == 6:
        given[k] = f"[{other}+{rng.choice(NUMBERS)}]"
    elif action == 7:
        given[k] = rng.choice([f"!{given[k]}", f"{given[k]}|{other}", f"{given[k]}.x", "_"])
    else:
        given[k] = other
    return [*parts[:3], " " + ", ".join(given) + ";"]


def guard(parts: list[str], text: str, rng: random.Random) -> list[str]:
    """A guard more, less or the other way round."""
    predicates = re.findall(r"%p\d+", text) or ["%p1"]
    return [rng.choice(["", f"@{rng.choice(predicates)} ", f"@!{rng.choice(predicates)} "]),
            *parts[1:]]


def line(text: str, rng: random.Random) -> str:
    """A line deleted, doubled, moved, exchanged with another, or a new one."""
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.randrange(5)
    if action == 0:
        del lines[i]
    elif action == 1:
        lines.insert(j, lines[i])
    elif action == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif action == 3:
        lines.insert(j, lines.pop(i))
    else:
        lines.insert(i, rng.choice(LINES))
    return "\n".join(lines)


def characters(text: str, rng: random.Random) -> str:
    """A character deleted, doubled or replaced, or the end cut off."""
    at = rng.randrange(len(text))
    if rng.random() < 0.05:
        return text[:at]
    return text[:at] + rng.choice(["", text[at] * 2, rng.choice(CHARACTERS)]) + text[at + 1:]


CHANGES: list[tuple[int, Change]] = [
    (8, swapped(REGISTER, other_registers)),
    (6, swapped(MODIFIER, other_modifiers)),
    (6, swapped(INTEGER, lambda text, old: NUMBERS)),
    (2, swapped(WORDS, lambda text, old: WORDS.findall(text))),
    (3, swapped(re.compile(r"\$L\w+"), lambda text, old: re.findall(r"\$L\w+", text))),
    (4, of_statement(opcode)), (3, of_statement(head)), (3, of_statement(more_modifiers)),
    (5, of_statement(operands)), (3, of_statement(guard)), (4, line), (2, characters)]


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to four changes."""
    changes = [change for weight, change in CHANGES for _ in range(weight)]
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 4))):
        text = rng.choice(changes)(text, rng) or "\n"
    return text


def only(ptx: str, kernel: str) -> str:
    """One kernel of a PTX text with what it names, without comments."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    start = ptx.index(".address_size 64") + len(".address_size 64")
    names: dict[str, str] = {}
    pieces = _outermost(ptx[start:])
    for piece in pieces:
        found = re.search(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)", piece) or re.search(
            r"\.(?:global|const|shared)[^;{=\[]*?\s([\w$]+)\s*[\[=;]", piece)
        if found:
            names[found[1]] = piece
    wanted, work = set(), [kernel]
    while work:
        piece = names[work.pop()]
        wanted.add(piece)
        work += [w for w in set(WORDS.findall(piece)) if w in names and names[w] not in wanted]
    return re.sub(r"\n\s*\n+", "\n", "\n".join(
        [ptx[:start], *(p for p in pieces if p in wanted), *re.findall(r"\.file[^\n]*", ptx), ""]))


def _outermost(text: str) -> list[str]:
    """The declarations of a PTX text: each up to its semicolon, or to the brace of its body."""
    pieces, depth, start = [], 0, 0
    for mark in re.finditer(r'"[^"\n]*"|[{};]', text):
        depth += (mark[0] == "{") - (mark[0] == "}")
        body = mark[0] == "}" and re.match(r"[^;{]*\.(?:entry|func)\b", text[start:])
        if depth == 0 and (mark[0] == ";" or body):
            pieces.append(text[start:mark.end()])
            start = mark.end()
    return pieces
