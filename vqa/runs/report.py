"""The page of a trained run: `report.html`.

Legend: `K` best answers, `H` hops, `R` regions.
"""

from collections.abc import Sequence

import numpy as np

from vqa.evaluation.accuracy import score
from vqa.evaluation.report.page import Curve, Example, Guess, Report, confusions, example_rows, human_answers
from vqa.features.cache.reader import grid_of
from vqa.runs.predictions import Evaluation
from vqa.training.predict import attend
from vqa.training.run_folder import RunFolder, read_metrics


def run_report(evaluation: Evaluation) -> Report:
    """The page of one run."""
    run, dataset = evaluation.run, evaluation.dataset
    own = evaluation.scored[0]
    headline = [
        f"{task} {found.overall:.2f}%"
        for task, found in (("open-ended", own.open_ended), ("multiple-choice", own.multiple_choice))
        if found is not None
    ]
    warning = (f"{evaluation.overlap.stamp}. These numbers are no test.",) if evaluation.overlap.contaminated else ()
    choice = (f"{evaluation.overlap.choice()}.",) if evaluation.overlap.choice() else ()
    predictions = next(iter(evaluation.answers.values()))
    return Report(
        title=f"{run.experiment.name} on {dataset.name}",
        summary=(
            *warning,
            f"{run.name}: {', '.join(headline)} (VQA accuracy, protocol {evaluation.protocol}).",
            *choice,
        ),
        facts=facts(evaluation),
        tables=evaluation.tables(),
        beyond=evaluation.beyond_tables(),
        charts=() if evaluation.beyond is None else evaluation.beyond.charts(),
        curves=(learning_curve(run.experiment.name.rsplit("/", 1)[-1], run.folder),),
        confusions=tuple(confusions(dataset, predictions)),
        examples=examples(evaluation),
        subject=f"{run.name}, {dataset.name}, {next(iter(evaluation.answers))}",
        accuracy_name=f"open-ended VQA accuracy, protocol {evaluation.protocol}",
    )


def facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """How the numbers were made."""
    run, features = evaluation.run, evaluation.run.recorded["features"]
    shown = ", ".join(f"{key} {value}" for key, value in run.experiment.fusion.items() if key != "name")
    section = run.experiment.features
    tuned = f"; then tuned with the model, from {section.tune_from!r} on" if section.tune else ""
    return (
        ("seed", str(run.experiment.seed)),
        ("protocol", f"official VQA metric, version {evaluation.protocol}"),
        ("data", f"{evaluation.dataset.name}, {len(evaluation.dataset):,} questions"),
        ("answer vocabulary", f"{len(run.answers):,} answers of the training split"),
        ("fusion", f"{run.experiment.fusion['name']}{f' ({shown})' if shown else ''}"),
        ("image features", f"{features['encoder']} {features['layer']} at {features['image_size']} px"),
        ("encoder weights", f"{features['weights_origin']}{tuned}"),
        ("machine", str(run.recorded["machine"])),
    )


def learning_curve(name: str, folder: RunFolder) -> Curve:
    """A run's accuracy and loss by epoch, from metrics.jsonl."""
    rows = read_metrics(folder.metrics)
    return Curve(
        name,
        tuple(row["epoch"] for row in rows),
        tuple(row["val/open_ended/overall"] for row in rows),
        tuple(row["train/loss"] for row in rows),
    )


def examples(evaluation: Evaluation, count: int = 12, others: Sequence[Evaluation] = ()) -> tuple[Example, ...]:
    """Questions drawn by lot, with the run's best answers and where it looked.

    Args:
        others: more runs on the same split, whose answers are shown too.
    """
    dataset, predicted, features = evaluation.dataset, evaluation.predicted, evaluation.run.recorded["features"]
    rows = example_rows(dataset, count)
    maps = attend(
        evaluation.run.model, evaluation.questions, evaluation.features, evaluation.run.machine, rows.tolist()
    )
    accuracy_N = open_ended_accuracy(evaluation)
    vocabulary = evaluation.run.answers.answers
    found = []
    for row, attention_HR in zip(rows.tolist(), maps, strict=True):
        guesses = zip(predicted.answer_NK[row], predicted.probability_NK[row], strict=True)
        found.append(
            Example(
                image=dataset.images.paths[dataset.image_row_N[row]],
                question=dataset.question.at(row),
                guesses=tuple(Guess(vocabulary[answer], float(probability)) for answer, probability in guesses),
                humans=human_answers(dataset, row),
                accuracy=float(accuracy_N[row]),
                attention_HR=attention_HR,
                grid=None if attention_HR is None else grid_of(features, attention_HR.shape[1]),
                attention_name=evaluation.run.model.fusion.attention_name,
                question_type="" if dataset.question_type is None else dataset.question_type.at(row),
                other_runs=tuple(_said(other, row) for other in others),
            )
        )
    return tuple(found)


def open_ended_accuracy(evaluation: Evaluation) -> np.ndarray:
    """float64 `[N]`, 0..1: the open-ended accuracy of each question, whichever tasks were asked for."""
    open_ended = evaluation.predicted.open_ended(evaluation.run.answers)
    return score(evaluation.dataset, open_ended, evaluation.protocol).accuracy_N


def _said(evaluation: Evaluation, row: int) -> tuple[str, str, float]:
    answer = evaluation.run.answers.answers[evaluation.predicted.answer_NK[row, 0]]
    return evaluation.run.experiment.name.rsplit("/", 1)[-1], answer, float(open_ended_accuracy(evaluation)[row])
