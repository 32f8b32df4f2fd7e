"""What a model must beat and what it cannot beat: floors without images, ceilings of what can be answered.

Legend: `N` questions, `A` human answers a question, `C` choices a question.

The floors are the baselines of Antol et al. (2015), section 5, and Goyal et al. (2017): the prior per question type
and the most popular answer are learned from a training split and never look at the split they are evaluated on. Two
more look the question itself up among the training questions (`vqa.evaluation.beginnings`).
"""

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import AnswerKeys, Comparison, Protocol, Score, leave_one_out, summarise
from vqa.evaluation.multiple_choice import pick_choices
from vqa.text.vocabulary import AnswerVocabulary


def prior_per_question_type(train: QADataset, evaluated: QADataset) -> Strings:
    """Answer each question with the most frequent majority answer of its question type in `train`, `[N]`.

    Ties go to the answer that is alphabetically first. A type that `train` does not have, or a data set without
    question types, gets the most frequent answer overall.

    Raises:
        InputError: the answers of `train` are hidden, or it has no question.
    """
    majority = majority_of(train)
    overall = _most_frequent(majority, majority.codes)
    answers: list[str] = [overall]
    row_of: dict[str, int] = {}
    if train.question_type is not None:
        for code in np.unique(train.question_type.codes):
            if code != ABSENT:
                row_of[train.question_type.distinct[code]] = len(answers)
                answers.append(_most_frequent(majority, majority.codes[train.question_type.codes == code]))
    if evaluated.question_type is None:
        return Strings((overall,), np.zeros(len(evaluated), dtype=np.int32))
    row_S = np.asarray([*(row_of.get(name, 0) for name in evaluated.question_type.distinct), 0], dtype=np.int32)
    column = Strings.of(answers)
    return Strings(column.distinct, column.codes[row_S[evaluated.question_type.codes]])


def prior_choice_per_question_type(train: QADataset, evaluated: QADataset) -> Strings:
    """Among each question's choices, the most frequent majority answer of its question type in `train`, `[N]`.

    Choices never seen with that type rank by their frequency in all of `train`, then by their place.

    Raises:
        InputError: the answers of `train` are hidden, or `evaluated` has no choices.
    """
    choices, count_NC = choice_counts(train, evaluated)
    if train.question_type is None or evaluated.question_type is None:
        return pick_choices(choices, count_NC)
    majority = majority_of(train)
    answers, types = len(majority.distinct), len(train.question_type.distinct)
    typed = train.question_type.codes != ABSENT
    pair = train.question_type.codes[typed].astype(np.int64) * answers + majority.codes[typed]
    count_TA = np.bincount(pair, minlength=types * answers).reshape(types, answers)
    count_TA = np.pad(count_TA, ((0, 1), (0, 1)))  # the last row and column stand for an unseen type and answer
    type_N = codes_in(evaluated.question_type, train.question_type)
    typed_count_NC = count_TA[type_N[:, None], codes_in(choices, majority)]
    return pick_choices(choices, typed_count_NC.astype(np.float64) * (len(train) + 1) + count_NC)


def most_popular_choice(train: QADataset, evaluated: QADataset) -> Strings:
    """Among each question's choices, the most frequent majority answer of `train`, `[N]`.

    Raises:
        InputError: the answers of `train` are hidden, or `evaluated` has no choices.
    """
    return pick_choices(*choice_counts(train, evaluated))


def random_choice(dataset: QADataset, protocol: Protocol = "2021") -> NDArray[np.float64]:
    """The expected accuracy of a choice picked at random for each question, float64 `[N]`, 0..1.

    Raises:
        InputError: the answers are hidden, or there are no choices.
    """
    return _choice_accuracies(dataset, protocol).sum(axis=1) / (_choices(dataset).codes != ABSENT).sum(axis=1)


def best_choice(dataset: QADataset, protocol: Protocol = "2021") -> NDArray[np.float64]:
    """The accuracy of the best choice of each question, float64 `[N]`, 0..1: it bounds every model.

    Raises:
        InputError: the answers are hidden, or there are no choices.
    """
    return np.asarray(_choice_accuracies(dataset, protocol).max(axis=1))


def _choice_accuracies(dataset: QADataset, protocol: Protocol) -> NDArray[np.float64]:
    """The accuracy of every choice, float64 `[N, C]`; 0 in empty cells."""
    choices = _choices(dataset)
    keys = AnswerKeys.of(dataset, protocol)
    key_RS = keys.of_predictions(choices.distinct)
    accuracy_NC = np.empty(choices.codes.shape)
    for place in range(choices.codes.shape[1]):
        key_N = key_RS[keys.comparison_N, choices.codes[:, place]]
        accuracy_NC[:, place] = leave_one_out(keys.key_NA == key_N[:, None], keys.key_NA >= 0)
    return accuracy_NC


def most_popular_answer(train: QADataset, evaluated: QADataset) -> Strings:
    """Answer every question with the most frequent majority answer of `train`, `[N]`; ties alphabetically.

    Raises:
        InputError: the answers of `train` are hidden, or it has no question.
    """
    majority = majority_of(train)
    return Strings((_most_frequent(majority, majority.codes),), np.zeros(len(evaluated), dtype=np.int32))


def vocabulary_ceiling(dataset: QADataset, answers: AnswerVocabulary, protocol: Protocol = "2021") -> Strings:
    """The best answer that the vocabulary has for each question, `[N]`: its score bounds every model with it.

    Where no answer of the vocabulary scores, the vocabulary's first.

    Raises:
        InputError: the answers are hidden.
    """
    keys = AnswerKeys.of(dataset, protocol)
    class_NA = vocabulary_classes(keys, answers)
    count_NA = np.where(class_NA >= 0, human_counts(keys), 0)
    best_N = count_NA.argmax(axis=1)
    class_N = np.take_along_axis(class_NA, best_N[:, None], axis=1)[:, 0]
    return Strings(answers.answers, np.maximum(class_N, 0).astype(np.int32))


def human_agreement(dataset: QADataset, protocol: Protocol = "2021") -> Score:
    """The accuracy that the humans reach themselves: each one's answer against the others', min(1, equal others / 3).

    Raises:
        InputError: the answers are hidden, or a question has one answer only.
    """
    keys = AnswerKeys.of(dataset, protocol)
    present_NA = keys.key_NA >= 0
    humans_N = present_NA.sum(axis=1)
    if humans_N.min() < 2:
        question = dataset.question_id_N[int(humans_N.argmin())]
        raise InputError(f"{dataset.name}: question {question} has one human answer; agreement needs two or more")
    others_NA = human_counts(keys).astype(np.float64) - 1
    accuracy_N = np.where(present_NA, np.minimum(1.0, others_NA / 3), 0.0).sum(axis=1) / humans_N
    return summarise(dataset, accuracy_N, protocol)


def has_agreement(dataset: QADataset) -> bool:
    """Whether every question has two human answers or more."""
    return dataset.answers is not None and bool(((dataset.answers.codes != ABSENT).sum(axis=1) > 1).all())


def vocabulary_classes(keys: AnswerKeys, answers: AnswerVocabulary) -> NDArray[np.int32]:
    """For every human answer the class that equals it under the protocol, int32 `[N, A]`; -1 where there is none.

    Of several classes that are equal after normalisation, the first, which is the most frequent.
    """
    key_RV = keys.of_predictions(answers.answers)[:, :-1]
    class_RK = np.full((len(Comparison), keys.span + 1), -1, dtype=np.int32)  # the last stands for an empty cell
    for comparison in Comparison:
        known = np.flatnonzero(key_RV[comparison] >= 0)[::-1]
        class_RK[comparison, key_RV[comparison, known]] = known
    return class_RK[keys.comparison_N[:, None], keys.key_NA]


def human_counts(keys: AnswerKeys) -> NDArray[np.int8]:
    """How many humans gave each human answer, int8 `[N, A]`; 0 in empty cells."""
    count_NA = np.zeros(keys.key_NA.shape, dtype=np.int8)
    for human in range(keys.key_NA.shape[1]):
        count_NA += keys.key_NA == keys.key_NA[:, human : human + 1]
    count_NA[keys.key_NA < 0] = 0
    return count_NA


def question_only_bound(dataset: QADataset, protocol: Protocol = "2021") -> float:
    """The accuracy of the best answerer that sees the question's text only, in percent, not rounded.

    One answer for each distinct question string, chosen with full knowledge of this very split: no model without
    images can score higher on it, so what lies above needs the image.

    Raises:
        InputError: the answers are hidden.
    """
    keys = AnswerKeys.of(dataset, protocol)
    accuracy_NA = _accuracy_of_human_answers(keys)
    assert dataset.answers is not None  # AnswerKeys.of has checked it
    # What answering question string q with key k is worth, for each comparison r: a sum over the rows of q under r.
    first_NA = _first_of_equals(keys.key_NA)
    string_N = dataset.question.codes.astype(np.int64)
    cell_NA = (string_N * len(Comparison) + keys.comparison_N)[:, None] * keys.span + keys.key_NA
    cell, inverse = np.unique(cell_NA[first_NA], return_inverse=True)
    worth = np.bincount(inverse, weights=accuracy_NA[first_NA])

    # Every human answer to any of its questions is a candidate for q; its worth adds up over the comparisons.
    candidate_NA = string_N[:, None] * len(dataset.answers.distinct) + dataset.answers.codes
    candidate = np.unique(candidate_NA[dataset.answers.codes != ABSENT])
    string, code = np.divmod(candidate, len(dataset.answers.distinct))
    key_RS = keys.of_predictions(dataset.answers.distinct)
    total = np.zeros(len(candidate))
    for comparison in Comparison:
        key = key_RS[comparison, code]
        wanted = (string * len(Comparison) + comparison) * keys.span + key
        place = np.minimum(np.searchsorted(cell, wanted), len(cell) - 1)
        total += np.where((cell[place] == wanted) & (key >= 0), worth[place], 0.0)
    best = np.zeros(len(dataset.question.distinct))
    np.maximum.at(best, string, total)
    return 100 * float(best.sum()) / len(dataset)


def _accuracy_of_human_answers(keys: AnswerKeys) -> NDArray[np.float64]:
    """The accuracy of repeating each human answer, float64 `[N, A]`: the mean over humans in closed form."""
    count_NA = human_counts(keys).astype(np.float64)
    humans_N1 = (keys.key_NA >= 0).sum(axis=1, keepdims=True)
    among = count_NA * np.minimum(1.0, (count_NA - 1) / 3)
    others = (humans_N1 - count_NA) * np.minimum(1.0, count_NA / 3)
    return np.where(humans_N1 == 1, count_NA, (among + others) / humans_N1)


def _first_of_equals(key_NA: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Marks each key once in its row, at its first place; empty cells are not marked."""
    first_NA = key_NA >= 0
    for human in range(1, key_NA.shape[1]):
        first_NA[:, human] &= (key_NA[:, :human] != key_NA[:, human : human + 1]).all(axis=1)
    return first_NA


def majority_of(train: QADataset) -> Strings:
    """The answers that a prior counts; raises InputError where there are none."""
    if train.majority is None or not len(train):
        raise InputError(f"{train.answers_missing or train.name}: a prior needs a training split with answers")
    return train.majority


def _choices(dataset: QADataset) -> Strings:
    if dataset.choices is None:
        raise InputError(f"{dataset.name} has no choices: read its multiple-choice question file")
    return dataset.choices


def _most_frequent(column: Strings, codes: NDArray[np.int32]) -> str:
    counts = np.bincount(codes, minlength=len(column.distinct))
    return min(column.distinct[code] for code in np.flatnonzero(counts == counts.max()))


def codes_in(column: Strings, other: Strings) -> NDArray[np.int32]:
    """The cells of `column` as codes of `other`; -1 where `other` does not have the string."""
    index = {text: code for code, text in enumerate(other.distinct)}
    code_S = np.asarray([*(index.get(text, ABSENT) for text in column.distinct), ABSENT], dtype=np.int32)
    return code_S[column.codes]


def choice_counts(train: QADataset, evaluated: QADataset) -> tuple[Strings, NDArray[np.float64]]:
    """The choices of `evaluated`, and how often each is a majority answer of `train`, float64 `[N, C]`."""
    choices, majority = _choices(evaluated), majority_of(train)
    count_A = np.append(np.bincount(majority.codes, minlength=len(majority.distinct)), 0)
    return choices, count_A[codes_in(choices, majority)].astype(np.float64)
