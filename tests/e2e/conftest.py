"""Fixtures of the end-to-end tests; tests/e2e/servers.py says how to use them."""

import pytest
from exact import PlainAnswers
from servers import Servers, TestPair


@pytest.fixture(scope="session")
def pair() -> TestPair:
    return TestPair()


@pytest.fixture(scope="session")
def servers(pair, launch, tmp_path_factory):
    running = Servers(pair, tmp_path_factory.mktemp("servers"), launch)
    yield running
    running.stop_all()


@pytest.fixture(scope="session")
def plain(servers) -> PlainAnswers:
    return PlainAnswers(servers)


@pytest.fixture(scope="session")
def tokenizer(pair):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pair.target)
