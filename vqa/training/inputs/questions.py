"""The question side of a split: tokens by the vocabulary or by a pretrained model, and a frozen model's vectors.

Legend: `N` questions.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vqa.data.dataset import QADataset
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.text_encoders import TextEncoder, hf_text_encoder
from vqa.features.extraction.question_vectors import cached_vectors
from vqa.models import Loss, check_part, is_precomputed, is_pretrained
from vqa.text.vocabulary import AnswerVocabulary, Tokenizer
from vqa.training.inputs.batches import EncodedQuestions, encode_questions


def load_text_encoder(experiment: Experiment) -> TextEncoder | None:
    """The pretrained model that the experiment's question encoder names, or None where it names none."""
    return hf_text_encoder(experiment.question_encoder["name"]) if is_pretrained(experiment.question_encoder) else None


def encode_split(
    dataset: QADataset,
    tokenizer: Tokenizer,
    answers: AnswerVocabulary,
    image_row_I: np.ndarray,
    *,
    experiment: Experiment,
    caches: list[FeatureCache],
    device: torch.device,
) -> EncodedQuestions:
    """A split as tensors on the CPU; what a frozen language model says of it is kept beside the feature caches.

    Args:
        tokenizer: the vocabulary, or the pretrained model.
        image_row_I: as for `encode_questions`.
        caches: the feature caches in use; the language model's lies in the folder "questions" beside the first, or
            in `features_cache` where there is none.
        device: where the language model runs.
    """
    questions = encode_questions(dataset, tokenizer, answers, image_row_I)
    if isinstance(tokenizer, TextEncoder) and is_precomputed(experiment.question_encoder) and len(questions):
        code_Q, first_Q, place_N = np.unique(dataset.question.codes, return_index=True, return_inverse=True)
        rows = [questions.tokens_NT[row, : int(questions.length_N[row])].tolist() for row in first_Q.tolist()]
        texts = [dataset.question.distinct[code] for code in code_Q.tolist()]
        folder = caches[0].path.parent if caches else Path("features_cache")
        vectors = cached_vectors(tokenizer, texts, rows, folder / "questions", device)
        questions = replace(questions, vectors=vectors.take(torch.from_numpy(place_N)))
    return questions


def make_loss(experiment: Experiment) -> Loss:
    """The loss that the experiment names."""
    loss_class, options = check_part("loss", experiment.loss)
    loss: Loss = loss_class(**options)
    return loss


def learnt_from(questions: EncodedQuestions, experiment: Experiment) -> torch.Tensor:
    """int64: the training questions that the experiment's loss learns from, in their order.

    Raises:
        InputError: there is none.
    """
    assert questions.target is not None  # a training split has answers
    rows_M = make_loss(experiment).averaged_over(questions.target).nonzero().squeeze(1)
    if not len(rows_M):
        raise InputError(
            f"{experiment.name}: the answer vocabulary has nothing that the loss {experiment.loss['name']} could learn "
            f"of any of the {len(questions):,} training questions; raise answers.size or lower answers.min_count"
        )
    return rows_M
