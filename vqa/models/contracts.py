"""What question encoders, fusions and models return, whichever they are.

Legend: `B` batch, `T` tokens, `D` width of the question vector, `H` hops, heads or glimpses, `R` regions, `A` answers,
`E` embedding.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vqa.errors import InputError


class Question(NamedTuple):
    """What a question encoder returns.

    Attributes:
        words_BTD: float, one vector a token, zeros where padded.
        sentence_BD: float, one vector a question.
        mask_BT: bool, True on real tokens.
    """

    words_BTD: Tensor
    sentence_BD: Tensor
    mask_BT: Tensor


class Fused(NamedTuple):
    """What a fusion returns.

    Attributes:
        vector_BD: float `[B, out_dim]`, ready for the classifier.
        attention_BHR: float, each row sums to 1; None where the fusion does not look at regions.
    """

    vector_BD: Tensor
    attention_BHR: Tensor | None


class Prediction(NamedTuple):
    """What the model returns.

    Attributes:
        logits_BA: float, one score an answer of the vocabulary, before any softmax or sigmoid.
        attention_BHR: float, where the fusion looked, or None.
    """

    logits_BA: Tensor
    attention_BHR: Tensor | None


class QuestionEncoder(nn.Module):
    """Turns the tokens of a question into vectors.

    A constructor takes `vocab_size` and its options, all by keyword: `QuestionEncoder(*, vocab_size, ...)`.

    Attributes:
        word_dim: width of `Question.words_BTD`.
        sentence_dim: width of `Question.sentence_BD`.
        embedding: the word vectors; row 0 is padding and stays zero.
    """

    word_dim: int
    sentence_dim: int
    embedding: nn.Embedding

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        """Encode a batch of questions.

        Args:
            tokens_BT: int64, right-padded with 0; 1 is an unknown word. A frozen pretrained encoder also takes float
                vectors in their place (see `Pretrained`), and pretrained ones count as their own tokenizers do.
            length_B: int64, number of real tokens, at least 1 a question. It may stay in host memory while the rest
                is on a GPU: then nothing waits for the GPU.
        """
        raise NotImplementedError

    def begin(self, tokens_NT: Tensor, length_N: Tensor) -> None:
        """See the training questions once, before the first step, when all weights have their first values.

        Most encoders take nothing from them.

        Args:
            tokens_NT: int64, right-padded with 0.
            length_N: int64, in host memory.
        """

    @torch.no_grad()
    def set_word_vectors(self, token_N: Tensor, vectors_NE: Tensor) -> None:
        """Start some tokens from ready-made word vectors; the others stay as they are.

        Args:
            token_N: int64, which tokens.
            vectors_NE: float, their vectors.

        Raises:
            InputError: the vectors are not as wide as the embedding.
        """
        wanted, given = self.embedding.embedding_dim, vectors_NE.shape[1]
        if wanted != given:
            raise InputError(f"word vectors of width {given} do not fit word vectors of width {wanted}")
        self.embedding.weight[token_N] = vectors_NE.to(self.embedding.weight)


class Fusion(nn.Module):
    """Joins an image and a question into one vector.

    A constructor takes `image_dim`, `regions`, `question_dim` and its options, all by keyword; one that reads single
    words also takes `word_dim`.

    Attributes:
        out_dim: width of `Fused.vector_BD`.
        attention_name: what one of the `H` rows of its attention is called in captions.
    """

    attention_name: ClassVar[str] = "map"
    out_dim: int

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        """Join region features `[B, regions, image_dim]` and encoded questions."""
        raise NotImplementedError
