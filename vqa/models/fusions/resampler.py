"""`resampler`: a few learned queries read the regions, and the question reads the queries.

Sources: Jaegle et al. 2021, "Perceiver" (arXiv 2103.03206); Alayrac et al. 2022, "Flamingo" (arXiv 2204.14198), section
3.1 and figure 5, whose resampler this is. With K queries X, learned at the start, and regions V projected to their
width, layer by layer and without biases:

    X = X + A(LN(X), [LN(V); LN(X)]),  X = X + W' GELU(W LN(X)),  and LN(X) at the end;  A multi-head attention

The question's vector q then weighs the queries and is multiplied by what it finds:

    p = softmax_k(w . tanh(U x_k + U' q + b)),  z = tanh(W sum_k p_k x_k + b) * tanh(W' q + b')

So the queries depend on the image alone and are computed once an image. With `asked` the words are among what is looked
at, [LN(V); LN(X); LN(W q_t + b)], and the queries know the question. The attention returned is the last layer's from
each query to the regions, renormalised over these, the mean over the heads. Whatever the number of regions, K vectors
stand for the image; only the first projection, the keys and the values cost more with more regions.
Departures: Flamingo has 64 queries, 6 layers and ReLU squared, and its language model reads the queries; in the
Q-Former (Li et al. 2023, arXiv 2301.12597; with the question, as InstructBLIP, Dai et al. 2023, arXiv 2305.06500)
queries and words first look at each other and then the queries at the image, where `asked` is one attention to all.

Legend: `B` batch, `I` distinct images, `T` tokens, `R` regions, `K` queries, `S` all that is looked at, `C` channels,
`D` hidden, `H` heads, `E` width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import at_least_float32, attend, projection
from vqa.models.options import Count, Rate


class ResamplerLayer(nn.Module):
    """Queries look at the regions, themselves and perhaps words; then a feed-forward network."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.regions_norm, self.queries_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, feed_forward_dim, bias=False),
            nn.GELU(),
            nn.Linear(feed_forward_dim, dim, bias=False),
        )

    def forward(
        self, image: Image, queries_BKD: Tensor, words_BTD: Tensor | None, mask_BS: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The queries after this layer; what they asked `[B, H, K, E]`, and the regions' keys `[B, H, R, E]`.

        Args:
            image: regions of width D.
            queries_BKD: the queries before this layer.
            words_BTD: normalised words, or None.
            mask_BS: False on what is not looked at, in the order regions, queries, words; or None.
        """
        regions_IRD, asking_BKD = self.regions_norm(image.regions_IRC), self.queries_norm(queries_BKD)
        others_BSD = asking_BKD if words_BTD is None else torch.cat([asking_BKD, words_BTD], dim=1)
        key_BHSE, value_BHSE = (
            self._heads(torch.cat([image.of(project(regions_IRD)), project(others_BSD)], dim=1))
            for project in (self.key, self.value)
        )
        query_BHKE = self._heads(self.query(asking_BKD))
        mask_B11S = None if mask_BS is None else mask_BS[:, None, None]
        found_BHKE = F.scaled_dot_product_attention(query_BHKE, key_BHSE, value_BHSE, mask_B11S)
        queries_BKD = queries_BKD + self.output(found_BHKE.transpose(1, 2).flatten(2))
        return queries_BKD + self.feed_forward(queries_BKD), query_BHKE, key_BHSE[:, :, : regions_IRD.shape[1]]

    def _heads(self, values_BSD: Tensor) -> Tensor:
        return values_BSD.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Resampler(nn.Module):
    """Any number of regions to `queries` vectors. Nothing inside drops out.

    Args:
        image_dim: channels of a region.
        dim: width of the result.
        queries: how many vectors.
        layers: depth.
        heads: attention heads; dim must be a multiple of it.
        feed_forward_dim: width inside the feed-forward layers.
        word_dim: width of a word, where words are looked at, too.

    Raises:
        InputError: dim is not a multiple of heads.
    """

    def __init__(
        self,
        image_dim: int,
        dim: int,
        *,
        queries: int,
        layers: int,
        heads: int,
        feed_forward_dim: int,
        word_dim: int | None = None,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(
                f"a width of {dim} cannot be shared evenly by {heads} attention heads; hidden_dim must be a "
                "multiple of heads"
            )
        self.queries_KD = nn.Parameter(torch.randn(queries, dim))
        self.regions = nn.Linear(image_dim, dim)
        self.words = None if word_dim is None else nn.Sequential(nn.Linear(word_dim, dim), nn.LayerNorm(dim))
        self.layers = nn.ModuleList(ResamplerLayer(dim, heads, feed_forward_dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        regions_IRC: Tensor,
        mask_IR: Tensor | None = None,
        question: Question | None = None,
        row_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The queries after the last layer `[I, K, D]`, and where they looked `[I, K, R]`.

        Args:
            regions_IRC: float, the regions of each image.
            mask_IR: True on real regions; None: all are.
            question: the words that are looked at, too, by a resampler that was built with `word_dim`. The result is
                then one a question, `B` in place of `I`.
            row_B: which image each question is about; None: one image a question, in order.
        """
        image = Image(self.regions(regions_IRC), row_B, mask_IR)
        words_BTD = None if self.words is None or question is None else self.words(question.words_BTD)
        count = len(regions_IRC) if question is None else len(question.words_BTD)
        queries_BKD = query_BHKE = key_BHRE = self.queries_KD.expand(count, -1, -1)
        mask_BR = image.mask_BR
        mask_BS = self._mask(image, None if words_BTD is None or question is None else question.mask_BT)
        for layer in self.layers:
            queries_BKD, query_BHKE, key_BHRE = layer(image, queries_BKD, words_BTD, mask_BS)
        logit_BHKR = at_least_float32(query_BHKE @ key_BHRE.mT) / query_BHKE.shape[-1] ** 0.5
        if mask_BR is not None:
            logit_BHKR = logit_BHKR.masked_fill(~mask_BR[:, None, None], -torch.inf)
        return self.norm(queries_BKD), logit_BHKR.softmax(dim=-1).mean(dim=1)

    def _mask(self, image: Image, mask_BT: Tensor | None) -> Tensor | None:
        """What may be looked at: real regions, all queries, real words; None: everything."""
        mask_BR = image.mask_BR
        given = mask_BT if mask_BR is None else mask_BR
        if given is None:
            return None
        regions_BR, queries_BK = (
            given.new_ones(len(given), count) for count in (image.regions_IRC.shape[1], len(self.queries_KD))
        )
        parts = [regions_BR if mask_BR is None else mask_BR, queries_BK]
        return torch.cat(parts if mask_BT is None else [*parts, mask_BT], dim=1)


class ResamplerFusion(Fusion):
    """Learned queries read the regions, the question reads the queries.

    Args:
        image_dim: channels of a region.
        question_dim: width of the question vector.
        word_dim: width of a word vector.
        queries: how many vectors stand for an image.
        layers: how often the queries look.
        heads: attention heads; hidden_dim must be a multiple of it.
        hidden_dim: width of the queries; four times as wide inside the feed-forward layers.
        fusion_dim: width of the result.
        asked: the queries look at the words, too, and are computed for each question.
        dropout: on the question and on what it found, before their last projections; the resampler has none.

    Raises:
        InputError: hidden_dim is not a multiple of heads.

    Attributes:
        out_dim: fusion_dim.
    """

    attention_name = "query"

    def __init__(
        self,
        *,
        image_dim: int,
        question_dim: int,
        word_dim: int,
        queries: Count = 32,
        layers: Count = 2,
        heads: Count = 8,
        hidden_dim: Count = 512,
        fusion_dim: Count = 1024,
        asked: bool = False,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.asked = asked
        self.resampler = Resampler(
            image_dim,
            hidden_dim,
            queries=queries,
            layers=layers,
            heads=heads,
            feed_forward_dim=4 * hidden_dim,
            word_dim=word_dim if asked else None,
        )
        self.key = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.query = nn.Linear(question_dim, hidden_dim)
        self.logit = nn.Linear(hidden_dim, 1, bias=False)
        self.image = projection(hidden_dim, fusion_dim, dropout)
        self.question = projection(question_dim, fusion_dim, dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        queries_BKD, key_BKD, attention_BKR = self._read(image, question)
        sentence_BD = question.sentence_BD
        logit_BK1 = self.logit((key_BKD + self.query(sentence_BD)[:, None]).tanh())
        found_B1D, _ = attend(logit_BK1.mT, queries_BKD)
        return Fused(self.image(found_B1D[:, 0]) * self.question(sentence_BD), attention_BKR)

    def _read(self, image: Image, question: Question) -> tuple[Tensor, Tensor, Tensor]:
        """The queries of each question, their keys and their looks; computed once an image if they can be."""
        if self.asked:
            queries_BKD, attention_BKR = self.resampler(image.regions_IRC, image.mask_IR, question, image.row_B)
            return queries_BKD, self.key(queries_BKD), attention_BKR
        queries_IKD, attention_IKR = self.resampler(image.regions_IRC, image.mask_IR)
        return image.of(queries_IKD), image.of(self.key(queries_IKD)), image.of(attention_IKR)
