"""`bow`: the sum of the word vectors, whatever their order.

Source: "BoW Q" of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468): a bag of words together with
one for each of the first three words of the question (`first_words: 3`); a count vector times a matrix is a sum of word
vectors. The paper counts the 1,000 most frequent words (`top_words: 1000`), and at each of the first three places the
10 most frequent there (`top_first_words: 10`). Zhou et al. 2015, "Simple Baseline for Visual Question Answering" (arXiv
1512.02167), use the plain sum.

    q = sum_t w_t + sum over the first places p of w^p_p,  w and w^1, w^2, ... word vectors of their own

Legend: `B` batch, `N` training questions, `T` tokens, `D` embedding, `P` first places, `V` vocabulary.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
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
        top_words: how many words count, the most frequent ones; the others, and unknown ones, give zeros. None: all.
            A vocabulary's words are in the order of their frequency, so these are tokens 2 to `top_words` + 1.
        first_words: how many of the first places have word vectors of their own, added to the result.
        top_first_words: how many words count at each of those places, the most frequent there in the training
            questions (of equally frequent ones, those more frequent at all). None: all.
        dropout: on the word vectors.

    Raises:
        InputError: top_first_words without any first_words.

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
        top_words: Count | None = None,
        first_words: Size = 0,
        top_first_words: Count | None = None,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        if top_first_words is not None and not first_words:
            raise InputError("question_encoder 'bow': top_first_words needs first_words, the places that it counts at")
        self.word_dim = self.sentence_dim = embedding_dim
        self.pooling, self.top_words, self.top_first_words = pooling, top_words, top_first_words
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.first = nn.ModuleList(nn.Embedding(vocab_size, embedding_dim, padding_idx=0) for _ in range(first_words))
        self.dropout = FastDropout(dropout)
        self.counted_PV: Tensor | None
        limited = top_first_words is not None
        self.register_buffer("counted_PV", torch.ones(first_words, vocab_size, dtype=torch.bool) if limited else None)

    def begin(self, tokens_NT: Tensor, length_N: Tensor) -> None:
        """Find the most frequent words of each first place."""
        if self.counted_PV is None:
            return
        self.counted_PV.zero_()
        for counted_V, token_N in zip(self.counted_PV, tokens_NT.unbind(dim=1), strict=False):
            times_V = torch.bincount(token_N.cpu(), minlength=len(counted_V))
            times_V[:2] = 0  # padding and unknown
            top_K = times_V.argsort(descending=True, stable=True)[: self.top_first_words]
            counted_V[top_K[times_V[top_K] > 0]] = True

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = token_mask(tokens_BT, length_B)
        counts_BT = mask_BT
        if self.top_words is not None:
            counts_BT = mask_BT & (tokens_BT >= 2) & (tokens_BT < 2 + self.top_words)
        words_BTD = keep(self.dropout(self.embedding(tokens_BT)), counts_BT)
        sentence_BD = words_BTD.sum(dim=1) if self.pooling == "sum" else masked_mean(words_BTD, mask_BT)
        for place, (token_B, embedding) in enumerate(zip(tokens_BT.unbind(dim=1), self.first, strict=False)):
            if self.counted_PV is not None:
                token_B = token_B.masked_fill(~self.counted_PV[place][token_B], 0)
            sentence_BD = sentence_BD + embedding(token_B)
        return Question(words_BTD, sentence_BD, mask_BT)
