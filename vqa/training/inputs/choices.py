"""Multiple choice on the device, with choices outside the answer vocabulary (rule: `vqa.evaluation.multiple_choice`).

Legend: `N` questions, `B` batch, `A` answers, `C` choices, `S` distinct choices, `K` nearest answers of a choice.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqa.data.dataset import QADataset
from vqa.evaluation.multiple_choice import choice_classes
from vqa.text.vocabulary import AnswerVocabulary


class ChoiceTable(NamedTuple):
    """The choices of a split with the answers that score them, on the device.

    Attributes:
        code_NC: int64, rows of the other two; the last row stands for an empty cell.
        class_SK: int64, up to `K` answers for each distinct choice.
        log_weight_SK: float32, the logarithm of each one's weight; minus infinity where there are fewer.
    """

    code_NC: Tensor
    class_SK: Tensor
    log_weight_SK: Tensor

    @classmethod
    def of(cls, dataset: QADataset, answers: AnswerVocabulary, device: torch.device) -> "ChoiceTable | None":
        """Find the answers near every choice; None where the data set has no choices."""
        if dataset.choices is None:
            return None
        found = choice_classes(dataset.choices, answers)
        used = max(1, int((found.weight_SK > 0).any(axis=0).sum()))  # one where all choices are in the vocabulary
        code_NC = torch.from_numpy(dataset.choices.codes.astype(np.int64)) % len(found.class_SK)
        class_SK = torch.from_numpy(found.class_SK[:, :used].astype(np.int64)).clamp_min(0)
        log_weight_SK = torch.from_numpy(found.weight_SK[:, :used]).log()
        return cls(code_NC.to(device), class_SK.to(device), log_weight_SK.to(device))

    def score(self, logits_BA: Tensor, index_B: Tensor) -> Tensor:
        """The largest weight x probability of each choice's answers as a logarithm, float32 `[B, C]`.

        A logarithm, because the probabilities of unlikely choices vanish in float32 and would all be equal.
        """
        return self.score_log(logits_BA.log_softmax(dim=1), index_B)

    def score_log(self, log_BA: Tensor, index_B: Tensor) -> Tensor:
        """The same of logarithms of probabilities."""
        code_BC = self.code_NC[index_B]
        class_BCK = self.class_SK[code_BC]
        log_BCK = log_BA.gather(1, class_BCK.flatten(1)).view(class_BCK.shape)
        return (log_BCK + self.log_weight_SK[code_BC]).amax(dim=2)
