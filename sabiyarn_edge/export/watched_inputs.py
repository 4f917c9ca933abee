"""Lets others see the inputs of a model's matrices while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ..modeling.routed_mlp import RoutedMLP

__all__ = ["watched_inputs"]


@contextmanager
def watched_inputs(
    module: nn.Module, prefix: str, watchers: Mapping[str, Callable[[Tensor], object]]
) -> Iterator[None]:
    """Tell the watchers the inputs of their matrices while `module` runs.

    Args:
        prefix: what the names of its matrices begin with: "" for the whole model.
        watchers: by the names of the matrices; told [..., inputs] each time, an expert's only of its own tokens.
    """
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            watcher = watchers.get(f"{prefix}{name}.weight")
            if watcher is not None:
                tell = lambda _, x, watcher=watcher: watcher(x[0])  # noqa: E731
                hooks.callback(layer.register_forward_pre_hook(tell).remove)
            if isinstance(layer, RoutedMLP):
                layer.watch = _bank_watcher(f"{prefix}{name}", watchers)
                hooks.callback(setattr, layer, "watch", None)
        yield


def _bank_watcher(
    name: str, watchers: Mapping[str, Callable[[Tensor], object]]
) -> Callable[[str, int, Tensor], None]:
    def watch(bank: str, expert: int, x: Tensor) -> None:
        watcher = watchers.get(f"{name}.{bank}.{expert}")
        if watcher is not None:
            watcher(x)

    return watch
