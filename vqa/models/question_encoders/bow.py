"""`bow`: the sum of the word vectors, whatever their order.

Source: "BoW Q" of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468): a bag of words together with
one for each of the first three words of the question (`first_words: 3`); a count vector times a matrix is a sum of word
vectors. Zhou et al. 2015, "Simple Baseline for Visual Question Answering" (arXiv 1512.02167), use the plain sum.

Legend: `B` batch, `T` tokens, `D` embedding.
"""

from typing import Literal

from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate, Size
from vqa.models.question_encoders.sequences import keep, masked_mean, token_mask


class BagOfWords(QuestionEncoder):
    """Word vectors, added or averaged.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        embedding_dim: width of a word vector.
        pooling: add or average the word vectors.
        first_words: how many of the first places have word vectors of their own, added to the result.
        dropout: on the word vectors.

    Attributes:
        word_dim: embedding_dim.
        sentence_dim: embedding_dim.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_dim: Count = 1024,
        pooling: Literal["sum", "mean"] = "sum",
        first_words: Size = 0,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = embedding_dim
        self.pooling = pooling
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.first = nn.ModuleList(nn.Embedding(vocab_size, embedding_dim, padding_idx=0) for _ in range(first_words))
        self.dropout = FastDropout(dropout)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = token_mask(tokens_BT, length_B)
        words_BTD = keep(self.dropout(self.embedding(tokens_BT)), mask_BT)
        sentence_BD = words_BTD.sum(dim=1) if self.pooling == "sum" else masked_mean(words_BTD, mask_BT)
        for token_B, embedding in zip(tokens_BT.unbind(dim=1), self.first, strict=False):
            sentence_BD = sentence_BD + embedding(token_B)
        return Question(words_BTD, sentence_BD, mask_BT)
