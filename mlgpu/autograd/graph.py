"""The autograd graph and the walk through it: knows nodes and order, not maths.

A node is one recorded operation.  Its edges lead to what made its inputs: another node (with the
number of that node's output) or a leaf tensor.  Nodes never refer to the tensors they made, so a
graph holds no reference cycle and is freed as its last tensor goes.

What needs maths (adding gradients up) is handed in through `Arithmetic`.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mlgpu.autograd.mode import mode
from mlgpu.errors import GraphError, ShapeError

if TYPE_CHECKING:
    from mlgpu.tensor import RemovableHandle, Tensor

Hook = Callable[["Tensor"], "Tensor | None"]
order = itertools.count()  # of recording


class Arithmetic:
    """What the backward pass asks of the tensors; `mlgpu.ops.gradient` supplies it."""

    def accumulate(self, total: Tensor, new: Tensor) -> Tensor:
        """The sum of two gradients of one value; may write into `total` if nothing else sees it."""
        raise NotImplementedError

    def deposit(self, leaf: Tensor, new: Tensor, create_graph: bool) -> None:
        """Add a gradient to `leaf.grad`."""
        raise NotImplementedError

    def one(self, tensor: Tensor) -> Tensor:
        """The gradient that the walk back from a tensor of one element starts with."""
        raise NotImplementedError

    def conform(self, grad: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
        """A gradient summed over the dimensions its input was broadcast along, in its dtype."""
        raise NotImplementedError


arithmetic = Arithmetic()


def _of_few(name: str) -> Any:
    """An attribute that few nodes have: it is None, or in `more`."""

    def get(node: Node) -> Any:
        return None if node.more is None else node.more.get(name)

    def put(node: Node, value: Any) -> None:
        node.more = {**(node.more or {}), name: value}

    return property(get, put)


class Node:
    """One recorded operation: where its inputs came from and how gradients pass through it."""

    if not TYPE_CHECKING:  # which would not let subclasses have a dict
        __slots__ = ()

    name = "Node"
    edges: tuple[tuple[Any, int] | None, ...] = ()
    outputs = 1
    sequence = -1
    nondifferentiable_outputs: tuple[int, ...] = ()
    more: dict[str, Any] | None = None
    # Per output: hooks on the gradient, and tensors that asked to keep it (weakly: no cycle).
    hooks: dict[int, dict[int, Hook]] | None = _of_few("hooks")
    retained: dict[int, weakref.ref[Tensor]] | None = _of_few("retained")
    # On the node as a whole: before its backward and after it.
    before_hooks: dict[int, Callable[..., Any]] | None = _of_few("before_hooks")
    after_hooks: dict[int, Callable[..., Any]] | None = _of_few("after_hooks")

    def stamp(self) -> None:
        """Take the next place in the order of recording."""
        self.sequence = next(order)

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> Sequence[Tensor | None]:
        """The gradients of the inputs from those of the outputs."""
        raise NotImplementedError

    def free(self) -> None:
        """Drop what was saved for backward."""

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_outputs)` before this node's backward; it may return another tuple."""
        from mlgpu.tensor import RemovableHandle

        if self.before_hooks is None:
            self.before_hooks = {}
        return RemovableHandle(self.before_hooks, hook)

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` after it; it may return other grad_inputs."""
        from mlgpu.tensor import RemovableHandle

        if self.after_hooks is None:
            self.after_hooks = {}
        return RemovableHandle(self.after_hooks, hook)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The edges, as PyTorch shows them; a leaf stands for itself."""
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    @property
    def label(self) -> str:
        """Its name as PyTorch shows it: LogSoftmaxBackward."""
        words = self.name.replace(" ", "_").split("_")
        return "".join(word[:1].upper() + word[1:] for word in words) + "Backward"

    def __repr__(self) -> str:
        return f"<{self.label} at {id(self):#x}>"


class Link(Node):
    """A node of one output and one or two inputs that carries bare arrays in a chain of its like.

    `a` and `b` are where its inputs' gradients go: output 0 of a node, a leaf, another output of a
    node as a pair, or None.
    """

    __slots__ = ("a", "b")

    a: Any
    b: Any


class Chains:
    """What the walk asks of chains of links; `mlgpu.ops.link` supplies it."""

    kind: type[Any] = Link  # of their nodes, exactly

    def fits(self, node: Any, grad: Tensor) -> bool:
        """Whether a gradient can enter a chain at this node."""
        raise NotImplementedError

    def carry(self, chain: list[Any], grad: Tensor, retain: bool
              ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """What arrives at leaves, (leaf, gradient) each, and the gradient for what the last node
        leads to, if that is no leaf."""
        raise NotImplementedError


chains = Chains()


class _Walk:
    """One backward pass."""

    def __init__(self, create_graph: bool, retain_graph: bool, capture: Sequence[tuple[Any, int]],
                 deposit: bool) -> None:
        self.create_graph = create_graph
        self.retain_graph = retain_graph
        self.deposit = deposit
        self.chain: list[Any] = []  # the first nodes, if they are links, in turn
        self.after: list[tuple[Any, int]] = []  # what the last of them leads to, if no leaf
        self.met: dict[int, int] = {}  # edges of theirs into each leaf
        self.order: list[Node] = []  # the others; the next one last
        self.gradients: dict[Node, list[Tensor | None]] = {}
        self.leaf_gradients: dict[int, Tensor] = {}
        self.leaf_waits: dict[int, int] = {}
        self.leaves: dict[int, Tensor] = {}
        self.wanted = [_key(target) for target in capture]
        self.asked = frozenset(self.wanted)
        self.captured: dict[tuple[int, int], Tensor] = {}
        self.useful: set[int] | None = None

    def plan(self, roots: Sequence[tuple[Any, int]], grads: Sequence[Tensor],
             only_captured: bool) -> None:
        """Put the nodes in order, and count the edges into each leaf.

        For `grad`, only nodes that lead to an input are of use.
        """
        stack: list[Node] = []
        if len(roots) == 1 and not self.asked and not self.create_graph and (
                type(roots[0][0]) is chains.kind) and chains.fits(roots[0][0], grads[0]):
            roots = self.after = self._follow(roots[0][0])
            self.met = self.leaf_waits.copy()
        for target, _ in roots:
            if isinstance(target, Node):
                stack.append(target)
            else:
                self._expect_leaf(target)
        seen: set[Node] = set()
        order = self.order
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            order.append(node)
            for edge in node.edges:
                if edge is None:
                    continue
                target = edge[0]
                if isinstance(target, Node):
                    stack.append(target)
                else:
                    self._expect_leaf(target)
        order.sort(key=_place)  # inputs come before their users
        if only_captured:
            useful: set[int] = set()
            for node in order:
                if any(edge is not None and (id(edge[0]) in useful or _key(edge) in self.asked)
                       for edge in node.edges):
                    useful.add(id(node))
            self.useful = useful

    def _follow(self, node: Any) -> list[tuple[Any, int]]:
        """Take a chain as far as there is one way on, and return what comes after it.

        Its nodes are in order as they come, and nothing later leads to them.
        """
        kind, chain, waits = chains.kind, self.chain, self.leaf_waits
        while node.more is None:
            a, b = node.a, node.b
            if type(a) is kind and (b is None or id(b) in waits):  # most are such
                if b is not None:  # a leaf met before, which is plain
                    waits[id(b)] += 1
                chain.append(node)
                node = a
                continue
            ahead = [t for t in (a, b) if isinstance(t, _NODES)]
            leaves = [t for t in (a, b) if t is not None and not isinstance(t, _NODES)]
            if len(ahead) > 1 or not all(map(_is_plain_leaf, leaves)):
                break
            for leaf in leaves:
                self._expect_leaf(leaf)
            chain.append(node)
            if not ahead:
                return []
            node = ahead[0]
            if type(node) is not kind:
                return [node if type(node) is tuple else (node, 0)]
        return [(node, 0)]

    def _expect_leaf(self, leaf: Tensor) -> None:
        key = id(leaf)
        self.leaves[key] = leaf
        self.leaf_waits[key] = self.leaf_waits.get(key, 0) + 1

    def send(self, target: Any, index: int, grad: Tensor | None) -> None:
        """Deliver one gradient along one edge."""
        if not isinstance(target, Node):
            self._send_leaf(target, grad)
        elif grad is not None:
            slots = self.gradients.get(target)
            if slots is None:
                slots = self.gradients[target] = [None] * target.outputs
            before = slots[index]
            slots[index] = grad if before is None else arithmetic.accumulate(before, grad)

    def _send_leaf(self, leaf: Tensor, grad: Tensor | None) -> None:
        key = id(leaf)
        if grad is not None:
            before = self.leaf_gradients.get(key)
            self.leaf_gradients[key] = (grad if before is None
                                        else arithmetic.accumulate(before, grad))
        self.leaf_waits[key] -= 1
        if self.leaf_waits[key] == 0:
            self._finish_leaf(key)

    def _finish_leaf(self, key: int) -> None:
        grad = self.leaf_gradients.pop(key, None)
        if grad is None:
            return
        leaf = self.leaves[key]
        grad = run_hooks(leaf._hooks, grad)
        wanted = (key, 0) in self.asked
        if wanted:
            self.captured[key, 0] = grad
        if self.deposit and (wanted or not self.asked):
            arithmetic.deposit(leaf, grad, self.create_graph)
            for hook in list((leaf._accumulated_hooks or {}).values()):
                hook(leaf)

    def run_chain(self, grad: Tensor) -> None:
        """Carry a gradient through the chain, and deliver what comes out of it."""
        arrived, ahead = chains.carry(self.chain, grad, self.retain_graph)
        for leaf, part in arrived:
            key = id(leaf)
            self.leaf_waits[key] -= self.met[key] - 1  # the last is counted there
            self._send_leaf(leaf, part)
        for target, index in self.after:
            self.send(target, index, ahead)

    def run(self) -> None:
        order, gradients, send = self.order, self.gradients, self.send
        while order:
            node = order.pop()
            grads = gradients.pop(node, None)
            if grads is None:
                continue  # nothing came
            more = node.more
            if more is not None or self.asked:
                self._observe(node, grads)
                if self.useful is not None and id(node) not in self.useful:
                    continue
            if more is not None and node.before_hooks:
                grads = _call_hooks(node.before_hooks, grads, ())
            results = node.apply(grads, self.create_graph)
            if node.more is not None and node.after_hooks:
                results = _call_hooks(node.after_hooks, results, (tuple(grads),))
            del grads
            if not self.retain_graph:
                node.free()
            grad = None
            for edge, grad in zip(node.edges, results, strict=True):
                if edge is not None:
                    send(edge[0], edge[1], grad)
            del results, grad
        for key in list(self.leaf_gradients):  # leaves some of whose edges got no gradient
            self._finish_leaf(key)

    def _observe(self, node: Node, grads: list[Tensor | None]) -> None:
        """Hooks, retained and captured gradients of a node's outputs."""
        for index, grad in enumerate(grads):
            if grad is None:
                continue
            if node.hooks is not None and index in node.hooks:
                grad = grads[index] = run_hooks(node.hooks[index], grad)
            if node.retained is not None and index in node.retained and self.deposit:
                holder = node.retained[index]()
                if holder is not None:
                    arithmetic.deposit(holder, grad, self.create_graph)
            if (id(node), index) in self.asked:
                grad._storage.exclusive = False
                self.captured[id(node), index] = grad


_NODES = (Node, tuple)  # what a link leads to, if it is no leaf
_place = attrgetter("sequence")


def _is_plain_leaf(target: Any) -> bool:
    """Whether a link's target is a leaf that nothing but its gradient waits for."""
    return (not isinstance(target, _NODES) and target._hooks is None
            and target._accumulated_hooks is None)


def run_hooks(hooks: dict[int, Hook] | None, grad: Tensor) -> Tensor:
    """`grad` after each hook in turn; a hook that returns None leaves it as it is."""
    if hooks:
        for hook in list(hooks.values()):
            grad._storage.exclusive = False  # the hook may keep it
            replaced = hook(grad)
            if replaced is not None:
                _check_replaced(grad, replaced)
                grad = replaced
                grad._storage.exclusive = False
    return grad


def _call_hooks(hooks: dict[int, Callable[..., Any]], grads: Sequence[Tensor | None],
                more: tuple[Any, ...]) -> list[Tensor | None]:
    """`grads` after each hook of a node in turn; a hook that returns None leaves them."""
    given = tuple(grads)
    for hook in list(hooks.values()):
        for grad in (*given, *(g for others in more for g in others)):
            if grad is not None:
                grad._storage.exclusive = False
        replaced = hook(given, *more)
        if replaced is None:
            continue
        if not isinstance(replaced, tuple) or len(replaced) != len(given):
            raise TypeError(f"register_hook: a node's hook must return None or a tuple of "
                            f"{len(given)} gradients, got {replaced!r:.80}")
        given = replaced
    return list(given)


def _check_replaced(grad: Tensor, replaced: Any) -> None:
    if not hasattr(replaced, "_storage"):
        raise TypeError("register_hook: a hook must return a Tensor or None, got "
                        f"{type(replaced).__name__}")
    if (replaced.shape, replaced.dtype) != (grad.shape, grad.dtype):
        raise ShapeError(f"register_hook: a hook must return a gradient like the one it got, "
                         f"{grad.dtype!r} of shape {tuple(grad.shape)}; it returned "
                         f"{replaced.dtype!r} of shape {tuple(replaced.shape)}")


def _key(target: tuple[Any, int]) -> tuple[int, int]:
    return (id(target[0]), target[1])


def walk(roots: Sequence[tuple[Any, int]], grads: Sequence[Tensor],
         inputs: Sequence[tuple[Any, int]], *, retain_graph: bool, create_graph: bool,
         deposit: bool) -> list[Tensor | None]:
    """Carry `grads` from the roots through the graph.

    With `inputs`, only what leads to them is computed and their gradients are returned; with
    `deposit`, gradients are added to the leaves' `.grad` (to those among `inputs` only, if given).
    """
    if mode.inference:
        raise GraphError("backward: no graph can be walked inside inference_mode; leave it first")
    pass_ = _Walk(create_graph, retain_graph, inputs, deposit)
    pass_.plan(roots, grads, bool(inputs))
    before = mode.grad, mode.frees, mode.autocast
    mode.grad, mode.frees, mode.autocast = create_graph, not retain_graph, None
    try:
        if pass_.chain:
            pass_.run_chain(grads[0])
        else:
            for (target, index), grad in zip(roots, grads, strict=True):
                pass_.send(target, index, grad)
        pass_.run()
    finally:
        mode.grad, mode.frees, mode.autocast = before
    return [pass_.captured.get(key) for key in pass_.wanted]


def __getattr__(name: str) -> Any:
    if name == "saved_tensors_hooks":  # PyTorch's path; it is built on nodes
        from mlgpu.autograd.saved import saved_tensors_hooks

        return saved_tensors_hooks
    if name == "save_on_cpu":
        from mlgpu.autograd.offload import save_on_cpu

        return save_on_cpu
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
