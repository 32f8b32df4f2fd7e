"""`hf:NAME_OR_PATH`: a language model of transformers (BERT, RoBERTa, MPNet, CLIP's text encoder, T5's encoder, ...).

The words are the model's last hidden states, its own special tokens among them. The model itself comes from outside
(`vqa.features.encoders.text_encoders`), with its own tokenizer's integers as tokens.

Frozen, it is no part of the trained weights, and its outputs can be computed once for every distinct question: the
encoder then takes them in place of tokens. They are rounded to float16, as they are stored, either way.

    w_1 ... w_T = last hidden states of the model, or its word embeddings alone
    q = mean_t w_t, or w_1, or w_T, or the model's pooled output

A fusion may run the model itself, on the question and the image together (`prefix_lm`, `gated_cross_attention`). The
words are then the model's own word embeddings, which is all that it needs of the question.

Source: mean pooling is that of Reimers and Gurevych 2019, "Sentence-BERT" (arXiv 1908.10084).

Legend: `B` batch, `T` tokens, `D` hidden, `E` word embedding, `P` = 1 + T: what the model itself calls pooled, then one
row a token.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.question_encoders.sequences import keep, known_full, masked_mean, token_mask


class TextTransformer(nn.Module):
    """A transformers model that is called with right-padded tokens.

    Args:
        model: takes `input_ids` and `attention_mask`, returns `last_hidden_state` and perhaps `pooler_output`.
        padding: the token that the model itself pads with.
        causal: whether a token sees only itself and those before it.

    Attributes:
        width: `D`.
        has_pooled: whether the model has a pooled output of the same width.
    """

    def __init__(self, model: nn.Module, padding: int, causal: bool = False) -> None:
        super().__init__()
        self.model: Any = model
        self.padding, self.causal = padding, causal
        with torch.no_grad():
            words_BTD, pooled_BD = self(torch.full((1, 1), padding), torch.ones(1, 1, dtype=torch.bool))
        self.width = int(words_BTD.shape[-1])
        self.has_pooled = pooled_BD is not None and pooled_BD.shape == (1, self.width)

    def forward(self, tokens_BT: Tensor, mask_BT: Tensor, full: bool = False) -> tuple[Tensor, Tensor | None]:
        """The last hidden states `[B, T, D]` and the pooled output `[B, D]`, or None where the model has none.

        Args:
            full: whether nothing is padded. Otherwise transformers looks into the mask, for which the host waits.
        """
        # the meta device, where only costs are counted, cannot look into a mask
        attended = None if full or mask_BT.is_meta else mask_BT.to(torch.int64)
        output: Any = self.model(input_ids=tokens_BT.masked_fill(~mask_BT, self.padding), attention_mask=attended)
        return output.last_hidden_state, getattr(output, "pooler_output", None)

    @property
    def embedding(self) -> nn.Embedding:
        """The model's own word embeddings, `E` wide."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def embed(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The word embeddings of right-padded tokens, `[B, T, E]`, zeros where padded."""
        return keep(self.embedding(tokens_BT.masked_fill(~mask_BT, self.padding)), mask_BT)

    def follow(self, values: Tensor) -> "TextTransformer":
        """Itself, on the device of the values; a frozen model is no submodule, so nothing else moves it."""
        if next(self.parameters()).device != values.device:
            self.to(values.device)
        return self

    def drop_pooler(self) -> None:
        """Take away the layer behind the pooled output, where there is one."""
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None


@torch.no_grad()
def frozen_vectors(transformer: TextTransformer, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
    """What a frozen model says of questions: float16 `[B, 1 + T, D]`, zeros where padded or where there is no pooled.

    Computed in float32 whatever the training's precision.
    """
    mask_BT = token_mask(tokens_BT, length_B)
    with torch.autocast(tokens_BT.device.type, enabled=False):
        words_BTD, pooled_BD = transformer(tokens_BT, mask_BT)
    if pooled_BD is None or not transformer.has_pooled:
        pooled_BD = torch.zeros_like(words_BTD[:, 0])
    return torch.cat([pooled_BD[:, None], keep(words_BTD, mask_BT)], dim=1).half()


class Pretrained(QuestionEncoder):
    """A pretrained language model, frozen or tuned, and one vector for the question out of its words.

    Where it is frozen, `forward` takes either tokens, int64 `[B, T]`, or what `frozen_vectors` made of them,
    `[B, 1 + T, D]`.

    Args:
        vocab_size: not used; the tokens are those of the model's own tokenizer.
        transformer: the model.
        tuned: train it with the rest (at a learning rate of its own: training.optimizer.parts, under the name
            question_encoder.transformer); otherwise it stays as it is and its dropout is off.
        pooling: the question vector: the mean of the words, the first or the last of them (special tokens count as
            words), or what the model itself calls its pooled output.
        words: what the words are: the model's last hidden states, or no more than its word embeddings, for a fusion
            that runs the model itself and says what of it is tuned.

    Attributes:
        word_dim: the width of the model, or of its word embeddings.
        sentence_dim: the same.
        precomputed: whether its vectors can be computed before the training (`frozen_vectors`).

    Raises:
        InputError: the model has no pooled output, and it was asked for; or it is tuned, and its outputs are not used.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        transformer: TextTransformer,
        tuned: bool = False,
        pooling: Literal["mean", "first", "last", "pooled"] = "mean",
        words: Literal["outputs", "embeddings"] = "outputs",
    ) -> None:
        super().__init__()
        embedded = words == "embeddings"
        if embedded and (tuned or pooling == "pooled"):
            raise InputError(
                "question_encoder: with words: embeddings the fusion runs the model: set fusion.tuned in place of "
                "question_encoder.tuned, and pooling to mean, first or last"
            )
        if pooling == "pooled" and not transformer.has_pooled:
            raise InputError("question_encoder: this model has no pooled output; set pooling to mean, first or last")
        self.word_dim = self.sentence_dim = transformer.embedding.embedding_dim if embedded else transformer.width
        self.tuned, self.pooling, self.embedded = tuned, pooling, embedded
        if tuned:
            if pooling != "pooled":
                transformer.drop_pooler()  # nothing would train it
            self.transformer = transformer.requires_grad_(True)
        else:
            # in a list it is no submodule: not saved, not trained, not counted
            self._frozen = [transformer.requires_grad_(False).eval()]

    @property
    def precomputed(self) -> bool:
        return not self.tuned and not self.embedded

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        pooled_BD: Tensor | None
        if self.embedded:
            mask_BT = token_mask(tokens_BT, length_B)
            words_BTD, pooled_BD = self._frozen[0].follow(tokens_BT).embed(tokens_BT, mask_BT), None
        elif self.tuned:
            mask_BT = token_mask(tokens_BT, length_B)
            full = known_full(length_B, tokens_BT.shape[1])
            words_BTD, pooled_BD = self.transformer(tokens_BT, mask_BT, full)
            words_BTD = keep(words_BTD, mask_BT)
        else:
            vectors_BPD = tokens_BT if tokens_BT.is_floating_point() else self._vectors(tokens_BT, length_B)
            pooled_BD, words_BTD = vectors_BPD[:, 0].float(), vectors_BPD[:, 1:].float()
            mask_BT = token_mask(words_BTD, length_B)
        return Question(words_BTD, self._sentence(words_BTD, pooled_BD, mask_BT), mask_BT)

    def _vectors(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        """The frozen model's outputs, on the device of the tokens."""
        return frozen_vectors(self._frozen[0].follow(tokens_BT), tokens_BT, length_B)

    def _sentence(self, words_BTD: Tensor, pooled_BD: Tensor | None, mask_BT: Tensor) -> Tensor:
        match self.pooling:
            case "mean":
                return masked_mean(words_BTD, mask_BT)
            case "first":
                return words_BTD[:, 0]
            case "last":
                last_B = mask_BT.sum(dim=1) - 1
                return words_BTD[torch.arange(len(words_BTD), device=last_B.device), last_B]
            case _:
                assert pooled_BD is not None  # the constructor looked
                return pooled_BD

    def set_word_vectors(self, token_N: Tensor, vectors_NE: Tensor) -> None:
        """Refused: the model has word vectors of its own."""
        raise InputError("a pretrained question encoder has word vectors of its own")
