"""A GPU that is not there: tensors said to be on it stay on the CPU, and mixing them is an error.

Every storage that was moved to the device is marked; `device` says where a tensor would be, and a
function given tensors of both places raises as torch does on a GPU. So a tensor left on the CPU is
found where there is only a CPU. Not seen: what torch's own C++ does inside, checkpoints read onto
the device, and anything about numbers or speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

# Of all kinds the one for which transformers does least that only its own torch could.
DEVICE = torch.device("mps", 0)
_CPU = torch.device("cpu")

# Given a tensor of each place, these work on a GPU too.
_ACROSS = {"copy_", "data.__set__", "__getitem__", "__setitem__", "to", "type_as"}
_ACROSS |= {"grad", "_has_compatible_shallow_copy_type"}
# And these hand on what lies on the CPU, whatever they are given.
_TO_CPU = {"cpu", "tolist", "item", "equal", "allclose", "__len__", "__bool__"}
_NEVER_THERE = {"numpy", "__array__"}


class AnotherDevice(TorchFunctionMode):
    """While entered, `DEVICE` is a device. One thread; nothing is moved anywhere."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if func is torch.device or name == "_parse_to":  # they name a device and use none
            return func(*args, **kwargs)
        if name == "device.__get__" and _is_there(args[0]):
            return DEVICE
        given = list(_tensors((args, kwargs)))
        there = any(map(_is_there, given))
        if name in _NEVER_THERE and there:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")
        _check_together(name, given, args)
        asked = _asked(args, kwargs)
        if asked == DEVICE and kwargs.get("generator") is not None:
            raise RuntimeError(f"{name}: the generator is not on the same device, {DEVICE}")
        target = _target(name, args, asked, there)
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        found = func(*args, **kwargs)
        if func is torch.autograd.grad:  # each lies where what it is the gradient of lies
            for at, one in zip(_tensors(args[1]), found, strict=True):
                _mark(one, _is_there(at))
            return found
        for one in _tensors(found):
            if target != _is_there(one):
                if any(_same_storage(one, other) for other in given):
                    return _moved(found, target)
                _mark(one, target)
        return found


def _name(func: Callable[..., Any]) -> str:
    """`to`, or `device.__get__` for what reads an attribute."""
    plain = getattr(func, "__name__", "")
    if plain in ("__get__", "__set__"):
        return f"{getattr(func.__self__, '__name__', '')}.{plain}"  # type: ignore[attr-defined]
    return plain


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in tree_iter(values):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, slice):
            yield from (x for x in (value.start, value.stop) if isinstance(x, Tensor))


def _is_there(tensor: Tensor) -> bool:
    try:
        return getattr(tensor.untyped_storage(), "is_there", False)
    except (RuntimeError, NotImplementedError):  # a tensor of functorch, or a sparse one, has none
        return False


def _mark(tensor: Tensor, there: bool) -> None:
    if tensor.device.type == "cpu":
        tensor.untyped_storage().is_there = there  # type: ignore[attr-defined]


def _same_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage() is other.untyped_storage()


def _moved(found: Any, there: bool) -> Any:
    def copy(one: Any) -> Any:
        if not isinstance(one, Tensor) or _is_there(one) == there:
            return one
        copied = one.clone()
        _mark(copied, there)
        return copied

    return tree_map(copy, found)


def _check_together(name: str, given: list[Tensor], args: Any) -> None:
    """Tensors of both places are refused; numbers without axes may come from the CPU, and so may
    indices in brackets."""
    if name in _ACROSS:
        if name in ("__getitem__", "__setitem__") and not _is_there(args[0]):
            given = [args[0], *_tensors(args[1])]
        else:
            return
    places = {_is_there(one) for one in given if one.dim() or _is_there(one)}
    if len(places) > 1:
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found at least two "
            f"devices, {DEVICE} and cpu!"
        )


def _asked(args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call names."""
    named = kwargs.get("device")
    positional = (one for one in args if isinstance(one, (torch.device, str)))
    for one in (named, *positional):
        try:
            if one is not None:
                return torch.device(one)
        except RuntimeError:  # another kind of text
            continue
    return None


def _target(name: str, args: Any, asked: torch.device | None, there: bool) -> bool:
    """Whether what a call returns is on the device."""
    if name in _TO_CPU:
        return False
    if asked is not None and asked.type != "meta":
        return asked.type == DEVICE.type
    if name in ("to", "type_as") and len(args) > 1 and isinstance(args[1], Tensor):
        return _is_there(args[1])
    if name in _ACROSS and name != "to":
        return isinstance(args[0], Tensor) and _is_there(args[0])
    return there


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == DEVICE.type:
        return _CPU
    return "cpu" if isinstance(value, str) and value.split(":")[0] == DEVICE.type else value
