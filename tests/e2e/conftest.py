"""Fixtures of the end-to-end tests; tests/e2e/servers.py says how to use them."""

from pathlib import Path

import pytest
from exact import PlainAnswers, ties_seen
from servers import Servers, TestPair


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def pytest_terminal_summary(terminalreporter):
    # A passing test's own prints are not shown.
    terminalreporter.write_line(f"ties with plain decoding: {len(ties_seen)}")
    for tie in ties_seen:
        terminalreporter.write_line(tie)


@pytest.fixture(scope="session")
def pair() -> TestPair:
    return TestPair()


@pytest.fixture(scope="session")
def servers(pair, tmp_path_factory):
    running = Servers(pair, tmp_path_factory.mktemp("servers"))
    yield running
    running.stop_all()


@pytest.fixture(scope="session")
def plain(servers) -> PlainAnswers:
    return PlainAnswers(servers)


@pytest.fixture(scope="session")
def tokenizer(pair):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pair.target)
