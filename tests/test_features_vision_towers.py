"""Vision towers of transformers against the library's own forward, on tiny random models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqa.errors import InputError
from vqa.features.encoders import build_image_encoder

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


def normalised(picture_B3SS: Tensor) -> Tensor:
    return (picture_B3SS / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize(
    ("kind", "special"),
    [("vit", 1), ("clip", 1), ("siglip", 0), ("dinov2", 1), ("dinov2_registers", 4), ("dinov3", 3), ("swin", 0)],
)
def test_patches_tokens_and_pooled_are_the_models_own(tmp_path: Path, kind: str, special: int) -> None:
    model = save(tmp_path, kind)
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        expected = tower(pixel_values=normalised(pixels()))

    def encode(layer: str | None) -> Tensor:
        encoder = build_image_encoder(f"hf:{tmp_path}", layer=layer, image_size=32, weights="pretrained")
        feature = encoder(pixels())
        assert feature.shape == (2, encoder.regions, encoder.channels)
        return feature

    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(encode("tokens"), expected.last_hidden_state, **close)
    torch.testing.assert_close(encode(None), expected.last_hidden_state[:, special:], **close)
    torch.testing.assert_close(encode("pooled"), expected.pooler_output.unsqueeze(1), **close)


def test_a_map_becomes_regions_row_by_row(tmp_path: Path) -> None:
    model = save(tmp_path, "convnext")
    encoder = build_image_encoder(f"hf:{tmp_path}", image_size=48, weights="pretrained")
    with torch.no_grad():
        map_BCHW = model(pixel_values=normalised(pixels(48))).last_hidden_state
    assert encoder.regions == map_BCHW.shape[2] * map_BCHW.shape[3]
    torch.testing.assert_close(encoder(pixels(48)), map_BCHW.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


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


def test_wrong_models_are_named(tmp_path: Path) -> None:
    def refused(message: str, **options: Any) -> None:
        name = {"name": f"hf:{tmp_path}", "image_size": 32, "weights": "pretrained"} | options
        with pytest.raises(InputError, match=message):
            build_image_encoder(**name)

    refused("config.json cannot be had")
    refused("unknown image encoder 'hf:'", name="hf:")
    refused("unknown image encoder 'hf'", name="hf")
    transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    refused("no preprocessor_config.json")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    refused("states no image_mean and image_std")
    save(tmp_path, "vit")
    refused("unknown layer .* 'patch' .*did you mean 'patches'", layer="patch")
    refused("weights 'imagenet': no such file; .* pretrained, random", weights="imagenet")
    refused("cannot take pictures of 4 px", image_size=4)
    (tmp_path / "model.safetensors").unlink()
    refused("the weights cannot be had")
    transformers.BertModel(transformers.BertConfig(**TINY, vocab_size=30)).save_pretrained(tmp_path)
    refused("cannot take pictures of 32 px")
