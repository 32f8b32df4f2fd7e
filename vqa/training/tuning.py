"""Training the image encoder together with the model: pictures in, gradients through to the pixels' first layer.

    features: {tune: true, tune_from: features.9, encoder: squeezenet1_1, layer: features.12, image_size: 224}
    training: {optimizer: {learning_rate: 1e-3, parts: {image_encoder: {learning_rate: 1e-5}}}}

A picture is encoded once for all the questions of a batch that are about it, and batches keep a picture's questions
together (`vqa.training.batches.batches_by_picture`). The encoder stays in eval mode: no dropout, and batch
normalisation with the statistics that it came with, because those of small batches of pictures would ruin them.

Legend: `B` questions of a batch, `U` distinct pictures of a batch, `R` regions, `C` channels, `T` tokens, `S` side of a
picture.
"""

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.features.cache import differences
from vqa.features.image_encoder import ImageEncoder
from vqa.features.picture_table import Pictures
from vqa.models import VQAModel
from vqa.models.contracts import Prediction
from vqa.training.checkpoint import RunFolder, saved_names
from vqa.training.experiment import Experiment, FeaturesSection

POOLER = "image_encoder.network.model.pooler."  # of a transformers vision tower
ENCODED_TOGETHER = 64  # pictures, where no gradient is kept; bounds the memory of prediction


class TunedModel(VQAModel):
    """A model that begins with its image encoder, and takes pictures where others take features.

    Its weights have the names of the model's, and `image_encoder.…`: so `training.optimizer.parts` can name them.
    """

    def __init__(self, image_encoder: ImageEncoder, model: VQAModel) -> None:
        super().__init__(model.question_encoder, model.fusion, model.classifier, model.standardise)
        self.image_encoder = image_encoder

    def forward(self, image: Tensor | Pictures, tokens_BT: Tensor, length_B: Tensor) -> Prediction:
        """Answer a batch of questions about pictures, or about features `[B, R, C]` as any other model does."""
        image_BRC = self.encode(image) if isinstance(image, Pictures) else image
        return super().forward(image_BRC, tokens_BT, length_B)

    def encode(self, pictures: Pictures) -> Tensor:
        """The features of each question's picture: float32 `[B, R, C]`; each picture is encoded once."""
        parts = pictures.pixels_U3SS.split(len(pictures) if torch.is_grad_enabled() else ENCODED_TOGETHER)
        image_URC = torch.cat([self.image_encoder.encode(part) for part in parts])
        return image_URC.index_select(0, pictures.place_B)


def encoder_to_tune(experiment: Experiment) -> ImageEncoder | None:
    """The image encoder that the experiment tunes, with its first weights; None where it takes cached features.

    Raises:
        InputError: when the encoder, its weights or the layer to tune from cannot be had.
    """
    section = experiment.features
    return _build(section, section.weights) if section.tune else None


def reload_encoder(folder: RunFolder, experiment: Experiment, recorded: dict[str, object]) -> ImageEncoder | None:
    """The same for a trained run, whose own weights are loaded with the model's: its first weights are not needed.

    Raises:
        InputError: when the encoder prepares pictures otherwise than when the run was trained.
    """
    section = experiment.features
    if not section.tune:
        return None
    encoder, made = _build(section, "random"), recorded["features"]
    assert isinstance(made, dict)
    wrong = differences(encoder.preprocessing, made["preprocessing"], folder.experiment)
    if wrong:
        raise InputError("\n".join(["the encoder prepares pictures otherwise than when trained:", *wrong]))
    tower = getattr(encoder.network, "model", None)
    saved = saved_names(folder.model)
    if isinstance(tower, nn.Module) and hasattr(tower, "pooler") and not any(n.startswith(POOLER) for n in saved):
        tower.register_module("pooler", None)  # its checkpoint had none, and the layer needs none
    return encoder


def encoder_without_weights(section: FeaturesSection) -> ImageEncoder:
    """The encoder that a section tunes, its weights drawn at random: for what does not depend on them."""
    return _build(section, "random")


def _build(section: FeaturesSection, weights: str | None) -> ImageEncoder:
    from vqa.features.encoders import build_image_encoder  # brings torchvision, which other runs do not need

    assert section.encoder is not None  # the section has checked it
    encoder = build_image_encoder(
        section.encoder, layer=section.layer, image_size=section.image_size or 224,
        weights=weights,
    )  # fmt: skip
    encoder.tune_from(section.tune_from)
    return encoder
