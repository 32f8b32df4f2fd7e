"""`lstm_last`: an LSTM's last state as the question vector.

Source: the LSTM question model of Yang et al. 2016, "Stacked Attention Networks" (arXiv 1511.02274), the last hidden
state; with `state: cell` and `tanh_words: true` that of Kazemi and Elqursh 2017, "Show, Ask, Attend, and Answer" (arXiv
1704.03162).

    q = h_T or c_T,  (h_t, c_t) = LSTM(w_1, ..., w_t) of the word vectors or their tanh

Legend: `B` batch, `T` tokens, `E` embedding, `D` hidden.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import Recurrent, token_mask


class LSTMLast(QuestionEncoder):
    """Embedding, LSTM of `layers`, the last state of the top layer.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        embedding_dim: width of a word vector before the LSTM.
        hidden_dim: width of each LSTM layer.
        layers: number of LSTM layers.
        state: which state is the question vector.
        tanh_words: tanh on the word vectors.
        dropout: on the word vectors and between layers.
        output_dropout: on what it gives, words and question vector.

    Attributes:
        word_dim: hidden_dim.
        sentence_dim: hidden_dim.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_dim: Count = 300,
        hidden_dim: Count = 1024,
        layers: Count = 1,
        state: Literal["hidden", "cell"] = "hidden",
        tanh_words: bool = False,
        dropout: Rate = 0.0,
        output_dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = hidden_dim
        self.state, self.tanh_words = state, tanh_words
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.dropout, self.output_dropout = FastDropout(dropout), FastDropout(output_dropout)
        self.recurrent = Recurrent(nn.LSTM, embedding_dim, hidden_dim, layers, dropout)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        embedded_BTE = self.dropout(self.embedding(tokens_BT))
        if self.tanh_words:
            embedded_BTE = torch.tanh(embedded_BTE)
        words_BTD, (*_, hidden_BD, cell_BD) = self.recurrent(embedded_BTE, length_B)
        sentence_BD = hidden_BD if self.state == "hidden" else cell_BD
        mask_BT = token_mask(tokens_BT, length_B)
        return Question(self.output_dropout(words_BTD), self.output_dropout(sentence_BD), mask_BT)
