"""A tile of a product of matrices, whose sums stay in registers: the heart of compiled products."""

from __future__ import annotations

from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mlgpu.cpu.fast.streams import LINE, prefetch
from mlgpu.cpu.fast.vectors import SIZE, VECTOR, WIDE, Vectors, whole

__all__ = ["ACROSS", "ROWS", "tile"]

# Sums, the columns that they meet and one element of a row fill the 32 or 16 registers.
ROWS, VECTORS = (14, 2) if WIDE else (6, 2)
ACROSS = VECTORS * VECTOR  # bytes of its columns
_AHEAD = 8  # places of the depth: columns in the second-level cache come in time if asked for


@intrinsic  # type: ignore[untyped-decorator]
def tile(typing: Any, like: Any, rows: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any,
         depth: Any, out: Any, stride: Any, columns: Any, start: Any, starts: Any, adds: Any
         ) -> Any:
    """out[i, j] = the sum over k of a[i, k] b[k, j], of 1 to ROWS rows and up to ACROSS's columns.

    Plus start[j], if it `starts`; plus out[i, j] before, if it `adds`.  Matrices are given by
    addresses: `a_row` elements lie between rows of a, `a_step` between its columns, `b_step`
    between rows of b and `stride` between those of out.  Each sum is taken in order, wherever its
    element lies.  `like` is an array of their dtype.  Rows of b are read as if they had all
    columns, and `start` is the address of some memory in any case.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        (_, rows, a, a_row, a_step, b, b_step, depth, out, stride, columns, start, starts, adds
         ) = given
        a, b, out, start = map(write.address, (a, b, out, start))
        lanes = range(0, ACROSS // write.item, write.lanes)
        # Of four rows, one address is kept: others are two or three strides from it.
        within = [whole(0), a_row, builder.mul(a_row, whole(2)), builder.mul(a_row, whole(3))]

        def summed(high: int) -> list[list[Any]]:
            firsts = [write.after(a, builder.mul(a_row, whole(row))) for row in range(0, high, 4)]
            before, loop = builder.block, builder.append_basic_block("depth")
            builder.branch(loop)
            builder.position_at_end(loop)
            count, column = builder.phi(SIZE), builder.phi(b.type)
            groups = [builder.phi(a.type) for _ in firsts]
            sums = [[builder.phi(write.vector) for _ in lanes] for _ in range(high)]
            values = [write.load(write.after(column, lane)) for lane in lanes]
            ahead = write.after(column, builder.mul(b_step, whole(_AHEAD)))
            for lane in range(0, ACROSS // write.item, LINE // write.item):
                prefetch(builder, write.after(ahead, lane), level=3)
            found = []
            for i, line in enumerate(sums):
                place = write.after(groups[i // 4], within[i % 4])
                one = write.spread(builder.load(place), write.number)
                found.append([write.fma(one, value, total)
                              for total, value in zip(line, values, strict=True)])
            done = builder.add(count, whole(1))
            for value, begin, then in (
                    (count, whole(0), done),
                    (column, b, write.after(column, b_step)),
                    *((group, first, write.after(group, a_step))
                      for group, first in zip(groups, firsts, strict=True)),
                    *zip(chain(*sums), begins * high, chain(*found), strict=True)):
                value.add_incoming(begin, before)
                value.add_incoming(then, loop)
            after = builder.append_basic_block("sums")
            builder.cbranch(builder.icmp_signed("<", done, depth), loop, after)
            builder.position_at_end(after)
            return found

        def stored(found: list[list[Any]], more: bool) -> None:
            for few in write.either(full, there):
                masks = few or [None] * VECTORS
                for i, line in enumerate(found):
                    row = write.after(out, builder.mul(stride, whole(i)))
                    for lane, mask, total in zip(lanes, masks, line, strict=True):
                        place = write.after(row, lane)
                        write.store(builder.fadd(write.load(place, mask), total) if more else total,
                                    place, mask)

        there = [write.first(columns, lane) for lane in lanes]
        none = ir.Constant(write.mask, [0] * write.lanes)
        begins = [write.load(write.after(start, lane), builder.select(starts, mask, none))
                  for lane, mask in zip(lanes, there, strict=True)]
        full = builder.icmp_signed("==", columns, whole(ACROSS // write.item))
        end = builder.append_basic_block("end")
        choice = builder.switch(rows, end)
        for high in range(1, ROWS + 1):
            case = builder.append_basic_block(f"rows{high}")
            choice.add_case(whole(high), case)
            builder.position_at_end(case)
            found = summed(high)
            with builder.if_else(adds) as (then, otherwise):
                with then:
                    stored(found, True)
                with otherwise:
                    stored(found, False)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    n, flag = types.intp, types.boolean
    return types.void(like, *[n] * 11, flag, flag), code
