"""torch.autograd beside mlgpu.autograd: what old programs and debugging sessions call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlgpu import Tensor
from mlgpu.autograd.saved import saved_tensors_hooks
from mlgpu.errors import DerivativeError
from mlgpu.tensor import RemovableHandle


def Variable(data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:
    """The tensor itself, outside its graph: what a Variable has been since PyTorch 0.4."""
    return data.detach().requires_grad_() if requires_grad else data


class set_detect_anomaly:
    """Nothing: an error in backward names the operation, and a gradient is never dropped."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        """Take PyTorch's arguments."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


class detect_anomaly(set_detect_anomaly):
    """Nothing, as `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """`backward` of a Function without a derivative of its own: DerivativeError where one is asked.
    """
    from mlgpu import is_grad_enabled, no_grad

    def once(ctx: Any, *grads: Any) -> Any:
        if is_grad_enabled() and any(isinstance(g, Tensor) and g.requires_grad for g in grads):
            raise DerivativeError(f"{type(ctx).__name__}: backward is marked as differentiable "
                                  "only once; call it without create_graph")
        with no_grad():
            return backward(ctx, *grads)

    return once


def save_on_cpu(pin_memory: bool = False, device_type: str = "cuda") -> Any:
    """A block in which what backward needs is kept in the host's memory, and brought back."""
    def pack(tensor: Tensor) -> tuple[Any, Tensor]:
        kept = tensor.cpu()
        return tensor.device, kept.pin_memory() if pin_memory and tensor.is_cuda else kept

    def unpack(packed: tuple[Any, Tensor]) -> Tensor:
        return packed[1].to(packed[0], non_blocking=pin_memory)

    return saved_tensors_hooks(pack, unpack)


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[..., Any], *,
                             mode: str = "all") -> _Handles:
    """Call `fn` when all tensors have their gradients: with a list, None for one without a graph.

    With `mode="any"` call `fn(gradient)` at the first that comes in a backward pass.  The count
    begins anew when it is full.
    """
    watched = [t for t in tensors if t.requires_grad]
    grads: dict[int, Tensor] = {}

    def arrived(place: int) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            first = not grads
            grads[place] = grad
            if mode == "any" and first:
                fn(grad)
            if len(grads) == len(watched):
                if mode == "all":
                    fn([grads.get(i) for i in range(len(tensors))])
                grads.clear()

        return hook

    return _Handles([t.register_hook(arrived(i)) for i, t in enumerate(tensors)
                     if t.requires_grad])


class _Handles:
    """Several hooks that are taken away together."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take them away; doing so twice is harmless."""
        for handle in self._handles:
            handle.remove()
