"""Training the image encoder together with the model: images in, gradients through to the pixels' first layer.

    features: {tune: true, tune_from: features.9, encoder: squeezenet1_1, layer: features.12, image_size: 224}
    training: {optimizer: {learning_rate: 1e-3, parts: {image_encoder: {learning_rate: 1e-5}}}}

An image is encoded once for all the questions of a batch that are about it, and batches keep an image's questions
together (`vqa.training.inputs.batches.batches_by_image`). The encoder stays in eval mode: no dropout, and batch
normalisation with the statistics that it came with, because those of small batches of images would ruin them.

Legend: `B` questions of a batch, `U` distinct images of a batch, `R` regions, `C` channels, `T` tokens, `S` side of a
image.
"""

from vqa.data.images import Decoding
from vqa.experiment import Experiment, FeaturesSection
from vqa.features.encoders.image_encoder import ImageEncoder


def encoder_to_tune(experiment: Experiment, decoding: Decoding | None = None) -> ImageEncoder | None:
    """The image encoder that the experiment tunes, with its first weights; None where it takes cached features.

    Args:
        decoding: of its images; None: the default, its range still to be found on them.

    Raises:
        InputError: when the encoder, its weights or the layer to tune from cannot be had.
    """
    section = experiment.features
    if not section.tune:
        return None
    encoder = _build(section, section.weights)
    encoder.range_from_images = True
    if decoding is not None:
        encoder.decode_as(decoding)
    return encoder


def encoder_without_weights(section: FeaturesSection) -> ImageEncoder:
    """The encoder that a section tunes, its weights random: for what does not depend on them."""
    return _build(section, "random")


def _build(section: FeaturesSection, weights: str | None) -> ImageEncoder:
    from vqa.features.encoders.registry import build_image_encoder  # brings torchvision, which other runs do not need

    assert section.encoder is not None  # the section has checked it
    encoder = build_image_encoder(
        section.encoder, layer=section.layer, image_size=section.image_size or 224,
        weights=weights,
    )  # fmt: skip
    encoder.tune_from(section.tune_from)
    return encoder
