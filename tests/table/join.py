"""More rows for mlgpu/ops/join.py, and expansion: mixed dtypes, odd shapes, every spelling."""

from __future__ import annotations

import itertools

import numpy as np
from table.case import ALL, FLOATS, In, both

A = In((2, 3, 5))
M = In((3, 5))
V = In((5,))
S = In(())
MIXED = ("float64", "float32", "bfloat16", "int64", "int16", "uint8", "bool", "complex64")


def row(name, call, reference, inputs=(A,), dtypes=ALL, **options):
    return both(name, call, reference, inputs, dtypes=dtypes, **options)


def as_bool_or_more(*arrays):
    """Concatenation by NumPy, whose promotion gives the same values."""
    return np.concatenate(arrays)


def cats():
    for dim in (0, 1, 2, -1, -3):
        yield row(f"cat-{dim}", lambda lib, x, y, z, d=dim: lib.cat([x, y, z], dim=d),
                  lambda x, y, z, d=dim: np.concatenate((x, y, z), d), (A, A, A))
    yield row("concat", lambda lib, x, y: lib.concat((x, y), -1),
              lambda x, y: np.concatenate((x, y), -1), (M, In((3, 1))))
    yield row("concatenate", lambda lib, x, y: lib.concatenate((x, y), 0),
              lambda x, y: np.concatenate((x, y), 0), (M, In((1, 5))))
    yield row("cat-same", lambda lib, x: lib.cat((x, x)), lambda x: np.concatenate((x, x)), (V,))
    yield row("cat-views", lambda lib, x: lib.cat((x[:, :1], x.mT.flip(0)[:3, :1] * 2, x), 1),
              lambda x: np.concatenate((x[:, :1], x.T[::-1][:3, :1] * 2, x), 1), (In((3, 5)),),
              dtypes=FLOATS)
    # An empty vector joins anything, as in PyTorch's early days.
    yield row("cat-legacy", lambda lib, x, e: lib.cat((e, x, e), 1), lambda x, e: x,
              (M, In((0,))))
    yield row("cat-legacy-only", lambda lib, e: lib.cat((e, e)), lambda e: e, (In((0,)),))
    yield row("cat-no-rows", lambda lib, x, y: lib.cat((x, y), 0), lambda x, y: y,
              (In((0, 5)), M))
    yield row("cat-nothing", lambda lib, x, y: lib.cat((x, y), 0), lambda x, y: np.zeros((5, 0)),
              (In((2, 0)), In((3, 0))))
    for dtype in ("float32", "float16", "int64", "uint8", "bool", "complex64"):
        yield row(f"cat-{dtype}", lambda lib, x, y: lib.cat((x, y)), as_bool_or_more,
                  (V, In((3,), 0, 3, dtype=dtype)), dtypes=MIXED, gradient=(0,))


def stacks():
    for dim in (0, 1, 3, -1, -4):
        yield row(f"stack-{dim}", lambda lib, x, y, d=dim: lib.stack((x, y), d),
                  lambda x, y, d=dim: np.stack((x, y), d), (A, A))
    yield row("stack-scalars", lambda lib, x, y: lib.stack([x, y]), lambda x, y: np.stack((x, y)),
              (S, S))
    yield row("stack-nothing", lambda lib, x, y: lib.stack([x, y], 1),
              lambda x, y: np.zeros((0, 2)), (In((0,)), In((0,))))
    yield row("stack-mixed", lambda lib, x, y: lib.stack((x, y)), lambda x, y: np.stack((x, y)),
              (V, In((5,), dtype="float32")), dtypes=MIXED, gradient=(0,))
    for name in ("hstack", "vstack", "row_stack", "dstack", "column_stack"):
        reference = np.vstack if name == "row_stack" else getattr(np, name)
        for shapes in (((), (), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3, 5), (2, 3, 5)),
                       ((0,), (0,))):
            yield row(f"{name}-{shapes}".replace(" ", ""),
                      lambda lib, *xs, n=name: getattr(lib, n)(xs),
                      lambda *xs, f=reference: f(xs), tuple(In(s) for s in shapes),
                      dtypes=("float64", "int32", "bool", "complex128"))
        yield row(f"{name}-mixed", lambda lib, x, y, n=name: getattr(lib, n)((x, y)),
                  lambda x, y, f=reference: f((x, y)),
                  (In((3,)), In((3,), 0, 3, dtype="int32")), dtypes=MIXED)


def grids():
    three = (V, In((3,)), S)
    for indexing in ("ij", "xy"):
        for count in (1, 2, 3):
            yield row(f"meshgrid-{indexing}-{count}",
                      lambda lib, *xs, i=indexing: lib.meshgrid(*xs, indexing=i),
                      lambda *xs, i=indexing: tuple(np.meshgrid(*xs, indexing=i)), three[:count])
        yield row(f"meshgrid-{indexing}-list",
                  lambda lib, *xs, i=indexing: lib.meshgrid(list(xs), indexing=i),
                  lambda *xs, i=indexing: tuple(np.meshgrid(*xs, indexing=i)), three)
        yield row(f"meshgrid-{indexing}-empty",
                  lambda lib, *xs, i=indexing: lib.meshgrid(*xs, indexing=i),
                  lambda *xs, i=indexing: tuple(np.meshgrid(*xs, indexing=i)), (V, In((0,))))
    yield row("cartesian_prod-one", lambda lib, x: lib.cartesian_prod(x), lambda x: x, (V,))
    yield row("cartesian_prod-three", lambda lib, *xs: lib.cartesian_prod(*xs),
              lambda *xs: np.array(list(itertools.product(*xs))), (In((2,)), In((3,)), In((2,))))
    for r, again in itertools.product((1, 2, 3, 6), (False, True)):
        def pick(x, r=r, again=again):
            choose = itertools.combinations_with_replacement if again else itertools.combinations
            return np.array(list(choose(x, r))).reshape(-1, r)

        yield row(f"combinations-{r}-{again}",
                  lambda lib, x, r=r, again=again: lib.combinations(x, r, again), pick, (V,))
    yield row("combinations-empty", lambda lib, x: lib.combinations(x),
              lambda x: np.zeros((0, 2)), (In((0,)),))


def blocks():
    def reference(*parts):
        parts = [np.atleast_2d(p) for p in parts]
        out = np.zeros(np.sum([p.shape for p in parts], 0), np.result_type(*parts))
        row = column = 0
        for p in parts:
            out[row:row + p.shape[0], column:column + p.shape[1]] = p
            row, column = row + p.shape[0], column + p.shape[1]
        return out

    for shapes in (((2, 3),), ((2, 3), (1, 2)), ((), (3,), (2, 2)), ((0, 2), (2, 1)), ((2, 0),)):
        yield row(f"block_diag-{shapes}".replace(" ", ""), lambda lib, *xs: lib.block_diag(*xs),
                  reference, tuple(In(s) for s in shapes))
    yield row("block_diag-mixed", lambda lib, x, y: lib.block_diag(x, y), reference,
              (M, In((2,), 0, 3, dtype="int64")), dtypes=MIXED)
    for n in (1, 2, 3):
        name = f"atleast_{n}d"
        for shape in ((), (3,), (2, 3), (2, 3, 5), (0,)):
            yield row(f"{name}-{shape}".replace(" ", ""), lambda lib, x, n=name: getattr(lib, n)(x),
                      lambda x, n=name: getattr(np, n)(x), (In(shape),), dtypes=ALL)
        yield row(f"{name}-several", lambda lib, x, y, n=name: getattr(lib, n)(x, y),
                  lambda x, y, n=name: tuple(getattr(np, n)(x, y)), (S, V))
        yield row(f"{name}-list", lambda lib, x, y, n=name: getattr(lib, n)([x, y]),
                  lambda x, y, n=name: tuple(getattr(np, n)(x, y)), (S, V))


def expansions():
    for shape, size in (((3, 1), (3, 5)), ((3, 1), (2, 3, 5)), ((1,), (4, 3)), ((), (2, 3)),
                        ((3, 1), (3, 0)), ((0,), (2, 0)), ((3, 5), (3, 5))):
        spec = (In(shape),)
        label = f"{shape}-{size}".replace(" ", "")
        yield row(f"expand-{label}", lambda lib, x, n=size: x.expand(n),
                  lambda x, n=size: np.broadcast_to(x, n), spec)
        yield row(f"broadcast_to-{label}", lambda lib, x, n=size: lib.broadcast_to(x, n),
                  lambda x, n=size: np.broadcast_to(x, n), spec)
        yield row(f"expand_as-{label}", lambda lib, x, y: x.expand_as(y),
                  lambda x, y: np.broadcast_to(x, y.shape), (*spec, In(size)))
    yield row("expand-kept", lambda lib, x: x.expand(-1, 4, -1), lambda x: x.repeat(4, 1),
              (In((3, 1, 2)),))
    yield row("broadcast_tensors-three", lambda lib, *xs: lib.broadcast_tensors(*xs),
              lambda *xs: tuple(np.broadcast_arrays(*xs)), (In((3, 1)), V, S))
    yield row("broadcast_tensors-one", lambda lib, x: lib.broadcast_tensors(x), lambda x: (x,),
              (V,))


CASES = [*cats(), *stacks(), *grids(), *blocks(), *expansions()]
