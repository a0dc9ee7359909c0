"""torch.utils._pytree: nested lists, tuples and dicts, taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_MAPPINGS = (dict, OrderedDict, defaultdict)
# Classes of programs: how a value comes apart into a list and a context, and together again.
_REGISTERED: dict[type, tuple[Callable[[Any], tuple[Iterable[Any], Any]],
                              Callable[[list[Any], Any], Any]]] = {}


class _Nodes(Mapping[type, Any]):
    """The classes that are taken apart, as PyTorch's table of them: to be asked, not changed."""

    def __getitem__(self, kind: type) -> Any:
        if kind in _REGISTERED:
            return _REGISTERED[kind]
        if kind not in (list, tuple, *_MAPPINGS):
            raise KeyError(kind)
        return kind

    def __iter__(self) -> Iterator[type]:
        return iter((list, tuple, *_MAPPINGS, *_REGISTERED))

    def __len__(self) -> int:
        return 2 + len(_MAPPINGS) + len(_REGISTERED)


SUPPORTED_NODES = _Nodes()
PyTree = Any


def register_pytree_node(cls: type, flatten_fn: Any, unflatten_fn: Any, **options: Any) -> None:
    """Take values of a class apart too: `flatten_fn(value)` gives (children, context)."""
    _REGISTERED[cls] = flatten_fn, unflatten_fn


_register_pytree_node = register_pytree_node


class TreeSpec:
    """How a value was nested: its class, its keys, and the specs of what is in it."""

    def __init__(self, kind: type | None, keys: Any = (),
                 children: tuple[TreeSpec, ...] = ()) -> None:
        self.type, self.context, self.children_specs = kind, keys, list(children)

    @property
    def num_leaves(self) -> int:
        """How many leaves it has."""
        return 1 if self.type is None else sum(c.num_leaves for c in self.children_specs)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, TreeSpec) and self.type is other.type
                and self.context == other.context and self.children_specs == other.children_specs)

    __hash__ = None  # type: ignore[assignment]

    def is_leaf(self) -> bool:
        """Whether it stands for a single value."""
        return self.type is None

    def unflatten(self, leaves: Iterator[Any]) -> Any:
        """A value nested so, of the next leaves."""
        if self.type is None:
            return next(leaves)
        items = [child.unflatten(leaves) for child in self.children_specs]
        if self.type in _REGISTERED:
            return _REGISTERED[self.type][1](items, self.context)
        if self.type in _MAPPINGS:
            pairs = zip(self.context, items, strict=True)
            return dict(pairs) if self.type is not OrderedDict else OrderedDict(pairs)
        return self.type(*items) if hasattr(self.type, "_fields") else self.type(items)


def LeafSpec() -> TreeSpec:
    """The spec of a single value."""
    return TreeSpec(None)


def _get_node_type(tree: Any) -> Any:
    """The class by which a value is taken apart."""
    return tuple if isinstance(tree, tuple) and hasattr(tree, "_fields") else type(tree)


def _is_node(value: Any) -> bool:
    return (type(value) in (list, tuple, *_MAPPINGS) or type(value) in _REGISTERED
            or (isinstance(value, tuple) and hasattr(value, "_fields")))


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None
                 ) -> tuple[list[Any], TreeSpec]:
    """The leaves of a nested value from left to right, and how they were nested."""
    if not _is_node(tree) or (is_leaf is not None and is_leaf(tree)):
        return [tree], TreeSpec(None)
    if type(tree) in _REGISTERED:
        children, keys = _REGISTERED[type(tree)][0](tree)
    elif isinstance(tree, dict):
        children, keys = tree.values(), tuple(tree)
    else:
        children, keys = tree, ()
    leaves: list[Any] = []
    specs = []
    for child in children:
        found, spec = tree_flatten(child, is_leaf)
        leaves += found
        specs.append(spec)
    return leaves, TreeSpec(type(tree), keys, tuple(specs))


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> Any:
    """The value that `tree_flatten` took apart, of other leaves."""
    return treespec.unflatten(iter(leaves))


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves of a nested value."""
    return tree_flatten(tree, is_leaf)[0]


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any,
             is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`func` of every leaf (and of those in its place in `rests`), nested as `tree`."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_leaves(rest, is_leaf) for rest in rests]
    return tree_unflatten([func(*parts) for parts in zip(leaves, *others, strict=True)], spec)


def tree_map_only(kind: Any, func: Callable[[Any], Any], tree: Any,
                  is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`func` of the leaves of a class; the others as they are."""
    return tree_map(lambda leaf: func(leaf) if isinstance(leaf, kind) else leaf, tree,
                    is_leaf=is_leaf)


def _dict_flatten(d: dict[Any, Any]) -> tuple[list[Any], list[Any]]:
    return list(d.values()), list(d)


def _dict_flatten_with_keys(d: dict[Any, Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    return list(d.items()), list(d)


def _dict_unflatten(values: Iterable[Any], context: Any) -> dict[Any, Any]:
    return dict(zip(context, values, strict=True))


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """How a value is nested."""
    return tree_flatten(tree, is_leaf)[1]


def tree_any(pred: Callable[[Any], bool], tree: Any) -> bool:
    """Whether it holds of a leaf."""
    return any(map(pred, tree_leaves(tree)))


def tree_all(pred: Callable[[Any], bool], tree: Any) -> bool:
    """Whether it holds of all leaves."""
    return all(map(pred, tree_leaves(tree)))
