"""The emitted kernels on a real GPU: every primitive and its gradients, equal to the CPU's results.

Needs a CUDA device, its driver and CuPy; elsewhere the whole file is skipped, and says why.
"""

from __future__ import annotations

import numpy as np
import pytest
from nvrtc import compile_ptx
from test_expr_cuda import ALL, GROUPS, programs, together

from mlgpu import dtypes
from mlgpu.cpu.evaluate import evaluate
from mlgpu.cuda.evaluate import _Layout
from mlgpu.expr import cuda
from mlgpu.sim.cuda.install import real_devices

# Without CuPy: tests/runtime may yet put simulated devices under it, which are too slow for this.
if not real_devices():
    pytest.skip("running emitted kernels needs a CUDA device", allow_module_level=True)
cupy = pytest.importorskip("cupy", reason="running emitted kernels needs CuPy")

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.5, 1e-3, 30.0, -30.0, np.inf, -np.inf, np.nan]
# CUDA's own bounds for its double and single functions are up to 8 units in the last place
# (lgamma, digamma and powers near their zeros are worse, absolutely small).
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2,
             "complex64": 1e-4, "complex128": 1e-10}


def values(dtype, count, seed):
    """Ordinary values, and the special ones where the dtype has them."""
    rng = np.random.default_rng(seed)
    if dtype is dtypes.bool_:
        return rng.random(count) < 0.5
    if dtype.kind == "int":
        low = 0 if dtype is dtypes.uint8 else -7
        drawn = rng.integers(low, 8, count)
        drawn[drawn == 0] = 3  # division of integers by zero is an error on one side only
        return drawn.astype(dtype.numpy)
    drawn = rng.uniform(-3, 3, count)
    if dtype.is_complex:
        return (drawn + 1j * rng.uniform(-3, 3, count)).astype(dtype.numpy)
    drawn[: 2 * len(SPECIAL)] = rng.permutation(SPECIAL * 2)
    return drawn.astype(dtype.numpy)


def device(array):
    """The bytes of an array on the GPU: what a kernel sees of a bfloat16 is two of them."""
    return cupy.asarray(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def launch(module, source, name, program, arguments, count, *extra):
    """The outputs of one kernel as NumPy arrays."""
    outs = [cupy.zeros(count * d.itemsize, np.uint8) for d in program.output_dtypes]
    reads = [device(arguments[i]) for i in cuda.read_arguments(program)]
    blocks = -(-count // (cuda.THREADS * source.elements))
    module.get_function(name)((blocks,), (cuda.THREADS,),
                              (*outs, *reads, np.int64(count), *extra))
    return [o.get().view(d.numpy) for o, d in zip(outs, program.output_dtypes, strict=True)]


def difference(found, expected, dtype, what):
    """What is wrong with a result, in a line; nothing where it is right."""
    wide = np.complex128 if dtype.is_complex else np.float64
    if not (dtype.is_floating_point or dtype.is_complex):
        wrong = np.flatnonzero(found != expected)
    else:
        bound = TOLERANCE[dtype.name]
        wrong = np.flatnonzero(~np.isclose(found.astype(wide), expected.astype(wide), bound, bound,
                                           equal_nan=True))
    return [(f"{what}: {len(wrong)} of {found.size}, the first {found.flat[wrong[0]]} instead of "
            f"{expected.flat[wrong[0]]}")] if len(wrong) else []


def modes(program):
    """Every operand with a stride of its own along the innermost dimension."""
    return (cuda.APART,) * (len(program.outputs) + len(cuda.read_arguments(program)))


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_every_primitive_computes_what_the_cpu_does(group, tmp_path):
    found = [p for name in GROUPS[group] for p in programs(name, ALL)]
    pairs = [(cuda.contiguous(p), cuda.strided(p, 2, modes(p), 1, False)) for p in found]
    sources = [s for pair in pairs for s in pair]
    text, names = together(sources)
    path = tmp_path / "kernels.ptx"
    path.write_text(compile_ptx(text, f"compute_{cupy.cuda.Device().compute_capability}"))
    module = cupy.RawModule(path=str(path))
    wrong = []
    for number, (program, (flat, strided)) in enumerate(zip(found, pairs, strict=True)):
        count = 1003  # neither a multiple of a vector nor of a block
        arguments = [values(d, count, k) for k, d in enumerate(program.dtypes[:program.arguments])]
        if program.name == "pow" and arguments[1].dtype.kind == "i":
            arguments[1] = np.abs(arguments[1])  # negative powers of integers are refused
        if program.name == "hurwitz":  # what is computed for others is not kept
            arguments = [np.abs(x) + x.dtype.type(k == 0) for k, x in enumerate(arguments)]
        expected = [np.empty(count, d.numpy) for d in program.output_dtypes]
        with np.errstate(all="ignore"):
            evaluate(program, arguments, expected)
        got = launch(module, flat, names[2 * number], program, arguments, count)
        for y, z, d in zip(got, expected, program.output_dtypes, strict=True):
            wrong += difference(y, z, d, f"{program.name} of {arguments[0].dtype}, contiguous")
        # The same as 17 x 59 from operands that lie transposed, the first broadcast along rows.
        shape, used = (17, 59), cuda.read_arguments(program)
        cut = [a.reshape(59, 17).T for a in arguments]
        strides = [[59, 1]] * len(program.outputs) + [[1, 17]] * len(used)
        if used and len(used) > 1:
            cut[used[0]] = np.broadcast_to(cut[used[0]][:1], shape)
            strides[len(program.outputs)] = [0, 17]
        expected = [np.empty(shape, d.numpy) for d in program.output_dtypes]
        with np.errstate(all="ignore"):
            evaluate(program, cut, expected)
        got = launch(module, strided, names[2 * number + 1], program, arguments, count,
                     _Layout(None, list(shape), strides, (4,) * len(strides)).struct(1))
        for y, z, d in zip(got, expected, program.output_dtypes, strict=True):
            wrong += difference(y.reshape(shape), z, d,
                                f"{program.name} of {arguments[0].dtype}, strided")
    assert not wrong, "\n".join(wrong)
