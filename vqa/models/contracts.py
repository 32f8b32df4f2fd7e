"""What question encoders, fusions and models return, whichever they are.

Legend: `B` batch, `I` distinct images of a batch, `T` tokens, `D` width of the question vector, `H` hops, heads or
glimpses, `R` regions, `C` channels, `A` answers, `E` embedding.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vqa.errors import InputError


class Image(NamedTuple):
    """The images of a batch, each once, and which of them each question is about.

    What depends on the image alone is computed for the `I` images, then taken to the questions by `of`. A fusion that
    does not care reads `regions_BRC`.

    Attributes:
        regions_IRC: float, one vector a region.
        row_B: int64, which of the `I` images each question is about; None: one image a question, in order (`I = B`).
        mask_IR: bool, True on real regions, of which every image has one at least; None: all regions are real.
        boxes_IR4: float, where each region lies: x1, y1, x2, y2 as shares of the image's width and height, 0 to 1;
            None where that is not known.
    """

    regions_IRC: Tensor
    row_B: Tensor | None = None
    mask_IR: Tensor | None = None
    boxes_IR4: Tensor | None = None

    def of(self, values_I: Tensor) -> Tensor:
        """What was computed for each image, `[I, ...]`, as each question's, `[B, ...]`."""
        return values_I if self.row_B is None else values_I.index_select(0, self.row_B)

    @property
    def regions_BRC(self) -> Tensor:
        """Float, one row a question."""
        return self.of(self.regions_IRC)

    @property
    def mask_BR(self) -> Tensor | None:
        """Bool, True on real regions; None: all are."""
        return None if self.mask_IR is None else self.of(self.mask_IR)

    @property
    def boxes_BR4(self) -> Tensor | None:
        """Float, where each region lies, or None."""
        return None if self.boxes_IR4 is None else self.of(self.boxes_IR4)


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


Reads = Literal["nothing", "mean", "map"]


class Fusion(nn.Module):
    """Joins an image and a question into one vector.

    A constructor takes `image_dim`, `regions`, `question_dim` and its options, all by keyword; one that reads single
    words also takes `word_dim`, and one that runs the language model of the question encoder takes `transformer`.

    Attributes:
        out_dim: width of `Fused.vector_BD`.
        attention_name: what one of the `H` rows of its attention is called in captions.
        reads: what it takes of an image: its regions ("map"), only their mean ("mean"), or nothing. Of the last two the
            mean is computed once an image, before the training, and takes the map's place.
        needs_boxes: whether it needs to know where the regions lie (`Image.boxes_IR4`); options may decide.
    """

    attention_name: ClassVar[str] = "map"
    reads: ClassVar[Reads] = "map"
    needs_boxes: bool = False
    out_dim: int

    def forward(self, image: Image, question: Question) -> Fused:
        """Join images and encoded questions.

        Whatever padded regions hold changes nothing, and a question gets the same whether its image is shared
        (`image.row_B`) or stands alone.
        """
        raise NotImplementedError
