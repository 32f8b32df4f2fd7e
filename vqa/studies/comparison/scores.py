"""The scores of an ensemble's members on disk, and their mean probabilities, some questions at a time.

Each member is loaded alone and leaves its scores in a file, so the memory is that of one run, whatever the split. A
mean is taken in logarithms and float64: probabilities that vanish in float32 keep their order, and the mean of one run
with itself orders every answer as that run does.

Legend: `N` questions, `A` answers of one member, `U` answers of any member, `B` questions at a time, `C` choices.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.contamination import Contamination
from vqa.evaluation.multiple_choice import choice_answer_ids, pick_choices
from vqa.experiment import weights_chosen
from vqa.files import sha256_file
from vqa.progress import console
from vqa.runs.asking import ask_run
from vqa.runs.load import load_run
from vqa.studies.comparison.systems import SystemOptions
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.inputs.splits import read_split
from vqa.training.predict import logits_in_order

CELLS = 8_000_000  # scores in memory at once, 8 bytes each and a few times over


@dataclass(frozen=True)
class Member:
    """One run's scores of one split.

    Attributes:
        path: the run folder.
        name: how tables call it.
        seed: of its training.
        weights_sha256: of its weights.
        vocabulary: its answers.
        device: where it computes.
        logits_NA: float32, a file read piece by piece.
        contamination: what of the split it was trained or chosen on.
        weights: which epoch's weights answer, a sentence.
    """

    path: Path
    name: str
    seed: int
    weights_sha256: str
    vocabulary: AnswerVocabulary
    device: torch.device
    logits_NA: NDArray[np.float32]
    contamination: Contamination
    weights: str


def score_member(path: Path, dataset: QADataset, split: str, options: SystemOptions, file: Path) -> Member:
    """Ask one run every question of a split, and keep its scores in a file.

    Args:
        dataset: the split as the first member reads it.
        split: as the run's experiment calls it.
        file: where the scores go.

    Raises:
        InputError: its split has other questions, it was trained on them, or there is no room for the scores.
    """
    run = load_run(path, allow_code=options.allow_code)
    its = read_split(run.experiment, split, run.recorded)
    if not np.array_equal(its.question_id_N, dataset.question_id_N):
        raise InputError(f"{path}: its split {its.name} has other questions than the first run's {dataset.name}")
    asked = ask_run(run, dataset, options.caches, allow_seen=options.allow_seen)
    shape = (len(dataset), len(run.answers))
    _require_disk(file.parent, 4 * shape[0] * shape[1])
    logits_NA = np.memmap(file, np.float32, "w+", shape=shape)
    for batch, logits_BA in logits_in_order(run.model, asked.questions, asked.features, run.machine):
        found = logits_BA.cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(f"{path}: the model's scores are not finite; look for NaN in the features")
        logits_NA[batch.host_index_B.numpy()] = found
    console.print(f"{path}: {shape[0]:,} questions scored")
    return Member(
        path, run.name, run.experiment.seed, sha256_file(run.folder.model), run.answers, run.machine.device, logits_NA,
        asked.contamination, weights_chosen(run.experiment, of_one_run=False),
    )  # fmt: skip


def _require_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder}: a run's scores need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


def union_of(members: Sequence[Member]) -> AnswerVocabulary:
    """The first member's answers, then what the others have besides, in their order."""
    return AnswerVocabulary(tuple(dict.fromkeys(text for one in members for text in one.vocabulary.answers)))


@dataclass(frozen=True)
class Mean:
    """The mean of members' probabilities.

    Attributes:
        vocabulary: the answers of any member; one that a member lacks has probability 0 there.
        open_ended: the best answer, `[N]`.
        confidence_N: its mean probability, float64.
        choices: the best choice, those outside the vocabulary scored too; None where that was not asked for.
        choices_within: the same without them.
        best_NK: int64, the best answers, best first; `probability_NK` their probabilities.
    """

    vocabulary: AnswerVocabulary
    open_ended: Strings
    confidence_N: NDArray[np.float64]
    choices: Strings | None
    choices_within: Strings | None
    best_NK: NDArray[np.int64]
    probability_NK: NDArray[np.float64]


def mean_of(
    members: Sequence[Member],
    weights: Sequence[int],
    dataset: QADataset,
    *,
    choosing: bool,
    best: int = 5,
    kept: NDArray[np.float16] | None = None,
) -> Mean:
    """Average probabilities, answers aligned by their strings.

    Args:
        weights: how many times each member counts.
        choosing: also in multiple choice.
        best: how many answers of each question are kept.
        kept: float16 `[N, U]`, filled with the mean probabilities where given.
    """
    vocabulary, device = union_of(members), members[0].device
    count, best = len(dataset), min(best, len(vocabulary))
    best_NK, probability_NK = np.zeros((count, best), np.int64), np.zeros((count, best))
    table = ChoiceTable.of(dataset, vocabulary, device) if choosing else None
    score_NC, within_NC, class_NC = None, None, None
    if table is not None and dataset.choices is not None:
        score_NC = np.zeros(dataset.choices.codes.shape, np.float32)
        within_NC = np.zeros(dataset.choices.codes.shape)
        class_NC = torch.from_numpy(choice_answer_ids(dataset.choices, vocabulary).astype(np.int64)).to(device)
    for rows in _pieces(count, len(vocabulary)):
        log_BU = _mean_log(members, weights, vocabulary, rows, exact=True)
        first_B1 = log_BU.argmax(dim=1, keepdim=True)  # of equal ones the first, as `best_answers` has it
        others_BK = log_BU.scatter(1, first_B1, -torch.inf).topk(best - 1, dim=1).indices
        best_BK = torch.cat([first_B1, others_BK], dim=1)
        best_NK[rows] = best_BK.cpu().numpy()
        probability_NK[rows] = log_BU.gather(1, best_BK).exp().cpu().numpy()
        if kept is not None:
            kept[rows] = log_BU.exp().to(torch.float16).cpu().numpy()
        if table is not None and class_NC is not None and score_NC is not None and within_NC is not None:
            index_B = torch.arange(rows.start, rows.stop, device=device)
            rounded_BU = _mean_log(members, weights, vocabulary, rows, exact=False).float()
            score_NC[rows] = table.score_log(rounded_BU, index_B).cpu().numpy()
            class_BC = class_NC[rows]
            within_BC = log_BU.gather(1, class_BC.clamp_min(0)).masked_fill(class_BC < 0, -torch.inf)
            within_NC[rows] = within_BC.cpu().numpy()
    choices = dataset.choices
    return Mean(
        vocabulary=vocabulary,
        open_ended=Strings(vocabulary.answers, best_NK[:, 0].astype(np.int32)),
        confidence_N=probability_NK[:, 0],
        choices=None if score_NC is None or choices is None else pick_choices(choices, score_NC),
        choices_within=None if within_NC is None or choices is None else pick_choices(choices, within_NC),
        best_NK=best_NK,
        probability_NK=probability_NK,
    )


def _pieces(count: int, width: int) -> Iterator[slice]:
    step = max(1, CELLS // width)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _mean_log(
    members: Sequence[Member], weights: Sequence[int], vocabulary: AnswerVocabulary, rows: slice, *, exact: bool
) -> Tensor:
    """The logarithm of the mean probability, float64 `[B, U]`; without `exact` from logarithms in float32, as a run's
    own multiple choice takes them."""
    total_BU: Tensor | None = None
    for member, weight in zip(members, weights, strict=True):
        if not weight:
            continue
        log_BU = _log_of(member, vocabulary, rows, exact=exact) + float(np.log(weight))
        total_BU = log_BU if total_BU is None else torch.logaddexp(total_BU, log_BU)
    assert total_BU is not None  # a member counts
    return total_BU - float(np.log(sum(weights)))


def _log_of(member: Member, vocabulary: AnswerVocabulary, rows: slice, *, exact: bool) -> Tensor:
    logits_BA = torch.from_numpy(np.array(member.logits_NA[rows])).to(member.device)
    log_BA = (logits_BA.double() if exact else logits_BA).log_softmax(dim=1).double()
    if member.vocabulary.answers == vocabulary.answers:
        return log_BA
    column_A = torch.tensor([vocabulary.index[text] for text in member.vocabulary.answers], device=member.device)
    log_BU = torch.full((len(log_BA), len(vocabulary)), -torch.inf, dtype=torch.float64, device=member.device)
    return log_BU.index_copy_(1, column_A, log_BA)


def own_answers(member: Member) -> Strings:
    """The member's best answer to each question, `[N]`."""
    codes = [member.logits_NA[rows].argmax(axis=1) for rows in _pieces(*member.logits_NA.shape)]
    return Strings(member.vocabulary.answers, np.concatenate(codes).astype(np.int32))


def select_greedily(members: Sequence[Member], dataset: QADataset, accuracy_of: Any, most: int) -> list[int]:
    """How often each member counts, chosen as Caruana et al. (2004) do: whichever helps most is added, again or not.

    Args:
        accuracy_of: the mean accuracy of answers `[N]`.
        most: members that are added at the most.

    Returns:
        One count a member; the best single run alone where nothing helps it.
    """
    vocabulary, weights = union_of(members), [0] * len(members)
    reached = -1.0
    for _ in range(most):
        tried = []
        for place in range(len(members)):
            counts = [weight + (other == place) for other, weight in enumerate(weights)]
            codes = [
                _mean_log(members, counts, vocabulary, rows, exact=True).argmax(dim=1).cpu().numpy()
                for rows in _pieces(len(dataset), len(vocabulary))
            ]
            tried.append(accuracy_of(Strings(vocabulary.answers, np.concatenate(codes).astype(np.int32))))
        best = int(np.argmax(tried))
        if tried[best] <= reached:
            break
        reached, weights[best] = tried[best], weights[best] + 1
    return weights
