"""An evaluation in the trackers of its run: numbers, a table of examples, confusions, files.

Legend: `T` true answers, `P` predicted answers.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vqa.errors import InputError
from vqa.evaluation.report.confusion import OTHER, Confusion
from vqa.evaluation.report.figures import fit
from vqa.evaluation.report.page import IMAGE_SIDE, Example, attention_images, open_image
from vqa.experiment import Experiment
from vqa.files import sha256_file
from vqa.progress import console
from vqa.training.run_folder import RunFolder, read_evaluation
from vqa.training.tracking.protocol import Bundle, Cell, MediaTable, Shown
from vqa.training.tracking.summary import evaluation_values, plain, run_folder_files
from vqa.training.tracking.trackers import track_evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST_SHOWN = 3  # answers of a question
TYPES_SHOWN = 6  # question types whose confusions are plotted
LABEL = 14  # letters of an answer beside a plot


def track_evaluation(
    folder: RunFolder,
    experiment: Experiment,
    split: str,
    *,
    examples: Callable[[], Sequence[Example]],
    confusions: Callable[[], Sequence[Confusion]],
) -> None:
    """Add `evaluation_<split>.json` and what belongs to it to the run, in the same run of W&B as its training.

    Nothing happens where the run was not tracked when it was trained.

    Args:
        folder: of the run, evaluated.
        examples: a sample of questions with answers and attention.
        confusions: which answers are taken for which.

    Raises:
        InputError: tracking.json is damaged.
    """
    if not folder.tracking.is_file():
        return
    tracker = track_evaluating(folder.path, experiment)
    tracker.summarise(evaluation_values(split, read_evaluation(folder.evaluation(split))))
    try:
        shown = evaluation_media(examples(), confusions())
    except InputError as error:  # an image that is gone: the numbers stand all the same
        console.print(f"tracking: no table of examples: {error}")
        shown = {}
    if shown:
        tracker.media({f"evaluation/{split}/{name}": one for name, one in shown.items()})
    if experiment.tracking.artifacts:
        metadata = {"split": split, "weights_sha256": sha256_file(folder.model)}
        name = f"{plain(experiment.name)}-{experiment.seed}-evaluation-{plain(split)}"
        tracker.keep(Bundle(name, "evaluation", run_folder_files(folder, split), metadata))
    tracker.finish()


def evaluation_media(examples: Sequence[Example], confusions: Sequence[Confusion]) -> dict[str, Shown]:
    """What is shown of an evaluation; an empty part is left out.

    Raises:
        InputError: an image cannot be read.
    """
    shown: dict[str, Shown] = {}
    if examples:
        shown["predictions"] = predictions_table(examples)
    if found := [one for one in confusions if one.questions]:
        shown |= {"confusions": confusions_table(found), "confusion_matrices": plot_confusions(found[:TYPES_SHOWN])}
    return shown


def predictions_table(examples: Sequence[Example]) -> MediaTable:
    """One row a question: image, question, human answers, the best answers with probabilities, attention.

    Images that are not there, as where others extracted their features, are left empty, and so is their attention.
    """
    images = [fit(open_image(example.image), IMAGE_SIDE) if example.image.is_file() else None for example in examples]
    looks = [
        [] if image is None else [look for look, _ in attention_images(example, image)]
        for example, image in zip(examples, images, strict=True)
    ]
    most = max(map(len, looks))
    best = min(BEST_SHOWN, max(len(example.guesses) for example in examples))
    names = next((example.attention_name for example in examples), "map")
    columns = ["image", "question", "question type", "human answers", "accuracy"]
    columns += [f"{what} {number}" for number in range(1, best + 1) for what in ("answer", "probability")]
    columns += [f"{names} {number}" for number in range(1, most + 1)]
    rows = []
    for example, image, seen in zip(examples, images, looks, strict=True):
        humans = ", ".join(f"{answer} ({count})" for answer, count in example.humans)
        row: list[Cell] = [image, example.question, example.question_type, humans, example.accuracy]
        for number in range(best):
            guess = example.guesses[number] if number < len(example.guesses) else None
            row += [guess.answer if guess else None, guess.probability if guess else None]
        rows.append((*row, *seen, *[None] * (most - len(seen))))
    return MediaTable(tuple(columns), tuple(rows))


def confusions_table(confusions: Sequence[Confusion]) -> MediaTable:
    """One row for each true and predicted answer of a question type that occurred together, "other" among them."""
    rows = []
    for one in confusions:
        labels = (*one.answers, OTHER)
        for t, p in np.argwhere(one.count_TP).tolist():
            rows.append((one.question_type, labels[t], labels[p], int(one.count_TP[t, p])))
    return MediaTable(("question type", "true answer", "answer", "questions"), tuple(rows))


def plot_confusions(confusions: Sequence[Confusion]) -> Image.Image:
    """A matrix for each question type, each row (a true answer) shaded by its shares."""
    from matplotlib.figure import Figure

    wide = min(3, len(confusions))
    high = -(-len(confusions) // wide)
    figure = Figure(figsize=(5.2 * wide, 5.0 * high), layout="constrained", dpi=100)
    for place, one in enumerate(confusions, start=1):
        axes = figure.add_subplot(high, wide, place)
        labels = [_short(label) for label in (*one.answers, OTHER)]
        rows, columns = (len(one.answers) + int(one.count_TP[last].any()) for last in (np.s_[-1], np.s_[:, -1]))
        share_TP = one.count_TP / np.maximum(one.count_TP.sum(axis=1, keepdims=True), 1)
        axes.imshow(share_TP[:rows, :columns], cmap="Blues", vmin=0, vmax=1)
        for t, p in np.argwhere(one.count_TP).tolist():
            colour = "white" if share_TP[t, p] > 0.6 else "black"
            axes.text(p, t, f"{one.count_TP[t, p]}", ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(columns), labels[:columns], rotation=60, ha="right", parse_math=False)
        axes.set_yticks(range(rows), labels[:rows], parse_math=False)
        axes.set_xlabel("answer")
        axes.set_ylabel("true answer")
        axes.set_title(f"{one.question_type} ({one.questions:,} questions)", parse_math=False)
    return plotted(figure)


def plotted(figure: "Figure") -> Image.Image:
    """A figure of matplotlib as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _short(label: str) -> str:
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
