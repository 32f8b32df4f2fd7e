"""`vqa score` on files whose parts are in different orders."""

from pathlib import Path

import pytest
from helpers.formats import write

from vqa.evaluation.score_files import score_files

PEOPLE = ["cat"] + ["dog"] * 2 + ["cow"] * 7
# The mean of 0.6, 0.6, 0.6, 0.3 and twelve zeros is half of a hundredth per cent, but for the bits that each sum loses.
GIVEN = {13.12: ["dog", "dog", "dog", "cat"], 13.13: ["dog", "cat", "dog", "dog"]}


@pytest.mark.parametrize("printed", GIVEN)
@pytest.mark.parametrize("order", [range(16), range(15, -1, -1), [0, 3, 1, 2, *range(4, 16)]])
def test_means_are_added_up_in_the_order_of_the_annotations(tmp_path: Path, printed: float, order: list[int]) -> None:
    """`printed` is what the official program prints, whatever the order of the questions and results."""
    given = [*GIVEN[printed], *["bird"] * 12]
    answers = [{"answer": text, "answer_id": number} for number, text in enumerate(PEOPLE, start=1)]
    annotations = [
        {"question_id": i, "image_id": i, "multiple_choice_answer": "cow", "answers": answers} for i in range(16)
    ]
    asked = write(tmp_path / "q.json", [{"question_id": i, "image_id": i, "question": "what?"} for i in order])
    answered = write(tmp_path / "a.json", annotations)
    results = write(tmp_path / "r.json", [{"question_id": i, "answer": given[i]} for i in order])
    assert score_files(results, asked, answered).overall == printed
