"""cuRAND in NumPy, under the names of CuPy's binding to it: what cupy.random draws from.

The numbers are those of NumPy's Philox for the seed, not the numbers of a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mlgpu.sim.cuda.libraries.modules import Library, StatusError
from mlgpu.sim.cuda.libraries.operands import current_stream, submit
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], Array]

PSEUDO = {"DEFAULT": 100, "XORWOW": 101, "MRG32K3A": 121, "MTGP32": 141, "MT19937": 142,
          "PHILOX4_32_10": 161}
QUASI = {"DEFAULT": 200, "SOBOL32": 201, "SCRAMBLED_SOBOL32": 202, "SOBOL64": 203,
         "SCRAMBLED_SOBOL64": 204}
CONSTANTS = ({f"CURAND_RNG_PSEUDO_{name}": n for name, n in PSEUDO.items()}
             | {f"CURAND_RNG_QUASI_{name}": n for name, n in QUASI.items()}
             | {"CURAND_ORDERING_PSEUDO_BEST": 100, "CURAND_ORDERING_PSEUDO_DEFAULT": 101,
                "CURAND_ORDERING_PSEUDO_SEEDED": 102, "CURAND_ORDERING_QUASI_DEFAULT": 201})


class CURANDError(StatusError):
    """An error of cuRAND."""

    names: ClassVar = {100: "CURAND_STATUS_VERSION_MISMATCH", 101: "CURAND_STATUS_NOT_INITIALIZED",
             102: "CURAND_STATUS_ALLOCATION_FAILED", 103: "CURAND_STATUS_TYPE_ERROR",
             104: "CURAND_STATUS_OUT_OF_RANGE", 105: "CURAND_STATUS_LENGTH_NOT_MULTIPLE",
             106: "CURAND_STATUS_DOUBLE_PRECISION_REQUIRED", 201: "CURAND_STATUS_LAUNCH_FAILURE",
             202: "CURAND_STATUS_PREEXISTING_FAILURE",
             203: "CURAND_STATUS_INITIALIZATION_FAILED", 204: "CURAND_STATUS_ARCH_MISMATCH",
             999: "CURAND_STATUS_INTERNAL_ERROR"}
    failed = 202


class Curand(Library):
    """The functions of cuRAND."""

    error = CURANDError

    def __init__(self, system: System) -> None:
        super().__init__(system)
        # What a generator draws from is replaced, never reseeded: work that waits keeps the old.
        self._generators: dict[int, np.random.Generator] = {}
        self._seeds: dict[int, int] = {}
        self._numbers = itertools.count(0x4A2D_0000, 0x10)

    def createGenerator(self, rng_type: int) -> int:
        if rng_type not in PSEUDO.values():
            raise CURANDError(103, f"curandCreateGenerator: type {rng_type} is not simulated; use "
                                   "a pseudorandom generator (CURAND_RNG_PSEUDO_DEFAULT)")
        number = next(self._numbers)
        self.setPseudoRandomGeneratorSeed(number, 0)
        return number

    def destroyGenerator(self, generator: int) -> None:
        self._generator(generator)
        del self._generators[generator]

    def getVersion(self) -> int:
        return 10300

    def setStream(self, generator: int, stream: int) -> None:
        """CuPy's binding sets the current stream at each call."""
        self._generator(generator)

    def setPseudoRandomGeneratorSeed(self, generator: int, seed: int) -> None:
        self._seeds[generator] = seed
        self._generators[generator] = np.random.Generator(np.random.Philox(seed))

    def setGeneratorOffset(self, generator: int, offset: int) -> None:
        self._generator(generator)
        philox = np.random.Philox(self._seeds[generator])
        self._generators[generator] = np.random.Generator(philox.advance(offset))

    def setGeneratorOrdering(self, generator: int, order: int) -> None:
        self._generator(generator)

    def generate(self, generator: int, outputPtr: int, num: int) -> None:
        self._draw("curandGenerate", generator, outputPtr, num, np.uint32,
                   lambda rng, n: rng.integers(0, 1 << 32, n, np.uint32))

    def generateLongLong(self, generator: int, outputPtr: int, num: int) -> None:
        self._draw("curandGenerateLongLong", generator, outputPtr, num, np.uint64,
                   lambda rng, n: rng.integers(0, (1 << 64) - 1, n, np.uint64, endpoint=True))

    def generateUniform(self, generator: int, outputPtr: int, num: int) -> None:
        """Of (0, 1], as cuRAND's."""
        self._draw("curandGenerateUniform", generator, outputPtr, num, np.float32,
                   lambda rng, n: 1 - rng.random(n, np.float32))

    def generateUniformDouble(self, generator: int, outputPtr: int, num: int) -> None:
        self._draw("curandGenerateUniformDouble", generator, outputPtr, num, np.float64,
                   lambda rng, n: 1 - rng.random(n))

    def generateNormal(self, generator: int, outputPtr: int, n: int, mean: float,
                       stddev: float) -> None:
        self._normal("curandGenerateNormal", generator, outputPtr, n, mean, stddev, np.float32)

    def generateNormalDouble(self, generator: int, outputPtr: int, n: int, mean: float,
                             stddev: float) -> None:
        self._normal("curandGenerateNormalDouble", generator, outputPtr, n, mean, stddev,
                     np.float64)

    def generateLogNormal(self, generator: int, outputPtr: int, n: int, mean: float,
                          stddev: float) -> None:
        self._normal("curandGenerateLogNormal", generator, outputPtr, n, mean, stddev, np.float32,
                     np.exp)

    def generateLogNormalDouble(self, generator: int, outputPtr: int, n: int, mean: float,
                                stddev: float) -> None:
        self._normal("curandGenerateLogNormalDouble", generator, outputPtr, n, mean, stddev,
                     np.float64, np.exp)

    def generatePoisson(self, generator: int, outputPtr: int, n: int, lam: float) -> None:
        self._draw("curandGeneratePoisson", generator, outputPtr, n, np.uint32,
                   lambda rng, count: rng.poisson(lam, count))

    def check_status(self, status: int) -> None:
        if status:
            raise CURANDError(status)

    def _normal(self, call: str, generator: int, address: int, count: int, mean: float,
                deviation: float, dtype: Any, after: Callable[[Array], Array] | None = None
                ) -> None:
        if count % 2:  # as CuPy's binding refuses it
            raise ValueError(f"{call} can only generate even number of random variables "
                             "simultaneously")

        def draw(rng: np.random.Generator, n: int) -> Array:
            numbers = rng.standard_normal(n, dtype) * deviation + mean
            return numbers if after is None else after(numbers)
        self._draw(call, generator, address, count, dtype, draw)

    def _draw(self, call: str, generator: int, address: int, count: int, dtype: Any,
              draw: Draw) -> None:
        rng, stream = self._generator(generator), current_stream(self.system)
        if stream.capture is not None:  # as CuPy's binding refuses it
            raise NotImplementedError("calling cuRAND API during stream capture is currently "
                                      "unsupported")
        submit(self.system, stream, call, lambda o: o.array(
            "the output", address, dtype, (count,)).write(draw(rng, count)))

    def _generator(self, generator: int) -> np.random.Generator:
        if generator not in self._generators:
            raise CURANDError(101, f"{generator:#x} is no generator of cuRAND, or is destroyed")
        return self._generators[generator]
