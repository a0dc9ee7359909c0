"""cupy.random.Generator, whose own distributions are machine code, drawing from NumPy's.

The numbers are NumPy's for the seed, not the numbers of a GPU; each bit generator is a Philox.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.sim.cuda.libraries.operands import compute
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]


def replace(system: System, module: Any) -> None:
    """Give `cupy.random._generator_api` functions and a Generator that run on the host.

    Its other names stay: they are kernels that CuPy compiles.
    """
    def init_curand(generator: int, state: int, seed: int, size: int) -> None:
        """The state of a real generator is not used."""

    def random_raw(bit_generator: Any, out: Any) -> None:
        low, high = -(1 << 31), (1 << 31) - 1
        _draw(system, bit_generator, "random_raw", out,
              lambda rng: rng.integers(low, high, out.shape, np.int32, endpoint=True))

    module.init_curand, module.random_raw = init_curand, random_raw
    module.Generator = _generator(system, module.Generator)


def _draw(system: System, bit_generator: Any, name: str, out: Any,
          function: Callable[..., Any], *arguments: Any) -> None:
    """Fill an array with what a function draws, for arrays of arguments."""
    bit_generator._check_device()
    if not hasattr(bit_generator, "numpy_generator"):
        philox = np.random.Philox(bit_generator._seed_seq)
        bit_generator.numpy_generator = np.random.Generator(philox)
    rng = bit_generator.numpy_generator
    with system.lock:
        compute(system, f"cupy.random.Generator.{name}", lambda *given: (function(rng, *given),),
                arguments, [out])


def _generator(system: System, base: Any) -> Any:
    """The class; methods that CuPy makes of others are its own."""
    import cupy

    class Generator(base):  # type: ignore[misc]
        __doc__ = base.__doc__

        def _sample(self, name: str, size: Any, dtype: Any, function: Callable[..., Any],
                    *arguments: Any, kind: Any = np.float64) -> Any:
            """An array of the size that is given, or that the arguments (of a kind) have."""
            arrays = [self._argument(name, a).astype(kind, copy=False) for a in arguments]
            if size is None:
                shape = cupy.broadcast(*arrays).shape if arrays else ()
            else:
                shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
            out = cupy.empty(shape, dtype)
            _draw(system, self.bit_generator, name, out,
                  lambda rng, *given: function(rng, *given, shape),
                  *[cupy.broadcast_to(a, shape) for a in arrays])
            return out

        @staticmethod
        def _argument(name: str, value: Any) -> Any:
            if isinstance(value, cupy.ndarray):
                return value
            if isinstance(value, (int, float)):
                return cupy.asarray(value)
            raise TypeError(f"Generator.{name}: an argument is {type(value).__name__}; it is "
                            "required to be a cupy.ndarray or a scalar")

        def _size(self, size: Any, dtype: Any, out: Any, rows: bool = False) -> Any:
            """The size that results have; rows: an array for them goes by rows."""
            if out is None:
                return size
            self._check_output_array(dtype, size, out, rows)
            return out.shape

        @staticmethod
        def _into(result: Any, dtype: Any, out: Any) -> Any:
            if out is None:
                return result.astype(dtype, copy=False)
            out[...] = result
            return out

        def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
            kind = _float(dtype)
            result = self._sample("random", self._size(size, dtype, out), kind,
                                  lambda rng, s: rng.random(s, kind))
            return self._into(result, dtype, out)

        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None,
                    dtype: Any = np.float64) -> Any:
            low, high = cupy.asarray(low), cupy.asarray(high)
            if size is None:
                size = cupy.broadcast(low, high).shape
            return (low + (high - low) * self.random(size, _float(dtype))).astype(dtype,
                                                                                copy=False)

        def integers(self, low: int, high: int | None = None, size: Any = None,
                     dtype: Any = np.int64, endpoint: bool = False) -> Any:
            first, last = (0, int(low)) if high is None else (int(low), int(high))
            last -= not endpoint
            limits = np.iinfo(dtype)
            if first > last:
                raise ValueError("low >= high")
            if first < limits.min:
                raise ValueError(f"low is out of bounds for {np.dtype(dtype).name}")
            if last > limits.max:
                raise ValueError(f"high is out of bounds for {np.dtype(dtype).name}")
            return self._sample("integers", size, dtype, lambda rng, s: rng.integers(
                first, last, s, dtype, endpoint=True))

        def beta(self, a: Any, b: Any, size: Any = None, dtype: Any = np.float64) -> Any:
            result = self._sample("beta", size, np.float64,
                                  lambda rng, x, y, s: rng.beta(x, y, s), a, b)
            return result.astype(dtype, copy=False)

        def geometric(self, p: Any, size: Any = None) -> Any:
            return self._sample("geometric", size, np.int64,
                                lambda rng, x, s: rng.geometric(x, s), p)

        def hypergeometric(self, ngood: Any, nbad: Any, nsample: Any, size: Any = None) -> Any:
            for what, value in (("ngood", ngood), ("nbad", nbad), ("nsample", nsample)):
                if isinstance(value, (int, float)) and value < 0:
                    raise ValueError(f"{what} < 0")

            def draw(rng: Any, good: Array, bad: Array, count: Array, size: Any) -> Any:
                # As CuPy's kernel: who asks for more than there are gets all.
                return rng.hypergeometric(good, bad, np.clip(count, 0, good + bad), size)

            return self._sample("hypergeometric", size, np.int64, draw, ngood, nbad, nsample,
                                kind=np.int64)

        def logseries(self, p: Any, size: Any = None) -> Any:
            return self._sample("logseries", size, np.int64,
                                lambda rng, x, s: rng.logseries(x, s), p)

        def standard_exponential(self, size: Any = None, dtype: Any = np.float64,
                                 method: str = "inv", out: Any = None) -> Any:
            if method == "zig":
                raise NotImplementedError("Ziggurat method is not supported")
            result = self._sample("standard_exponential", self._size(size, dtype, out),
                                  np.float64, lambda rng, s: rng.standard_exponential(s))
            return self._into(result, dtype, out)

        def poisson(self, lam: Any = 1.0, size: Any = None) -> Any:
            return self._sample("poisson", size, np.int64, lambda rng, x, s: rng.poisson(x, s),
                                lam)

        def standard_normal(self, size: Any = None, dtype: Any = np.float64,
                            out: Any = None) -> Any:
            kind = _only_float("standard_normal", dtype)
            result = self._sample("standard_normal", self._size(size, dtype, out), kind,
                                  lambda rng, s: rng.standard_normal(s, kind))
            return self._into(result, dtype, out)

        def standard_gamma(self, shape: Any, size: Any = None, dtype: Any = np.float64,
                           out: Any = None) -> Any:
            _only_float("standard_gamma", dtype)
            result = self._sample("standard_gamma", self._size(size, dtype, out, True),
                                  np.float64, lambda rng, x, s: rng.standard_gamma(x, s), shape)
            return self._into(result, dtype, out)

        def gamma(self, shape: Any, scale: Any = 1.0, size: Any = None) -> Any:
            return self._sample("gamma", size, np.float64,
                                lambda rng, x, y, s: rng.gamma(x, y, s), shape, scale)

        def binomial(self, n: Any, p: Any, size: Any = None) -> Any:
            return self._sample("binomial", size, np.int64,
                                lambda rng, x, y, s: rng.binomial(x.astype(np.int64), y, s), n, p)

    Generator.__name__ = Generator.__qualname__ = "Generator"
    Generator.__module__ = base.__module__
    return Generator


def _only_float(name: str, dtype: Any) -> Any:
    if np.dtype(dtype).char not in "fd":
        raise TypeError(f"Unsupported dtype {np.dtype(dtype).name} for {name}")
    return np.dtype(dtype)


def _float(dtype: Any) -> Any:
    return np.float64 if np.dtype(dtype).char == "d" else np.float32
