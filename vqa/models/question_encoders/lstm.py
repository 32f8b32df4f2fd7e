"""`lstm`: the deeper LSTM question encoder.

Source: "deeper LSTM Q" of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468), and its released
code: word vectors, dropout, tanh, a stack of LSTMs, and the final cell and hidden states of all layers side by side.

Legend: `B` batch, `T` tokens, `E` embedding, `D` any width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate


class QstEncoder(QuestionEncoder):
    """Embedding, tanh, LSTM of `layers`, final hidden and cell states of all layers side by side, tanh, linear.

    Padding never changes the answer: columns that are padding for the whole batch are cut off first, and questions of
    different lengths run packed. Where all lengths are equal, as in length-bucketed batches, the LSTM runs plain,
    which is faster. Which of the two it is depends on the lengths, so they are read on the host: pass `length_B` in
    host memory to spare a wait for the GPU.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        embedding_dim: width of a word vector before the LSTM.
        hidden_dim: width of each LSTM layer.
        layers: number of LSTM layers.
        sentence_dim: width of the question vector after tanh and linear; None keeps the states as they are, of width
            2 * layers * hidden_dim (the released code).
        dropout: on the word vectors and between layers.

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
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        states_dim = 2 * layers * hidden_dim
        self.word_dim = hidden_dim
        self.sentence_dim = sentence_dim or states_dim
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        # single layers, not one nn.LSTM of all: its dropout between layers is slow on a CPU
        self.layers = nn.ModuleList(
            nn.LSTM(hidden_dim if layer else embedding_dim, hidden_dim, batch_first=True) for layer in range(layers)
        )
        self.dropout = FastDropout(dropout)
        self.output = nn.Sequential(nn.Tanh(), nn.Linear(states_dim, sentence_dim)) if sentence_dim else nn.Identity()

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        tokens = tokens_BT.shape[1]
        mask_BT = torch.arange(tokens, device=tokens_BT.device) < length_B.to(tokens_BT.device)[:, None]
        words_BTD, states_BD = self._run(tokens_BT, length_B.cpu())
        words_BTD = F.pad(words_BTD, (0, 0, 0, tokens - words_BTD.shape[1]))
        return Question(words_BTD, self.output(states_BD), mask_BT)

    @torch.compiler.disable  # the branch depends on the data, and a compiled LSTM is no faster
    def _run(self, tokens_BT: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(length_B.max())
        embedded_BTE = torch.tanh(self.dropout(self.embedding(tokens_BT[:, :longest])))
        if bool((length_B == longest).all()):
            return self._run_equal(embedded_BTE)
        return self._run_packed(pack_padded_sequence(embedded_BTE, length_B, batch_first=True, enforce_sorted=False))

    def _run_equal(self, values_BTD: Tensor) -> tuple[Tensor, Tensor]:
        states: list[Tensor] = []
        for layer, lstm in enumerate(self.layers):
            values_BTD, (hidden_1BD, cell_1BD) = lstm(self.dropout(values_BTD) if layer else values_BTD)
            states += [hidden_1BD[0], cell_1BD[0]]
        return values_BTD, torch.cat(states, dim=-1)

    def _run_packed(self, packed: PackedSequence) -> tuple[Tensor, Tensor]:
        states: list[Tensor] = []
        for layer, lstm in enumerate(self.layers):
            packed, (hidden_1BD, cell_1BD) = lstm(packed._replace(data=self.dropout(packed.data)) if layer else packed)
            states += [hidden_1BD[0], cell_1BD[0]]
        return pad_packed_sequence(packed, batch_first=True)[0], torch.cat(states, dim=-1)
