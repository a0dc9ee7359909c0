"""Sums of products named by subscripts: einsum and tensordot.

An einsum becomes diagonals, sums, permutations and one matrix product (or, where nothing is
summed, one multiplication) per pair of operands, so its derivatives are theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from types import EllipsisType

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.matmul import MatMul, check_same_dtype
from mlgpu.tensor import Tensor

__all__ = ["einsum", "tensordot"]

# A subscript: a letter, or the position (from the left) of a dimension that an ellipsis covers.
Label = str | int
Sublist = Sequence[int | EllipsisType]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def einsum(equation: str | Tensor, *operands: Tensor | Sequence[Tensor] | Sublist) -> Tensor:
    """The sum of products that `equation` names, e.g. einsum("bij,bjk->bik", a, b).

    Letters name dimensions; "..." stands for those not named, which broadcast; a letter repeated
    within an operand takes its diagonal; dimensions of length 1 broadcast.  What does not appear in
    the output is summed; without "->" the output holds "..." and then, sorted, the letters that
    occur once.  Also einsum(a, [0, 1], b, [1, 2], [0, 2]).  More than two operands are multiplied
    pairwise, the cheapest pair first.  Raises ShapeError, with the pattern and the shapes.
    """
    pattern, tensors = _arguments(equation, operands)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"einsum: expected tensors as operands, got {type(tensor).__name__}")
    inputs, output = _parse(pattern, tensors)
    terms = [_diagonals(pattern, tensor, labels)
             for tensor, labels in zip(tensors, inputs, strict=True)]
    sizes = _sizes(pattern, tensors, terms)
    _check_output(pattern, tensors, output, sizes)
    while len(terms) > 1:
        i, j = _cheapest_pair([labels for _, labels in terms], sizes)
        second, first = terms.pop(j), terms.pop(i)
        wanted = set(output).union(*(labels for _, labels in terms))
        terms.append(_multiply(*first, *second, wanted))
    result, labels = _sum_out(*terms[0], set(output))
    missing = [label for label in output if label not in labels]
    for _ in missing:  # an ellipsis in the output that covers nothing here
        result = result.unsqueeze(0)
    labels = missing + labels
    order = [labels.index(label) for label in output]
    return result if order == list(range(len(order))) else result.permute(order)


def _arguments(equation: str | Tensor,
               operands: tuple[Tensor | Sequence[Tensor] | Sublist, ...],
               ) -> tuple[str, list[Tensor]]:
    """The pattern as text and the operands, from either calling convention."""
    if isinstance(equation, str):
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        if not operands:
            raise ShapeError("einsum: needs an equation and at least one operand, or at least one "
                             "operand and its subscript list, got only the equation")
        return equation, list(operands)  # type: ignore[arg-type]
    arguments = [equation, *operands]
    if len(arguments) < 2:
        raise ShapeError("einsum: needs at least one operand and its subscript list")
    pattern = ",".join(_letters(arguments[k]) for k in range(1, len(arguments), 2))
    tensors = arguments[0:len(arguments) // 2 * 2:2]
    if len(arguments) % 2:
        pattern += "->" + _letters(arguments[-1])
    return pattern, tensors  # type: ignore[return-value]


def _letters(sublist: object) -> str:
    letters = ""
    for item in sublist:  # type: ignore[attr-defined]
        if item is Ellipsis:
            letters += "..."
        elif 0 <= item < len(_LETTERS):
            letters += _LETTERS[item]
        else:
            raise ShapeError(f"einsum: subscripts in a list must lie in [0, {len(_LETTERS)}), "
                             f"got {item} in {sublist}")
    return letters


def _fail(pattern: str, tensors: Iterable[Tensor], rule: str) -> ShapeError:
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
    return ShapeError(f"einsum: {rule}, got {pattern!r} with shapes {shapes}")


def _parse(pattern: str, tensors: list[Tensor]) -> tuple[list[list[Label]], list[Label]]:
    """The labels of each operand's dimensions and of the output's."""
    left, arrow, right = pattern.replace(" ", "").partition("->")
    subscripts = left.split(",")
    if len(subscripts) != len(tensors):
        raise _fail(pattern, tensors, f"the equation names {len(subscripts)} operands, "
                                      f"{len(tensors)} were given")
    for part in (*subscripts, right):
        stray = set(part.replace("...", "", 1)) - set(_LETTERS)
        if stray:
            raise _fail(pattern, tensors, "subscripts are letters and at most one '...' per "
                                          f"operand, {min(stray)!r} is neither")
    covered = []
    for number, (part, tensor) in enumerate(zip(subscripts, tensors, strict=True)):
        named = len(part.replace("...", ""))
        covered.append(tensor.ndim - named)
        if covered[-1] < 0 or (covered[-1] > 0 and "..." not in part):
            raise _fail(pattern, tensors, f"operand {number} has {tensor.ndim} dimensions, but "
                                          f"the equation names {named}")
    width = max(n for n in covered)
    inputs = [_labels(part, range(width - n, width))
              for part, n in zip(subscripts, covered, strict=True)]
    if arrow:
        return inputs, _labels(right, range(width))
    counts = Counter("".join(subscripts))
    once = sorted(letter for letter, n in counts.items() if n == 1 and letter != ".")
    return inputs, [*range(width), *once]


def _labels(part: str, covered: Iterable[int]) -> list[Label]:
    before, ellipsis, after = part.partition("...")
    return [*before, *(covered if ellipsis else ()), *after]


def _diagonals(pattern: str, tensor: Tensor,
               labels: list[Label]) -> tuple[Tensor, list[Label]]:
    """The operand with each label once: repeated ones become diagonals."""
    labels = list(labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if tensor.shape[first] != tensor.shape[second]:
                raise _fail(pattern, [tensor], f"the lengths of the repeated subscript {label!r} "
                                               f"must agree, {tensor.shape[first]} and "
                                               f"{tensor.shape[second]} do not")
            tensor = tensor.diagonal(0, first, second)
            del labels[second], labels[first]
            labels.append(label)
    return tensor, labels


def _sizes(pattern: str, tensors: list[Tensor],
           terms: list[tuple[Tensor, list[Label]]]) -> dict[Label, int]:
    sizes: dict[Label, int] = {}
    for tensor, labels in terms:
        for label, length in zip(labels, tensor.shape, strict=True):
            known = sizes.get(label, 1)
            if known != length and 1 not in (known, length):
                what = f"subscript {label!r}" if isinstance(label, str) else "the ellipsis"
                raise _fail(pattern, tensors, f"the lengths of {what} must agree or be 1, "
                                              f"{known} and {length} do not")
            sizes[label] = length if known == 1 else known
    return sizes


def _check_output(pattern: str, tensors: list[Tensor], output: list[Label],
                  sizes: dict[Label, int]) -> None:
    for label in output:
        if isinstance(label, str) and label not in sizes:
            raise _fail(pattern, tensors, f"output subscript {label!r} appears in no operand")
        if output.count(label) > 1:
            raise _fail(pattern, tensors, f"output subscript {label!r} appears more than once")


def _cheapest_pair(labels: list[list[Label]], sizes: dict[Label, int]) -> tuple[int, int]:
    def cost(pair: tuple[int, int]) -> int:
        return math.prod(sizes[label] for label in {*labels[pair[0]], *labels[pair[1]]})

    return min(combinations(range(len(labels)), 2), key=cost)


def _sum_out(tensor: Tensor, labels: list[Label], wanted: set[Label],
             dtype: dtypes.dtype | None = None) -> tuple[Tensor, list[Label]]:
    """The term summed over what nobody wants any more."""
    dims = [d for d, label in enumerate(labels) if label not in wanted]
    if not dims:
        return tensor, labels
    return tensor.sum(dims, dtype=dtype), [label for label in labels if label in wanted]


def _drop_ones(tensor: Tensor, labels: list[Label], other: dict[Label, int],
               ) -> tuple[Tensor, list[Label]]:
    """The term without dimensions of length 1 that the other term has in full."""
    dims = [d for d, label in enumerate(labels)
            if tensor.shape[d] == 1 and other.get(label, 1) != 1]
    for d in reversed(dims):
        tensor = tensor.squeeze(d)
    return tensor, [label for d, label in enumerate(labels) if d not in dims]


def _multiply(a: Tensor, a_labels: list[Label], b: Tensor, b_labels: list[Label],
              wanted: set[Label]) -> tuple[Tensor, list[Label]]:
    """The product of two terms, summed over the labels that only they share."""
    lengths_a = dict(zip(a_labels, a.shape, strict=True))
    lengths_b = dict(zip(b_labels, b.shape, strict=True))
    a, a_labels = _drop_ones(a, a_labels, lengths_b)
    b, b_labels = _drop_ones(b, b_labels, lengths_a)
    shared = [label for label in a_labels if label in b_labels]
    batch = [label for label in shared if label in wanted]
    summed = [label for label in shared if label not in wanted]
    if summed:
        check_same_dtype("einsum", a, b)
    # A sum widens integers, but what goes into a matrix product must keep its dtype.
    dtype = a.dtype if summed else None
    a, a_labels = _sum_out(a, a_labels, wanted.union(shared), dtype)
    b, b_labels = _sum_out(b, b_labels, wanted.union(shared), dtype)
    rows = [label for label in a_labels if label not in shared]
    columns = [label for label in b_labels if label not in shared]
    labels = batch + rows + columns
    left = _arranged(a, a_labels, batch + rows + summed)
    right = _arranged(b, b_labels, batch + summed + columns)
    lead = left.shape[:len(batch)]
    row_shape = left.shape[len(batch):len(batch) + len(rows)]
    column_shape = right.shape[len(batch) + len(summed):]
    if not summed:
        left = left.reshape(*lead, *row_shape, *[1] * len(columns))
        right = right.reshape(*lead, *[1] * len(rows), *column_shape)
        return left * right, labels
    depth = math.prod(left.shape[len(batch) + len(rows):])
    left = left.reshape(*lead, math.prod(row_shape), depth)
    right = right.reshape(*right.shape[:len(batch)], depth, math.prod(column_shape))
    product = run(MatMul(), left, right)
    return product.reshape(*product.shape[:-2], *row_shape, *column_shape), labels


def _arranged(tensor: Tensor, labels: list[Label], order: list[Label]) -> Tensor:
    return tensor if labels == order else tensor.permute([labels.index(label) for label in order])


def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]] | Tensor = 2) -> Tensor:
    """The product of a and b summed over pairs of dimensions.

    dims: how many last dimensions of `a` meet the first of `b`, or two lists of dimensions.
    Raises ShapeError where their lengths differ (1 broadcasts).
    """
    check_same_dtype("tensordot", a, b)
    if isinstance(dims, Tensor):
        return tensordot(a, b, dims.tolist())
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: dims must lie between 0 and the smaller number of "
                             f"dimensions, got {dims} with shapes {tuple(a.shape)} and "
                             f"{tuple(b.shape)}")
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    dims_a, dims_b = [_dim(a, d) for d in dims[0]], [_dim(b, d) for d in dims[1]]
    if len(dims_a) != len(dims_b):
        raise ShapeError("tensordot: both lists of dimensions must have one length, got "
                         f"{list(dims[0])} and {list(dims[1])}")
    if len({*dims_a}) != len(dims_a) or len({*dims_b}) != len(dims_b):
        raise ShapeError(f"tensordot: a dimension is listed twice, got {list(dims[0])} and "
                         f"{list(dims[1])}")
    for i, j in zip(dims_a, dims_b, strict=True):
        if a.shape[i] != b.shape[j]:
            if a.shape[i] == 1:
                b = b.sum(j, keepdim=True)
            elif b.shape[j] == 1:
                a = a.sum(i, keepdim=True)
            else:
                raise ShapeError(f"tensordot: contracted lengths must agree, got {a.shape[i]} in "
                                 f"dim {i} of the first and {b.shape[j]} in dim {j} of the second")
    free_a = [d for d in range(a.ndim) if d not in dims_a]
    free_b = [d for d in range(b.ndim) if d not in dims_b]
    rows, columns = [a.shape[d] for d in free_a], [b.shape[d] for d in free_b]
    depth = math.prod(a.shape[d] for d in dims_a)
    left = a.permute(free_a + dims_a).reshape(math.prod(rows), depth)
    right = b.permute(dims_b + free_b).reshape(depth, math.prod(columns))
    product: Tensor = run(MatMul(), left, right)
    return product.reshape(*rows, *columns)


def _dim(tensor: Tensor, dim: int) -> int:
    if not -tensor.ndim <= dim < tensor.ndim:
        raise IndexError(f"tensordot: dimension out of range: {dim} for a tensor with "
                         f"{tensor.ndim} dimensions")
    return dim % tensor.ndim
