"""`gru`: a GRU's last state as the question vector.

Source: the question model of Teney et al. 2018, "Tips and Tricks for Visual Question Answering" (arXiv 1708.02711).

    q = h_T,  h_1 ... h_T = GRU(w_1, ..., w_T) of the word vectors

With `padded_to` the GRU reads padding as words, as well-known released code does: in front of the question (bottom-up
attention) or behind it, where the fusion then sees states of padded words too (bilinear attention networks).

Legend: `B` batch, `T` tokens, `E` embedding, `D` hidden.
"""

from typing import Literal

from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate, Words
from vqa.models.question_encoders.sequences import Recurrent, padded, token_mask


class GRU(QuestionEncoder):
    """Embedding, GRU of `layers`, the last state of the top layer.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        embedding_dim: width of a word vector before the GRU.
        hidden_dim: width of each GRU layer.
        layers: number of GRU layers.
        dropout: on the word vectors and between layers.
        padded_to: every question is cut or padded to so many tokens, and the padding read as words whose vector is
            zero; None reads the words alone, so that nothing depends on padding.
        padding: where it stands.

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
        dropout: Rate = 0.0,
        padded_to: Words | None = None,
        padding: Literal["behind", "front"] = "behind",
    ) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = hidden_dim
        self.padded_to, self.padding = padded_to, padding
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.dropout = FastDropout(dropout)
        self.recurrent = Recurrent(nn.GRU, embedding_dim, hidden_dim, layers, dropout)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        if self.padded_to is not None:
            tokens_BT, length_B = padded(tokens_BT, length_B, self.padded_to, self.padding == "front")
        words_BTD, states = self.recurrent(self.dropout(self.embedding(tokens_BT)), length_B)
        return Question(words_BTD, states[-1], token_mask(tokens_BT, length_B))
