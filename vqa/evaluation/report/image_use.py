"""Does the image matter: a model's accuracy as it is, with a blank image, with other questions' images, without any."""

from dataclasses import dataclass
from typing import Any

from vqa.evaluation.results import TASKS, Task
from vqa.tables import Column, Row, Table

AS_IT_IS, BLANK, SHUFFLED = "its own images", "a blank image", "images of other questions"


@dataclass(frozen=True)
class Condition:
    """A model's accuracy under one condition.

    Attributes:
        name: the condition.
        accuracy: percent by task.
        unchanged: percent of the open-ended answers that are those of `AS_IT_IS`; None where that is no question.
    """

    name: str
    accuracy: dict[Task, float]
    unchanged: float | None = None


@dataclass(frozen=True)
class ImageUse:
    """A model's accuracy under several conditions.

    Attributes:
        name: the run.
        data: the split.
        metric: what every accuracy is called.
        conditions: `AS_IT_IS` first.
    """

    name: str
    data: str
    metric: str
    conditions: tuple[Condition, ...]

    def table(self) -> Table:
        """One row a condition."""
        tasks = [task for task in TASKS if task in self.conditions[0].accuracy]
        columns = (*(Column(task) for task in tasks), Column("same answer"))
        rows = tuple(
            Row(one.name, (*(one.accuracy.get(task) for task in tasks), one.unchanged)) for one in self.conditions
        )
        caption = (
            f"{self.name}, {self.data}: {self.metric}, in percent, with each question's own image; with a blank one, "
            "in which every region is the mean over images; and with images exchanged at random so that no question "
            "keeps its own. What remains without the own image does not come from it. Same answer: percent of "
            "open-ended answers that do not change."
        )
        return Table("Does the image matter", caption, columns, rows, row_heading="Answered with", best="none")

    def as_json(self) -> dict[str, Any]:
        """For `evaluation_<split>.json`, in percent."""
        return {
            one.name: {task.replace("-", "_"): value for task, value in one.accuracy.items()}
            | {"same_answer": one.unchanged}
            for one in self.conditions
        }
