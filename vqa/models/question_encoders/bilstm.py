"""`bilstm`: an LSTM in both directions, its outputs pooled over the words.

Source: bidirectional LSTMs (Graves and Schmidhuber 2005, "Framewise phoneme classification with bidirectional LSTM");
max pooling as Conneau et al. 2017 (arXiv 1705.02364), attention pooling as the self-attention of Lin et al. 2017 (arXiv
1703.03130) with one linear layer and one row.

    h_t = [LSTM(w_1, ..., w_t), LSTM'(w_T, ..., w_t)] of the word vectors
    q = mean_t h_t, max_t h_t or sum_t softmax_t(w . h_t) h_t

Legend: `B` batch, `T` tokens, `D` both directions.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import Recurrent, masked_max, masked_mean, token_mask


class BiLSTM(QuestionEncoder):
    """Embedding, bidirectional LSTM of `layers`, the mean, maximum or weighted sum of its outputs.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        pooling: how the outputs become one vector; "attention" weighs them by softmax_t(w . h_t).
        embedding_dim: width of a word vector before the LSTM.
        hidden_dim: width of each layer and direction.
        layers: number of layers.
        dropout: on the word vectors and between layers.

    Attributes:
        word_dim: 2 * hidden_dim.
        sentence_dim: 2 * hidden_dim.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        pooling: Literal["mean", "max", "attention"] = "max",
        embedding_dim: Count = 300,
        hidden_dim: Count = 512,
        layers: Count = 1,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = 2 * hidden_dim
        self.pooling = pooling
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.dropout = FastDropout(dropout)
        self.recurrent = Recurrent(nn.LSTM, embedding_dim, hidden_dim, layers, dropout, bidirectional=True)
        self.logit = nn.Linear(2 * hidden_dim, 1, bias=False) if pooling == "attention" else None

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        words_BTD, _ = self.recurrent(self.dropout(self.embedding(tokens_BT)), length_B)
        mask_BT = token_mask(tokens_BT, length_B)
        if self.logit is not None:
            logit_B1T = self.logit(words_BTD).transpose(1, 2).masked_fill(~mask_BT[:, None], -torch.inf)
            sentence_BD = attend(logit_B1T, words_BTD)[0][:, 0]
        else:
            sentence_BD = (masked_mean if self.pooling == "mean" else masked_max)(words_BTD, mask_BT)
        return Question(words_BTD, sentence_BD, mask_BT)
