import pytest
from conformance import STATEMENT, up_to_date

from dicom_io.conformance import with_tables


def test_the_statement_tells_of_the_code_as_it_is() -> None:
    text = STATEMENT.read_text(encoding="utf-8")
    assert up_to_date(text) == text, "the tables are not up to date: python -m tests.conformance"


def test_a_table_goes_to_its_place_and_nowhere_else() -> None:
    text = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n"
    new = with_tables(text, {"one": "| 1 |\n", "two": "| 2 |\n"})
    assert new == "a\n<!-- table: one -->\n| 1 |\n<!-- end -->\nb\n<!-- table: two -->\n| 2 |\n<!-- end -->\n"
    assert with_tables(new, {"one": "| 1 |\n", "two": "| 2 |\n"}) == new
    for wrong in ({"one": ""}, {"one": "", "two": "", "three": ""}):
        with pytest.raises(ValueError, match="places"):
            with_tables(text, wrong)
