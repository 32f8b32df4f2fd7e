"""Vision encoders of transformers against the library's own forward, on tiny random models."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from helpers.training import SUBPROCESS
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqa.errors import InputError
from vqa.features.encoders.registry import build_image_encoder

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
TEXT = TINY | {"vocab_size": 30, "max_position_embeddings": 8}


def models() -> dict[str, Any]:
    size = {"image_size": 32, "patch_size": 8}
    return {
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**TINY, **size)),
        "clip": lambda: transformers.CLIPModel(
            transformers.CLIPConfig(text_config=TEXT, vision_config=TINY | size, projection_dim=8)
        ),
        "siglip": lambda: transformers.SiglipModel(
            transformers.SiglipConfig(text_config=TEXT, vision_config=TINY | size)
        ),
        "siglip2": lambda: transformers.Siglip2Model(
            transformers.Siglip2Config(text_config=TEXT, vision_config=TINY | {"num_patches": 16, "patch_size": 8})
        ),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TINY, **size)),
        "dinov2_registers": lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**TINY, **size, num_register_tokens=3)
        ),
        "dinov3": lambda: transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(**TINY, **size, num_register_tokens=2)
        ),
        "swin": lambda: transformers.SwinModel(
            transformers.SwinConfig(
                image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
            )
        ),
        "vit_mae": lambda: transformers.ViTMAEModel(transformers.ViTMAEConfig(**TINY, **size)),
        "dinov3_convnext": lambda: transformers.DINOv3ConvNextModel(
            transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1])
        ),
        "convnext": lambda: transformers.ConvNextModel(
            transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32)
        ),
    }


def save(folder: Path, kind: str, **processor: Any) -> Any:
    torch.manual_seed(1)
    model = models()[kind]().eval()
    model.save_pretrained(folder)
    stated = {"image_mean": MEAN, "image_std": STD, "resample": 3} | processor
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    return model


def pixels(side: int = 32) -> Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(image_B3SS: Tensor) -> Tensor:
    return (image_B3SS / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_siglip2_is_given_the_patches_that_its_own_processor_cuts(tmp_path: Path) -> None:
    model = save(tmp_path, "siglip2")
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=36, image_mean=MEAN, image_std=STD)
    given = processor(images=list(pixels(48)), return_tensors="pt")
    assert given["spatial_shapes"].tolist() == [[6, 6], [6, 6]]
    with torch.no_grad():
        expected = model.vision_model(
            pixel_values=given["pixel_values"],
            pixel_attention_mask=given["pixel_attention_mask"],
            spatial_shapes=given["spatial_shapes"],
        )
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    for layer, wanted in {"patches": expected.last_hidden_state, "pooled": expected.pooler_output[:, None]}.items():
        encoder = build_image_encoder(f"hf:{tmp_path}", layer=layer, image_size=48, weights="pretrained")
        torch.testing.assert_close(encoder(pixels(48)), wanted, **close)
        assert (encoder.regions, encoder.channels) == wanted.shape[1:]
    with pytest.raises(InputError, match="50 px: no multiple of 8"):
        build_image_encoder(f"hf:{tmp_path}", image_size=50, weights="pretrained")


@pytest.mark.parametrize(
    ("kind", "special"),
    [("vit", 1), ("clip", 1), ("siglip", 0), ("dinov2", 1), ("dinov2_registers", 4), ("dinov3", 3), ("swin", 0)],
)
def test_patches_tokens_and_pooled_are_the_models_own(tmp_path: Path, kind: str, special: int) -> None:
    model = save(tmp_path, kind)
    vision = getattr(model, "vision_model", model)
    with torch.no_grad():
        expected = vision(pixel_values=normalised(pixels()), output_hidden_states=True)

    def encode(layer: str | None) -> Tensor:
        encoder = build_image_encoder(f"hf:{tmp_path}", layer=layer, image_size=32, weights="pretrained")
        feature = encoder(pixels())
        assert feature.shape == (2, encoder.regions, encoder.channels)
        return feature

    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(encode("tokens"), expected.last_hidden_state, **close)
    torch.testing.assert_close(encode(None), expected.last_hidden_state[:, special:], **close)
    torch.testing.assert_close(encode("pooled"), expected.pooler_output.unsqueeze(1), **close)
    torch.testing.assert_close(encode("penultimate"), expected.hidden_states[-2][:, special:], **close)
    assert float((encode("penultimate") - encode("patches")).abs().max()) > 1e-3


def test_a_network_whose_maps_shrink_has_no_penultimate_one(tmp_path: Path) -> None:
    save(tmp_path, "convnext")
    with pytest.raises(InputError, match="no penultimate map; take layer patches"):
        build_image_encoder(f"hf:{tmp_path}", layer="penultimate", image_size=32, weights="pretrained")


def test_a_map_becomes_regions_row_by_row(tmp_path: Path) -> None:
    model = save(tmp_path, "convnext")
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=48, weights="pretrained")
    with torch.no_grad():
        map_BCHW = model(pixel_values=normalised(pixels(48))).last_hidden_state
    assert encoder.regions == map_BCHW.shape[2] * map_BCHW.shape[3]
    torch.testing.assert_close(encoder(pixels(48)), map_BCHW.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_a_pooled_token_beside_the_map_is_no_region(tmp_path: Path) -> None:
    model = save(tmp_path, "dinov3_convnext")
    with torch.no_grad():
        expected = model(pixel_values=normalised(pixels(96))).last_hidden_state
    assert expected.shape[1] == 1 + 9
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=96, weights="pretrained")
    assert encoder.regions == 9
    torch.testing.assert_close(encoder(pixels(96)), expected[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_masked_autoencoder_sees_every_patch_in_order(tmp_path: Path, weights: str) -> None:
    save(tmp_path, "vit_mae")
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights=weights)
    # The same layers by the same names, without any masking.
    plain = transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8), add_pooling_layer=False)
    plain.load_state_dict(encoder.network.get_submodule("model").state_dict())
    with torch.no_grad():
        expected = plain.eval()(pixel_values=normalised(pixels())).last_hidden_state[:, 1:]
    assert encoder.regions == 16
    torch.testing.assert_close(encoder(pixels()), expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_videos_is_named(tmp_path: Path) -> None:
    config = transformers.VivitConfig(**TINY, image_size=32, tubelet_size=[2, 8, 8])
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    with pytest.raises(InputError, match="a model of videos"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="random")


def test_colours_in_the_order_that_the_processor_states(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    usual = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")
    save(tmp_path, "vit", do_flip_channel_order=True)
    turned = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")
    assert turned.preprocessing["colours"] == "BGR"
    torch.testing.assert_close(turned(pixels().flip(1)), usual(pixels()))
    save(tmp_path, "vit", rescale_offset=True)
    with pytest.raises(InputError, match="asks for rescale_offset"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")


def test_one_number_stands_for_three_colours_and_wrong_ones_are_named(tmp_path: Path) -> None:
    def built(**processor: Any) -> dict[str, Any]:
        save(tmp_path, "vit", **processor)
        return build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained").preprocessing

    assert built(image_mean=0.5, image_std=0.25)["mean"] == [0.5, 0.5, 0.5]
    assert built(image_mean=0.5, image_std=0.25)["std"] == [0.25, 0.25, 0.25]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"image_mean": [0.5, 0.5]}, r"image_mean \[0.5, 0.5\], expected three numbers"),
        ({"image_std": ["a", "b", "c"]}, "image_std .*, expected three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "pixels are divided by it"),
        ({"image_std": None}, "states no image_std"),
        ({"rescale_factor": 0}, "rescale_factor 0"),
    ]
    for processor, message in wrong:
        with pytest.raises(InputError, match=message):
            built(**processor)


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2"])
def test_other_sizes_interpolate_positions(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind)
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=64, weights="pretrained")
    assert encoder.regions == 64
    assert encoder(pixels(64)).isfinite().all()


def test_what_the_cache_states(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")
    assert encoder.attributes()["encoder"] == f"hf:{tmp_path}"
    assert encoder.layer == "patches"
    assert encoder.preprocessing["mean"] == MEAN
    assert encoder.preprocessing["scale"] == "1/255"
    assert encoder.preprocessing["interpolation"] == "bicubic, antialiased"
    random = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="random")
    again = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="random")
    assert encoder.weights_sha256 != random.weights_sha256 == again.weights_sha256
    assert "RANDOM" in random.weights_origin
    file = tmp_path / "model.safetensors"
    from_file = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights=str(file))
    assert from_file.weights_sha256 == encoder.weights_sha256
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(2)}, other)
    with pytest.raises(InputError, match=r"other\.safetensors: the weights lack"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights=str(other))


def test_weights_that_are_not_in_the_file_are_never_made_up(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    state = load_file(tmp_path / "model.safetensors")
    without_pooler = {key: value for key, value in state.items() if not key.startswith("pooler.")}
    save_file(without_pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    patches = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")
    assert not any("pooler" in key for key in patches.state_dict())
    with pytest.raises(InputError, match="the weights lack 'pooler"):
        build_image_encoder(f"hf:{tmp_path}", layer="pooled", image_size=32, weights="pretrained")
    key = next(key for key in state if key.endswith("attention.q_proj.weight") or key.endswith("query.weight"))
    del without_pooler[key]
    save_file(without_pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="the weights lack"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")


def test_a_truncated_weights_file_is_one_message(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"the weights cannot be had: .*file not fully covered"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")


class Code:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_safetensors_come_first_and_pickled_code_never_runs(tmp_path: Path) -> None:
    model = save(tmp_path, "vit")
    expected = build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained").weights_sha256
    torch.save({"x": Code(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    assert build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained").weights_sha256 == expected
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds more than tensors, and code is never run"):
        build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained")
    assert not (tmp_path / "ran").exists()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert build_image_encoder(f"hf:{tmp_path}", image_size=32, weights="pretrained").weights_sha256 == expected


class Hub(SimpleHTTPRequestHandler):
    """The part of the Hugging Face Hub that reads files: /OWNER/NAME/resolve/main/FILE."""

    asked: ClassVar[list[str]] = []
    folder: ClassVar[Path]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.asked.append(self.path)
        file = self.folder / self.path.rsplit("/", 1)[-1]
        there = self.path.startswith("/someone/tiny/resolve/main/") and file.is_file()
        content = file.read_bytes() if there else b"{}"
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(content)))
        if there:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        pass


BUILD = """
from vqa.errors import InputError
from vqa.features.encoders import build_image_encoder
try:
    print(build_image_encoder("hf:someone/tiny", image_size=32, weights="pretrained").weights_sha256)
except InputError as error:
    print("refused", error)
"""


@pytest.mark.slow
def test_a_hub_name_is_fetched_once_and_then_read_without_a_network(tmp_path: Path) -> None:
    save(tmp_path / "model", "vit")
    expected = build_image_encoder(f"hf:{tmp_path / 'model'}", image_size=32, weights="pretrained").weights_sha256
    Hub.folder = tmp_path / "model"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def build(**more: str) -> str:
        places = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        ran = subprocess.run(
            [sys.executable, "-c", BUILD], capture_output=True, text=True, env=environment | SUBPROCESS | places | more
        )
        return ran.stdout.strip()

    assert "config.json cannot be had" in build(HF_HUB_OFFLINE="1")
    assert not Hub.asked
    assert build() == expected
    fetched = len(Hub.asked)
    assert build(HF_HUB_OFFLINE="1") == expected
    assert len(Hub.asked) == fetched
    server.shutdown()


def test_wrong_models_are_named(tmp_path: Path) -> None:
    def refused(message: str, **options: Any) -> None:
        given: dict[str, Any] = {"name": f"hf:{tmp_path}", "image_size": 32, "weights": "pretrained"}
        with pytest.raises(InputError, match=message):
            build_image_encoder(**given | options)

    refused("config.json cannot be had")
    refused("unknown image encoder 'hf:'", name="hf:")
    refused("unknown image encoder 'hf'", name="hf")
    transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    refused("no preprocessor_config.json")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    refused("states no image_mean")
    save(tmp_path, "vit")
    assert build_image_encoder(f"hf:{tmp_path}", image_size=32).weights == "pretrained"  # without being asked for
    refused("unknown layer .* 'patch' .*did you mean 'patches'", layer="patch")
    refused("weights 'imagenet': no such file; .* pretrained, random", weights="imagenet")
    refused("cannot take images of 4 px", image_size=4)
    (tmp_path / "model.safetensors").unlink()
    refused("the weights cannot be had")
    transformers.BertModel(transformers.BertConfig(**TINY, vocab_size=30)).save_pretrained(tmp_path)
    refused("cannot take images of 32 px")
