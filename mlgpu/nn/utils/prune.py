"""Pruning: weights held at zero by a mask, as torch.nn.utils.prune.

A pruned parameter `weight` becomes the parameter `weight_orig` and the buffer `weight_mask`; their
product is the attribute `weight`, computed anew before each forward of the module, so that
gradients reach the original where the mask is 1.  What is pruned again is pruned among what is
left.

    prune.l1_unstructured(model.conv, "weight", amount=0.5)
    prune.nm_structured(model.linear, "weight", n=2, m=4)
    ...  # training goes on
    prune.remove(model.conv, "weight")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import ones_like, zeros_like
from mlgpu.ops.join import cat
from mlgpu.ops.linalg_norm import norm
from mlgpu.ops.random import rand, rand_like
from mlgpu.tensor import Tensor

__all__ = ["BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
           "NMStructured", "PruningContainer", "RandomStructured", "RandomUnstructured",
           "custom_from_mask", "global_unstructured", "gradual_amount", "identity", "is_pruned",
           "l1_unstructured", "ln_structured", "nm_structured", "random_structured",
           "random_unstructured", "remove"]


class BasePruningMethod(ABC):
    """A way to choose what to prune: a subclass sets PRUNING_TYPE and writes `compute_mask`.

    PRUNING_TYPE says what of a tensor that is pruned already the method is shown: "unstructured"
    the entries that are left, in one dimension; "structured" the slices along its `dim` of which
    something is left; "global" all of it.
    """

    PRUNING_TYPE: str
    _tensor_name: str

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """1 where an entry stays and 0 where not, from its importance `t` and the mask so far."""

    def __call__(self, module: Module, inputs: Any) -> None:
        """Before a forward: compute the pruned tensor."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    def apply_mask(self, module: Module) -> Tensor:
        """The product of the original and the mask."""
        original: Tensor = getattr(module, f"{self._tensor_name}_orig")
        mask: Tensor = getattr(module, f"{self._tensor_name}_mask")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None,
              **kwargs: Any) -> BasePruningMethod:
        """Prune the parameter `name` by this method, made of the other arguments.

        Returns the hook that computes it: the method, or a PruningContainer where others came
        before.  Raises ShapeError, a ValueError, for scores of another shape, AttributeError where
        there is no such parameter, MlgpuError where it is computed from others.
        """
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        before = _hook_of(module, name)
        if before is None and module._parameters.get(name) is None:
            raise AttributeError(f"prune: {type(module).__name__} has no parameter {name!r}")
        if isinstance(getattr(type(module), name, None), property):
            raise MlgpuError(f"prune: the {name} of {type(module).__name__} is adapted, quantised "
                             "or computed otherwise; prune it before")
        current: Tensor = getattr(module, name) if before is None else before.apply_mask(module)
        scores = current if importance_scores is None else importance_scores
        if scores.shape != current.shape:
            raise ShapeError(f"prune: importance_scores must have the shape {tuple(current.shape)} "
                             f"of {name!r}, got {tuple(scores.shape)}")
        combined = method if before is None else PruningContainer(*_methods(before), method)
        with no_grad():
            so_far = (ones_like(current) if before is None
                      else getattr(module, f"{name}_mask").detach().clone())
            mask = combined.compute_mask(scores.detach(), so_far)
        if before is None:
            original = module._parameters.pop(name)
            module.register_parameter(f"{name}_orig", original)
            module.register_buffer(f"{name}_mask", mask)
        else:
            _drop(module, before)
            setattr(module, f"{name}_mask", mask)
        combined(module, None)
        module.register_forward_pre_hook(combined)
        return combined

    def prune(self, t: Tensor, default_mask: Tensor | None = None,
              importance_scores: Tensor | None = None) -> Tensor:
        """`t` with what this method chooses set to zero; no module is involved."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise ShapeError(f"prune: importance_scores must have the shape {tuple(t.shape)}, got "
                             f"{tuple(scores.shape)}")
        mask = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores.detach(), mask.detach().clone())

    def remove(self, module: Module) -> None:
        """Make the pruned tensor the parameter again, with its zeros; it is the same object."""
        name = self._tensor_name
        original: Parameter = getattr(module, f"{name}_orig")
        with no_grad():
            original.data = self.apply_mask(module).detach()
        for attribute in (name, f"{name}_orig", f"{name}_mask"):
            delattr(module, attribute)
        module.register_parameter(name, original)


class PruningContainer(BasePruningMethod):
    """Methods applied one after another; each chooses among what those before it left."""

    PRUNING_TYPE = "container"

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Add one more.  Raises TypeError for what is none, ValueError for another tensor's."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"PruningContainer: expected a BasePruningMethod, got "
                            f"{type(method).__name__}")
        if not self._pruning_methods:
            self._tensor_name = method._tensor_name
        elif method._tensor_name != self._tensor_name:
            raise ShapeError(f"PruningContainer: its methods prune {self._tensor_name!r}, and this "
                             f"one {method._tensor_name!r}")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask so far and, of what it leaves, what the last method leaves."""
        method: Any = self._pruning_methods[-1]
        if method.PRUNING_TYPE == "global":
            return method.compute_mask(t, default_mask)  # type: ignore[no-any-return]
        if method.PRUNING_TYPE == "unstructured":
            left: Any = default_mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = _dimension(t, method.dim)
            others = [d for d in range(t.ndim) if d != dim]
            left = (slice(None),) * dim + (default_mask.sum(dim=others) != 0,)
        else:
            raise ShapeError(f"{type(method).__name__}: PRUNING_TYPE must be unstructured, "
                             f"structured or global, got {method.PRUNING_TYPE!r}")
        mask = default_mask.clone()
        mask[left] = method.compute_mask(t[left], default_mask[left]).to(mask.dtype)
        return mask


class Identity(BasePruningMethod):
    """Prunes nothing; the parameter gets its mask, of ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask as it is."""
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes entries drawn at random: `amount` of them, a share (float) or a number (int)."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = _checked_amount(amount)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the entries drawn."""
        return _without_least(rand_like(t), self.amount, default_mask)


class L1Unstructured(BasePruningMethod):
    """Prunes the entries least in absolute value: `amount`, a share (float) or a number (int)."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = _checked_amount(amount)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the least entries."""
        return _without_least(t.abs(), self.amount, default_mask)


class RandomStructured(BasePruningMethod):
    """Prunes slices along `dim` drawn at random: `amount`, a share (float) or a number (int)."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        self.amount, self.dim = _checked_amount(amount), dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the slices drawn."""
        dim = _structured(t, self.dim)
        draws = rand(t.shape[dim], device=t.device)
        return _without_slices(draws, dim, self.amount, default_mask)


class LnStructured(BasePruningMethod):
    """Prunes the slices along `dim` least in their `n`-norm: `amount`, a share or a number."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, n: float | str, dim: int = -1) -> None:
        self.amount, self.n, self.dim = _checked_amount(amount), n, dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the least slices."""
        dim = _structured(t, self.dim)
        others = [d for d in range(t.ndim) if d != dim]
        return _without_slices(norm(t, p=self.n, dim=others), dim, self.amount, default_mask)


class CustomFromMask(BasePruningMethod):
    """Prunes by a mask that is given."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The product of both masks."""
        if self.mask.shape != default_mask.shape:
            raise ShapeError(f"custom_from_mask: the mask must have the shape "
                             f"{tuple(default_mask.shape)}, got {tuple(self.mask.shape)}")
        return default_mask * self.mask.to(default_mask.device, default_mask.dtype)


class NMStructured(BasePruningMethod):
    """Keeps, of each `m` neighbours along the input dimension, the `n` of largest magnitude.

    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021: 2 of 4 is the pattern that
    sparse tensor cores multiply by.  Dimension 1 is a Linear's inputs and a convolution's input
    channels.
    """

    PRUNING_TYPE = "global"  # a group keeps its place whatever is pruned in it already

    def __init__(self, n: int = 2, m: int = 4) -> None:
        if not 0 < n <= m:
            raise ShapeError(f"nm_structured: n must be between 1 and m, got {n} of {m}")
        self.n, self.m = n, m

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the least of each group."""
        if t.ndim < 2 or t.shape[1] % self.m:
            raise ShapeError(f"nm_structured: dimension 1 must be a multiple of m = {self.m}, got "
                             f"a tensor of shape {tuple(t.shape)}")
        # What is pruned already is chosen last.
        scores = t.abs().where(default_mask != 0, -1).movedim(1, -1)
        groups = scores.reshape(-1, self.m)
        kept = zeros_like(groups).scatter(1, groups.topk(self.n, dim=1)[1], 1)
        return default_mask * kept.reshape(scores.shape).movedim(-1, 1).to(default_mask.dtype)


# --- on a module ----------------------------------------------------------------------------------


def identity(module: Module, name: str) -> Module:
    """Give the parameter a mask of ones; returns the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prune `amount` entries, a share (float) or a number (int), at random; returns the module."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: float,
                    importance_scores: Tensor | None = None) -> Module:
    """Prune `amount` entries, the least in absolute value or by the scores; returns the module."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prune `amount` slices along `dim` at random; returns the module."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Module, name: str, amount: float, n: float | str, dim: int,
                  importance_scores: Tensor | None = None) -> Module:
    """Prune `amount` slices along `dim`, those least in their `n`-norm; returns the module."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def nm_structured(module: Module, name: str, n: int = 2, m: int = 4,
                  importance_scores: Tensor | None = None) -> Module:
    """Keep the `n` largest of each `m` neighbours along dimension 1; returns the module.

    Mishra et al. 2021.  Raises ShapeError where dimension 1 is no multiple of m.
    """
    NMStructured.apply(module, name, n, m, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune where `mask` is 0; returns the module."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Iterable[tuple[Module, str]],
                        pruning_method: type[BasePruningMethod],
                        importance_scores: Mapping[tuple[Module, str], Tensor] | None = None,
                        **kwargs: Any) -> None:
    """Prune several parameters, (module, name) each, as if they were one.

    `global_unstructured(parameters, prune.L1Unstructured, amount=0.5)` prunes the least half of
    all entries together.  Raises TypeError for a method that is not unstructured.
    """
    pairs = list(parameters)
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(f"global_unstructured: {pruning_method.__name__} is "
                        f"{method.PRUNING_TYPE}; only unstructured methods prune several at once")
    if not pairs:
        raise ShapeError("global_unstructured: there are no parameters")
    method._tensor_name = "all"
    given = importance_scores or {}
    scores, masks = [], []
    for module, name in pairs:
        hook = _hook_of(module, name)
        current = getattr(module, name) if hook is None else hook.apply_mask(module)
        score = given.get((module, name), current).detach()
        if score.shape != current.shape:
            raise ShapeError(f"global_unstructured: the scores of {name!r} must have the shape "
                             f"{tuple(current.shape)}, got {tuple(score.shape)}")
        scores.append(score.reshape(-1))
        mask = ones_like(score) if hook is None else getattr(module, f"{name}_mask").detach()
        masks.append(mask.reshape(-1))
    chosen = PruningContainer(method).compute_mask(cat(scores), cat(masks))
    begun = 0
    for (module, name), mask in zip(pairs, masks, strict=True):
        part = chosen[begun:begun + mask.numel()]
        custom_from_mask(module, name, part.reshape(getattr(module, name).shape))
        begun += mask.numel()


def remove(module: Module, name: str) -> Module:
    """Make the pruned tensor a plain parameter again, with its zeros; returns the module.

    The parameter is the object that it was before, so that an optimizer goes on with it.  Raises
    ShapeError, a ValueError, where it is not pruned.
    """
    hook = _hook_of(module, name)
    if hook is None:
        raise ShapeError(f"remove: {name!r} of {type(module).__name__} is not pruned")
    hook.remove(module)
    _drop(module, hook)
    return module


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one below it, is pruned."""
    return any(isinstance(entry[0], BasePruningMethod)
               for below in module.modules() if below._hooks is not None
               for entry in below._hooks.forward_pre.values())


def gradual_amount(step: int, final: float, steps: int, *, begin: int = 0, initial: float = 0.0
                   ) -> float:
    """The share of weights that are to be zero at `step`: fast at first, then slower, to `final`.

    Zhu and Gupta, "To prune, or not to prune", 2017: a cubic from `initial` at step `begin` to
    `final`, `steps` steps later.  It is a share of all weights, so prune anew at each step of the
    schedule: what is zero is least and stays so.

        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
        prune.l1_unstructured(layer, "weight", prune.gradual_amount(step, 0.9, 1000))
    """
    if steps < 1 or not 0 <= initial <= final <= 1:
        raise ShapeError("gradual_amount: steps must be at least 1 and 0 <= initial <= final <= 1, "
                         f"got {steps}, {initial} and {final}")
    passed = min(max((step - begin) / steps, 0.0), 1.0)
    return final + (initial - final) * (1 - passed) ** 3


# --- parts ----------------------------------------------------------------------------------------


def _hook_of(module: Module, name: str) -> BasePruningMethod | None:
    hooks = module._hooks
    return next((entry[0] for entry in (hooks.forward_pre.values() if hooks else ())
                 if isinstance(entry[0], BasePruningMethod) and entry[0]._tensor_name == name),
                None)


def _methods(hook: BasePruningMethod) -> tuple[BasePruningMethod, ...]:
    return hook._pruning_methods if isinstance(hook, PruningContainer) else (hook,)


def _drop(module: Module, hook: BasePruningMethod) -> None:
    assert module._hooks is not None
    hooks = module._hooks.forward_pre
    for key in [key for key, entry in hooks.items() if entry[0] is hook]:
        del hooks[key]


def _checked_amount(amount: float) -> float:
    if not isinstance(amount, Real) or isinstance(amount, bool):
        raise TypeError(f"prune: amount must be a share or a number of entries, got {amount!r}")
    if amount < 0 or (not isinstance(amount, Integral) and not float(amount) <= 1):
        raise ShapeError(f"prune: amount must be a share in [0, 1] (float) or a number of entries "
                         f"(int), got {amount!r}")
    return amount


def _count(amount: float, size: int) -> int:
    """How many of `size` that is."""
    if not isinstance(amount, Integral):
        return round(amount * size)
    if amount > size:
        raise ShapeError(f"prune: there are {size} to prune, fewer than the amount {amount}")
    return int(amount)


def _without_least(scores: Tensor, amount: float, mask: Tensor) -> Tensor:
    count = _count(amount, scores.numel())
    if count == 0:
        return mask
    least = scores.reshape(-1).topk(count, largest=False)[1]
    return mask.reshape(-1).scatter(0, least, 0).reshape(mask.shape)


def _without_slices(scores: Tensor, dim: int, amount: float, mask: Tensor) -> Tensor:
    count = _count(amount, scores.numel())
    if count == 0:
        return mask
    least = scores.topk(count, largest=False)[1]
    return mask.index_fill(dim, least, 0)


def _dimension(t: Tensor, dim: int) -> int:
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"prune: dimension {dim} of a tensor of shape {tuple(t.shape)}")
    return dim % t.ndim


def _structured(t: Tensor, dim: int) -> int:
    if t.ndim < 2:
        raise ShapeError("prune: structured pruning is of tensors of two dimensions or more, got "
                         f"shape {tuple(t.shape)}; prune it unstructured")
    return _dimension(t, dim)
