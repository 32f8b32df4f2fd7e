"""`write_comparison`: what changed from one system to another as one HTML page that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa.evaluation.report.boxes import Attention, attention_shown
from vqa.evaluation.report.figures import data_uri, fit
from vqa.evaluation.report.page import IMAGE_SIDE, open_image, page_templates, table_view, verdict, without_places
from vqa.files import atomic_write
from vqa.tables import Table

MOST_MAPS = 3  # of one system's attention


@dataclass(frozen=True)
class Reply:
    """What one system answers to one question.

    Attributes:
        system: its name.
        answer: the answer; of several seeds the most frequent one.
        accuracy: 0..1; the mean over seeds.
        runs: how many runs gave this answer.
        of_runs: of how many.
        attention: where its first run looked, or None.
    """

    system: str
    answer: str
    accuracy: float
    runs: int = 1
    of_runs: int = 1
    attention: Attention | None = None


@dataclass(frozen=True)
class ChangedQuestion:
    """One question that two systems answer differently.

    Attributes:
        image: the image's file; one that is not there is left out.
        question: as asked.
        question_type: may be empty.
        humans: the human answers with how many gave each.
        replies: of the two systems.
    """

    image: Path
    question: str
    question_type: str
    humans: tuple[tuple[str, int], ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class ChangeGroup:
    """Questions of one kind of change.

    Attributes:
        heading: "Fixed: san has them right, concat does not".
        text: how many there are, and which are shown.
        questions: those shown.
    """

    heading: str
    text: str
    questions: tuple[ChangedQuestion, ...]


@dataclass(frozen=True)
class ComparisonPage:
    """Everything the page shows.

    Attributes:
        title: the heading.
        summary: the findings in sentences; the first is set large.
        tables: the numbers.
        groups: the questions.
        facts: how the numbers were made, as (label, value).
        accuracy_name: the metric, with its protocol.
    """

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    groups: tuple[ChangeGroup, ...]
    facts: tuple[tuple[str, str], ...]
    accuracy_name: str


def write_comparison(path: Path, page: ComparisonPage) -> None:
    """Write the page as one HTML file: no script, no address outside the file, light and dark, for any width.

    Raises:
        InputError: an image cannot be read.
    """
    short = without_places
    text = (
        page_templates()
        .get_template("compare.html")
        .render(
            page=page,
            title=short(page.title),
            summary=[short(sentence) for sentence in page.summary],
            facts=[(label, short(value)) for label, value in page.facts],
            tables=[table_view(table) for table in page.tables],
            groups=group_views(page.groups),
        )
    )
    with atomic_write(path) as file:
        file.write(text)


def group_views(groups: Sequence[ChangeGroup]) -> list[dict[str, Any]]:
    """What the template shows of the questions.

    Raises:
        InputError: an image cannot be read.
    """
    return [{"group": group, "views": [_view(one) for one in group.questions]} for group in groups]


def _view(changed: ChangedQuestion) -> dict[str, Any]:
    """A question with its image and attention as data addresses."""
    image = fit(open_image(changed.image), IMAGE_SIDE) if changed.image.is_file() else None
    looks = [look for reply in changed.replies for look in _looks(image, reply)]
    return {
        "changed": changed,
        "image": None if image is None else data_uri(image),
        "size": (0, 0) if image is None else image.size,
        "looks": looks,
        "total": sum(count for _, count in changed.humans),
        "replies": [(reply, verdict(reply.accuracy)) for reply in changed.replies],
    }


def _looks(image: Any, reply: Reply) -> Sequence[dict[str, str]]:
    """Up to three maps of one system's attention over the image."""
    found = reply.attention
    if image is None or found is None or found.weights_HR is None:
        return []
    weights_HR = found.weights_HR
    if found.box_R4 is None and (weights_HR.shape[1] < 2 or found.grid is None):
        return []
    looks = []
    for number, weights_R in enumerate(weights_HR[:MOST_MAPS], start=1):
        overlay, place = attention_shown(image, weights_R, found.grid, found.framing, found.box_R4)
        which = f", {found.name} {number}" if len(weights_HR) > 1 else ""
        looks.append({"name": f"{reply.system}{which}", "uri": data_uri(overlay), "place": place})
    return looks
