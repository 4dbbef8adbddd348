"""Numbers of cases."""

from __future__ import annotations

import csv
import io

from fedlens.viewer.case import new_case_id
from fedlens.viewer.review_table import review_table


def test_numbers_differ_and_stand_in_a_table_of_reviews_as_they_are() -> None:
    numbers = [new_case_id() for _ in range(1000)]
    assert len(set(numbers)) == 1000 and all(len(number) == 32 for number in numbers)
    table = review_table([number, *[""] * 10] for number in numbers)
    assert [row["case_id"] for row in csv.DictReader(io.StringIO(table))] == numbers
