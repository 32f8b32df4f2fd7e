"""Regions out of torchvision's detectors: the R best boxes of an image, and the features that were pooled from each.

As bottom-up attention does it (Peter Anderson et al. 2018, section 3.1): a region is a proposal of the first stage, its
features are those that the second stage pools from exactly this box, and its score is that of its best class.

Legend: `B` images, `S` side of the square image, `N` proposals of one image, `R` regions, `C` channels.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import nms

from vqa.errors import InputError, unknown_name
from vqa.features.cache.reader import BOXES, GEOMETRY
from vqa.features.encoders.image_encoder import (
    RANDOM_ORIGIN,
    RANDOM_SEED,
    RANDOM_WEIGHTS,
    WITH_GEOMETRY,
    ImageEncoder,
)
from vqa.features.encoders.preprocessing import Preparation
from vqa.features.encoders.torchvision_networks import download_network
from vqa.features.encoders.weights import load_weights, read_weights

COCO = "coco"
COCO_CLASSES = 91
DEFAULT_LAYER = "box_head:36"
LAYER = re.compile(rf"^box_head:([1-9]\d*)({re.escape(WITH_GEOMETRY)})?$")
CLASS_SCORES = "roi_heads.box_predictor.cls_score.weight"
# Only these have a second stage that pools features from boxes.
DETECTORS = [name for name in torchvision.models.list_models(module=torchvision.models.detection) if "rcnn" in name]


def detector_encoder(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    """A torchvision detector with two stages as a source of regions.

    Args:
        name: one of `DETECTORS`.
        layer: "box_head:36" for the 36 best boxes, any other number likewise; "box_head:36+geometry" adds six
            channels: left, top, right, bottom, width and height, each a share of the side of the prepared image
            (with resize mode "squash" the same share of the image's own side). None is "box_head:36". Where the boxes
            lie is told beside the features in any case (`ImageEncoder.images`).
        weights: "coco" (torchvision's best), a torchvision weight name such as "COCO_V1", "random" (seed 0), or a file
            with any number of classes.
        preparation: size and resize mode; detectors were trained on images of about 800 px.

    Raises:
        InputError: when the name, layer or weights do not exist or do not fit, or cannot be downloaded.
    """
    if name not in DETECTORS:
        raise InputError(unknown_name("detector", name, DETECTORS))
    layer = layer or DEFAULT_LAYER
    asked = LAYER.match(layer)
    if asked is None:
        raise InputError(f"detector:{name}: unknown layer {layer!r}; write box_head:36 or box_head:36+geometry")
    detector, origin = _load(name, weights, preparation.size)
    network = _Regions(detector, int(asked[1]), geometry=asked[2] is not None)
    mean, std = detector.transform.image_mean, detector.transform.image_std
    encoder = ImageEncoder(
        network,
        name=f"detector:{name}",
        layer=layer,
        preparation=replace(preparation, mean=tuple(mean), std=tuple(std)),
        weights_origin=origin,
        read_output=lambda found: found[0],
        shape=(network.regions, network.channels),
        read_boxes=lambda found: found[1:],
    )
    encoder.preprocessing["regions"] = BOXES
    return encoder


class _Regions(nn.Module):
    """A detector up to its box head."""

    def __init__(self, detector: Any, regions: int, geometry: bool) -> None:
        super().__init__()
        heads = detector.roi_heads
        self.backbone: nn.Module = detector.backbone
        self.rpn: nn.Module = detector.rpn
        self.box_roi_pool: nn.Module = heads.box_roi_pool
        self.box_head: nn.Module = heads.box_head
        self.box_predictor: nn.Module = heads.box_predictor
        self.overlap: float = heads.nms_thresh
        self.regions, self.geometry = regions, geometry
        self.channels = heads.box_predictor.cls_score.in_features + (GEOMETRY if geometry else 0)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Regions `[B, R, C]`, best first, zeros where an image gives fewer; how many, `[B]`; their boxes `[B, R, 4]`.

        An image that gives none has one region of zeros, the whole image.
        """
        side = image_B3SS.shape[-1]
        maps = self.backbone(image_B3SS)
        maps = OrderedDict([("0", maps)]) if isinstance(maps, Tensor) else maps
        sizes = [(side, side)] * len(image_B3SS)
        proposals: Sequence[Tensor] = self.rpn(ImageList(image_B3SS, sizes), maps)[0]
        feature = self.box_head(self.box_roi_pool(maps, proposals, sizes))
        # Class 0 is the background.
        score = self.box_predictor(feature)[0].float().softmax(dim=1)[:, 1:].amax(dim=1)
        out_BRC = feature.new_zeros(len(proposals), self.regions, self.channels)
        out_BR4 = torch.zeros(len(proposals), self.regions, 4, device=feature.device)
        counts, kept = [len(box_N4) for box_N4 in proposals], list[int]()
        parts = zip(proposals, feature.split(counts), score.split(counts), out_BRC, out_BR4, strict=True)
        for box_N4, feature_NC, score_N, out_RC, out_R4 in parts:
            best = nms(box_N4.float(), score_N, self.overlap)[: self.regions]
            out_RC[: len(best), : feature_NC.shape[1]] = feature_NC[best]
            share_R4 = box_N4[best] / side
            out_R4[: len(best)] = share_R4
            kept.append(len(best))
            if not len(best):
                out_R4[0, 2:] = 1
            if self.geometry:
                out_RC[: len(best), -GEOMETRY:-2] = share_R4
                out_RC[: len(best), -2:] = share_R4[:, 2:] - share_R4[:, :2]
        return out_BRC, torch.tensor(kept, device=feature.device).clamp(min=1), out_BR4


def _load(name: str, weights: str, image_size: int) -> tuple[Any, str]:
    """The whole detector with its weights, and where they come from."""
    enum = torchvision.models.get_model_weights(name)
    if weights == RANDOM_WEIGHTS:
        return _random_detector(name, COCO_CLASSES), RANDOM_ORIGIN
    if weights == COCO or weights in enum.__members__:
        published = enum.__members__.get(weights, enum.DEFAULT)
        detector = download_network(name, published, image_size)
        return detector, f"torchvision's {enum.__name__}.{published.name}, from {published.url}"
    file = Path(weights)
    if not file.is_file():
        choices = ", ".join([RANDOM_WEIGHTS, COCO, *enum.__members__])
        raise InputError(
            f"detector:{name}: weights {weights!r}: no such file; give a .safetensors or .pth file or one of: {choices}"
        )
    state = read_weights(file)
    if CLASS_SCORES not in state:
        raise InputError(f"{file}: has no {CLASS_SCORES!r}, so these are not the weights of such a detector")
    detector = _random_detector(name, len(state[CLASS_SCORES]))
    load_weights(detector, state, detector.state_dict(), file)
    return detector, f"weights from the file {file}"


def _random_detector(name: str, classes: int) -> Any:
    """The whole detector with seeded weights; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
