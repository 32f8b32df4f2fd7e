"""`vqa.testing`: what keeps its promises passes, and each broken promise is named."""

import doctest
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers.formats import MINIATURES
from helpers.outside.format import Renamed
from helpers.outside.fusion import Mine
from helpers.outside.image_encoder import coarse
from helpers.outside.question_encoder import MeanWord
from helpers.training import run_python
from torch import Tensor, nn

from vqa.data.dataset import QADataset
from vqa.data.formats import find_format
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import Preparation
from vqa.models import Fused, Fusion, Image, Question, QuestionEncoder
from vqa.models.options import Count
from vqa.testing import check_format, check_fusion, check_image_encoder, check_question_encoder


class Good(Fusion):
    """Looks at the regions once."""

    def __init__(self, *, image_dim: int, question_dim: int, width: Count = 6) -> None:
        super().__init__()
        self.out_dim = width
        self.image, self.question = nn.Linear(image_dim, width), nn.Linear(question_dim, width)

    def weights(self, logit_B1R: Tensor) -> Tensor:
        return logit_B1R.softmax(dim=-1)

    def forward(self, image: Image, question: Question) -> Fused:
        image_BRD, question_BD = self.image(image.regions_BRC), self.question(question.sentence_BD)
        logit_B1R = (question_BD[:, None] @ image_BRD.mT).float()
        if image.mask_BR is not None:
            logit_B1R = logit_B1R.masked_fill(~image.mask_BR[:, None], -torch.inf)
        attention_B1R = self.weights(logit_B1R)
        return Fused((attention_B1R.to(image_BRD.dtype) @ image_BRD)[:, 0] * question_BD, attention_B1R)


class WrongShape(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD[:, :-1])


class NotFinite(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD / image.regions_BRC.mean(dim=(1, 2))[:, None].clamp(max=0))


class NotFiniteWithoutImage(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD / image.regions_BRC.norm(dim=(1, 2))[:, None])


class WithoutGradient(Good):
    def __init__(self, *, image_dim: int, question_dim: int) -> None:
        super().__init__(image_dim=image_dim, question_dim=question_dim)
        self.forgotten = nn.Linear(2, 2)


class DependsOnPadding(Good):
    def __init__(self, *, image_dim: int, question_dim: int, word_dim: int) -> None:
        super().__init__(image_dim=image_dim, question_dim=question_dim)
        self.word = nn.Linear(word_dim, self.out_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD + self.word(question.words_BTD).mean(dim=1))


class DependsOnItsBatch(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD - fused.vector_BD.mean(dim=0))


class AttentionNotShares(Good):
    def weights(self, logit_B1R: Tensor) -> Tensor:
        return logit_B1R.sigmoid()


class AttentionOfAnotherShape(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        assert fused.attention_BHR is not None
        return fused._replace(attention_BHR=fused.attention_BHR[:, 0])


class IgnoresTheQuestion(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        return Fused(self.image(image.regions_BRC).mean(dim=1) + 0 * self.question(question.sentence_BD), None)


class RandomAlways(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=nn.functional.dropout(fused.vector_BD, 0.5, training=True))


class NotSaved(Good):
    def __init__(self, *, image_dim: int, question_dim: int) -> None:
        super().__init__(image_dim=image_dim, question_dim=question_dim)
        self.scale = torch.rand(self.out_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        return fused._replace(vector_BD=fused.vector_BD * self.scale.to(fused.vector_BD.dtype))


class NoWidth(Good):
    def __init__(self, *, image_dim: int, question_dim: int) -> None:
        super().__init__(image_dim=image_dim, question_dim=question_dim)
        del self.out_dim


class ByPosition(Good):
    def __init__(self, image_dim: int, question_dim: int) -> None:
        super().__init__(image_dim=image_dim, question_dim=question_dim)


class ForgetsWhichImage(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        count = len(question.sentence_BD)
        repeated_BRC = image.regions_IRC.repeat(count, 1, 1)[:count]
        return super().forward(Image(repeated_BRC.flip(0) if image.row_B is not None else repeated_BRC), question)


class LooksAtPadding(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        return super().forward(image._replace(mask_IR=None), question)


class AveragesPadding(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        fused = super().forward(image, question)
        mean_BD = self.image(image.regions_BRC).mean(dim=1)
        return fused._replace(vector_BD=fused.vector_BD + mean_BD)


class Crashes(Good):
    def forward(self, image: Image, question: Question) -> Fused:
        return super().forward(image._replace(regions_IRC=image.regions_IRC.mT), question)


def test_a_good_fusion_passes() -> None:
    check_fusion(Good)
    check_fusion(Good, width=3)
    check_fusion(Mine)


@pytest.mark.parametrize(
    ("fusion", "said"),
    [
        (WrongShape, r"^WrongShape gives a vector \[4, 5\], not \[B, out_dim\] = \[4, 6\]$"),
        (NotFinite, "^NotFinite gives a vector with numbers that are not finite$"),
        (NotFiniteWithoutImage, "numbers that are not finite for an image of zeros$"),
        (WithoutGradient, "parameters that get no gradient: forgotten.weight, forgotten.bias$"),
        (DependsOnPadding, r"^DependsOnPadding depends on padding \(6 or 11 tokens\): it changes by 0\.\d+$"),
        (DependsOnItsBatch, "depends on the other questions of its batch: it changes by"),
        (AttentionNotShares, r"gives attention that does not sum to 1 over the regions: \d"),
        (AttentionOfAnotherShape, r"gives attention \[4, 1\], not \[B, H, regions\] = \[4, H, 1\]$"),
        (IgnoresTheQuestion, "parameters that get no gradient: question|the same whatever is the question"),
        (RandomAlways, "gives other numbers for the same batch|depends on padding"),
        (NotSaved, "once it is saved and loaded: something that counts is not in its state_dict$"),
        (ForgetsWhichImage, r"gives something else where questions share an image \(image.row_B\)"),
        (LooksAtPadding, r"regions that pad an image \(image.mask_IR\)"),
        (AveragesPadding, r"depends on regions that pad an image \(image.mask_IR\): it changes by"),
        (NoWidth, "states no out_dim"),
        (Crashes, r"^Crashes fails at 1 regions with RuntimeError: .*shapes cannot be multiplied"),
        (ByPosition, "cannot be a section of an experiment: .* must take every option by keyword"),
    ],
)  # fmt: skip
def test_a_broken_fusion_is_caught_by_name(fusion: type[Fusion], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_fusion(fusion)


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(AssertionError, match=r"Good cannot be a section .*widht.*did you mean 'width'"):
        check_fusion(Good, widht=3)


def test_what_a_fusion_ignores_on_purpose_is_said() -> None:
    from vqa.models import FUSIONS

    with pytest.raises(AssertionError, match="QuestionOnly sends no gradient to the image"):
        check_fusion(FUSIONS["question_only"], fusion_dim=8)
    check_fusion(FUSIONS["question_only"], "image", fusion_dim=8)
    with pytest.raises(AssertionError, match="Good should ignore the image, but looks at it"):
        check_fusion(Good, "image")


class PaddingCounts(MeanWord):
    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        question = super().forward(tokens_BT, length_B)
        return question._replace(sentence_BD=question.words_BTD.mean(dim=1))


class PaddedWords(MeanWord):
    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        question = super().forward(tokens_BT, length_B)
        return question._replace(words_BTD=question.words_BTD + 1)


class WrongWidth(MeanWord):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.sentence_dim = 9


class DeafToVectors(MeanWord):
    def set_word_vectors(self, token_N: Tensor, vectors_NE: Tensor) -> None:
        pass


class WeighsItsBatch(MeanWord):
    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        question = super().forward(tokens_BT, length_B)
        return question._replace(sentence_BD=question.sentence_BD / len(length_B))


def test_a_good_question_encoder_passes() -> None:
    check_question_encoder(MeanWord, embedding_dim=5)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (PaddingCounts, r"depends on padding \(7 or 26 tokens\)"),
        (PaddedWords, "gives padded tokens vectors that are not zero"),
        (WrongWidth, r"gives sentence_BD \[4, 8\], not \[4, 9\]"),
        (DeafToVectors, "does not take the word vectors that it is given"),
        (WeighsItsBatch, "depends on the other questions of its batch"),
    ],
)
def test_a_broken_question_encoder_is_caught_by_name(encoder: type[QuestionEncoder], said: str) -> None:
    with pytest.raises(AssertionError, match=f"^{encoder.__name__} {said}"):
        check_question_encoder(encoder)


def with_dropout(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    encoder = coarse(name, layer=layer, weights=weights, preparation=preparation)
    encoder.train = lambda mode=True: nn.Module.train(encoder, mode)  # type: ignore[method-assign]
    return encoder


def other_weights(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    return ImageEncoder(
        nn.Conv2d(3, 4, 8), name=name, layer="map", preparation=preparation, weights_origin="new ones each time",
        read_output=lambda map_BCHW: map_BCHW,
    )  # fmt: skip


def of_its_batch(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    encoder = coarse(name, layer=layer, weights=weights, preparation=preparation)
    encoder.read_output = lambda map_BCHW: map_BCHW - map_BCHW.mean(dim=0)
    return encoder


def wrong_channels(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    encoder = coarse(name, layer=layer, weights=weights, preparation=preparation)
    encoder.channels = 7
    return encoder


def test_good_image_encoders_pass() -> None:
    check_image_encoder(coarse)
    check_image_encoder("squeezenet1_1", layer="features.4", image_size=32)
    check_image_encoder("resnet18")
    check_image_encoder("detector:fasterrcnn_mobilenet_v3_large_320_fpn", layer="box_head:9")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (with_dropout, "goes into training mode with the model"),
        (other_weights, "has other weights each time it is made"),
        (of_its_batch, "depends on the other images of its batch"),
        (wrong_channels, r"gives features \[3, 4, 5\], not \[B, regions, channels\] = \[3, 4, 7\]"),
    ],
)
def test_a_broken_image_encoder_is_caught_by_name(make: Callable[..., ImageEncoder], said: str) -> None:
    with pytest.raises(AssertionError, match=f"^ImageEncoder {said}"):
        check_image_encoder(make)


class TwiceTheSame:
    """A reader to break."""

    splits: ClassVar = {"train": "train2014"}
    about = "broken"

    def read(self, root: Path, split: str) -> QADataset:
        found = find_format("vqa_v1").read(root, split)
        return replace(found, question_id_N=np.repeat(found.question_id_N[:1], len(found)))


class RaisesAnything(TwiceTheSame):
    def read(self, root: Path, split: str) -> QADataset:
        if not (root / "Images").is_dir():
            raise KeyError("Images")
        return find_format("vqa_v1").read(root, split)


class AnotherSplit(TwiceTheSame):
    def read(self, root: Path, split: str) -> QADataset:
        return replace(find_format("vqa_v1").read(root, split), split="training")


def test_a_good_format_passes(tmp_path: Path) -> None:
    MINIATURES["vqa_v2"](tmp_path)
    assert [dataset.split for dataset in check_format(Renamed, tmp_path)] == ["first", "second"]


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (TwiceTheSame, "^vqa_v1 train2014 has a question id twice$"),
        (RaisesAnything, "raises KeyError where its files are missing, not an InputError: 'Images'$"),
        (AnotherSplit, "^AnotherSplit calls the split 'train2014' 'training'$"),
    ],
)
def test_a_broken_format_is_caught_by_name(reader: type, said: str, tmp_path: Path) -> None:
    MINIATURES["vqa_v1"](tmp_path)
    with pytest.raises(AssertionError, match=said):
        check_format(reader, tmp_path)


def test_the_examples_run() -> None:
    for name in ("fusions", "question_encoders", "image_encoders"):
        failed, tried = doctest.testmod(sys.modules[f"vqa.testing.{name}"])
        assert tried and not failed


def test_no_pytest_is_needed() -> None:
    done = run_python("-c", "import sys; sys.modules['pytest'] = None; import vqa.testing")
    assert done.returncode == 0, done.stderr
