"""Hooks that live exactly as long as a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
PostHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
K = TypeVar("K")


@contextmanager
def hooked(
    before: list[tuple[nn.Module, PreHook]], after: list[tuple[nn.Module, PostHook]]
) -> Iterator[None]:
    """Hold forward pre-hooks and forward hooks (both with keyword arguments) on modules."""
    with ExitStack() as stack:
        for module, pre_hook in before:
            handle = module.register_forward_pre_hook(pre_hook, with_kwargs=True)
            stack.callback(handle.remove)
        for module, post_hook in after:
            handle = module.register_forward_hook(post_hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def idle(modules: Mapping[nn.Module, tuple[Any, ...] | None]) -> Iterator[None]:
    """While inside, each module computes nothing and hands on the hidden states that it is given:
    alone (None), or followed by these values in a tuple."""
    with ExitStack() as stack:
        for module, rest in modules.items():
            own = vars(module).get("forward")  # accelerate puts one there
            if own is None:
                stack.callback(delattr, module, "forward")
            else:
                stack.callback(setattr, module, "forward", own)
            module.forward = _handing_on(rest)
        yield


def _handing_on(rest: tuple[Any, ...] | None) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs)
        return hidden if rest is None else (hidden, *rest)

    return forward


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a module of a Hugging Face model was called with."""
    found = args[0] if args else kwargs["hidden_states"]
    assert isinstance(found, Tensor)
    return found


def on_input(change: Callable[[Tensor], Tensor]) -> PreHook:
    """Calls the module with what `change` makes of its hidden states."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_first_tensor(args, kwargs, change(first_tensor(args, kwargs)))

    return hook


def on_output(change: Callable[[Tensor], Tensor]) -> PostHook:
    """Hands on what `change` makes of the hidden states that the module returned."""

    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        changed = change(first_output(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def keep_input(store: MutableMapping[K, Tensor], key: K) -> PreHook:
    """Leaves the hidden states that the module was last called with in `store`, as they are."""

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store[key] = first_tensor(args, kwargs)

    return keep


def keep_output(store: MutableMapping[K, Tensor], key: K) -> PostHook:
    """Leaves the hidden states that the module last returned in `store`, as they are."""

    def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        store[key] = first_output(output)

    return keep


def first_output(output: Any) -> Tensor:
    """The hidden states that a module of a Hugging Face model returned."""
    found = output[0] if isinstance(output, tuple) else output
    assert isinstance(found, Tensor)
    return found


def with_first_tensor(
    args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states."""
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}
