"""Malformed PTX: PtxError names the line, what came and what was expected."""

from __future__ import annotations

import re
import time

import pytest
from ptx_text import HEADER, text

from mlgpu.sim.errors import PtxError, SimError
from mlgpu.sim.ptx.parser import parse


def refused(ptx: str, line: int, words: str) -> None:
    with pytest.raises(PtxError) as caught:
        parse(ptx)
    assert str(caught.value).startswith(f"PTX line {line}: "), caught.value
    assert words in str(caught.value)
    assert isinstance(caught.value, SimError)


@pytest.mark.parametrize(("ptx", "line", "words"), [
    ("", 1, "expected '.version' at the start of the PTX, found the end of the text"),
    ("\n\nhello", 3, "expected '.version' at the start of the PTX, found 'hello'"),
    (".target sm_90\n.version 8.5", 1, "expected '.version'"),
    (".version", 1, "expected a version such as 8.5, found the end"),
    (".version 8\n.target sm_90", 1, "expected a version such as 8.5, found '8'"),
    (".version 8.5\n.address_size 64", 2, "expected '.target', found '.address_size'"),
    (".version 8.5\n.target\n", 3, "expected a target such as sm_90, found the end"),
    (".version 8.5\n.target sm_90x", 2, "expected a target such as sm_90, found 'sm_90x'"),
    (".version 8.5\n.target compute_90", 2, "found 'compute_90'"),
    (".version 8.5\n.target debug\n", 3, "expected a target such as sm_90"),
    (".version 8.5\n.target sm_90,\n", 3, "expected a target such as sm_90"),
    (".version 8.5\n.target sm_90\n.address_size 16", 3, "expected 32 or 64, found '16'"),
    (".version 8.5\n.target sm_90 /* open\n", 2, "this comment has no end"),
])
def test_the_header(ptx, line, words):
    refused(ptx, line, words)


@pytest.mark.parametrize(("outer", "words"), [
    (";", "expected '.func', '.entry' or a variable in .global, .const or .shared, found ';'"),
    ("add.u32 x, y, z;", "found 'add.u32'"),
    (".version 8.5", "found '.version'"),
    (".reg .b32 x;", "found '.reg'"), (".local .b32 x;", "found '.local'"),
    (".visible .visible .func f();", "found '.visible'"),
    ("#line 3", "found '#'"), ("é", "found 'é'"), ("}", "found '}'"), ('"x"', "found"),
    (".file 1", "expected the name of a file, found the end"),
    (".file x \"a\"", "expected the number of a file, found 'x'"),
    (".file 1 \"a", "expected the name of a file, found '\"a'"),
    (".pragma nounroll;", "expected a string, found 'nounroll'"),
    (".pragma \"nounroll\"", "expected ';', found the end"),
    (".section .debug_str", "expected a debug section"),
    (".section .debug_str {\n.b8 1", "expected a debug section"),
    (".section .text { }", "expected a debug section"),
    (".alias f, g;", "expected a declared function, found 'f'"),
    (".func f(); .alias f, f;", "expected a declaration, 'f', and a function with a body, 'f'"),
    (".func f() {ret;} .func g() {ret;} .alias f, g;", "expected a declaration, 'f'"),
    (".attribute(.managed .global .u32 x;", "expected ')', found ';'"),
    (".attribute .managed .global .u32 x;", "expected '(', found '.managed'"),
])
def test_the_outermost_level(outer, words):
    refused(HEADER + outer, 5 if "\n" in outer and "'}'" in words else 4, words)


@pytest.mark.parametrize(("declaration", "words"), [
    (".global x;", "expected a type such as .b32, found 'x'"),
    (".global .q32 x;", "expected a type such as .b32, found '.q32'"),
    (".global .bf16 x;", "found '.bf16'"), (".global .tf32 x;", "found '.tf32'"),
    (".global .b1 x;", "found '.b1'"), (".global .texref x;", "found '.texref'"),
    (".global .v3 .f32 x;", "found '.v3'"),
    (".global .v4 .f64 x;", "a vector of 4 .f64 is larger than 16 bytes"),
    (".global .pred x;", "a predicate can only be a register by itself"),
    (".global .u32;", "expected the name of a variable, found ';'"),
    (".global .u32 1x;", "expected the name of a variable, found '1x'"),
    (".global .u32 _;", "found '_'"), (".global .u32 x", "expected ';', found the end"),
    (".global .u32 x,;", "expected the name of a variable, found ';'"),
    (".global .align 3 .u32 x;", "the alignment 3 is not a power of two"),
    (".global .align 0 .u32 x;", "the alignment 0 is not a power of two"),
    (".global .align -4 .u32 x;", "expected the bytes of an alignment, found '-'"),
    (".global .align .u32 x;", "expected the bytes of an alignment, found '.u32'"),
    (".global .align 4.0 .u32 x;", "expected the bytes of an alignment, found 4.0"),
    (".global .u32 .align 4 x;", "expected the name of a variable, found '.align'"),
    (".global .u32 x[-1];", "expected the size of an array, found '-'"),
    (".global .u32 x[2][];", "expected the size of an array, found ']'"),
    (".global .u32 x[2;", "expected ']', found ';'"),
    (".global .u32 x[1<<2];", "expected ']', found '<<'"),
    (".global .u32 x[0];", "the size of x is not given"),
    (".global .u32 x[];", "the size of x is not given"),
    (".shared .b8 s[];", "the size of s is not given"),
    (".global .u32 x[] = {};", "the size of x is not given"),
    (f".global .u8 x{'[2]' * 17};", "an array of more than 16 dimensions"),
    (".global .u64 x[0x7FFFFFFFFFFFFFFF];", "more than a device"),
    (f".global .u64 x{'[65536]' * 9};", "more than a device"),
    (".extern .global .u32 x = 3;", "x takes no initial value, as it is .extern"),
    (".shared .u32 x = 3;", "x takes no initial value, as it is .shared"),
    (".global .u32 x; .global .u32 x;", "'x' is declared twice"),
    (".func x(); .global .u32 x;", "'x' is declared twice"),
    (".global .u32 x; .func x();", "'x' is declared twice"),
    (".global .u32 x = ;", "expected a constant or the name of a variable or function, found ';'"),
    (".global .u32 x = {3};", "expected a constant or the name of a variable or function"),
    (".global .u32 x[2] = 3;", "expected '{', found '3'"),
    (".global .u32 x[2] = {1, 2, 3};", "3 values for 2 elements"),
    (".global .u32 x[2] = {1, 2, 1+2};", "expected '}' after 2 elements, found '1'"),
    (".global .u32 x[2] = {1,};", "expected a constant or the name of a variable or function"),
    (".global .u32 x[2] = {1 2};", "expected '}', found '2'"),
    (".global .u32 x[2][2] = {{1, 2}, 3};", "expected '{', found '3'"),
    (".global .u32 x[2][2] = {1, 2};", "expected '{', found '1'"),
    (".global .u32 x[2] = {1, 2", "found the end of the text"),
    (".global .u32 x[2] = {{1}, {2}};", "found '{'"),
    (".global .u32 x = 1.5;", "a .u32 variable cannot start as this constant"),
    (".global .f32 x = 1;", "a .f32 variable cannot start as this constant"),
    (".global .f16 x = 1.0;", "a .f16 variable cannot start as this constant"),
    (".global .b16 x = 1.0;", "the constant 1.0 does not fit .b16"),
    (".global .f32 x = 1e300;", "the constant 1e+300 does not fit .f32"),
    (".global .f64 x = 1e400;", "this constant is greater than any double"),
    (".global .f32 x = -0f3F800000;", "expected a constant, found '0f3F800000'"),
    (".global .u64 x = 99999999999999999999;", "does not fit 64 bits"),
    (f".global .u64 x = {'9' * 5000};", "does not fit 64 bits"),
    (".global .u32 x = 09;", "expected an octal constant, as it begins with 0, found '09'"),
    (".global .u32 x = 0b12;", "found '0b12'"), (".global .u32 x = 3q;", "found '3q'"),
    (".global .u32 x = 1/0;", "this constant is divided by zero"),
    (".global .u32 x = 1 % 0;", "this constant is divided by zero"),
    (".global .f64 x = 1.0/0.0;", "this constant is divided by zero"),
    (".global .f64 x = 1.0 + 1;", "'+' cannot join these constants"),
    (".global .f64 x = 1.0 & 2.0;", "'&' cannot join these constants"),
    (".global .f64 x = 1e300 * 1e300;", "this constant is greater than any double"),
    (".global .f64 x = ~1.0;", "expected an integer after '~'"),
    (".global .f64 x = (.s64)1.0;", "expected an integer after '(.s64)'"),
    (".global .u32 x = 1 << 64;", "a constant of 64 bits is shifted by 64"),
    (".global .u32 x = 1 << -1;", "a constant of 64 bits is shifted by -1"),
    (".global .u32 x = (1;", "expected ')', found ';'"),
    (".global .u32 x = 1 ? 2;", "expected ':', found ';'"),
    (".global .u32 x = 1 +;", "expected a constant, found ';'"),
    (f".global .u32 x = {'(' * 100}1{')' * 100};", "nested more than 24 deep"),
    (f".global .u32 x = {'-' * 100}1;", "nested more than 24 deep"),
    (".global .u64 x = y;", "expected a declared variable or function, found 'y'"),
    (".global .u64 x = generic(y);", "expected a declared variable or function, found 'y'"),
    (".global .u8 y; .global .u8 x = y;", "an address does not fit .u8"),
    (".global .u8 y; .global .f64 x = y;", "an address does not fit .f64"),
    (".global .u8 y; .global .u64 x = y-4;", "expected ';', found '-'"),
    (".global .u8 y; .global .u64 x = y+1.0;", "expected an integer after '+'"),
    (".global .u8 y; .global .u64 x = generic(y;", "expected ')', found ';'"),
    (".global .u8 y; .global .u64 x = 0xFF(y);", "expected a mask of one byte"),
    (".global .u8 y; .global .u8 x = 0xFFFF(y);", "expected a mask of one byte"),
    (".global .u8 y; .global .u8 x = 0xF0(y);", "expected a mask of one byte"),
    (".global .u8 y; .global .u8 x = 0xFF00(y);", "byte 1 of an address must follow its byte 0"),
    (".global .u8 y, z; .global .u8 x[2] = {0xFF(y), 0xFF00(z)};", "must follow its byte 0"),
    (".global .u8 y; .global .u8 x[3] = {0xFF(y), 0, 0xFF00(y)};", "must follow its byte 0"),
    (".global .u8 x[2][4294967296] = {{1}, {2}};", "an initial value of more than"),
])
def test_variables(declaration, words):
    refused(HEADER + declaration, 4, words)


@pytest.mark.parametrize(("function", "words"), [
    (".func;", "expected the name of a function, found ';'"),
    (".func f", "expected '{' or ';', found the end"),
    (".func f(.u32 a);", "expected '.param', '.reg' or ')', found '.u32'"),
    (".func f(.param .u32);", "expected the name of a parameter, found ')'"),
    (".func f(.param .u32 _);", "expected the name of a parameter, found '_'"),
    (".func f(.param .u32 a,);", "expected '.param', '.reg' or ')', found ')'"),
    (".func f(.param .u32 a;", "expected ')', found ';'"),
    (".func f(.param .u99 a);", "expected a type such as .b32, found '.u99'"),
    (".func f(.param .align 6 .b8 a[8]);", "the alignment 6 is not a power of two"),
    (".entry f(.param .u64 .ptr .align 5 a) {}", "the alignment 5 is not a power of two"),
    (".func f(.param .pred a);", "a predicate can only be a register"),
    (".func f(.param .b8 a[], .param .u32 b);", "a has no size, which only the last"),
    (".func f(.param .u32 a, .param .u32 a) {ret;}", "'a' is declared twice in one scope"),
    (".entry f(.reg .u32 a) {ret;}", "the parameters of the kernel 'f' must be .param"),
    (".entry (.param .u32 a) f {ret;}", "expected the name of a function, found '('"),
    (".func f() .nosuch 3 {ret;}", "expected '{', ';' or a directive of a function, found '.nos"),
    (".entry f() .maxntid {ret;}", "expected a number, found '{'"),
    (".entry f() .maxntid 0 {ret;}", "expected a number greater than 0 for .maxntid"),
    (".entry f() .maxntid 1,2,3,4 {ret;}", "expected '{' or ';', found ','"),
    (".entry f() .minnctapersm 1.5 {ret;}", "expected a number, found 1.5"),
    (".func f() {ret;} .func f() {ret;}", "'f' is declared twice"),
    (".func f() {ret;} .func f();", "'f' is declared twice"),
    (".extern .func f() {ret;}", "'f' is .extern but has a body"),
    (".func f(.param .u32 a); .func f(.param .u64 a) {ret;}",
     "the parameters of 'f' differ from its declaration in line 4"),
    (".func f(); .func (.param .u32 a) f() {ret;}", "the parameters of 'f' differ"),
    (".func f(); .entry f() {ret;}", "the parameters of 'f' differ"),
    (".func f() {ret;", "expected a statement or '}', found the end of the text"),
    (".func f() {ret", "expected an operand or ';', found the end of the text"),
])
def test_functions(function, words):
    refused(HEADER + function, 4, words)


CALLED = ".func (.param .b32 y) f(.param .b32 x) { ret; } .func g(); .global .u32 v;"


@pytest.mark.parametrize(("body", "words"), [
    (";", "expected a statement or '}', found ';'"),
    ("ret; ;", "expected a statement or '}', found ';'"),
    ("ADD.u32 %r1, %r2;", "expected a statement or '}', found 'ADD.u32'"),
    ("3: ret;", "expected a statement or '}', found '3'"),
    ("_: ret;", "found '_'"), ("é ret;", "found 'é'"),
    ("@%p1 @%p2 ret;", "expected a statement or '}', found '@'"),
    ("@%p1 { ret; }", "expected a statement or '}', found '@'"),
    ("@%p1 L: ret;", "expected a statement or '}', found '@'"),
    ("@%p9 ret;", "expected a predicate, found '%p9'"),
    ("@%r1 ret;", "expected a predicate, found '%r1'"),
    ("@a ret;", "expected a predicate, found 'a'"),
    (".file 1 \"x\"", "expected a statement or '}', found '.file'"),
    (".nosuch 3;", "found '.nosuch'"), (".branchtargets L;", "found '.branchtargets'"),
    (".extern .shared .b8 s[];", "found '.extern'"),
    (".loc 1 2", "expected the file, line and column of a .loc, found '1'"),
    (".loc 1 2 x", "expected the file, line and column of a .loc, found '1'"),
    (".loc 1 2 3;", "expected a statement or '}', found ';'"),
    (".reg .b32;", "expected the name of a register, found ';'"),
    (".reg .bf16 q;", "expected a type such as .b32, found '.bf16'"),
    (".reg .align 4 .b32 q;", "expected a type such as .b32, found '.align'"),
    (".reg .v2 .pred q;", "a predicate can only be a register by itself"),
    (".reg .b32 q<-1>;", "expected the number of registers, found '-'"),
    (".reg .b32 q<3;", "expected '>', found ';'"), (".reg .b32 q r;", "expected ';', found 'r'"),
    (".reg .b32 q; .reg .b64 q;", "'q' is declared twice in one scope"),
    (".reg .b32 q, q;", "'q' is declared twice in one scope"),
    (".reg .b32 q<3>; .reg .b32 q<3>;", "'q' is declared twice in one scope"),
    (".reg .b32 q<3>, q2;", "'q2' is declared twice in one scope"),
    (".reg .b32 q2; .reg .b32 q<3>;", "'q' is declared twice in one scope"),
    (".reg .b32 q; .shared .b32 q;", "'q' is declared twice in one scope"),
    (".reg .b32 q; q: ret;", "'q' is declared twice in one scope"),
    (".reg .b32 a;", "'a' is declared twice in one scope"),
    (".shared .align 12 .b8 q[16];", "the alignment 12 is not a power of two"),
    (".param .b8 q[];", "the size of q is not given"),
    ("L: L: ret;", "'L' is declared twice in one scope"),
    ("bra L;", "expected a label of this function, found 'L'"),
    ("{ L: } bra L;", "expected a label of this function, found 'L'"),
    ("{ bra L; { L: } }", "expected a label of this function, found 'L'"),
    (".reg .b32 q; bra q;", "expected a label of this function, found 'q'"),
    ("bra g;", "expected a label of this function, found 'g'"),
    ("bra 3;", "expected a label, found '3'"), ("bra;", "expected a label, found ';'"),
    ("bra L, L; L:", "expected ';', found ','"),
    ("t: .branchtargets L, M; L:", "expected a label of this function, found 'M'"),
    ("t: .branchtargets ; L:", "expected a label, found ';'"),
    ("t: .branchtargets L L; L:", "expected ';', found 'L'"),
    ("brx.idx %r1, t; t: .branchtargets L; L:", "a .branchtargets that stands before, found 't'"),
    ("L: brx.idx %r1, L;", "expected the name of a .branchtargets"),
    ("brx.idx %r1;", "expected ',', found ';'"),
    ("call;", "expected the function to call, found ';'"),
    ("call 3;", "expected the function to call, found '3'"),
    ("call nosuch;", "expected a declared function to call, found 'nosuch'"),
    ("call k, (%rd1);", "expected a declared function to call, found 'k'"),
    ("call v;", "expected a declared function to call, found 'v'"),
    ("call a;", "expected a declared function to call, found 'a'"),
    ("L: call L;", "expected a function, found 'L'"),
    ("call f;", "expected 1 results in the call of 'f', found 0"),
    ("call (%r1), f;", "expected 1 arguments in the call of 'f', found 0"),
    ("call (%r1), f, (%r2, %r3);", "expected 1 arguments in the call of 'f', found 2"),
    ("call (%r1), g;", "expected 0 results in the call of 'g', found 1"),
    ("call g();", "expected ';', found '('"), ("call g,;", "expected the arguments of the call"),
    ("call g, (), 3;", "found '3'"), ("call (%r1) g;", "expected ',', found 'g'"),
    ("call (%r1), f, (%r2;", "expected ',' or ')', found ';'"),
    ("call (%r1), f, ([%rd1]);", "expected an operand, found '['"),
    ("call %rd1, (%r1);", "expected ',' and the prototype of an indirect call, found ';'"),
    ("call %rd1, (%r1), p;", "expected the name of a .callprototype that stands before"),
    ("p: .callprototype _; call %rd1, (%r1), p;", "expected 0 arguments in the call of '%rd1'"),
    ("p: .callprototype ;", "expected '_', found ';'"),
    ("p: .callprototype _ (.param .b32);", "expected the name of a parameter, found ')'"),
    ("p: .calltargets nosuch;", "expected a declared function, found 'nosuch'"),
    ("mov.u32 %r1, %r9;", "expected a declared register or variable, found '%r9'"),
    ("mov.u32 %r1, %r01;", "found '%r01'"), ("mov.u32 %r1, nosuch;", "found 'nosuch'"),
    ("mov.u32 %r1, q; .reg .b32 q;", "expected a declared register or variable, found 'q'"),
    ("{ .reg .b32 q; } mov.u32 %r1, q;", "expected a declared register or variable, found 'q'"),
    ("mov.u32 %r1, %tid;", "expected a declared register or variable, found '%tid'"),
    ("mov.u32 %r1, %tid.q;", "found '%tid.q'"), ("mov.u32 %r1, %laneid.x;", "found '%laneid.x'"),
    ("mov.u32 %r1, %envreg32;", "found '%envreg32'"), ("mov.u32 %r1, %r2.x;", "found '%r2.x'"),
    (".reg .v2 .b32 q; mov.u32 %r1, q.z;", "found 'q.z'"),
    ("L: mov.u64 %rd1, L;", "expected a register or variable, no label, found 'L'"),
    ("add.u32 %r1 %r2, %r3;", "expected ',' or ';', found '%r2'"),
    ("add.u32 %r1,, %r3;", "expected an operand, found ','"),
    ("add.u32 , %r3;", "expected an operand or ';', found ','"),
    ("add.u32 %r1, %r3,;", "expected an operand, found ';'"),
    ("add..u32 %r1;", "expected an operand, found '..u32'"),
    ("add.u32. %r1;", "expected an operand, found '.'"),
    ("mov.u32 %r1, \"abc\";", "expected an operand, found '\"abc\"'"),
    ("mov.u32 %r1, 0x;", "found '0x'"), ("mov.u32 %r1, 3 4;", "expected ',' or ';', found '4'"),
    ("mov.u32 %r1, 3);", "expected ',' or ';', found ')'"),
    ("mov.u32 %r1, (3;", "expected ')', found ';'"),
    ("ld.u32 %r1, [%rd1;", "expected '+', ',' or ']', found ';'"),
    ("ld.u32 %r1, %rd1];", "expected ',' or ';', found ']'"),
    ("ld.u32 %r1, [];", "expected an operand, found ']'"),
    ("ld.u32 %r1, [[%rd1]];", "expected an operand, found '['"),
    ("ld.u32 %r1, [%rd1-4];", "expected '+', ',' or ']', found '-'"),
    ("ld.u32 %r1, [%rd1+%rd2];", "expected a constant, found '%rd2'"),
    ("ld.u32 %r1, [%rd1+1.5];", "expected an integer after '+'"),
    ("ld.u32 %r1, [1.5];", "expected an address of one register, a variable or an integer"),
    (".reg .v2 .b32 q; ld.u32 %r1, [q];", "expected an address of one register"),
    ("ld.u32 %r1, [nosuch];", "expected a declared register or variable, found 'nosuch'"),
    ("ld.u32 %r1, [%rd1, ];", "expected an operand, found ']'"),
    ("ld.u32 %r1, [%rd1, {%r1];", "expected ',' or '}', found ']'"),
    ("mov.b64 {%r1, %r2, %rd1;", "expected ',' or '}', found ';'"),
    ("mov.b64 {}, %rd1;", "expected an operand, found '}'"),
    ("mov.b64 {%r1,}, %rd1;", "expected an operand, found '}'"),
    ("mov.b64 {%r1, {%r2}}, %rd1;", "expected an operand, found '{'"),
    ("mov.b64 {%r1, [%rd1]}, %rd1;", "expected an operand, found '['"),
    ("setp.eq.u32 %p1|3, %r1, %r2;", "expected a register or '_' after '|'"),
    ("setp.eq.u32 %p1|%p2|%p3, %r1, %r2;", "expected ',' or ';', found '|'"),
    ("setp.eq.u32 %p1, %r1, %r2, !v;", "expected a predicate after '!'"),
    ("{" * 300, "braces are nested more than 200 deep"),
    ("{ ret;", "expected a statement or '}', found '.end'"),
])
def test_bodies(body, words):
    ptx = text("ret;\n" + body, CALLED)
    if "found '.end'" in words:
        ptx += ".end"
    refused(ptx, 10 if "found '.end'" in words else 8, words)


def test_a_missing_semicolon_is_missed_where_the_next_instruction_begins():
    refused(text("add.u32 %r1, %r2, 3\n\nret;"), 9, "expected ',' or ';', found 'ret'")
    refused(text("ret"), 8, "expected an operand or ';', found '}'")


def test_every_prefix_of_a_kernel_is_refused():
    ptx = text("mov.u32 %r1, %tid.x;\n@%p1 bra $L;\n{ .reg .b32 t; mov.b64 {t, _}, %rd1; }\n"
               "st.global.v2.f32 [%rd1+8], {%f1, 0f3F800000};\n$L: ret;").rstrip()
    assert parse(ptx).functions["k"].body
    start = ptx.index(".visible")
    for end in range(start + 1, len(ptx)):
        with pytest.raises(PtxError, match=r"^PTX line \d+: "):
            parse(ptx[:end])


LONG = 100_000


@pytest.mark.parametrize("ptx", [
    " " * LONG, "." * LONG, "{" * LONG, HEADER + "(" * LONG, HEADER + '"' * LONG,
    HEADER + "/*" * LONG, HEADER + ".global .u32 x = " + "(" * LONG,
    HEADER + ".global .u32 x = " + "1+" * LONG, HEADER + ".global .u32 x = " + "1?" * LONG,
    HEADER + ".global .u32 x" + "[2]" * LONG, HEADER + ".global .u32 x[9] = " + "{" * LONG,
    HEADER + ".global .u32 x[9] = {" + "1," * LONG, HEADER + ".global .u32 x = " + "9" * LONG,
    HEADER + ".global .align " + "9" * LONG, HEADER + ".file " + "1" * LONG,
    HEADER + ".section .debug_x {" + ".b8 1\n" * LONG, HEADER + ".attribute" + "(" * LONG,
    text("{" * LONG), text("add" + ".u32" * LONG), text("a" * LONG),
    text("a:" * 2 + "a" * LONG + ":"), text("add.u32 " + "," * LONG + ";"),
    text("add.u32 " + "{," * LONG + ";"), text("add.u32 {" + "%r1," * LONG + ";"),
    text("add.u32 " + "%r1," * LONG + ";"), text("mov.u32 %r1, " + "-" * LONG + "1;"),
    text("mov.u32 %r1, " + "!" * LONG + "%p1;"), text("mov.u32 %r1, %r" + "9" * LONG + ";"),
    text("call (" + "%r1," * LONG + ";"), text("L: bra L;" * LONG), text("@" * LONG),
    text(".reg .b32 q<" + "9" * LONG + ">;"), text(".reg .b32 q<99999999999>; mov.u32 q1, q0"),
    text("ld.u32 %r1, [%rd1" + "+1" * LONG + ";"), text(".loc" + " 1" * LONG),
], ids=range(35))
def test_hostile_texts_are_refused_soon(ptx):
    start = time.process_time()
    with pytest.raises(PtxError) as caught:
        parse(ptx)
    assert time.process_time() - start < 5
    assert re.match(r"PTX line \d+: ", str(caught.value))
    assert len(str(caught.value)) < 400


def test_many_scopes_and_names_take_linear_time():
    def seconds(count: int) -> float:
        ptx = text("{ .reg .b32 t; .param .b32 q; L: mov.u32 t, %r1; bra L; }\n" * count)
        start = time.process_time()
        parse(ptx)
        return time.process_time() - start

    few = min(seconds(1000) for _ in range(3))
    assert seconds(10_000) < 40 * few
