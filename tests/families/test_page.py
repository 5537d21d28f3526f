"""The list of families is what the tests passed."""

from page import PAGE, README, page, readme_list, served
from table import FAMILIES


def test_every_family_of_the_table_has_passed():
    assert [family.name for family in served()] == [family.name for family in FAMILIES]


def test_page_and_readme_are_up_to_date():
    assert PAGE.read_text() == page()
    assert readme_list() in README.read_text()
