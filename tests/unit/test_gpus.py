"""The machine's GPUs, by a double of the driver's library."""

from types import SimpleNamespace

import pytest

from sglang_dflash import gpus
from sglang_dflash.checkpoints.catalogue.command import this_generation
from sglang_dflash.tools.doctor import machine


@pytest.fixture
def driver(monkeypatch):
    """Two H100 on which processes 12, 13 and 14 run; how often the library was opened and closed."""
    calls = []
    process = SimpleNamespace
    running = {
        0: [process(pid=12, usedGpuMemory=100), process(pid=13, usedGpuMemory=50)],
        1: [process(pid=12, usedGpuMemory=7), process(pid=14, usedGpuMemory=None)],
    }
    answers = {
        "nvmlInit": lambda: calls.append("open"),
        "nvmlShutdown": lambda: calls.append("close"),
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "NVIDIA H100",
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 << 30),
        "nvmlDeviceGetComputeRunningProcesses": running.get,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(gpus.pynvml, name, answer)
    return calls


@pytest.fixture
def no_driver(monkeypatch):
    def fail():
        raise gpus.pynvml.NVMLError(gpus.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(gpus.pynvml, "nvmlInit", fail)


def test_name_capability_and_memory(driver):
    assert gpus.nvidia_gpus() == [gpus.Gpu("NVIDIA H100", "9.0", 80 << 30)] * 2
    assert driver == ["open", "close"]


def test_memory_of_some_processes_over_all_gpus(driver):
    assert gpus.memory_of_processes({12, 14}) == 107
    assert gpus.memory_of_processes({99}) == 0


def test_without_a_driver_there_is_none(no_driver):
    assert gpus.nvidia_gpus() == []
    assert gpus.memory_of_processes({12}) is None
    assert this_generation() is None


def test_the_library_is_closed_after_an_error(driver, monkeypatch):
    def fail(handle):
        raise gpus.pynvml.NVMLError(gpus.pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(gpus.pynvml, "nvmlDeviceGetName", fail)
    with pytest.raises(gpus.pynvml.NVMLError):
        gpus.nvidia_gpus()
    assert driver == ["open", "close"]


def test_what_the_commands_make_of_them(driver, monkeypatch):
    monkeypatch.setattr("sglang_dflash.cpu.activation.claims_machine", lambda: False)
    assert machine.this_machine() == machine.Machine("NVIDIA H100", 2, 80 << 30, "sm90")
    assert this_generation() == "sm90"
