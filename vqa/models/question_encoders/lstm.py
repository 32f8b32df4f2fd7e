"""`lstm`: the deeper LSTM question encoder.

Source: "deeper LSTM Q" of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468), and its released
code: word vectors, dropout, tanh, a stack of LSTMs, and the final hidden and cell states of all layers side by side.
With word vectors w_1 ... w_T and layers l = 1 ... L:

    h_T^l, c_T^l = LSTM_l(... LSTM_1(tanh(w_1), ..., tanh(w_T)))
    q = W tanh([h_T^1, c_T^1, ..., h_T^L, c_T^L]) + b

Legend: `B` batch, `T` tokens, `E` embedding, `D` any width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import Recurrent, token_mask


class QstEncoder(QuestionEncoder):
    """Embedding, tanh, LSTM of `layers`, final hidden and cell states of all layers side by side, tanh, linear.

    Padding never changes the answer: see `Recurrent`, which also says why `length_B` is best left in host memory.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        embedding_dim: width of a word vector before the LSTM.
        hidden_dim: width of each LSTM layer.
        layers: number of LSTM layers.
        sentence_dim: width of the question vector after tanh and linear; None keeps the states as they are, of width
            2 * layers * hidden_dim (the released code), or half of it with `states: hidden`.
        states: which states are side by side: hidden and cell, or the hidden ones alone.
        dropout: on the word vectors and between layers.
        output_dropout: on what it gives, words and question vector.

    Attributes:
        word_dim: hidden_dim; a word's vector is the output of the top layer there.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_dim: Count = 300,
        hidden_dim: Count = 512,
        layers: Count = 2,
        sentence_dim: Count | None = 1024,
        states: Literal["hidden_and_cell", "hidden"] = "hidden_and_cell",
        dropout: Rate = 0.0,
        output_dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.every = 2 if states == "hidden" else 1  # they stand in turns, hidden and cell of each layer
        states_dim = 2 * layers * hidden_dim // self.every
        self.word_dim = hidden_dim
        self.sentence_dim = sentence_dim or states_dim
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.dropout, self.output_dropout = FastDropout(dropout), FastDropout(output_dropout)
        self.recurrent = Recurrent(nn.LSTM, embedding_dim, hidden_dim, layers, dropout)
        self.output = nn.Sequential(nn.Tanh(), nn.Linear(states_dim, sentence_dim)) if sentence_dim else nn.Identity()

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        embedded_BTE = torch.tanh(self.dropout(self.embedding(tokens_BT)))
        words_BTD, states = self.recurrent(embedded_BTE, length_B)
        sentence_BD = self.output(torch.cat(states[:: self.every], dim=-1))
        mask_BT = token_mask(tokens_BT, length_B)
        return Question(self.output_dropout(words_BTD), self.output_dropout(sentence_BD), mask_BT)
