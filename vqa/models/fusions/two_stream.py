"""`two_stream`: words and regions each keep a stream of their own, and look at the other's layer by layer.

Sources: Tan and Bansal 2019, "LXMERT" (arXiv 1908.07490), section 2.2, and Lu et al. 2019, "ViLBERT" (arXiv
1908.02265), section 2.1. X are the words behind a learned [CLS], Y the regions, each through layers of its own first;
A is multi-head attention, LN layer normalisation, F(U) = LN(U + FFN(U)) with GELU inside, S(U) = F(LN(U + A(U, U))). A
cross layer is

    lxmert:   X' = LN(X + C(X, Y)),   Y' = LN(Y + C(Y, X)),   X = S(X'),  Y = S(Y')
    vilbert:  X' = F(LN(X + A(X, Y))), Y' = F(LN(Y + A(Y, X))), X = S(X'),  Y = S(Y')

where C and the LN behind it are the same weights in both directions, and all others are a stream's own. At the end, as
in ViLBERT,

    z = tanh(W x_[CLS] + b) * tanh(W' mean_r y_r + b')

`lxmert` is the default: it has a feed-forward network less a layer and stream. The attention returned is the last cross
layer's from [CLS] to the regions, one row a head.
Departures: both forms have UNITER's embeddings of regions with boxes (`single_stream`), and one width for both streams
(ViLBERT: 768 and 1,024); the words come from the question encoder, so there are no position embeddings; nothing is
pretrained; LXMERT's result is tanh(W x_[CLS] + b), of which the last layer of regions would not learn; ViLBERT's has an
image token in place of the mean, and ReLU in place of tanh in its code; layer normalisation with epsilon 1e-5, there
1e-12; key projections have no bias, which softmax would ignore. The sentence vector is not used.

Legend: `B` batch, `T` tokens with [CLS], `R` regions, `D` hidden, `H` heads.
"""

from typing import Literal

from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import drops_out, mean_region
from vqa.models.options import Count, Rate, Size
from vqa.models.transformers.attention import MultiHeadAttention, Residual
from vqa.models.transformers.bert import Block, RegionEmbedding, WordEmbedding


class LXMERTLayer(nn.Module):
    """The same cross-attention both ways, then self-attention and feed-forward in each stream."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int, dropout: float) -> None:
        super().__init__()
        self.cross = MultiHeadAttention(dim, heads, dropout)
        self.after_cross = Residual(dim, dropout)
        self.words = Block(dim, heads, feed_forward_dim, dropout)
        self.regions = Block(dim, heads, feed_forward_dim, dropout)

    @property
    def from_words(self) -> MultiHeadAttention:
        """The attention of words to regions."""
        return self.cross

    def forward(
        self, words_BTD: Tensor, regions_BRD: Tensor, mask_BT: Tensor, mask_BR: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams; where a mask is False nothing is looked at."""
        found_BTD = self.cross(words_BTD, regions_BRD, mask_BR)
        found_BRD = self.cross(regions_BRD, words_BTD, mask_BT)
        words_BTD = self.after_cross(words_BTD, found_BTD)
        regions_BRD = self.after_cross(regions_BRD, found_BRD)
        return self.words(words_BTD, words_BTD, mask_BT), self.regions(regions_BRD, regions_BRD, mask_BR)


class ViLBERTLayer(nn.Module):
    """Cross-attention and feed-forward in each stream, then self-attention and feed-forward in each."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int, dropout: float) -> None:
        super().__init__()
        self.words_cross, self.regions_cross, self.words, self.regions = (
            Block(dim, heads, feed_forward_dim, dropout) for _ in range(4)
        )

    @property
    def from_words(self) -> MultiHeadAttention:
        """The attention of words to regions."""
        return self.words_cross.attention

    def forward(
        self, words_BTD: Tensor, regions_BRD: Tensor, mask_BT: Tensor, mask_BR: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams; where a mask is False nothing is looked at."""
        crossed_BTD = self.words_cross(words_BTD, regions_BRD, mask_BR)
        crossed_BRD = self.regions_cross(regions_BRD, words_BTD, mask_BT)
        return self.words(crossed_BTD, crossed_BTD, mask_BT), self.regions(crossed_BRD, crossed_BRD, mask_BR)


class TwoStream(Fusion):
    """A stream of words and a stream of regions that look at each other.

    Args:
        image_dim: channels of a region.
        word_dim: width of a word vector.
        form: how a cross layer is built, "lxmert" or "vilbert".
        layers: cross layers; LXMERT: 5, ViLBERT: 6.
        word_layers: layers of words alone before them; LXMERT: 9, ViLBERT: 6.
        region_layers: layers of regions alone before them; LXMERT: 5, ViLBERT: none.
        heads: attention heads; hidden_dim must be a multiple of it. LXMERT: 12.
        hidden_dim: width of words and regions inside, and of the result; LXMERT: 768.
        feed_forward_dim: width inside the feed-forward layers; LXMERT: 3072.
        dropout: of the embeddings, after every sublayer and on attention weights.

    Raises:
        InputError: hidden_dim is not a multiple of heads.

    Attributes:
        out_dim: hidden_dim.
    """

    attention_name = "head"

    def __init__(
        self,
        *,
        image_dim: int,
        word_dim: int,
        form: Literal["lxmert", "vilbert"] = "lxmert",
        layers: Count = 4,
        word_layers: Size = 1,
        region_layers: Size = 1,
        heads: Count = 8,
        hidden_dim: Count = 512,
        feed_forward_dim: Count = 2048,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.out_dim = hidden_dim
        sizes = (hidden_dim, heads, feed_forward_dim, dropout)
        self.words = WordEmbedding(word_dim, hidden_dim)
        self.regions = RegionEmbedding(image_dim, hidden_dim)
        self.dropout = FastDropout(dropout)
        self.word_layers = nn.ModuleList(Block(*sizes) for _ in range(word_layers))
        self.region_layers = nn.ModuleList(Block(*sizes) for _ in range(region_layers))
        layer = LXMERTLayer if form == "lxmert" else ViLBERTLayer
        self.layers = nn.ModuleList(layer(*sizes) for _ in range(layers - 1))
        self.last = layer(*sizes)
        self.from_words = nn.Linear(hidden_dim, hidden_dim)
        self.from_regions = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        words_BTD, mask_BT = self.words(question)
        words_BTD, regions_BRD, mask_BR = self.dropout(words_BTD), self._encode(image), image.mask_BR
        for layer in self.word_layers:
            words_BTD = layer(words_BTD, words_BTD, mask_BT)
        for layer in self.layers:
            words_BTD, regions_BRD = layer(words_BTD, regions_BRD, mask_BT, mask_BR)
        attention_BH1R = self.last.from_words.look(words_BTD[:, :1], regions_BRD, mask_BR)
        words_BTD, regions_BRD = self.last(words_BTD, regions_BRD, mask_BT, mask_BR)
        word_BD = self.from_words(words_BTD[:, 0]).tanh()
        region_BD = self.from_regions(mean_region(regions_BRD, mask_BR)).tanh()
        return Fused(word_BD * region_BD, attention_BH1R[:, :, 0])

    def _encode(self, image: Image) -> Tensor:
        """The regions of each question through their own layers, once an image where nothing is dropped out."""
        regions_IRD = self.regions(image)
        if drops_out(self.dropout):
            return self._region_stream(self.dropout(image.of(regions_IRD)), image.mask_BR)
        return image.of(self._region_stream(regions_IRD, image.mask_IR))

    def _region_stream(self, values_NRD: Tensor, mask_NR: Tensor | None) -> Tensor:
        for layer in self.region_layers:
            values_NRD = layer(values_NRD, values_NRD, mask_NR)
        return values_NRD
