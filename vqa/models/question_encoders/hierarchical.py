"""`hierarchical`: words, phrases and the question so far, side by side.

Source: Lu et al. 2016, "Hierarchical Question-Image Co-Attention for Visual Question Answering" (arXiv 1606.00061),
section 3.2. With word vectors w_t, and zeros after the end of the question:

    p_t = max over s = 1, 2, 3 of tanh(W_s [w_t, ..., w_(t+s-1)] + b_s)
    q_t = LSTM(p_1 ... p_t)

Legend: `B` batch, `T` tokens, `D` hidden.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import Recurrent, keep, token_mask, windows


class Hierarchical(QuestionEncoder):
    """The three levels of every token; the question vector is the last state of the LSTM.

    `co_attention` with `levels: 3` takes the levels apart again.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        hidden_dim: width of every level.
        layers: LSTM layers of the question level.
        dropout: on the word vectors, on the phrases and between LSTM layers.

    Attributes:
        word_dim: 3 * hidden_dim: word, phrase, question.
        sentence_dim: hidden_dim.
    """

    def __init__(self, *, vocab_size: int, hidden_dim: Count = 512, layers: Count = 1, dropout: Rate = 0.0) -> None:
        super().__init__()
        self.word_dim, self.sentence_dim = 3 * hidden_dim, hidden_dim
        self.embedding = nn.Embedding(vocab_size, hidden_dim, padding_idx=0)
        self.phrase = nn.ModuleList(nn.Linear(width * hidden_dim, hidden_dim) for width in (1, 2, 3))
        self.recurrent = Recurrent(nn.LSTM, hidden_dim, hidden_dim, layers, dropout)
        self.dropout = FastDropout(dropout)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = token_mask(tokens_BT, length_B)
        word_BTD = keep(self.dropout(self.embedding(tokens_BT)), mask_BT)
        grams = [torch.tanh(gram(windows(word_BTD, width))) for width, gram in enumerate(self.phrase, start=1)]
        phrase_BTD = keep(torch.stack(grams).amax(dim=0), mask_BT)
        question_BTD, states = self.recurrent(self.dropout(phrase_BTD), length_B)
        levels_BTD = torch.cat([word_BTD, phrase_BTD, question_BTD], dim=-1)
        return Question(levels_BTD, states[-2], mask_BT)
