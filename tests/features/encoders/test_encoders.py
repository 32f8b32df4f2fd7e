"""Image encoders against torchvision's own forward, and every wrong name, layer, size and weights file."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from helpers.features import small_encoder
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VGG
from torchvision.transforms import v2

from vqa.errors import InputError
from vqa.features.encoders.image_encoder import as_regions
from vqa.features.encoders.registry import IMAGE_ENCODERS, build_image_encoder
from vqa.features.encoders.weights import weights_sha256

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pixels(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def torchvision_input(image_B3SS: Tensor) -> Tensor:
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    return normalise(image_B3SS)


def as_map(output_BCHW: Tensor) -> Tensor:
    return output_BCHW.flatten(2).transpose(1, 2)


def stand_in(monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> None:
    """Let torchvision give this network, whatever it is asked to build: a VGG-16 takes it a second each time."""
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: network)


@pytest.fixture(scope="module")
def vgg16() -> VGG:
    torch.manual_seed(3)
    return torchvision.models.vgg16(weights=None).eval()


@pytest.mark.parametrize("layer", ["fc6", "fc7", "pool5", "conv5_3", "pool4", "features.23"])
def test_vgg16_layers_equal_torchvisions_forward(vgg16: VGG, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, vgg16)
    encoder = build_image_encoder("vgg16", layer=layer, image_size=64, weights="random")
    image = pixels(2, 64)
    with torch.no_grad():
        x = torchvision_input(image)
        stop = {"pool4": 24, "features.23": 24, "conv5_3": 30}.get(layer, 31)
        for module in vgg16.features[:stop]:
            x = module(x)
        if layer in ("fc6", "fc7"):
            x = torch.flatten(vgg16.avgpool(x), 1)
            x = vgg16.classifier[: {"fc6": 2, "fc7": 5}[layer]](x).unsqueeze(1)
        else:
            x = as_map(x)
    feature = encoder(image)
    torch.testing.assert_close(feature, x, rtol=1e-3, atol=1e-4)
    assert feature.shape == (2, encoder.regions, encoder.channels)
    assert feature.count_nonzero() > 0
    assert (encoder.regions, encoder.channels) == {
        "fc6": (1, 4096),
        "fc7": (1, 4096),
        "pool5": (4, 512),
        "conv5_3": (16, 512),
        "pool4": (16, 512),
        "features.23": (16, 512),
    }[layer]
    has_classifier = any(key.startswith("classifier") for key in encoder.network.state_dict())
    assert has_classifier == (layer in ("fc6", "fc7"))  # nothing above the layer is kept


@pytest.mark.parametrize(
    ("layer", "side", "shape"),
    [
        (None, 224, (49, 512)),
        (None, 448, (196, 512)),
        ("conv5_3", 224, (196, 512)),
        ("conv5_3", 448, (784, 512)),
        ("fc7", 224, (1, 4096)),
        ("fc7", 448, (1, 4096)),
    ],
)
def test_vgg16_regions_of_the_papers_sizes(
    vgg16: VGG, layer: str | None, side: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, vgg16)
    for name in ("vgg16", "vgg16_caffe"):
        encoder = build_image_encoder(name, layer=layer, image_size=side, weights="random")
        assert (encoder.layer, encoder.regions, encoder.channels) == (layer or "pool5", *shape)


def test_regions_run_row_by_row() -> None:
    map_BCHW = torch.arange(12.0).view(1, 2, 2, 3)[..., :2]
    assert as_regions(map_BCHW)[0, :, 0].tolist() == [0, 1, 3, 4]
    assert torch.equal(as_regions(torch.zeros(1, 7, 7, 5)), torch.zeros(1, 49, 5))  # channels last, as Swin has them
    assert as_regions(torch.zeros(3, 8)).shape == (3, 1, 8)
    with pytest.raises(ValueError, match="2 to 4 dimensions"):
        as_regions(torch.zeros(3))


@pytest.mark.parametrize(
    ("name", "layer", "default"), [("resnet18", "layer4", "layer4"), ("mobilenet_v3_small", "avgpool", "features")]
)
def test_any_torchvision_network_by_node(name: str, layer: str, default: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    caught: list[Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: caught.append(output))
    image = pixels(2, 64)
    with torch.no_grad():
        network(torchvision_input(image))
    encoder = build_image_encoder(name, layer=layer, image_size=64, weights="random")
    torch.testing.assert_close(encoder(image), as_map(caught[0]), rtol=1e-4, atol=1e-5)
    assert build_image_encoder(name, image_size=64, weights="random").layer == default


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("alexnet", "features.11", 96),
        ("convnext_tiny", "features.5", 64),
        ("densenet121", "features.denseblock4", 64),
        ("efficientnet_b0", "features.8", 64),
        ("googlenet", "inception5b", 64),
        ("inception_v3", "Mixed_7c", 96),
        ("mnasnet0_5", "layers.16", 64),
        ("regnet_y_400mf", "trunk_output", 64),
        ("resnet50", "layer3", 64),
        ("resnext50_32x4d", "layer4", 64),
        ("shufflenet_v2_x0_5", "conv5", 64),
        ("swin_t", "features", 64),
        ("vgg19", "features.35", 64),
        ("vit_b_32", "encoder.ln", 64),
        ("wide_resnet50_2", "layer4", 64),
    ],
)
def test_every_family_of_torchvision_equals_its_own_forward(name: str, layer: str, side: int) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = (
        {"init_weights": True, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    )
    options |= {"image_size": side} if name.startswith("vit") else {}
    network = torchvision.models.get_model(name, weights=None, **options).eval()
    caught: list[Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: caught.append(output))
    image = pixels(1, side)
    encoder = build_image_encoder(name, layer=layer, image_size=side, weights="random")
    with torch.no_grad():
        network(encoder.normalise(image))
    feature = encoder(image)
    expected = as_regions(caught[0])
    assert feature.shape == expected.shape == (1, encoder.regions, encoder.channels)
    torch.testing.assert_close(feature, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


MOST_PARAMETERS = 30e6  # larger ones are of the same families


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"] < MOST_PARAMETERS
    ],
)
def test_every_smaller_torchvision_network_has_a_map(name: str) -> None:
    encoder = build_image_encoder(name, image_size=224, weights="random")
    assert encoder.regions > 1 and encoder.channels > 8


def test_tokens_of_a_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32).eval()
    stand_in(monkeypatch, tiny)
    encoder = build_image_encoder("vit_b_16", image_size=32, weights="random")
    assert (encoder.layer, encoder.regions, encoder.channels) == ("encoder", 5, 16)  # the class token comes first
    image = pixels(2, 32)
    with torch.no_grad():
        patches = tiny._process_input(torchvision_input(image))
        tokens = tiny.encoder(torch.cat([tiny.class_token.expand(2, -1, -1), patches], dim=1))
    torch.testing.assert_close(encoder(image), tokens)


def test_always_in_eval_mode_without_gradients() -> None:
    encoder = build_image_encoder("squeezenet1_1", layer="classifier.1", image_size=64, weights="random")
    nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    image = pixels(1, 64)
    first, second = encoder(image), encoder(image)  # dropout comes right before this layer
    assert torch.equal(first, second)
    assert not first.requires_grad
    with pytest.raises(TypeError, match="uint8"):
        encoder(image.float())


def test_random_weights_are_torchvisions_under_seed_0_and_leave_the_random_state() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.squeezenet1_1(weights=None).eval()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    encoder = build_image_encoder("squeezenet1_1", image_size=64, weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(encoder.network.state_dict()["features.0.weight"], reference.features[0].weight)
    assert "RANDOM" in encoder.weights_origin
    assert encoder.preprocessing["mean"] == MEAN


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "nested.pth"])
def test_weights_from_a_headless_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    network = torchvision.models.squeezenet1_1(weights=None).eval()
    headless = {key: value for key, value in network.state_dict().items() if key.startswith("features")}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(headless, path)
    elif suffix == "pth":
        torch.save(headless, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in headless.items()}, "epoch": 3}, path)
    encoder = build_image_encoder("squeezenet1_1", image_size=64, weights=str(path))
    image = pixels(1, 64)
    with torch.no_grad():
        expected = as_map(network.features(torchvision_input(image)))
    torch.testing.assert_close(encoder(image), expected, rtol=1e-3, atol=1e-4)
    assert str(path) in encoder.weights_origin
    assert encoder.weights_sha256 == weights_sha256(nn.ModuleDict({"features": network.features}))
    with pytest.raises(InputError, match=r"'classifier.1.weight' and 1 more keys are missing") as error:
        build_image_encoder("squeezenet1_1", layer="classifier.1", image_size=64, weights=str(path))
    assert str(path) in str(error.value)


def test_digest_depends_on_the_values_that_are_used_only(tmp_path: Path) -> None:
    random = small_encoder()
    deeper = build_image_encoder("squeezenet1_1", layer="features.6", image_size=32, weights="random")
    assert random.weights_sha256 == small_encoder().weights_sha256 != deeper.weights_sha256
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    save_file(state, tmp_path / "same.safetensors")
    state["classifier.1.bias"] += 1
    save_file(state, tmp_path / "other_head.safetensors")
    state["features.0.bias"][0] += 1e-3
    save_file(state, tmp_path / "changed.safetensors")

    def digest(file: str) -> str:
        weights = str(tmp_path / file)
        return build_image_encoder("squeezenet1_1", layer="features.4", image_size=32, weights=weights).weights_sha256

    assert digest("same.safetensors") == digest("other_head.safetensors") == random.weights_sha256
    assert digest("changed.safetensors") != random.weights_sha256


def test_wrong_weights_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()

    def refused(path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as error:
            build_image_encoder("squeezenet1_1", image_size=64, weights=str(path))
        assert str(path) in str(error.value)

    save_file(state | {"stem.weight": torch.zeros(1)}, tmp_path / "unexpected.safetensors")
    refused(tmp_path / "unexpected.safetensors", "'stem.weight' is not in this network")
    save_file(state | {"features.0.bias": torch.zeros(3)}, tmp_path / "shape.safetensors")
    refused(tmp_path / "shape.safetensors", r"'features.0.bias' has shape \(3,\), the network needs \(64,\)")
    (tmp_path / "empty.pth").write_bytes(b"")
    refused(tmp_path / "empty.pth", "cannot be read as weights")
    whole = io.BytesIO()
    torch.save(state, whole)
    (tmp_path / "cut.pth").write_bytes(whole.getvalue()[:1000])
    refused(tmp_path / "cut.pth", "cannot be read as weights")
    old_form = io.BytesIO()
    torch.save(state, old_form, _use_new_zipfile_serialization=False)  # as the converted Caffe weights are published
    (tmp_path / "old_cut.pth").write_bytes(old_form.getvalue()[:-1000])
    refused(tmp_path / "old_cut.pth", "cannot be read as weights")
    (tmp_path / "text.pth").write_text("root:x:0:0:root:/root:/bin/bash\n")  # torch raises IndexError for it
    refused(tmp_path / "text.pth", "cannot be read as weights")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "shape.safetensors").read_bytes()[:1000])
    refused(tmp_path / "cut.safetensors", "cannot be read as weights")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # would need unpickling of code
    refused(tmp_path / "module.pth", "cannot be read as weights: damaged, or it holds more than tensors, and code")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "holds no state dict")
    refused(tmp_path / "absent.pth", "no such file; give a .safetensors or .pth file or one of: random, imagenet")


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_arguments: object, **_options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="weights: random") as error:
        build_image_encoder("squeezenet1_1", image_size=64, weights="imagenet")
    assert "squeezenet1_1-b8a52dc0.pth" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_downloaded_weights_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(9)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    encoder = build_image_encoder("squeezenet1_1", image_size=64, weights="imagenet")
    assert torch.equal(encoder.network.state_dict()["features.0.weight"], state["features.0.weight"])
    assert "IMAGENET1K_V1" in encoder.weights_origin
    save_file(state, tmp_path / "same.safetensors")
    same = build_image_encoder("squeezenet1_1", image_size=64, weights=str(tmp_path / "same.safetensors"))
    assert same.weights_sha256 == encoder.weights_sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg_16"}, "unknown image encoder 'vgg_16'.*did you mean 'vgg16'"),
        ({"layer": "feature.12"}, "has no layer 'feature.12'.*did you mean features.12"),
        ({"resize": "stretch"}, "unknown resize mode 'stretch'"),
        ({"image_size": 8}, "cannot take images of 8 px"),
        ({"image_size": 0}, "image size 0"),
        ({"name": "vit_b_16", "image_size": 100}, "vit_b_16 cannot take images of 100 px"),
    ],
)
def test_wrong_choices_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_image_encoder(**{"name": "squeezenet1_1", "image_size": 64, "weights": "random"} | options)  # type: ignore[arg-type]


def test_resize_weights_is_their_transforms_and_states_numbers() -> None:
    """A cache states what was done, so that what reads it need not know the weights."""
    encoder = build_image_encoder("efficientnet_b1", layer="features.1", resize="weights", weights="random")
    assert (encoder.image_size, encoder.preparation.resize_to) == (240, 255)  # IMAGENET1K_V2, bilinear
    stated = encoder.preprocessing
    assert (stated["resize"], stated["resize_to"], stated["size"]) == ("centre-crop", 255, [240, 240])
    assert stated["interpolation"] == "bilinear, antialiased"
    plain = build_image_encoder("squeezenet1_1", layer="features.4", resize="centre-crop", weights="random")
    assert "resize_to" not in plain.preprocessing  # as caches that are there state it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "weights", "image_size": 64}, "image size 64, but its weights scale to 256 and crop 224 px"),
        ({"resize": "weights", "resize_to": 300}, "resize to 300, but its weights scale to 256"),
        ({"resize": "weights", "name": "vgg16_caffe"}, "for torchvision's own weights"),
        (
            {"resize": "weights", "name": "detector:fasterrcnn_resnet50_fpn"},
            "for torchvision's classification networks",
        ),
        ({"resize": "weights", "name": "resnet50", "weights": "mine.pth"}, "IMAGENET1K_V1: 256 to 224.*V2: 232 to 224"),
        ({"resize_to": 256}, "resize to 256: is for resize centre-crop, not for squash"),
        ({"resize": "centre-crop", "image_size": 64, "resize_to": 63}, "must be from the image size, 64, to 8,000 px"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_image_encoder(**{"name": "squeezenet1_1", "weights": "random"} | options)  # type: ignore[arg-type]


def test_a_wrong_layer_of_vgg_is_told_the_usual_names(vgg16: VGG, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, vgg16)
    with pytest.raises(InputError, match=r"no layer 'pool6' \(did you mean pool") as error:
        build_image_encoder("vgg16", layer="pool6", image_size=64, weights="random")
    assert "fc7, fc6, pool5, conv5_3, pool4" in str(error.value)


def test_caffe_preprocessing_is_blue_green_red_minus_the_mean(vgg16: VGG, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, vgg16)
    encoder = build_image_encoder("vgg16_caffe", layer="pool5", image_size=64, weights="random")
    image = pixels(2, 64)
    blue_green_red = image.float()[:, [2, 1, 0]]
    with torch.no_grad():
        x = vgg16.features(blue_green_red - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1))
    torch.testing.assert_close(encoder(image), as_map(x), rtol=1e-3, atol=1e-2)
    assert encoder.preprocessing["colours"] == "BGR"
    assert encoder.name == "vgg16_caffe"
    with pytest.raises(InputError, match="weights 'imagenet': no such file"):
        build_image_encoder("vgg16_caffe", image_size=64)


def test_converted_caffe_weights_are_read_by_their_own_names(
    tmp_path: Path, vgg16: VGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = copy.deepcopy(vgg16)
    small.classifier[0], small.classifier[3], small.classifier[6] = (
        nn.Linear(25088, 8),
        nn.Linear(8, 6),
        nn.Linear(6, 2),
    )
    blank = copy.deepcopy(small)
    for parameter in blank.parameters():
        nn.init.zeros_(parameter)
    places = {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}  # jcjohnson/pytorch-vgg's names
    converted = {}
    for key, value in small.state_dict().items():
        layer, _, kind = key.rpartition(".")
        converted[f"{places.get(layer, layer)}.{kind}"] = value
    for file, weights in {"converted.pth": converted, "torchvision.pth": small.state_dict()}.items():
        torch.save(weights, tmp_path / file)
        stand_in(monkeypatch, copy.deepcopy(blank))
        encoder = build_image_encoder("vgg16_caffe", layer="fc7", image_size=64, weights=str(tmp_path / file))
        with torch.no_grad():
            expected = small.classifier[:5](small.avgpool(small.features(encoder.normalise(pixels(2, 64)))).flatten(1))
        assert expected.any()
        torch.testing.assert_close(encoder(pixels(2, 64))[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "expected"), [("squeezenet1_1", "bilinear"), ("efficientnet_b0", "bicubic")])
def test_interpolation_is_that_of_the_published_weights(name: str, expected: str) -> None:
    preparation = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert preparation.interpolation.value == expected
    encoder = build_image_encoder(name, image_size=64, weights="random")
    assert encoder.preprocessing["interpolation"] == f"{expected}, antialiased"


def test_every_torchvision_classifier_is_known() -> None:
    assert {"vgg16", "resnet152", "squeezenet1_1", "vit_l_16", "convnext_base"} <= set(IMAGE_ENCODERS)
