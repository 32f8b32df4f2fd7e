"""A question encoder from outside."""

import torch
from torch import Tensor, nn

from vqa.models import Question, QuestionEncoder


class MeanWord(QuestionEncoder):
    """The mean of the words' vectors."""

    def __init__(self, *, vocab_size: int, embedding_dim: int = 8) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = embedding_dim
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < length_B.to(tokens_BT.device)[:, None]
        words_BTD = self.embedding(tokens_BT) * mask_BT[..., None]
        return Question(words_BTD, words_BTD.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True), mask_BT)
