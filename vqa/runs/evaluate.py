"""`vqa evaluate`: a trained run over a split, as official results files, numbers, tables and the page.

Legend: `N` questions, `K` best answers, `H` hops, `R` regions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.contamination import SEEN_NAME, UNSEEN_NAME
from vqa.evaluation.judge import Judgement, JudgeOptions, SplitAnswers, judge
from vqa.evaluation.report.confusion import confusions
from vqa.evaluation.report.page import Curve, Example, Guess, Report, example_rows, write_report
from vqa.evaluation.results import Task, write_results
from vqa.experiment import Experiment, read_experiment, validated_on, weights_chosen
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.files import sha256_file, write_json
from vqa.overrides import differences_at
from vqa.recipes import find_recipe
from vqa.runs.asking import ask_run, attention_of
from vqa.runs.image_use import judge_image_use, measure_image_use, question_only_beside
from vqa.runs.load import BEST_ANSWERS, TrainedRun, load_run, moved_to
from vqa.runtime.distributed import joined
from vqa.training.inputs.batches import EncodedQuestions
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.inputs.splits import read_split
from vqa.training.predict import Predictions, predict
from vqa.training.run_folder import RunFolder, read_epochs
from vqa.training.tracking.evaluation import track_evaluation
from vqa.training.tracking.trackers import is_tracked


@dataclass(frozen=True)
class EvaluationOptions(JudgeOptions):
    """How a trained run is evaluated.

    Attributes:
        caches: feature caches instead of the experiment's, for a split that was extracted to another file.
        data: the data set's folder instead of the experiment's, where it or the run was moved.
        allow_seen: evaluate on questions and images that the run was trained on, and stamp every number with it.
        exclude_seen: leave out the questions of which anything was seen in training, and say how many.
        allow_code: see `load_run`.
        choices_outside: in multiple choice, score choices outside the answer vocabulary too; both numbers are reported.
        image_matters: also answer with a blank image and with other questions' images (`vqa.runs.image_use`).
        shares_images: the published splits share images by design, though the run's experiment does not say so.
    """

    caches: Sequence[Path] = ()
    data: Path | None = None
    allow_seen: bool = False
    exclude_seen: bool = False
    allow_code: bool = False
    choices_outside: bool = True
    image_matters: bool = True
    shares_images: bool = False


DEFAULTS = EvaluationOptions()


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a split, and how good that is.

    Attributes:
        run: the trained run.
        questions: the split as tensors.
        features: its images' features.
        predicted: best answers and choices' scores.
        judgement: of the answers; without scores where they are hidden, and in all processes but the first.
    """

    run: TrainedRun
    questions: EncodedQuestions
    features: FeatureTable | PixelTable
    predicted: Predictions
    judgement: Judgement

    @property
    def dataset(self) -> QADataset:
        """The split."""
        return self.judgement.dataset

    @property
    def short_name(self) -> str:
        """The last part of the experiment's name."""
        return self.run.experiment.name.rsplit("/", 1)[-1]

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`."""
        folder, experiment = self.run.folder, self.run.experiment
        digest = sha256_file(folder.model)
        found = self.judgement.summary(folder.path, experiment.name, seed=experiment.seed, weights_sha256=digest)
        return found | {"metric": self.judgement.metric, "answers_normalise": experiment.answers.normalise}

    def report(self) -> Report:
        """The page of the run."""
        return self.judgement.report(self.run.experiment.name, self.facts(), self.examples(), [self.learning_curve()])

    def facts(self) -> tuple[tuple[str, str], ...]:
        """How the numbers were made."""
        experiment, features = self.run.experiment, self.run.recorded["features"]
        section = experiment.features
        tuned = f"; then tuned with the model, from {section.tune_from!r} on" if section.tune else ""
        return (
            ("seed", str(experiment.seed)),
            *self.judgement.facts(),
            *(("recipe", recipe) for recipe in [recipe_of(experiment)] if recipe),
            ("validation", validated_on(experiment) or "none"),
            ("weights", weights_chosen(experiment).removeprefix("Weights: ")),
            ("epochs", self.epochs()),
            ("answer vocabulary", self.answer_vocabulary()),
            ("question encoder", _with_options(experiment.question_encoder)),
            ("fusion", _with_options(experiment.fusion)),
            ("loss", _with_options(experiment.loss)),
            ("image features", f"{features['encoder']} {features['layer']} at {features['image_size']} px"),
            ("encoder weights", f"{features['weights_origin']}{tuned}"),
            ("machine", str(self.run.recorded["machine"])),
        )

    def answer_vocabulary(self) -> str:
        """How many answers there are to choose from, and which spellings count as one."""
        how = self.run.answers.normalise
        joined = "" if how == "none" else f", spellings joined (answers.normalise: {how})"
        return f"{len(self.run.answers):,} answers of the training split{joined}"

    def epochs(self) -> str:
        """Which epoch's weights answer, of how many: the first of the best on validation, or the last."""
        rows = read_epochs(self.run.folder.metrics)
        if self.run.experiment.training.keep == "last":
            return f"the last of {self.run.experiment.training.epochs}"
        if not rows:
            return f"of {self.run.experiment.training.epochs} to train"
        best = max(rows, key=lambda row: row.accuracy)
        planned = self.run.experiment.training.epochs
        more = "" if len(rows) == planned else f", of {planned} at the most"
        return f"the best of {len(rows)} by validation accuracy is epoch {best.epoch:g}{more}"

    def learning_curve(self) -> Curve:
        """The run's accuracy and loss by epoch, from metrics.jsonl."""
        rows = read_epochs(self.run.folder.metrics)
        return Curve(
            self.short_name,
            tuple(row.epoch for row in rows),
            tuple(row.accuracy for row in rows),
            tuple(row.loss for row in rows),
        )

    def examples(self, others: Sequence["Evaluation"] = (), count: int = 12) -> tuple[Example, ...]:
        """A random sample of questions, with the run's best answers and where it looked.

        Args:
            others: more runs on the same split, whose answers are shown too.
            count: how many, each of another image.
        """
        run, predicted = self.run, self.predicted
        rows = example_rows(self.dataset, count).tolist()
        found = []
        looks = attention_of(run, self.questions, self.features, rows)
        for row, look in zip(rows, looks, strict=True):
            best = zip(predicted.answer_NK[row], predicted.probability_NK[row], strict=True)
            example = self.judgement.example(row, [Guess(run.answers.answers[a], float(p)) for a, p in best])
            example = replace(
                example,
                attention_HR=look.weights_HR,
                box_R4=look.box_R4,
                grid=look.grid,
                framing=look.framing,
                attention_name=look.name,
                other_runs=tuple((other.short_name, *other.judgement.answer(row)) for other in others),
            )
            found.append(example)
        return tuple(found)


def _with_options(section: Mapping[str, Any]) -> str:
    """A part of the model with its options: "product (fusion_dim 512)"."""
    shown = ", ".join(f"{key} {value}" for key, value in section.items() if key != "name")
    return f"{section['name']}{f' ({shown})' if shown else ''}"


def recipe_of(experiment: Experiment) -> str:
    """The recipe that an experiment has its name from, and the keys that are not the recipe's; "" without one."""
    found = find_recipe(experiment.name)
    if found is None:
        return ""
    try:
        theirs = read_experiment(found.path).resolved()
    except InputError:  # an ablation of that name
        return ""
    paths = (".".join(path) for path, *_ in differences_at(theirs, experiment.resolved()))
    changed = [path for path in paths if path not in ("seed", "runs")]
    return f"{found.name}, {'with other values of ' + ', '.join(changed) if changed else 'unchanged'}"


def evaluate_run(
    path: Path,
    split: str = "val",
    options: EvaluationOptions = DEFAULTS,
    *,
    report: bool = True,
    json_file: Path | None = None,
) -> Evaluation:
    """Evaluate a run folder on a split; writes results files, `evaluation_<split>.json` and `report.html` into it.

    A split without answers gets its results files only. Under torchrun every process answers some of the questions, and
    the first one scores and writes; the others return an evaluation without scores.

    Args:
        split: "train", "val", "test" of the experiment, or another official split name.
        report: also write `report.html` (only where there are answers).
        json_file: another place for the numbers.

    Raises:
        InputError: naming the file and item; among others when the split has no choices and multiple choice is asked,
            and when the run was trained on any of it.
    """
    with joined() as group:
        run = group.agree(lambda: load_asked(path, options))
        evaluation = evaluate_loaded(run, split, options)
        if group.is_first:
            scored = bool(evaluation.judgement.scored)
            write_judgement(
                evaluation.judgement, run.folder, split,
                summary=evaluation.summary() if scored else None,
                page=evaluation.report() if scored and report else None,
                json_file=json_file,
            )  # fmt: skip
            if scored and is_tracked(run.experiment.tracking):
                track(evaluation, split)
        group.wait()  # until everything is written
    return evaluation


def load_asked(path: Path, options: EvaluationOptions) -> TrainedRun:
    """The run that options are for, with its data where they say.

    Raises:
        InputError: as `load_run` and `moved_to`.
    """
    run = load_run(path, allow_code=options.allow_code)
    if options.shares_images:
        data = run.experiment.data.model_copy(update={"shares_images": "published"})
        run = replace(run, experiment=run.experiment.model_copy(update={"data": data}))
    return run if options.data is None else moved_to(run, options.data)


def track(evaluation: Evaluation, split: str) -> None:
    """Add an evaluation to the tracked run: numbers, examples, confusions and, where asked for, files."""
    run, judgement = evaluation.run, evaluation.judgement
    predictions = next(iter(judgement.answers.by_task.values()))
    count = run.experiment.tracking.examples
    track_evaluation(
        run.folder,
        run.experiment,
        split,
        examples=lambda: evaluation.examples(count=count) if count else (),
        confusions=lambda: confusions(evaluation.dataset, predictions),
    )


def evaluate_loaded(run: TrainedRun, split: str, options: EvaluationOptions = DEFAULTS) -> Evaluation:
    """Predict and judge, writing nothing. Only the first process judges."""
    if options.allow_seen and options.exclude_seen:
        raise InputError("--allow-seen evaluates on what was seen in training, --exclude-seen without it: take one")
    dataset = read_split(run.experiment, split, run.recorded)
    tasks = options.tasks(dataset)
    asked = ask_run(run, dataset, options.caches, allow_seen=options.allow_seen, exclude_seen=options.exclude_seen)
    dataset, questions, features = asked.dataset, asked.questions, asked.features
    device, choosing = run.machine.device, "multiple-choice" in tasks
    nearest = ChoiceTable.of(dataset, run.answers, device) if choosing else None
    best = min(BEST_ANSWERS, len(run.answers))
    predicted = predict(run.model, questions, features, run.machine, best=best, nearest=nearest)
    outside = options.choices_outside

    def pick(found: Predictions) -> dict[Task, Strings]:
        """The answers by task, of the tasks asked for."""
        by_task: dict[Task, Strings] = {"open-ended": found.open_ended(run.answers)} if "open-ended" in tasks else {}
        if choosing and (picked := found.multiple_choice(dataset, outside=outside)) is not None:
            by_task["multiple-choice"] = picked
        return by_task

    others: dict[str, Mapping[Task, Strings]] = {}
    if options.image_matters and dataset.answers is not None:
        others = measure_image_use(run, questions, features, nearest, pick)
    answers = SplitAnswers(
        name=run.name,
        dataset=dataset,
        by_task=pick(predicted),
        open_ended=predicted.open_ended(run.answers),
        confidence_N=predicted.probability_NK[:, 0],
        vocabulary=run.answers,
        choices_outside=outside,
        other_choices=predicted.multiple_choice(dataset, outside=not outside) if choosing else None,
        contamination=asked.contamination,
        weights=weights_chosen(run.experiment),
        weights_of_any=weights_chosen(run.experiment, of_one_run=False),
    )
    if dataset.answers is None or not run.machine.group.is_first:
        judgement = Judgement(answers, options)
    else:
        judgement = judge(answers, options, read_split(run.experiment, "train", run.recorded))
        if others:
            beside = question_only_beside(run, split, dataset, options.protocol)
            use = judge_image_use(run, dataset, answers.by_task, others, options.protocol, beside)
            judgement = replace(judgement, image_use=use)
    return Evaluation(run, questions, features, predicted, judgement)


def write_judgement(
    judgement: Judgement,
    folder: RunFolder,
    split: str,
    *,
    summary: dict[str, Any] | None,
    page: Report | None,
    json_file: Path | None,
) -> None:
    """Write what a split's evaluation leaves in a folder, and the numbers to another file where asked.

    Args:
        summary: the numbers for `evaluation_<split>.json`; None where the answers are hidden.
        page: `report.html`, or None.
    """
    common = judgement.answers.contamination
    for task, answers in judgement.answers.by_task.items():
        results = folder.results(split, task)
        if common and common.contaminated:
            results = results.with_stem(f"{results.stem}_{SEEN_NAME}")
        if common and common.left_out:
            results = results.with_stem(f"{results.stem}_{UNSEEN_NAME}")
        write_results(results, judgement.dataset, answers)
    if summary is not None:
        for target in (folder.evaluation(split), *([json_file] if json_file else [])):
            write_json(target, summary)
    if page is not None:
        write_report(folder.path / "report.html", page)
