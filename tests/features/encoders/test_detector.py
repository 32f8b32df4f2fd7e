"""Regions of a detector against what torchvision's own forward computes on the way to its detections."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchvision
from helpers.features import render_images
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign, nms

from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache, grid_of
from vqa.features.cache.writer import WHERE, CacheWriter
from vqa.features.encoders import detector as module
from vqa.features.encoders.registry import build_image_encoder
from vqa.features.extraction import autotune
from vqa.features.extraction.check import check_cache
from vqa.features.extraction.dataset import EncoderOptions, encoder_of
from vqa.features.extraction.extract import extract
from vqa.progress import console

NAME = "detector:fasterrcnn_resnet50_fpn_v2"
SIDE = 64
WIDTH = 12  # channels of the tiny box head


class Stride8(nn.Sequential):
    """Three convolutions."""

    out_channels = 6

    def __init__(self) -> None:
        channels = (3, 4, 5, self.out_channels)
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers)


def tiny_detector(classes: int = 4) -> Any:
    """A Faster R-CNN of a few thousand numbers that proposes boxes all over the image."""
    torch.manual_seed(2)
    model = FasterRCNN(
        Stride8(),
        num_classes=None,
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(((8, 16, 32),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=2),
        box_head=TwoMLPHead(Stride8.out_channels * 9, WIDTH),
        box_predictor=module.torchvision.models.detection.faster_rcnn.FastRCNNPredictor(WIDTH, classes),
        rpn_post_nms_top_n_test=60,
        box_nms_thresh=0.4,
    )
    with torch.no_grad():  # as they are initialised, all proposals are anchors and all scores equal
        for weights in (*model.rpn.parameters(), *model.roi_heads.box_predictor.parameters()):
            weights.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny detector; torchvision builds such ones too, of four classes in place of COCO's."""

    def get_model(name: str, *, num_classes: int, **options: Any) -> Any:
        return tiny_detector(4 if num_classes == module.COCO_CLASSES else num_classes)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    return tiny_detector()


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def torchvisions_own(model: Any, image_3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals `[N, 4]`, their features `[N, C]` and class scores `[N, classes]` inside the model's own forward."""
    caught: dict[str, Any] = {}
    parts = {"proposals": model.rpn, "features": model.roi_heads.box_head, "scores": model.roi_heads.box_predictor}
    hooks = [
        part.register_forward_hook(lambda _m, _i, output, name=name: caught.update({name: output}))
        for name, part in parts.items()
    ]
    with torch.no_grad():
        model([image_3SS.float() / 255])
    for hook in hooks:
        hook.remove()
    return caught["proposals"][0][0], caught["features"], caught["scores"][0].softmax(dim=1)


def best_by_hand(boxes: Tensor, scores: Tensor, overlap: float) -> list[int]:
    """Greedy suppression, pair by pair: the rows kept, best first."""

    def share(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return common / (sum(area) - common)

    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(share(boxes[row].tolist(), boxes[other].tolist()) <= overlap for other in kept):
            kept.append(row)
    return kept


def test_regions_are_torchvisions_own_proposals_and_features(tiny: Any) -> None:
    encoder = build_image_encoder(NAME, layer="box_head:9+geometry", image_size=SIDE, weights="random")
    assert (encoder.regions, encoder.channels) == (9, WIDTH + 6)
    feature_BRC = encoder(pixels(3))
    assert feature_BRC.shape == (3, 9, WIDTH + 6)
    for image_3SS, found_RC in zip(pixels(3), feature_BRC, strict=True):
        boxes, features, scores = torchvisions_own(tiny, image_3SS)
        kept = best_by_hand(boxes, scores[:, 1:].amax(dim=1), overlap=0.4)[:9]
        assert len(kept) == 9
        torch.testing.assert_close(found_RC[:, :WIDTH], features[kept], rtol=1e-4, atol=1e-5)
        left, top, right, bottom = (boxes[kept] / SIDE).unbind(dim=1)
        geometry = torch.stack([left, top, right, bottom, right - left, bottom - top], dim=1)
        torch.testing.assert_close(found_RC[:, WIDTH:], geometry, rtol=1e-4, atol=1e-5)
        assert (scores[kept][:, 1:].amax(dim=1).diff() <= 0).all()
    assert feature_BRC.unique(dim=1).shape[1] == 9


def test_fewer_boxes_than_regions_leave_zeros(tiny: Any) -> None:
    encoder = build_image_encoder(NAME, layer="box_head:70", image_size=SIDE, weights="random")
    boxes, features, scores = torchvisions_own(tiny, pixels(1)[0])
    kept = best_by_hand(boxes, scores[:, 1:].amax(dim=1), overlap=0.4)
    found_RC = encoder(pixels(1))[0]
    assert 9 < len(kept) < 70
    torch.testing.assert_close(found_RC[: len(kept)], features[kept], rtol=1e-4, atol=1e-5)
    assert not found_RC[len(kept) :].any()


@pytest.mark.parametrize(
    ("resize", "resize_to"),
    [("squash", None), ("letterbox", None), ("centre-crop", None), ("centre-crop", 2 * SIDE)],
)
def test_boxes_lie_where_they_lie_on_the_image_itself(tiny: Any, resize: str, resize_to: int | None) -> None:
    encoder = build_image_encoder(
        NAME, layer="box_head:70", image_size=SIDE, weights="random", resize=resize, resize_to=resize_to
    )
    width, height = 200, 100
    image = encoder.images(pixels(2), torch.tensor([[width, height], [height, width]]))
    assert image.mask_IR is not None and image.boxes_IR4 is not None
    for place, (image_3SS, sides) in enumerate(zip(pixels(2), [(width, height), (height, width)], strict=True)):
        proposals, _, scores = torchvisions_own(tiny, image_3SS)
        kept = best_by_hand(proposals, scores[:, 1:].amax(dim=1), overlap=0.4)
        assert image.mask_IR[place].tolist() == [True] * len(kept) + [False] * (70 - len(kept))
        # pixels of the square, put back on the image one by one
        whole = {"letterbox": max(sides), "centre-crop": min(sides)}.get(resize)
        edge = whole / 2 if whole and resize_to else whole  # the middle half of both edges is kept
        expected = []
        for box in proposals[kept].tolist():
            corner = []
            for number, side in zip(box, [*sides, *sides], strict=True):
                length = edge or side
                corner.append(min(max(((side - length) / 2 + number / SIDE * length) / side, 0), 1))
            expected.append(corner)
        torch.testing.assert_close(image.boxes_IR4[place, : len(kept)], torch.tensor(expected), rtol=1e-4, atol=1e-5)
        assert not image.boxes_IR4[place, len(kept) :].any()


def test_an_image_without_any_box_is_one_region_of_zeros(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_image_encoder(NAME, layer="box_head:4", image_size=SIDE, weights="random")
    monkeypatch.setattr(module, "nms", lambda *_: torch.zeros(0, dtype=torch.int64))
    image = encoder.images(pixels(1), torch.ones(1, 2))
    assert image.mask_IR is not None and image.mask_IR.tolist() == [[True, False, False, False]]
    assert image.boxes_IR4 is not None and image.boxes_IR4[0, 0].tolist() == [0, 0, 1, 1]
    assert not image.regions_IRC.any()


def test_extraction_stores_counts_and_boxes_and_goes_on(tiny: Any, tmp_path: Path) -> None:
    images = render_images(tmp_path / "images", 5)
    encoder = build_image_encoder(NAME, layer="box_head:70", image_size=SIDE, weights="random", resize="letterbox")
    extract(images, encoder, tmp_path / "one.h5", batch_size=2)
    whole = FeatureCache(tmp_path / "one.h5")
    assert whole.count_I is not None and whole.boxed and bool((whole.count_I < 70).any())
    with h5py.File(tmp_path / "one.h5") as file:
        expected = {name: file[name][:] for name in file}
    with CacheWriter(tmp_path / "two.h5", images, whole.attributes, 70, WIDTH, where=WHERE) as writer:
        writer.write_stored([0], whole.stored(0), whole.image_digests[0])  # as after an interruption
    extract(images, encoder, tmp_path / "two.h5", batch_size=2)
    with h5py.File(tmp_path / "two.h5") as file:
        for name, values in expected.items():
            assert np.array_equal(file[name][:], values), name
    assert not any(row.problem for row in check_cache(whole.path, images, encoder))
    with h5py.File(whole.path, "r+") as file:
        file["region_count"][1] -= 1
        file["boxes"][2, 0] = [0, 0, 0, 0]
    problems = [row.problem for row in check_cache(whole.path, images, encoder)]
    assert "regions are stored as real" in problems[1] and "the stored boxes differ" in problems[2]
    assert [bool(problem) for problem in problems] == [False, True, True, False, False]


def test_extract_check_and_rebuild(tiny: Any, tmp_path: Path) -> None:
    images = render_images(tmp_path / "images", 3)
    weights = tmp_path / "own.safetensors"
    save_file(tiny.state_dict(), weights)
    encoder = build_image_encoder(NAME, image_size=SIDE, weights=str(weights), resize="letterbox")
    extract(images, encoder, tmp_path / "c.h5", batch_size=2)
    cache = FeatureCache(tmp_path / "c.h5")
    assert (cache.regions, cache.channels) == (36, WIDTH)
    assert cache.attributes["encoder"] == NAME and cache.attributes["layer"] == "box_head:36"
    assert grid_of(cache.attributes, cache.regions) is None  # 36 boxes are no 6 x 6 grid
    again = encoder_of(cache.attributes, None, cache.path)
    assert again.weights_sha256 == encoder.weights_sha256
    assert not any(row.problem for row in check_cache(cache.path, images, again))
    extract(
        images, encoder, tmp_path / "beside.h5", dtype="int8"
    )  # boxes beside the features take no part in its scale
    beside = FeatureCache(tmp_path / "beside.h5")
    torch.testing.assert_close(beside.read_boxes(np.arange(3)), cache.read_boxes(np.arange(3)), atol=1e-5, rtol=0)
    assert EncoderOptions(NAME).with_geometry().layer == "box_head:36+geometry"
    with pytest.raises(InputError, match="vgg16 gives no boxes"):
        EncoderOptions().with_geometry()
    placed = build_image_encoder(NAME, layer="box_head:5+geometry", image_size=SIDE, weights=str(weights))
    with pytest.raises(InputError, match="one scale an image, in which the boxes' geometry"):
        extract(images, placed, tmp_path / "int8.h5", dtype="int8")


def test_a_detector_that_cannot_compute_in_bfloat16_keeps_float32(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_bfloat16(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
        if boxes.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return nms(boxes, scores, overlap)

    monkeypatch.setattr(torchvision.ops.boxes, "nms", no_bfloat16)  # as on a CPU, whatever a later torchvision can do
    images = render_images(tmp_path, 8)
    monkeypatch.setattr(autotune, "FEWEST_IMAGES", 1)
    monkeypatch.setattr(autotune, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "LONG_ENOUGH_SECONDS", 0.01)
    encoder = build_image_encoder(NAME, image_size=SIDE, weights="random")
    with console.capture() as captured:
        chosen = autotune.choose_precision(encoder, images.paths, 4, compiled=False)
    assert chosen.number_type == "float32"
    assert "bfloat16 channels_last: not possible here: not implemented for 'BFloat16'" in captured.get()
    for paths in (images.paths, images.paths[:1]):
        with pytest.raises(InputError, match="bfloat16 was asked for: not possible here: not implemented"):
            autotune.choose_precision(encoder, paths, 4, "bfloat16", False)


def test_a_file_may_have_any_number_of_classes(tiny: Any, tmp_path: Path) -> None:
    save_file(tiny_detector(classes=7).state_dict(), tmp_path / "seven.safetensors")
    encoder = build_image_encoder(NAME, image_size=SIDE, weights=str(tmp_path / "seven.safetensors"))
    assert encoder.network.get_parameter("box_predictor.cls_score.bias").shape == (7,)
    state = tiny.state_dict()
    del state["rpn.head.cls_logits.bias"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(InputError, match=r"short.safetensors: 'rpn.head.cls_logits.bias' is missing"):
        build_image_encoder(NAME, image_size=SIDE, weights=str(tmp_path / "short.safetensors"))
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    with pytest.raises(InputError, match="not the weights of such a detector"):
        build_image_encoder(NAME, image_size=SIDE, weights=str(tmp_path / "vgg.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "detector:"}, "unknown image encoder 'detector:'.*detector:NAME"),
        ({"name": "detector:fasterrcnn_resnet50"}, "unknown detector.*did you mean 'fasterrcnn_resnet50_fpn"),
        ({"name": "detector:retinanet_resnet50_fpn"}, "unknown detector"),  # no second stage
        ({"layer": "box_head"}, "unknown layer 'box_head'; write box_head:36"),
        ({"layer": "box_head:0"}, "unknown layer 'box_head:0'"),
        ({"weights": "imagenet"}, "weights 'imagenet': no such file.*random, coco, COCO_V1"),
    ],
)
def test_wrong_choices_are_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_image_encoder(**{"name": NAME, "image_size": SIDE, "weights": "random"} | options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", module.DETECTORS)
def test_every_detector_gives_regions(name: str) -> None:
    encoder = build_image_encoder(f"detector:{name}", layer="box_head:10+geometry", image_size=96, weights="random")
    feature_BRC = encoder(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8))
    assert feature_BRC.shape == (2, 10, 1024 + 6)
    assert feature_BRC.isfinite().all() and feature_BRC.any(dim=2).all()
