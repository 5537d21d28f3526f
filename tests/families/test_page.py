"""The page and the list say what is tested, no more and no less."""

import inspect

import test_families
from conftest import SHAPES
from page import PAGE, PARTS, README, page, readme_list


def covered_parts() -> set[str]:
    """Parts that test_families.py has a test of, as names and fixtures tell them apart."""
    found = set()
    for name, function in inspect.getmembers(test_families, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        if "image" in name:
            found.add("image")
        else:
            found |= set(SHAPES) if "served" in inspect.signature(function).parameters else {"plain"}
    return found


def test_every_column_has_its_tests():
    assert covered_parts() == set(PARTS)


def test_page_and_readme_are_up_to_date():
    assert PAGE.read_text() == page()
    assert readme_list() in README.read_text()
