"""When the CPU platform claims a machine."""

import subprocess
import sys

import pytest

from sglang_dflash.cpu import activation
from sglang_dflash.errors import DFlashError


@pytest.fixture
def machine(monkeypatch):
    """Set the switch, the device nodes, and what torch says of them."""

    def build(switch=None, nodes=False, usable=False, in_tree_cpu=False):
        import torch

        for name, value in (
            ("SGLANG_DFLASH_PLATFORM", switch),
            ("SGLANG_USE_CPU_ENGINE", "1" if in_tree_cpu else None),
        ):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(activation.glob, "glob", lambda pattern: ["/dev/x"] if nodes else [])
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: usable)

    return build


@pytest.mark.parametrize(
    "case, expected",
    [
        (dict(), True),
        (dict(nodes=True), True),  # a display adapter is no accelerator
        (dict(nodes=True, usable=True), False),
        (dict(nodes=True, usable=True, switch="cpu"), True),
        (dict(switch="off"), False),
        (dict(in_tree_cpu=True), False),
        (dict(in_tree_cpu=True, switch="CPU"), True),
    ],
    ids=str,
)
def test_wanted(machine, case, expected):
    machine(**case)
    assert activation.claims_machine() is expected


def test_a_misspelt_switch_is_one_clear_error(machine):
    machine(switch="gpu")
    with pytest.raises(DFlashError, match="SGLANG_DFLASH_PLATFORM: is 'gpu'"):
        activation.claims_machine()


def test_the_decision_imports_neither_torch_nor_sglang():
    code = (
        "import sys; from sglang_dflash.cpu import activation; activation.DEVICE_NODES = ();"
        "assert activation.claims_machine(); assert not {'torch', 'sglang'} & set(sys.modules)"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
