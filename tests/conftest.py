"""What all tests share: signals as a terminal gives them, the launcher of servers, ties, and work for two processes."""

import re
import signal
from pathlib import Path

import pytest
from exact import ties_seen
from launcher import ForkLauncher

LOG_TAIL = 120  # lines of a server's log shown with a failure

# A background or nohup run hands its children ignored signals, which tests send.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL), ("SIGTERM", signal.SIG_DFL)):
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), usual)


@pytest.fixture(scope="session")
def launch():
    """Starts servers as forks of one process that has SGLang imported."""
    launcher = ForkLauncher()
    yield launcher.launch
    launcher.close()


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow, too")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if {"launch", "servers", "served"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.e2e)
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # What a server wrote says why it did not start; its file is gone once the machine is.
    for path in re.findall(r"\(see (\S+?)\)", str(call.excinfo.value) if report.failed else ""):
        logs = sorted(Path(path).glob("*.log")) if Path(path).is_dir() else [Path(path)]
        for log in filter(Path.is_file, logs):
            lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
            report.sections.append((f"end of {log.name}", "\n".join(lines)))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests that share servers stay together, in their order: a file's, or a family's."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServers(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            if not file.endswith("test_families.py"):
                return file
            parameters = test.partition("[")[2].rstrip("]")
            return f"{file}::{re.sub('^(chain|tree)-|-(chain|tree)$', '', parameters)}"

    return ByServers(config, log)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ties"] = ties_seen


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    ties_seen.extend(getattr(node, "workeroutput", {}).get("ties", ()))


def pytest_terminal_summary(terminalreporter):
    # A passing test's own prints are not shown.
    terminalreporter.write_line(f"ties with plain decoding: {len(ties_seen)}")
    for tie in ties_seen:
        terminalreporter.write_line(tie)
