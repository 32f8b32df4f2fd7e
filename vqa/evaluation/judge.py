"""The one judge: a data set and a model's answers to it in, scores between floors and ceilings, tables, JSON, page out.

Trained runs, ensembles and models of transformers are judged here; results files alone, by any metric, in
`vqa.evaluation.scoreboard`. Legend: `N` questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, Score, metric_name, score, spelling_note, unrounded
from vqa.evaluation.contamination import Contamination, unknown_as_json
from vqa.evaluation.report.confusion import confusions
from vqa.evaluation.report.diagnostics import Diagnostics, diagnose
from vqa.evaluation.report.image_use import ImageUse
from vqa.evaluation.report.page import Curve, Example, Guess, Report, human_answers
from vqa.evaluation.results import Task
from vqa.evaluation.scores import (
    TYPE_PRIOR,
    VOCABULARY_CEILING,
    ModelScores,
    accuracy_table,
    floor_above,
    question_type_table,
    type_rows,
    with_bounds,
)
from vqa.evaluation.wups import LIST_FORMATS, WordNet, WupsReport, wups_report
from vqa.progress import console
from vqa.tables import Table, print_table
from vqa.text.vocabulary import AnswerVocabulary


@dataclass(frozen=True)
class JudgeOptions:
    """How a split is judged.

    Attributes:
        task: which task; "both" takes multiple choice where the split has choices.
        protocol: the official program's version.
        slices: kinds of questions to report on their own, name to regular expression; see `parse_slices`.
        wordnet: for WUPS on data sets with one answer a question; see `open_wordnet`.
    """

    task: Task | Literal["both"] = "both"
    protocol: Protocol = "2021"
    slices: Mapping[str, str] = field(default_factory=dict)
    wordnet: WordNet | None = None

    def tasks(self, dataset: QADataset) -> list[Task]:
        """The tasks asked for that the split has; raises InputError where it lacks the one asked for."""
        if self.task == "multiple-choice" and dataset.choices is None:
            raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
        found: list[Task] = [] if self.task == "multiple-choice" else ["open-ended"]
        return found + (["multiple-choice"] if self.task != "open-ended" and dataset.choices is not None else [])


@dataclass(frozen=True)
class SplitAnswers:
    """A model's answers to a split, with what a reader must know of them.

    Attributes:
        name: how tables call the model: "san, seed 0".
        dataset: the split.
        by_task: `[N]` each; only the tasks asked for that the split has.
        open_ended: `[N]`, whichever tasks were asked for; they are diagnosed.
        confidence_N: 0..1, the probability of each open-ended answer.
        vocabulary: all that the model can answer; None for one that writes any answer.
        choices_outside: whether multiple choice also picks choices that are no answer of the vocabulary.
        other_choices: `[N]`, the multiple-choice answers with those choices treated the other way, or None.
        contamination: what of the split the model was trained or chosen on; None where that cannot be known.
        note: a sentence below the accuracy table and on the page; may be empty.
        weights: which epoch's weights answered and how they were chosen, a sentence without its stop; may be empty.
        weights_of_any: the same for all runs that differ by seed or fold alone, for tables of several.
    """

    name: str
    dataset: QADataset
    by_task: Mapping[Task, Strings]
    open_ended: Strings | None = None
    confidence_N: NDArray[np.floating] | None = None
    vocabulary: AnswerVocabulary | None = None
    choices_outside: bool = True
    other_choices: Strings | None = None
    contamination: Contamination | None = None
    note: str = ""
    weights: str = ""
    weights_of_any: str = ""


@dataclass(frozen=True)
class Judgement:
    """How good a model's answers to a split are.

    Attributes:
        answers: what was judged.
        options: how.
        scored: the model, then floors and ceilings; empty where the answers are hidden.
        accuracy_N: float64, 0..1, of each open-ended answer, whichever tasks were asked for.
        other_choices: the multiple-choice score of `answers.other_choices`.
        diagnostics: what one accuracy hides, of the open-ended answers.
        wups: WUPS and list accuracy, for data sets judged by them.
        image_use: what remains of the accuracy without the image; None where that was not measured.
    """

    answers: SplitAnswers
    options: JudgeOptions
    scored: tuple[ModelScores, ...] = ()
    accuracy_N: NDArray[np.float64] | None = None
    other_choices: Score | None = None
    diagnostics: Diagnostics | None = None
    wups: WupsReport | None = None
    image_use: ImageUse | None = None

    @property
    def dataset(self) -> QADataset:
        """The split."""
        return self.answers.dataset

    @property
    def metric(self) -> str:
        """What its accuracies are called."""
        return metric_name(self.dataset, self.options.protocol)

    @property
    def own(self) -> ModelScores:
        """The model's own scores; only where the split has answers."""
        return self.scored[0]

    def tables(self, data: str = "") -> tuple[Table, ...]:
        """The accuracy table, then one by question type for each task; stamped where the split was trained on.

        Args:
            data: how captions call the split; by default its name.
        """
        if not self.scored:
            return ()
        data = data or self.dataset.name
        note = " ".join(filter(None, (self._choices_note(), self.answers.note)))
        found = [accuracy_table(self.scored, data=data, note=note)]
        found += [self.wups.table()] if self.wups else []
        if self.dataset.question_type is not None:
            rows = type_rows(self.scored)
            found += [question_type_table(rows, task, data=data) for task in self.answers.by_task]
        return tuple(map(self._stamped, found))

    def beyond_tables(self) -> tuple[Table, ...]:
        """What one accuracy hides; empty where the answers are hidden."""
        tables = [self.image_use.table()] if self.image_use else []
        tables += self.diagnostics.tables() if self.diagnostics else ()
        return tuple(map(self._stamped, tables))

    def _stamped(self, table: Table) -> Table:
        """The table with what it must say of how the weights were chosen, and of what of the split was seen before."""
        common = self.answers.contamination
        if common and common.contaminated:
            table = replace(table, title=f"{table.title} ({common.stamp})")
        return replace(table, caption=" ".join([table.caption, *self._circumstances(self.answers.weights)]))

    def _circumstances(self, weights: str) -> list[str]:
        """Sentences on what was left out of the split, on spelling and weights, and on what it had to do with them."""
        common = self.answers.contamination
        said = [common.exclusion(), common.design()] if common else []
        said += [spelling_note(self.dataset).removesuffix("."), weights, common.choice() if common else ""]
        return [f"{sentence}." for sentence in said if sentence]

    def _choices_note(self) -> str:
        """What the other treatment of choices outside the vocabulary gives."""
        if self.other_choices is None:
            return ""
        treatments = ("are scored by the answers whose words they share", "are never picked")
        others = ("never picking them", "scoring them by the answers whose words they share")
        which = 0 if self.answers.choices_outside else 1
        return (
            f"Choices outside the answer vocabulary {treatments[which]}; {others[which]}, multiple choice is "
            f"{self.other_choices.overall:.2f}%."
        )

    def summary(
        self, run: Path, experiment: str, *, seed: int | None = None, weights_sha256: str | None = None
    ) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`, percent, with protocol and seed; null what does not apply.

        Args:
            run: the folder of the files.
            experiment: the experiment's name, or the model's.
            seed: of the training.
            weights_sha256: of the weights that answered.
        """
        common = self.answers.contamination
        rows = {row.name: row.as_json() for row in self.scored}
        circumstances = " ".join(self._circumstances(self.answers.weights_of_any)).removesuffix(".")
        return {
            "run": str(run),
            "experiment": experiment,
            "seed": seed,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "protocol": self.options.protocol,
            "choices_outside": self.answers.choices_outside,
            **(common.as_json() if common else unknown_as_json()),
            "model_choice": circumstances if common else None,
            "weights": self.answers.weights or None,
            "accuracy": rows.get(self.answers.name, {}),
            "unrounded": {
                task.replace("-", "_"): unrounded(self.dataset, found.accuracy_N)
                for task in self.answers.by_task
                if self.scored and (found := self.own.of(task)) is not None
            },
            "multiple_choice_by_rule": self._choices_by_rule(),
            "floor": rows.get(TYPE_PRIOR, {}),
            "ceiling": rows.get(VOCABULARY_CEILING, {}),
            "below_floor": {task.replace("-", "_"): floor_above(self.scored, task) for task in self.answers.by_task},
            "floors": {row.name: rows[row.name] for row in self.scored if row.kind == "floor"},
            "ceilings": {row.name: rows[row.name] for row in self.scored if row.kind == "ceiling"},
            "beyond_accuracy": self.diagnostics and self.diagnostics.as_json(),
            "image_matters": self.image_use and self.image_use.as_json(),
            "near_answers": self.wups and self.wups.as_json(),
            "task": self.options.task,
            "weights_sha256": weights_sha256,
        }

    def _choices_by_rule(self) -> dict[str, float] | None:
        """Multiple choice with choices outside the vocabulary scored, and restricted to it; `accuracy` has one."""
        if self.other_choices is None or self.own.multiple_choice is None:
            return None
        both = (self.own.multiple_choice.overall, self.other_choices.overall)
        keys = ("scored", "within_vocabulary")
        return dict(zip(keys, both if self.answers.choices_outside else both[::-1], strict=True))

    def report(
        self,
        title: str,
        facts: Sequence[tuple[str, str]],
        examples: Sequence[Example],
        curves: Sequence[Curve] = (),
    ) -> Report:
        """The page of one model; `title` names it, `facts` say how the numbers were made."""
        task, predictions = next(iter(self.answers.by_task.items()))
        return Report(
            title=f"{title} on {self.dataset.name}",
            summary=self._findings(),
            facts=tuple(facts),
            tables=self.tables(),
            beyond=self.beyond_tables(),
            charts=self.diagnostics.charts() if self.diagnostics else (),
            curves=tuple(curves),
            confusions=tuple(confusions(self.dataset, predictions)),
            examples=tuple(examples),
            subject=f"{self.answers.name}, {self.dataset.name}, {task}",
            accuracy_name=f"open-ended {self.metric}",
            curve_accuracy_name=f"open-ended {metric_name(self.dataset, '2021')}",  # whatever was asked for here
        )

    def _findings(self) -> tuple[str, ...]:
        """The accuracies in a sentence, and what a reader must know before and after."""
        common = self.answers.contamination
        scores = ((task, self.own.of(task)) for task in self.answers.by_task)
        headline = ", ".join(f"{task} {found.overall:.2f}%" for task, found in scores if found)
        sentences = (
            f"{common.stamp}. These numbers are no test." if common and common.contaminated else "",
            f"{self.answers.name}: {headline} ({self.metric}).",
            *self.below_floors(),
            *self._circumstances(self.answers.weights),
            self.answers.note,
        )
        return tuple(filter(None, sentences))

    def below_floors(self) -> tuple[str, ...]:
        """A sentence for each task in which a floor is above the model."""
        found = []
        for task in self.answers.by_task:
            if name := floor_above(self.scored, task):
                own, floor = self.own.of(task), next(row for row in self.scored if row.name == name).of(task)
                assert own is not None and floor is not None
                found.append(
                    f"{task.capitalize()}, {self.answers.name} is below a floor: {own.overall:.2f}%, where the {name} "
                    f"reaches {floor.overall:.2f}%."
                )
        return tuple(found)

    def facts(self) -> tuple[tuple[str, str], ...]:
        """How the numbers were made, as far as it is the same for every model."""
        return (
            ("metric", self.metric),
            ("data", f"{self.dataset.name}, {len(self.dataset):,} questions"),
        )

    def answer(self, row: int) -> tuple[str, float]:
        """The open-ended answer to one question, and its accuracy 0..1."""
        assert self.answers.open_ended is not None and self.accuracy_N is not None
        return self.answers.open_ended.at(row), float(self.accuracy_N[row])

    def example(self, row: int, guesses: Sequence[Guess]) -> Example:
        """One question for the page, with the model's best answers."""
        dataset = self.dataset
        return Example(
            image=dataset.images.paths[dataset.image_row_N[row]],
            question=dataset.question.at(row),
            guesses=tuple(guesses),
            humans=human_answers(dataset, row),
            accuracy=self.answer(row)[1],
            question_type="" if dataset.question_type is None else dataset.question_type.at(row),
        )

    def print(self, folder: Path) -> None:
        """The tables, and where the files are."""
        common = self.answers.contamination
        if common and common.contaminated:
            console.print(f"{self.dataset.name}: {common.stamp}; no test of this run", style="bold red")
        for table in (*self.tables(), *self.beyond_tables()):
            print_table(table)
        for sentence in self.below_floors() if self.scored else ():
            console.print(sentence, style="bold")
        if not self.scored:
            hidden = f"{self.dataset.no_answers}: results files only, no accuracy, report or JSON"
            console.print(hidden)
        made = "results, numbers and report.html" if self.scored else "results"
        console.print(f"{made}: {folder}")


def judge(answers: SplitAnswers, options: JudgeOptions, train: QADataset | None) -> Judgement:
    """Score answers to a split, with floors, ceilings and what lies beyond one accuracy.

    Args:
        answers: with open-ended answers and their confidence.
        train: what the floors of most frequent answers are learned from; None leaves them out.

    Raises:
        InputError: the answers of the split are hidden, or WUPS is asked for and it has several a question.
    """
    name, dataset, protocol, open_ended = answers.name, answers.dataset, options.protocol, answers.open_ended
    assert open_ended is not None and answers.confidence_N is not None
    accuracy_N = score(dataset, open_ended, protocol).accuracy_N
    other = answers.other_choices
    by_lists = options.wordnet is not None or dataset.format in LIST_FORMATS
    return Judgement(
        answers,
        options,
        scored=with_bounds(name, answers.by_task, train, dataset, answers.vocabulary, protocol),
        accuracy_N=accuracy_N,
        other_choices=None if other is None else score(dataset, other, protocol),
        diagnostics=diagnose(name, dataset, open_ended, answers.confidence_N, accuracy_N, protocol, options.slices),
        wups=wups_report(name, dataset, open_ended, options.wordnet) if by_lists else None,
    )
