"""`transformer`: a small transformer encoder.

Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762), sections 3.1, 3.4 and 3.5: word vectors
times sqrt(D) plus sinusoids of the place, then encoder layers. The question vector is the mean of the outputs.

    x_t = sqrt(D) w_t + sinusoids(t)
    layer by layer: x = LayerNorm(x + Attention(x, x, x)), x = LayerNorm(x + W_2 ReLU(W_1 x + b_1) + b_2)
    q = mean_t x_t

Legend: `B` batch, `T` tokens, `D` hidden.
"""

import math

import torch
from torch import Tensor, nn

from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import keep, masked_mean, token_mask
from vqa.models.transformers.attention import EncoderLayer


class Transformer(QuestionEncoder):
    """Embedding and places, encoder layers, mean over the words.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        layers: encoder layers.
        heads: attention heads; hidden_dim must be a multiple of it.
        hidden_dim: width throughout; even.
        feed_forward_dim: width inside the feed-forward layers.
        dropout: on the input, after every sublayer, on attention weights and inside feed-forward layers.

    Attributes:
        word_dim: hidden_dim.
        sentence_dim: hidden_dim.

    Raises:
        InputError: hidden_dim is not a multiple of heads.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        layers: Count = 2,
        heads: Count = 8,
        hidden_dim: Count = 512,
        feed_forward_dim: Count = 2048,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = hidden_dim
        self.embedding = nn.Embedding(vocab_size, hidden_dim, padding_idx=0)
        # times sqrt(D) in the forward pass, so that it starts on the scale of the sinusoids
        nn.init.normal_(self.embedding.weight[1:].detach(), std=hidden_dim**-0.5)
        self.dropout = FastDropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(hidden_dim, heads, feed_forward_dim, dropout) for _ in range(layers))

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = token_mask(tokens_BT, length_B)
        embedded_BTD = self.embedding(tokens_BT) * math.sqrt(self.word_dim)
        words_BTD = self.dropout(embedded_BTD + sinusoids(embedded_BTD))
        for layer in self.layers:
            words_BTD = layer(words_BTD, mask_BT)
        return Question(keep(words_BTD, mask_BT), masked_mean(words_BTD, mask_BT), mask_BT)


def sinusoids(like_BTD: Tensor) -> Tensor:
    """Sine (even columns) and cosine (odd columns) of the place over 10000^(2i / D), `[T, D]`, of the same type."""
    tokens, dim = like_BTD.shape[1:]
    precise = torch.promote_types(like_BTD.dtype, torch.float32)
    place_T = torch.arange(tokens, device=like_BTD.device, dtype=precise)
    rate_E = 10000.0 ** (-torch.arange(0, dim, 2, device=like_BTD.device, dtype=precise) / dim)
    angle_TE = place_T[:, None] * rate_E
    return torch.stack([angle_TE.sin(), angle_TE.cos()], dim=-1).flatten(1)[:, :dim].to(like_BTD.dtype)
