"""Which implementation of an operation a device gets."""

from collections.abc import Callable
from importlib import import_module


def by_device(package: str, name: str) -> Callable[[str], Callable]:
    """``choose`` of an operation: ``package.triton.name`` on ``"cuda"``, ``package.naive.name`` on other device types.

    Only what is chosen is imported: a machine without Triton serves with the torch twins.
    """

    def choose(device_type: str) -> Callable:
        return getattr(import_module(f"{package}.{'triton' if device_type == 'cuda' else 'naive'}"), name)

    return choose
