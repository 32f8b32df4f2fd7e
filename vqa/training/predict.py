"""A model's answers to a whole split, one gathered batch after another.

Legend: `N` questions, `A` answers, `C` choices, `H` hops, `R` regions, `K` best answers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.multiple_choice import pick_choices
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.models import VQAModel
from vqa.runtime.device import Machine
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.inputs.batches import Batch, EncodedQuestions, batches_in_order, images_of
from vqa.training.inputs.choices import ChoiceTable


class Predictions(NamedTuple):
    """What the model says of every question, in the data set's order.

    Attributes:
        answer_NK: int64, the ids of the best answers, best first.
        probability_NK: float32, their softmax probabilities.
        choice_NC: float32, the score of each choice (minus infinity where it is not in the vocabulary), or None.
        nearest_NC: float32, the same with choices outside the vocabulary scored by the answers whose words they share
            (`vqa.evaluation.multiple_choice`), or None where that was not asked for.
    """

    answer_NK: np.ndarray
    probability_NK: np.ndarray
    choice_NC: np.ndarray | None
    nearest_NC: np.ndarray | None = None

    def open_ended(self, answers: AnswerVocabulary) -> Strings:
        """The best answer to each question."""
        return Strings(answers.answers, self.answer_NK[:, 0].astype(np.int32))

    def multiple_choice(self, dataset: QADataset, *, outside: bool = True) -> Strings | None:
        """The best choice for each question, or None where the data set has no choices.

        Args:
            outside: whether choices outside the vocabulary are scored too, where `predict` was given their table.
        """
        if self.choice_NC is None or dataset.choices is None:
            return None
        score_NC = self.nearest_NC if outside and self.nearest_NC is not None else self.choice_NC
        return pick_choices(dataset.choices, score_NC)


@torch.inference_mode()
def predict(
    model: VQAModel,
    questions: EncodedQuestions,
    features: FeatureTable | PixelTable,
    machine: Machine,
    *,
    batch_size: int = 512,
    best: int = 1,
    nearest: ChoiceTable | None = None,
) -> Predictions:
    """Run the model over all questions and keep the `best` answers (at most all) and the choices' scores.

    Of several processes each computes some of the batches, and all get the same, exact whole.

    Args:
        nearest: the split's choices, to score those outside the vocabulary too.
    """
    device, count = machine.device, len(questions)
    answer_NK = torch.zeros(count, best, dtype=torch.int64, device=device)
    probability_NK = torch.zeros(count, best, dtype=torch.float32, device=device)
    choices = questions.choice_NC
    choice_NC = None if choices is None else torch.zeros(choices.shape, dtype=torch.float32, device=device)
    nearest_NC = None if nearest is None else torch.zeros(nearest.code_NC.shape, dtype=torch.float32, device=device)
    group = machine.group
    for batch, logits_BA in logits_in_order(model, questions, features, machine, batch_size=batch_size):
        answer_BK = best_answers(logits_BA, best)
        answer_NK[batch.index_B] = answer_BK
        probability_NK[batch.index_B] = logits_BA.softmax(dim=1).gather(1, answer_BK)
        if choices is not None and choice_NC is not None:
            choice_NC[batch.index_B] = score_choices(logits_BA, choices[batch.index_B])
        if nearest is not None and nearest_NC is not None:
            nearest_NC[batch.index_B] = nearest.score(logits_BA, batch.index_B)
    # a question's row is zero in every process but one, so the sum is exact
    answer_NK, probability_NK = group.sum(answer_NK), group.sum(probability_NK)
    choice_NC, nearest_NC = (None if scored is None else group.sum(scored) for scored in (choice_NC, nearest_NC))
    bad_N = ~probability_NK.isfinite().all(dim=1)
    if bad_N.any():
        raise InputError(
            f"the model's scores of {int(bad_N.sum()):,} of {count:,} questions are not finite, first of them number "
            f"{int(bad_N.nonzero()[0])} of the split; look for NaN in the features with vqa features check"
        )
    scores = (None if scored is None else scored.cpu().numpy() for scored in (choice_NC, nearest_NC))
    return Predictions(answer_NK.cpu().numpy(), probability_NK.cpu().numpy(), *scores)


@torch.inference_mode()
def logits_in_order(
    model: VQAModel,
    questions: EncodedQuestions,
    features: FeatureTable | PixelTable,
    machine: Machine,
    *,
    batch_size: int = 512,
) -> Iterator[tuple[Batch, Tensor]]:
    """The model's scores of every question, batch by batch; of several processes each computes some of the batches.

    Yields:
        A batch, and float32 `[B, A]` on the device.
    """
    model.eval()
    group = machine.group
    by_image = isinstance(features, PixelTable) or features.batch_regions > 1  # of a vector little can be shared
    todo = batches_in_order(questions, batch_size, by_image=by_image)[group.rank :: group.size]
    images = images_of(features, todo, questions)
    for batch, image in zip(todo, images, strict=True):
        tokens_BT, length_B = batch.tokens(questions)
        with machine.autocast():
            logits_BA = model(image, tokens_BT, length_B).logits_BA.float()
        yield batch, logits_BA


def best_answers(logits_BA: Tensor, count: int) -> Tensor:
    """int64 `[B, count]`, best first; of equally scored ones the first is the one more frequent in training.

    `topk` alone breaks ties in one way or another, which depends on `count`.
    """
    first_B1 = logits_BA.argmax(dim=1, keepdim=True)
    others_BK = logits_BA.scatter(1, first_B1, -torch.inf).topk(count - 1, dim=1).indices
    return torch.cat([first_B1, others_BK], dim=1)


def score_choices(logits_BA: Tensor, choice_BC: Tensor) -> Tensor:
    """The logit of each choice, minus infinity where the choice is no answer of the vocabulary (-1)."""
    score_BC = logits_BA.gather(1, choice_BC.clamp_min(0))
    return score_BC.masked_fill(choice_BC < 0, -torch.inf)


@torch.inference_mode()
def attend(
    model: VQAModel,
    questions: EncodedQuestions,
    features: FeatureTable | PixelTable,
    machine: Machine,
    rows: Sequence[int],
) -> list[np.ndarray | None]:
    """Where the model looks for some of the questions: `[H, R]` each, or None where its fusion does not look."""
    model.eval()
    maps: list[np.ndarray | None] = []
    for row in rows:
        host_B = torch.tensor([row])
        one = Batch(host_B.to(machine.device), host_B, int(questions.length_N[row]))
        tokens_BT, length_B = one.tokens(questions)
        with machine.autocast():
            attention = model(features.gather(one.image_rows(questions)), tokens_BT, length_B).attention_BHR
        maps.append(None if attention is None else attention[0].float().cpu().numpy())
    return maps
