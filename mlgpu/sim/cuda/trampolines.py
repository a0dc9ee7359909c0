"""C functions that call Python ones, compiled in memory.

CuPy's extension modules call each other through capsules: C function pointers with their signature
as the capsule's name.  A Python function can stand behind such a pointer if a small C function
calls it, converts the result, and leaves an exception set where it failed; ctypes cannot do the
last.  LLVM (llvmlite) compiles these functions at start, so that no compiler and no file is needed.
"""

from __future__ import annotations

import atexit
import ctypes
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mlgpu.extras import require

# C type -> LLVM type, and how Py_BuildValue (here: PyObject_CallFunction) takes it.
_ARGUMENTS = {"int": ("i32", "i"), "unsigned int": ("i32", "I"), "size_t": ("i64", "K"),
              "uintmax_t": ("i64", "K"), "intptr_t": ("i64", "L"), "CUdevice": ("i32", "i"),
              "cudaMemcpyKind": ("i32", "i"), "PyObject *": ("ptr", "O")}
_RESULTS = {"int": ("i32", "i64", "PyLong_AsLong"), "unsigned int": ("i32", "i64", "PyLong_AsLong"),
            "size_t": ("i64", "i64", "PyLong_AsUnsignedLongLong"),
            "uintmax_t": ("i64", "i64", "PyLong_AsUnsignedLongLong"),
            "intptr_t": ("i64", "i64", "PyLong_AsLongLong"),
            "float": ("float", "double", "PyFloat_AsDouble")}
_SKIP = "int __pyx_skip_dispatch"
_NAMES: list[Any] = []  # of capsules, which do not own them
_SIGNATURE = re.compile(r"(?P<result>.*?) ?\((?P<args>.*)\)")


class Trampoline(NamedTuple):
    """A C function to be made."""

    name: str
    signature: str  # as Cython spells it
    error: int  # what the function returns where it fails
    function: Callable[..., Any]


def compile(trampolines: list[Trampoline]) -> dict[str, int]:
    """The addresses of C functions with the given signatures, which call the Python ones.

    They live until the process ends.  Once the interpreter is shutting down they do nothing and
    return None or 0: what extension modules still free then needs no answer.
    Raises ExtraError where llvmlite is missing.
    """
    llvm = require("llvmlite.binding", "sim", "CuPy on the simulated GPU")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    text = [f'target triple = "{llvm.get_process_triple()}"',
            "declare ptr @PyObject_CallFunction(ptr, ptr, ...)", "declare void @Py_DecRef(ptr)",
            "declare void @Py_IncRef(ptr)", "@none = global ptr null",
            *(f"declare {kind} @{convert}(ptr)" for kind, convert in
              sorted({(k, c) for _, k, c in _RESULTS.values()}))]
    text += [_function(t) for t in trampolines]
    module = llvm.parse_assembly("\n".join(text))
    module.verify()
    # Not optimised, which takes thrice as long: they only call.
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    cells = {}
    for t in trampolines:
        cell = ctypes.c_void_p.from_address(engine.get_global_value_address(f"python_{t.name}"))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(t.function))  # for as long as the process lives
        cell.value = id(t.function)
        cells[t.name] = cell
    ctypes.c_void_p.from_address(engine.get_global_value_address("none")).value = id(None)
    addresses = {t.name: engine.get_function_address(t.name) for t in trampolines}
    engine.detach()  # never freed: CuPy's objects may call at the very end

    def disconnect() -> None:
        for cell in cells.values():
            cell.value = None

    atexit.register(disconnect)
    return addresses


def _function(t: Trampoline) -> str:
    match = _SIGNATURE.fullmatch(t.signature)
    assert match, t.signature
    kinds, passed, formats = [], [], ""
    for number, kind in enumerate(k for k in match["args"].split(", ") if k not in ("", "void")):
        llvm, code = _ARGUMENTS["int"] if kind == _SKIP else _argument(kind)
        kinds.append(f"{llvm} %a{number}")
        if kind != _SKIP:
            passed.append(f", {llvm} %a{number}")
            formats += code
    # A single object would be taken for the tuple of all arguments.
    formats = f"({formats})"
    result = match["result"]
    if result.endswith("*"):
        returned, convert = "ptr", "  ret ptr %result"
        failed, nothing = "ptr null", """
  %none = load ptr, ptr @none
  call void @Py_IncRef(ptr %none)
  ret ptr %none"""
    else:
        returned, between, function = _RESULTS[result]
        narrow = {"i32": "trunc i64 %value to i32", "float": "fptrunc double %value to float"}.get(
            returned)
        lines = [f"  %value = call {between} @{function}(ptr %result)",
                 "  call void @Py_DecRef(ptr %result)",
                 *([f"  %narrow = {narrow}"] if narrow else []),
                 f"  ret {returned} {'%narrow' if narrow else '%value'}"]
        convert = "\n".join(lines)
        point = ".0" if returned == "float" else ""
        failed = f"{returned} {t.error}{point}"
        nothing = f"\n  ret {returned} 0{point}"
    return f"""
@python_{t.name} = global ptr null
@format_{t.name} = private constant [{len(formats) + 1} x i8] c"{formats}\\00"
define {returned} @{t.name}({", ".join(kinds)}) {{
  %function = load ptr, ptr @python_{t.name}
  %gone = icmp eq ptr %function, null
  br i1 %gone, label %nothing, label %ask
ask:
  %result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %function, ptr @format_{t.name}{
    "".join(passed)})
  %bad = icmp eq ptr %result, null
  br i1 %bad, label %failed, label %good
failed:
  ret {failed}
good:
{convert}
nothing:{nothing}
}}"""


def _argument(kind: str) -> tuple[str, str]:
    """Of a C type; a struct of optional arguments is passed as its address."""
    if kind.startswith("struct __pyx_opt_args"):
        return "ptr", "L"
    if kind.startswith("struct __pyx_obj"):
        return "ptr", "O"
    return _ARGUMENTS[kind]


def capsule(address: int, signature: bytes) -> object:
    """A capsule of a C function, named as Cython names it."""
    keep = ctypes.create_string_buffer(signature)  # the capsule refers to it
    _NAMES.append(keep)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p,
                                                   ctypes.c_void_p)
    result: object = new(address, ctypes.cast(keep, ctypes.c_char_p), None)
    return result


def signature_of(found: object) -> str:
    """The name of a capsule."""
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    text: bytes = name(found)
    return text.decode()
