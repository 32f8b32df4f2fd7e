"""The model of an experiment: built for the sizes that the data gives, and started from the training data.

Legend: `B` questions of a batch, `U` distinct images of a batch, `R` regions, `C` channels, `T` tokens, `N` rows.
"""

import copy

import torch
from torch import Tensor

from vqa.experiment import Experiment
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.text_encoders import TextEncoder
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelBatch
from vqa.models import VQAModel, build_model, tuned_share
from vqa.models.contracts import Image, Prediction
from vqa.models.precision import set_recurrent_type
from vqa.runtime.device import RECURRENT_TYPES
from vqa.text.vocabulary import AnswerVocabulary, Vocabulary
from vqa.training.inputs.prepare import TrainingData
from vqa.training.inputs.questions import load_text_encoder
from vqa.training.inputs.word_vectors import set_first_vectors

ENCODED_TOGETHER = 64  # images, where no gradient is kept; bounds the memory of prediction


class TunedModel(VQAModel):
    """A model that begins with its image encoder, and takes images where others take features.

    Its weights have the names of the model's, and `image_encoder.…`: so `training.optimizer.parts` can name them.
    """

    def __init__(self, image_encoder: ImageEncoder, model: VQAModel) -> None:
        super().__init__(model.question_encoder, model.fusion, model.classifier, model.standardise)
        self.image_encoder = image_encoder

    def forward(self, image: Image | PixelBatch, tokens_BT: Tensor, length_B: Tensor) -> Prediction:
        """Answer a batch of questions about images, or about their features as any other model does."""
        encoded = self.encode(image) if isinstance(image, PixelBatch) else image
        return super().forward(encoded, tokens_BT, length_B)

    def encode(self, images: PixelBatch) -> Image:
        """The features of each image, once: float32 `[U, R, C]`."""
        parts = images.pixels_U3SS.split(len(images) if torch.is_grad_enabled() else ENCODED_TOGETHER)
        return Image(torch.cat([self.image_encoder.encode(part) for part in parts]), images.place_B)


NUMBERS_AT_A_TIME = 1 << 23  # 64 MiB of float64


def make_model(
    experiment: Experiment,
    words: Vocabulary,
    answers: AnswerVocabulary,
    regions: int,
    channels: int,
    text_encoder: TextEncoder | None = None,
    encoder: ImageEncoder | None = None,
) -> VQAModel:
    """Build the experiment's model for these sizes, weights as initialised.

    Args:
        text_encoder: the pretrained model of its question encoder where it is loaded already.
        encoder: the image encoder that is tuned with it, or None.
    """
    text_encoder = text_encoder or load_text_encoder(experiment)
    transformer = None if text_encoder is None else text_encoder.transformer
    if tuned_share(experiment.question_encoder, experiment.fusion) != "none":
        transformer = copy.deepcopy(transformer)  # several models may begin from the same text_encoder
    model = build_model(
        question_encoder=experiment.question_encoder,
        fusion=experiment.fusion,
        classifier=experiment.classifier,
        vocab_size=len(words),
        image_dim=channels,
        regions=regions,
        answers=len(answers),
        standardise=experiment.features.standardise,
        transformer=transformer,
    )
    set_recurrent_type(model, RECURRENT_TYPES[experiment.training.recurrent_precision])
    return model if encoder is None else TunedModel(encoder, model)


def initialise_from_data(model: VQAModel, prepared: "TrainingData") -> None:
    """Give a model what it takes from the training data.

    One that standardises its features gets their mean and deviation over the training images; the question encoder
    gets the words' first vectors, and sees the training questions.
    """
    if prepared.first_vectors is not None:
        set_first_vectors(model.question_encoder, prepared.first_vectors)
    model.question_encoder.begin(prepared.train_questions.tokens_NT, prepared.train_questions.length_N)
    features = prepared.features
    if model.standardise is not None and isinstance(features, FeatureTable) and features.holds != "nothing":
        rows = prepared.train_questions.image_row_N.unique()
        statistics = channel_statistics if features.moments_2NC is None else statistics_of_moments
        model.standardise.set_statistics(*statistics(features, rows))


def channel_statistics(features: FeatureTable, row_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation a channel over images and real regions, float32 `[C]` each, in one pass.

    Summed in float64, where the squares of stored features are exact: a channel that never changes has deviation 0.
    The sums are where the features' batches are: from a GPU only they come back.
    """
    parts = row_N.split(max(1, NUMBERS_AT_A_TIME // (features.regions * features.channels)))
    count = _region_count(features, row_N).sum()
    total_C, squares_C = torch.zeros(2, features.channels, dtype=torch.float64, device=features.device)
    for image in features.stream(parts):
        image_NRC = image.regions_IRC.double()
        if image.mask_IR is not None:
            image_NRC = image_NRC.masked_fill(~image.mask_IR[:, :, None], 0)
        image_NC = image_NRC.flatten(0, 1)
        total_C += image_NC.sum(dim=0)
        squares_C += image_NC.square().sum(dim=0)
    mean_C = total_C / count
    deviation_C = (squares_C / count - mean_C.square()).clamp_min(0).sqrt()
    return mean_C.float().cpu(), deviation_C.float().cpu()


def statistics_of_moments(features: FeatureTable, row_N: Tensor) -> tuple[Tensor, Tensor]:
    """The same from each image's mean and variance, where the table holds those; up to their rounding to float32."""
    assert features.moments_2NC is not None  # the caller has looked
    moments_2NC, device = features.moments_2NC, features.moments_2NC.device
    count_N = _region_count(features, row_N).double().to(device)
    row_N, whole = row_N.to(device), count_N.sum()
    total_C, squares_C = torch.zeros(2, features.channels, dtype=torch.float64, device=device)
    parts = range(0, len(row_N), max(1, NUMBERS_AT_A_TIME // features.channels))
    for part in (slice(start, start + parts.step) for start in parts):
        total_C += count_N[part] @ moments_2NC[0, row_N[part]].double()
    mean_C = total_C / whole  # not before: sums of stored numbers are exact
    for part in (slice(start, start + parts.step) for start in parts):
        mean_BC, variance_BC = moments_2NC[:, row_N[part]].double()
        squares_C += count_N[part] @ (variance_BC + (mean_BC - mean_C).square())
    return mean_C.float().cpu(), (squares_C / whole).sqrt().float().cpu()


def _region_count(features: FeatureTable, row_N: Tensor) -> Tensor:
    """How many regions of some images are real, int64, on the CPU."""
    return torch.full((len(row_N),), features.regions) if features.count_N is None else features.count_N[row_N]
