"""Vector instructions for compiled loops, where LLVM would not find them in the loops alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from mlgpu.cpu.fast.streams import prefetch

__all__ = ["INDEX", "SIZE", "VECTOR", "WIDE", "Made", "Vectors", "address", "each", "whole"]


def _wide() -> bool:
    """Whether vectors have 512 bits, on the processor that Numba compiles for."""
    if config.CPU_FEATURES is not None:
        return "+avx512f" in config.CPU_FEATURES.split(",")
    return config.CPU_NAME is None and bool(binding.get_host_cpu_features().get("avx512f"))


WIDE = _wide()
VECTOR = 64 if WIDE else 32  # bytes

# Vectors: a line that is written comes from the second level one at a time, unless asked for.
_AHEAD = 2

SIZE, INDEX = ir.IntType(64), ir.IntType(32)


class Vectors:
    """Instructions on vectors of a dtype; at the ends of matrices some lanes are left out."""

    def __init__(self, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.item = dtype.bitwidth // 8
        self.lanes = VECTOR // self.item
        self.number = {4: ir.FloatType(), 8: ir.DoubleType()}[self.item]
        self.vector = ir.VectorType(self.number, self.lanes)
        self.mask = ir.VectorType(ir.IntType(1), self.lanes)
        self.name = f"v{self.lanes}f{8 * self.item}"
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def first(self, count: Any, skipped: int = 0) -> Any:
        """The lanes below `count` of those after the `skipped` ones."""
        numbers = ir.Constant(ir.VectorType(INDEX, self.lanes),
                              list(range(skipped, skipped + self.lanes)))
        few = self.builder.trunc(count, INDEX)  # counts of lanes: one mask, not two halves
        return self.builder.icmp_signed("<", numbers, self.spread(few, INDEX))

    def spread(self, value: Any, kind: Any) -> Any:
        """A vector of one value."""
        none = ir.Constant(ir.VectorType(kind, self.lanes), ir.Undefined)
        one = self.builder.insert_element(none, value, ir.Constant(INDEX, 0))
        return self._taken(one, none, [0] * self.lanes)

    def after(self, place: Any, elements: Any) -> Any:
        """The address so many elements (a number or an instruction's result) later."""
        return self.builder.gep(place, [elements if isinstance(elements, ir.Value)
                                        else whole(elements)])

    def at_most(self, number: int, last: Any) -> Any:
        """The smaller one: lines beyond the last are taken for it."""
        beyond = self.builder.icmp_signed("<", last, whole(number))
        return self.builder.select(beyond, last, whole(number))

    def address(self, value: Any) -> Any:
        """An integer as an address of elements."""
        return self.builder.inttoptr(value, self.number.as_pointer())

    def load(self, place: Any, mask: Any = None) -> Any:
        """A vector from memory; lanes that the mask leaves out are 0.

        Such lanes may lie where no memory is, but then take hundreds of cycles.
        """
        place = self.builder.bitcast(place, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(place, align=self.item)
        return self._call(f"llvm.masked.load.{self.name}.p0", self.vector, place,
                          ir.Constant(INDEX, self.item), mask, self.zero)

    def store(self, value: Any, place: Any, mask: Any = None) -> None:
        place = self.builder.bitcast(place, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, place, align=self.item)
            return
        self._call(f"llvm.masked.store.{self.name}.p0", ir.VoidType(), value, place,
                   ir.Constant(INDEX, self.item), mask)

    def either(self, all_of_them: Any, mask: Any) -> Iterator[Any]:
        """Once or twice, what to give as a mask: None for the case that all lanes take part.

        That is a case of its own where masked stores are slow: on AMD's Zen 2, as long as 20 plain
        ones.
        """
        if WIDE:
            yield mask
            return
        with self.builder.if_else(all_of_them) as (yes, no):
            with yes:
                yield None
            with no:
                yield mask

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def neg(self, a: Any) -> Any:
        return self.builder.fneg(a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once where the processor does that in an instruction."""
        return self._call(f"llvm.fmuladd.{self.name}", self.vector, a, b, c)

    def total(self, vector: Any) -> Any:
        """The sum of a vector's lanes: of its halves, and so on."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            low, high = list(range(lanes)), list(range(lanes, 2 * lanes))
            vector = self.builder.fadd(self._taken(vector, vector, low),
                                       self._taken(vector, vector, high))
        return self.builder.extract_element(vector, ir.Constant(INDEX, 0))

    def _call(self, name: str, result: Any, *given: Any) -> Any:
        kind = ir.FunctionType(result, [value.type for value in given])
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), given)

    def transposed(self, lines: list[Any]) -> list[Any]:
        """The columns of a square of vectors, by swaps in squares of 2, 4, 8, ... lanes."""
        for step in (1 << n for n in range(self.lanes.bit_length() - 1)):
            lines = list(lines)
            for i in range(self.lanes):
                if not i & step:
                    a, b = lines[i], lines[i + step]
                    places = [(j, j & step) for j in range(self.lanes)]
                    lines[i] = self._taken(a, b, [self.lanes + j - step if high else j
                                                  for j, high in places])
                    lines[i + step] = self._taken(a, b, [self.lanes + j if high else j + step
                                                         for j, high in places])
        return lines

    def _taken(self, a: Any, b: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(INDEX, len(lanes)), lanes))


def whole(value: int) -> Any:
    """A count, as an instruction takes it."""
    return ir.Constant(SIZE, value)


@intrinsic  # type: ignore[untyped-decorator]
def address(typing: Any, array: Any) -> Any:
    """Where an array's elements begin."""
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(array)(context, builder, given[0]).data
        return builder.ptrtoint(data, SIZE)

    return types.intp(array), code


Made = tuple[Sequence[Any], Sequence[Any]]  # vectors of rows, and of terms of sums
Formula = Callable[..., Made]


def each(formula: Formula, given: int, made: int, *, numbers: int = 0, sums: int = 0, read: int = 0,
         written: int = 0, near: bool = False) -> Any:
    """A loop over long rows: others made of some, and sums.

    It is called in compiled code with an array of the rows' dtype, the length, the addresses of
    rows and the numbers of the formula, and gives the sums; both as tuples, with one more number
    at the end, which is not used.  Rows are those given, those made, and those whose lines are
    asked for meanwhile, to be read and to be written soon.  No row may overlap one that is made,
    unless they are the same.  `near`: rows made are in the first cache already.

    The formula takes `Vectors`, then those of the rows and numbers given; it gives vectors of the
    rows made and of the terms of the sums.

    (Of a loop in Python, LLVM would first compare the places of all rows, for every short one anew,
    or give up; and what asks for lines would not become vector code.)
    """
    @intrinsic  # type: ignore[untyped-decorator]
    def loop(typing: Any, like: Any, length: Any, rows: Any, more: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            write = Vectors(builder, like.dtype)
            _, length, rows, more = operands
            places = [write.address(builder.extract_value(rows, i)) for i in range(count)]
            asked = places[given + made:]
            values = [write.spread(builder.extract_value(more, i), write.number)
                      for i in range(numbers)]
            # Two of each, that no sum waits for itself.
            totals = [[cgutils.alloca_once_value(builder, write.zero) for _ in range(sums)]
                      for _ in range(2)]

            def vector(at: Any, into: int, mask: Any = None) -> None:
                taken = [write.load(write.after(place, at), mask) for place in places[:given]]
                results, terms = formula(write, *taken, *values)
                for result, place in zip(results, places[given:given + made], strict=True):
                    write.store(result, write.after(place, at), mask)
                for term, total in zip(terms, totals[into], strict=True):
                    if mask is not None:
                        term = builder.select(mask, term, write.zero)
                    builder.store(builder.fadd(builder.load(total), term), total)

            def ask(at: Any) -> None:
                ahead = builder.add(at, whole(_AHEAD * write.lanes))
                for place in [] if near else places[given:given + made]:
                    prefetch(builder, write.after(place, ahead), level=3, to_write=True)
                for i, place in enumerate(asked):
                    prefetch(builder, write.after(place, at), level=3, to_write=i >= read)

            lanes = whole(write.lanes)
            both = builder.mul(lanes, whole(2))
            even = builder.sub(length, builder.srem(length, both))
            with cgutils.for_range_slice(builder, whole(0), even, both, inc=True) as (at, _):
                for half in range(2):
                    place = builder.add(at, whole(half * write.lanes))
                    ask(place)
                    vector(place, half)
            with cgutils.for_range_slice(builder, even, length, lanes, inc=True) as (at, _):
                vector(at, 0, write.first(builder.sub(length, at)))
            found = [write.total(builder.fadd(builder.load(one), builder.load(other)))
                     for one, other in zip(*totals, strict=True)]
            zero = ir.Constant(write.number, 0.0)
            return context.make_tuple(builder, signature.return_type, [*found, zero])

        count = given + made + read + written
        return (types.UniTuple(like.dtype, sums + 1))(
            like, types.intp, types.UniTuple(types.intp, count),
            types.UniTuple(like.dtype, numbers + 1)), code

    return loop
