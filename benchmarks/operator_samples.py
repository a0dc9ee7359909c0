"""PyTorch's own operator samples through mlgpu: `python benchmarks/operator_samples.py`.

The sample inputs that ship inside the torch package for its operator tests (needs torch and
expecttest) are given to PyTorch and to mlgpu, for every function that both have, in every dtype
that both have.  Compared are the values, the dtypes, the gradients (in float64) and that wrong
inputs raise an error of the same kind.  Prints the rates, and what differs; `--markdown FILE`
writes them.  Exits with 1 if the whole rate is below `--minimum`, or if something differs that
`KNOWN` does not explain.
"""

from __future__ import annotations

import argparse
import functools
import sys
import types
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

import mlgpu

KINDS = ("forward", "dtype", "gradient", "error")
DTYPES = ("float64", "float32", "float16", "bfloat16", "complex128", "complex64", "int64", "int32",
          "int16", "int8", "uint8", "bool")
# Relative and absolute: several roundings of the dtype, as PyTorch's own tests allow.
TOLERANCES = {"float64": (1e-7, 1e-8), "complex128": (1e-7, 1e-8), "float32": (1e-4, 1e-5),
              "complex64": (1e-4, 1e-5), "float16": (1e-2, 1e-3), "bfloat16": (3e-2, 1e-2)}

# Results that differ from call to call, or that nobody has written: shape and dtype are compared.
ANY_VALUE = {
    "bernoulli", "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty",
    "new_empty_strided", "multinomial", "normal", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "nn.functional.rrelu", "nn.functional.dropout", "nn.functional.dropout2d",
    "nn.functional.dropout3d", "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout",
    "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
    "resize_", "resize_as_", "cauchy", "exponential", "geometric", "log_normal", "uniform",
}

# Vectors that are unique but for a factor: what PyTorch's own tests make of them is compared.
UP_TO_A_FACTOR = {"linalg.eig", "linalg.eigh", "linalg.svd", "svd", "linalg.qr", "qr", "symeig",
                  "svd_lowrank", "pca_lowrank"}

# Among equal elements it is open which is named: the values are compared, not the positions.
TIES = {"topk", "kthvalue", "mode", "sort", "median", "nanmedian", "max", "min", "aminmax",
        "cummax", "cummin", "unique", "msort"}

# Functions of whole matrices, whose errors are small beside the largest element.
NORMWISE = {"matrix_exp", "linalg.matrix_power"}

# What differs, and why: by function, or function and kind.
_COMPLEX = "not defined for complex numbers"
KNOWN: dict[str, str] = {
    "__rdiv__ error": "a Python number is taken where PyTorch wants a tensor",
    **dict.fromkeys("logaddexp logcumsumexp sinc nn.functional.rms_norm".split(), _COMPLEX),
    **{f"{name} forward": "integers times a fraction: DTypeError; PyTorch cuts the fraction off"
       for name in "addmv baddbmm addbmm".split()},
    **dict.fromkeys(("polygamma", "special.polygamma"),
                    "at poles the limit, or NaN where the sides differ; PyTorch's series diverges"),
    **dict.fromkeys("trapezoid trapz cumulative_trapezoid".split(),
                    "small integers: computed in float32; PyTorch's wrap around"),
    "cholesky_solve gradient": "0 for the triangle that is not read; PyTorch mirrors the other",
    "__rpow__": "integers to negative integer powers: MlgpuError; PyTorch gives 0",
    "as_strided_scatter gradient":
        "to the input that of what stays of it; PyTorch's is that of what src overwrites",
    "narrow_copy error": "a dimension out of range: IndexError, as by narrow",
    "nn.functional.upsample_bilinear forward": "of bytes: DTypeError; convert, interpolate, round",
    "svd_lowrank": "other random numbers, which decide what of a rank above q is found",
    "angle forward": "of negative integers pi in the default dtype; PyTorch in less precision",
    "cov gradient": "of float32 weights in float64 here",
    "index_add": "of truth values: DTypeError; PyTorch ors them",
    "index_fill": "an index that repeats fills once, and counts once; PyTorch counts each",
    "logit": "of truth values: DTypeError",
    "matrix_exp": "what float16 cannot hold is inf; PyTorch's signs are lost",
    "nn.functional.batch_norm": "an input without channels: ShapeError",
    "nn.functional.embedding": "gradients are dense: sparse=True is refused",
    "nn.functional.embedding_bag": "gradients are dense: sparse=True is refused",
    "nn.functional.local_response_norm": "an empty tensor of integers becomes floating, as others",
    "nn.functional.interpolate": "of bytes: DTypeError; convert, interpolate, round",
    "nn.functional.multi_margin_loss": "two things are wrong, the other one is named",
    **dict.fromkeys(("ldexp forward", "masked.logsumexp"), _COMPLEX),
    "square": "of truth values: as `*`",
}


@dataclass
class Score:
    """What agreed and what did not, of one function."""

    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, agrees: bool, example: str) -> None:
        (self.passed if agrees else self.failed)[kind] += 1
        if not agrees:
            self.examples.setdefault(kind, example)


MARKDOWN = """# PyTorch's operator samples

Made by `python benchmarks/operator_samples.py --markdown docs/operator-samples.md`; edit that
script, not this page.

The inputs that ship inside the torch package for its own operator tests (torch {version}, up to
{limit} for each function and dtype) go to PyTorch and to mlgpu, for every function that both have.
Values, dtypes, gradients in float64, and the kinds of errors agree in

```text
{rates}
```

Values agree where they differ by no more than some roundings, or where mlgpu's are as near to the
result in double precision as PyTorch's. Of samples with `out=`, which no function of mlgpu takes,
none are counted.

## What differs, and why

| function | what | how often | why |
|---|---|--:|---|
{rows}

## What mlgpu does not have

Of PyTorch's table (aliases, internal and experimental functions included): {lacking}.
"""

# --- from one library to the other ----------------------------------------------------------------


def find(name: str) -> Any:
    """mlgpu's function of that name, or None."""
    for root in (mlgpu, mlgpu.Tensor):
        found: Any = root
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None


def input_mask(input: Any, *args: Any, mask: Any, **options: Any) -> Any:
    """A mask of the input's shape."""
    return mlgpu.broadcast_to(mask, input.shape)


def output_mask(op: Any, input: Any, *args: Any, dim: Any = None, keepdim: bool = False,
                mask: Any = None, **options: Any) -> Any:
    """Where a masked function has a result, which PyTorch's tests take from torch.masked."""
    if op.__name__.startswith(("softm", "log_softmax", "normalize", "cum")):
        return input_mask(input, mask=mask)
    args = args[op.__name__ == "norm":]
    if args:
        dim = args[0]
    return mlgpu.masked.sum(mlgpu.ones(input.shape), dim, keepdim=keepdim, mask=mask) > 0


def of_mlgpu(function: Any) -> Any:
    """A function of PyTorch's tests with `torch` meaning mlgpu: wrappers, lambdas, partials."""
    if isinstance(function, functools.partial):
        return functools.partial(of_mlgpu(function.func), *map(convert, function.args),
                                 **{k: convert(v) for k, v in function.keywords.items()})
    if not (isinstance(function, types.FunctionType)
            and function.__module__.startswith("torch.testing")):
        name = getattr(function, "__name__", None)
        return (find(name) if name else None) or function
    cells = tuple(types.CellType(of_mlgpu(c.cell_contents) if callable(c.cell_contents)
                                 else convert(c.cell_contents))
                  for c in function.__closure__ or ())
    known = {**function.__globals__, "torch": mlgpu, "F": mlgpu.nn.functional}
    made = types.FunctionType(function.__code__, known, function.__name__,
                              convert(function.__defaults__), cells)
    made.__kwdefaults__ = convert(function.__kwdefaults__)
    if function.__name__.startswith("gradcheck_wrapper_masked"):
        masked = types.SimpleNamespace(_output_mask=output_mask, _input_mask=input_mask)
        known["torch"] = types.SimpleNamespace(
            masked=masked, where=mlgpu.where, logical_and=mlgpu.logical_and)
    return made


class Lacking(Exception):
    """A value that mlgpu has no counterpart of."""


def convert(value: Any) -> Any:
    """A value of PyTorch as mlgpu's, on the same memory and strides."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized:
            raise Lacking(str(value.layout))
        array = to_numpy(value)
        return mlgpu.from_numpy(array).requires_grad_(value.requires_grad)
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        name = str(value).removeprefix("torch.")
        if not hasattr(mlgpu, name):
            raise Lacking(name)
        return getattr(mlgpu, name)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.nn.Module):
        raise Lacking(type(value).__name__)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, slice):
        return slice(convert(value.start), convert(value.stop), convert(value.step))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(convert, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(convert, value))
    if isinstance(value, dict):
        return {key: convert(item) for key, item in value.items()
                if item is not torch.strided}  # what all tensors are
    return value


def to_numpy(value: torch.Tensor) -> np.ndarray:
    value = value.detach().resolve_conj().resolve_neg()
    if value._is_zerotensor():  # zeros without memory
        value = value.clone()
    if value.dtype is torch.bfloat16:
        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        array = value.numpy()
    except (TypeError, ValueError):
        raise Lacking(str(value.dtype)) from None
    if not hasattr(mlgpu, str(value.dtype).removeprefix("torch.")):
        raise Lacking(str(value.dtype))
    return array


def cloned(value: Any) -> Any:
    """A copy for PyTorch to compute with: some functions overwrite what they are given."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(*map(cloned, value)) if hasattr(value, "_fields") else type(value)(
            map(cloned, value))
    if isinstance(value, dict):
        return {key: cloned(item) for key, item in value.items()}
    return value


def flat(value: Any, kind: type) -> list[Any]:
    """The tensors in a value, in order."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in flat(v, kind)]
    return []


# --- comparison -----------------------------------------------------------------------------------


def first_of(info: Any, result: Any) -> Any:
    """A result without the positions that are open."""
    positions = info.name in TIES and isinstance(result, tuple) and len(result) == 2
    return result[0] if positions and info.name != "aminmax" else result


def differs(expected: Any, found: Any, dtype: str, values: bool) -> str | None:
    """Where two results differ, or None."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, mlgpu.Tensor):
            return f"expected a tensor, got {type(found).__name__}"
        if tuple(expected.shape) != tuple(found.shape):
            return f"shape {tuple(expected.shape)}, got {tuple(found.shape)}"
        if not values:
            return None
        wanted = to_numpy(expected)
        got = np.asarray(found.detach().resolve_conj().numpy())
        wide = np.complex128 if "c" in (wanted.dtype.kind, got.dtype.kind) else (
            np.int64 if wanted.dtype.kind in "biu" and got.dtype.kind in "biu" else np.float64)
        rtol, atol = TOLERANCES.get(str(expected.dtype).removeprefix("torch."), (0, 0))
        with np.errstate(all="ignore"):
            wanted, got = wanted.astype(wide), got.astype(wide)
            same = np.isclose(got, wanted, rtol, atol, equal_nan=True)
        return None if same.all() else f"values differ by up to {_largest(got, wanted):.2g}"
    if isinstance(expected, (tuple, list)) and not isinstance(expected, torch.Size):
        if not isinstance(found, (tuple, list)) or len(expected) != len(found):
            return f"expected {len(expected)} results, got {found!r:.60}"
        for one, other in zip(expected, found, strict=True):
            problem = differs(one, other, dtype, values)
            if problem:
                return problem
        return None
    if isinstance(expected, torch.Size):
        return None if tuple(expected) == tuple(found) else f"{expected}, got {found}"
    if isinstance(expected, (bool, int, float, complex)) and values:
        close = isinstance(found, (bool, int, float, complex)) and np.isclose(
            found, expected, equal_nan=True)
        return None if close else f"{expected!r}, got {found!r:.60}"
    return None


def _largest(got: np.ndarray, wanted: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        gap = np.abs(got - wanted)
    finite = gap[np.isfinite(gap)]
    return float(finite.max()) if finite.size else float("nan")


def dtypes_differ(expected: Any, found: Any) -> str | None:
    for one, other in zip(flat(expected, torch.Tensor), flat(found, mlgpu.Tensor), strict=True):
        names = str(one.dtype).removeprefix("torch."), other.dtype.name
        if names[0] != names[1]:
            return f"{names[0]}, got {names[1]}"
    return None


# --- one function ---------------------------------------------------------------------------------


def samples(info: Any, dtype: str, limit: int, grad: bool) -> Iterator[Any]:
    torch.manual_seed(0)
    np.random.seed(0)
    made = info.sample_inputs("cpu", getattr(torch, dtype), requires_grad=grad)
    for number, sample in enumerate(made):
        if number >= limit:
            return
        yield sample


def ours(info: Any) -> Any:
    """mlgpu's function for an entry of PyTorch's table, or None."""
    plain: Any = torch
    for part in info.name.split("."):
        plain = getattr(plain, part, None)
    if info.name.endswith("_") and not info.name.startswith("_"):
        method = getattr(mlgpu.Tensor, info.name, None)
        return method and (lambda x, *args, **options: method(x.clone(), *args, **options))
    if info.op is plain or not isinstance(info.op, (types.FunctionType, functools.partial)):
        found = find(info.name) or find(getattr(info.op, "__name__", info.name))
        return found if callable(found) else getattr(mlgpu.Tensor, info.name, None)
    if find(info.name) is None and not hasattr(mlgpu.Tensor, info.name + "_"):
        return None
    return of_mlgpu(info.op)


def check_samples(info: Any, function: Any, dtype: str, limit: int, score: Score) -> None:
    grad = dtype == "float64" and info.supports_autograd
    for sample in samples(info, dtype, limit, grad):
        values = info.name not in ANY_VALUE and not dropped(info, sample)
        what = f"{dtype}: {sample.summary()}"[:300]
        args, kwargs = cloned(sample.args), cloned(sample.kwargs)
        first = cloned(sample.input)
        try:
            expected = info.op(first, *args, **kwargs)
            for result in flat(expected, torch.Tensor):
                to_numpy(result)
        except Lacking:  # such as complex numbers of halves
            continue
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            continue  # a sample that PyTorch itself refuses
        try:
            mine = convert(sample.input), convert(sample.args), convert(sample.kwargs)
        except Lacking:
            continue
        try:
            found = function(mine[0], *mine[1], **mine[2])
            if info.name in UP_TO_A_FACTOR:
                problem = differs(sample.output_process_fn_grad(expected),
                                  processed(sample, found), dtype, values)
            elif info.name == "argsort":
                problem = differs(*(torch.gather(sample.input, sample.kwargs.get("dim", -1), i)
                                    for i in (expected, torch.from_numpy(found.numpy()))),
                                  dtype, values)
            else:
                problem = differs(first_of(info, expected), first_of(info, found), dtype, values)
            if problem is not None and values and as_exact(info, sample, expected, found):
                problem = None
        except Exception as error:
            score.add("forward", False, f"{what}: {type(error).__name__}: {error}"[:500])
            continue
        score.add("forward", problem is None, f"{what}: {problem}")
        if problem is None:
            wrong = dtypes_differ(expected, found)
            score.add("dtype", wrong is None, f"{what}: {wrong}")
        if grad and problem is None and values:
            check_gradient(info, function, sample, (first, args, kwargs), expected, mine, found,
                           what, score)


def dropped(info: Any, sample: Any) -> bool:
    """Whether elements are dropped at random."""
    if info.name == "nn.functional.multi_head_attention_forward":
        return bool(sample.args[9]) and sample.kwargs.get("training", True)
    return bool(sample.kwargs.get("dropout_p") or sample.kwargs.get("dropout"))


def as_exact(info: Any, sample: Any, expected: Any, found: Any) -> bool:
    """Whether each element is as near to the result in double precision as PyTorch's."""
    up = {torch.float16: torch.float64, torch.bfloat16: torch.float64,
          torch.float32: torch.float64, torch.complex64: torch.complex128}

    def wide(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().to(up.get(value.dtype, value.dtype))
        if isinstance(value, torch.dtype):
            return up.get(value, value)
        if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
            return type(value)(map(wide, value))
        if isinstance(value, dict):
            return {key: wide(item) for key, item in value.items()}
        return value

    exact = info.op(wide(cloned(sample.input)), *wide(cloned(sample.args)),
                    **wide(cloned(sample.kwargs)))
    for true, theirs, mine in zip(flat(exact, torch.Tensor), flat(expected, torch.Tensor),
                                  flat(found, mlgpu.Tensor), strict=True):
        if theirs.dtype not in up:
            continue
        kind = np.complex128 if theirs.is_complex() else np.float64
        value, got = to_numpy(true), np.asarray(mine.detach().resolve_conj().numpy()).astype(kind)
        if value.shape != got.shape:
            return False
        theirs_off = np.abs(to_numpy(theirs).astype(kind) - value)
        step = torch.finfo(theirs.dtype).eps
        size = np.abs(value)
        if info.name in NORMWISE and size.size:
            size = 4 * size.max()
        near = np.abs(got - value) <= np.fmax(theirs_off, 2 * step * size) + 1e-12
        if not (near | (got == value) | (np.isnan(got) & np.isnan(value))).all():
            return False
    return True


def processed(sample: Any, found: Any) -> Any:
    """What PyTorch's tests make of a result before they differentiate it."""
    return of_mlgpu(sample.output_process_fn_grad)(found)


def check_gradient(info: Any, function: Any, sample: Any, given: Any, expected: Any, mine: Any,
                   found: Any, what: str, score: Score) -> None:
    if info.gradcheck_wrapper.__name__.startswith("gradcheck_wrapper"):  # such as a triangle's
        expected = info.gradcheck_wrapper(info.op, given[0], *given[1], **given[2])
        found = of_mlgpu(info.gradcheck_wrapper)(function, mine[0], *mine[1], **mine[2])
    expected = sample.output_process_fn_grad(expected)
    places = [i for i, t in enumerate(flat(expected, torch.Tensor))
              if t.requires_grad and t.numel()]
    if not places:
        return
    outs = [flat(expected, torch.Tensor)[i] for i in places]
    leaves = [t for t in flat(list(given), torch.Tensor) if t.requires_grad]
    rng = np.random.default_rng(0)
    seeds = [rng.standard_normal(t.shape) + (1j * rng.standard_normal(t.shape)
                                             if t.is_complex() else 0) for t in outs]
    wanted = torch.autograd.grad(outs, leaves, [torch.from_numpy(np.asarray(s)).to(t.dtype)
                                                for s, t in zip(seeds, outs, strict=True)],
                                 allow_unused=True)
    try:
        found = processed(sample, found)
        got_outs = [flat(found, mlgpu.Tensor)[i] for i in places]
        if not any(t.requires_grad for t in got_outs):  # constant here: zero there
            got_outs = [t + 0 * mlgpu.zeros(1, dtype=t.dtype, requires_grad=True).sum()
                        for t in got_outs]
        got_leaves = [t for t in flat(list(mine), mlgpu.Tensor) if t.requires_grad]
        got = mlgpu.autograd.grad(got_outs, got_leaves, [
            mlgpu.tensor(s, dtype=t.dtype) for s, t in zip(seeds, got_outs, strict=True)],
            allow_unused=True)
    except Exception as error:
        score.add("gradient", False, f"{what}: {type(error).__name__}: {error}"[:500])
        return
    for one, other in zip(wanted, got, strict=True):
        if one is None or other is None:  # an input that does not count, or counts zero
            known = one if other is None else other
            problem = None if known is None or not known.detach().numpy().any() else (
                f"a gradient is {'missing' if other is None else 'made up'}")
        else:
            problem = differs(one, other, "float64", True)
        score.add("gradient", problem is None, f"{what}: {problem}")


def check_errors(info: Any, function: Any, score: Score) -> None:
    if info.error_inputs_func is None:
        return
    for wrong in info.error_inputs("cpu"):
        sample = wrong.sample_input
        try:
            info.op(cloned(sample.input), *cloned(sample.args), **cloned(sample.kwargs))
            continue
        except Exception as error:
            expected = error
        try:
            mine = convert(sample.input), convert(sample.args), convert(sample.kwargs)
        except Lacking:
            continue
        if "out" in mine[2]:  # which no function of mlgpu takes
            continue
        what = f"{sample.summary()}"[:200] + f" ({type(expected).__name__}: {expected})"[:200]
        try:
            function(mine[0], *mine[1], **mine[2])
            score.add("error", False, f"{what}: no error")
        except Exception as error:
            score.add("error", isinstance(error, (type(expected), wrong.error_type)),
                      f"{what}: {type(error).__name__}: {error}"[:400])


# --- all of them ----------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> tuple[dict[str, Score], list[str]]:
    """Scores by function, and the functions that mlgpu does not have."""
    scores: dict[str, Score] = defaultdict(Score)
    lacking: set[str] = set()
    for info in op_db:
        if args.only and info.name not in args.only.split(","):
            continue
        function = ours(info)
        if function is None:
            lacking.add(info.name)
            continue
        score = scores[info.name]
        for dtype in args.dtypes.split(","):
            if getattr(torch, dtype) in info.supported_dtypes("cpu"):
                check_samples(info, function, dtype, args.limit, score)
        check_errors(info, function, score)
    return dict(scores), sorted(lacking)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="functions, separated by commas")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--limit", type=int, default=40, help="samples per function and dtype")
    parser.add_argument("--minimum", type=float, default=0.99)
    parser.add_argument("--markdown", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scores, lacking = run(args)
    report(scores, lacking, args)


def report(scores: dict[str, Score], lacking: list[str], args: argparse.Namespace) -> None:
    unexplained = False
    rows: list[str] = []
    for name, score in sorted(scores.items(), key=lambda item: -sum(item[1].failed.values())):
        for kind in KINDS:
            if score.failed[kind]:
                known = KNOWN.get(f"{name} {kind}") or KNOWN.get(name)
                unexplained |= known is None
                count = f"{score.failed[kind]} of {score.failed[kind] + score.passed[kind]}"
                print(f"{name} {kind}: {count}: {known or ''}\n    {score.examples[kind]}")
                rows.append(f"| `{name}` | {kind} | {count} | {known or '**unexplained**'} |")
    total = Counter[str]()
    wrong = Counter[str]()
    for score in scores.values():
        total += score.passed + score.failed
        wrong += score.failed
    rates = [f"{kind:9} {1 - wrong[kind] / total[kind]:8.3%} of {total[kind]}"
             for kind in KINDS if total[kind]]
    print("\n".join(rates))
    rate = 1 - sum(wrong.values()) / max(1, sum(total.values()))
    rates.append(f"all       {rate:8.3%} of {sum(total.values())} comparisons, "
                 f"{len(scores)} functions")
    print(f"{rates[-1]}; {len(lacking)} of PyTorch's table mlgpu has not: {' '.join(lacking)}")
    if args.markdown is not None:
        args.markdown.write_text(MARKDOWN.format(
            version=torch.__version__, limit=args.limit, rates="\n".join(rates),
            rows="\n".join(rows), lacking=", ".join(f"`{name}`" for name in lacking)),
            encoding="utf-8")
    sys.exit(rate < args.minimum or unexplained)


if __name__ == "__main__":
    main()
