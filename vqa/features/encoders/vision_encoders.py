"""Image encoders out of transformers: the vision encoder of CLIP, SigLIP, DINO, ViT and their kin.

Legend: `B` batch, `S` side of the square image, `T` tokens, `R` regions, `C` channels, `H`, `W` sides of a map.
"""

import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqa.errors import InputError, first_line, unknown_name
from vqa.features.encoders.image_encoder import RANDOM_ORIGIN, RANDOM_SEED, RANDOM_WEIGHTS, ImageEncoder
from vqa.features.encoders.preprocessing import Preparation
from vqa.features.encoders.pretrained import read_config
from vqa.features.encoders.weights import read_weights

LAYERS = ("patches", "penultimate", "tokens", "pooled")
RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which preprocessor files use


def hf_vision_encoder(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    """The vision encoder of a transformers model.

    Args:
        name: a folder with config.json and preprocessor_config.json, or a name on the Hugging Face Hub.
        layer: "patches" (one region a patch; for hierarchical networks the last map), "penultimate" (the same of the
            layer before the last one, which LLaVA reads of CLIP), "tokens" (all tokens, class and register tokens
            included), or "pooled" (the model's own summary vector). None is "patches".
        weights: "pretrained" (those of `name`), "random" (seed 0), or a file in the form in which transformers saves.
        preparation: size, resize mode; mean, standard deviation, order of colours and interpolation are read from the
            model's preprocessor_config.json.

    Raises:
        InputError: when the model cannot be had, has no vision encoder, lacks weights, or does not take this size.
    """
    layer = layer or "patches"
    if layer not in LAYERS:
        raise InputError(unknown_name(f"layer of hf:{name}", layer, LAYERS))
    config, processor = _read_configs(name)
    if weights == RANDOM_WEIGHTS:
        model, origin = _random_model(name, config), RANDOM_ORIGIN
    elif weights == "pretrained":
        model, origin = _pretrained(name, config, layer, None), f"the weights of {name}, read by transformers"
    elif Path(weights).is_file():
        model, origin = _pretrained(name, config, layer, Path(weights)), f"weights from the file {weights}"
    else:
        raise InputError(
            f"hf:{name}: weights {weights!r}: no such file; give a .safetensors or .pth file or one of: "
            f"pretrained, {RANDOM_WEIGHTS}"
        )
    if any(parameter.ndim > 4 for parameter in model.parameters()):
        raise InputError(f"hf:{name}: a model of videos (its convolutions have three dimensions), not of images")
    vision = _VisionEncoder(model, layer)
    return ImageEncoder(
        vision,
        name=f"hf:{name}",
        layer=layer,
        preparation=_prepared(preparation, processor, name),
        weights_origin=origin,
        read_output=_reader(layer, config, preparation.size),
        shape=_shape_of_patches(config, layer, preparation.size, name) if vision.takes_patches else None,
    )


class _VisionEncoder(nn.Module):
    """A transformers model that is called with pixels alone, whatever their size."""

    def __init__(self, model: Any, layer: str) -> None:
        super().__init__()
        self.model: nn.Module = model
        known = inspect.signature(model.forward).parameters
        # Position embeddings are made for one size; most models can interpolate them when they are told to.
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
        if layer == "penultimate":
            self.options["output_hidden_states"] = True
        self.takes_patches = "spatial_shapes" in known  # SigLIP 2 with free aspect ratio
        # A masked autoencoder shuffles its patches by random numbers, unless it is given some that are in order.
        self.shuffles = model.config.model_type == "vit_mae"
        self.patch = int(model.config.patch_size) if self.takes_patches or self.shuffles else 0

    def forward(self, image_B3SS: Tensor) -> Any:
        if self.shuffles:
            count = (image_B3SS.shape[-1] // self.patch) ** 2
            order_BT = torch.arange(count, device=image_B3SS.device).expand(len(image_B3SS), -1)
            return self.model(pixel_values=image_B3SS, noise=order_BT, **self.options)
        if not self.takes_patches:
            return self.model(pixel_values=image_B3SS, **self.options)
        patch_BRC, side = as_patches(image_B3SS, self.patch)
        mask_BR = torch.ones(patch_BRC.shape[:2], dtype=torch.int32, device=patch_BRC.device)
        sides_B2 = torch.full((len(patch_BRC), 2), side, device=patch_BRC.device)
        return self.model(pixel_values=patch_BRC, pixel_attention_mask=mask_BR, spatial_shapes=sides_B2)


def as_patches(image_B3SS: Tensor, patch: int) -> tuple[Tensor, int]:
    """Images cut into squares of `patch` pixels, row by row, colours innermost; and how many to a side."""
    side = image_B3SS.shape[-1] // patch
    cut = image_B3SS.unflatten(2, (side, patch)).unflatten(4, (side, patch))
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2), side


def _shape_of_patches(config: Any, layer: str, size: int, name: str) -> tuple[int, int]:
    """(R, C) of an encoder that is given patches, whose number a run without data cannot tell."""
    if size % config.patch_size:
        raise InputError(f"hf:{name} cannot take images of {size} px: no multiple of {config.patch_size}")
    return 1 if layer == "pooled" else (size // config.patch_size) ** 2, config.hidden_size


def _reader(layer: str, config: Any, side: int) -> Callable[[Any], Tensor]:
    """What takes the layer's tensor out of a model's output."""
    patch = getattr(config, "patch_size", None)
    patches = (side // patch) ** 2 if isinstance(patch, int) else 0

    def read(output: Any) -> Tensor:
        if layer == "pooled":
            if getattr(output, "pooler_output", None) is None:
                raise ValueError("the model has no pooled output; take layer patches or tokens")
            return output.pooler_output.flatten(1)
        last = output.last_hidden_state
        if layer == "penultimate":
            inner = output.hidden_states[-2]
            if last.ndim != 3 or inner.shape != last.shape:
                raise ValueError("its layers differ in shape, so there is no penultimate map; take layer patches")
            last = inner
        if layer == "tokens" or last.ndim != 3 or last.shape[1] <= patches:
            return last
        # Class, register and pooled tokens come first; without a patch size the map is the largest square that fits.
        return last[:, last.shape[1] - (patches or math.isqrt(last.shape[1]) ** 2) :]

    return read


def _read_configs(name: str) -> tuple[Any, dict[str, Any]]:
    """The encoder's configuration, and what its preprocessor file says."""
    from transformers.image_processing_base import ImageProcessingMixin

    config = read_config(f"hf:{name}", name)
    try:
        processor = ImageProcessingMixin.get_image_processor_dict(name)[0]
    except (OSError, ValueError) as error:
        raise InputError(
            f"hf:{name}: no preprocessor_config.json, which says mean and standard deviation: {first_line(error)}"
        ) from None
    vision = getattr(config, "vision_config", config)
    if hasattr(vision, "mask_ratio"):
        vision.mask_ratio = 0.0  # a masked autoencoder would drop most of the patches
    return vision, processor


def _prepared(preparation: Preparation, processor: dict[str, Any], name: str) -> Preparation:
    """The preparation with the mean, standard deviation and interpolation that the model was trained with."""
    if processor.get("rescale_offset"):
        raise InputError(f"hf:{name}: preprocessor_config.json asks for rescale_offset, which is not known here")
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not isinstance(factor, float | int) or factor <= 0:
        raise InputError(f"hf:{name}: preprocessor_config.json asks for rescale_factor {factor!r}")
    resample = processor.get("resample", 2)
    if resample not in RESAMPLE:
        raise InputError(f"hf:{name}: preprocessor_config.json asks for resample {resample}, known: {RESAMPLE}")
    colours = "BGR" if processor.get("do_flip_channel_order") else "RGB"
    preparation = replace(preparation, colours=colours, divisor=round(1 / factor, 6), interpolation=RESAMPLE[resample])
    if not processor.get("do_normalize", True):
        return preparation
    mean, std = (_a_colour(processor, key, name) for key in ("image_mean", "image_std"))
    if 0.0 in std:
        raise InputError(f"hf:{name}: preprocessor_config.json states image_std {std}, and pixels are divided by it")
    return replace(preparation, mean=mean, std=std)


def _a_colour(processor: dict[str, Any], key: str, name: str) -> tuple[float, ...]:
    """Three numbers, or one for all three colours, of a preprocessor file."""
    stated = processor.get(key)
    if stated is None:
        raise InputError(f"hf:{name}: preprocessor_config.json states no {key}")
    values = tuple(stated) if isinstance(stated, list | tuple) else (stated,) * 3
    if len(values) != 3 or not all(isinstance(value, float | int) for value in values):
        raise InputError(f"hf:{name}: preprocessor_config.json states {key} {stated!r}, expected three numbers")
    return tuple(float(value) for value in values)


def _random_model(name: str, config: Any) -> nn.Module:
    """The vision encoder with seeded weights; the caller's random state is left as it was."""
    from transformers import AutoModel

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return AutoModel.from_config(config).float().eval()
    except (ValueError, KeyError) as error:
        raise InputError(f"hf:{name}: not a model with a vision encoder: {first_line(error)}") from None


def _pretrained(name: str, config: Any, layer: str, file: Path | None) -> nn.Module:
    """The vision encoder with its own weights (or those of a file), every one of them read."""
    from transformers import MODEL_MAPPING

    if type(config) not in MODEL_MAPPING:
        raise InputError(f"hf:{name}: not a model with a vision encoder: {type(config).__name__}")
    state = None if file is None else read_weights(file)
    try:
        model, info = MODEL_MAPPING[type(config)].from_pretrained(
            name if file is None else None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except pickle.UnpicklingError:
        raise InputError(
            f"{file or f'hf:{name}'}: the weights file holds more than tensors, and code is never run; take a "
            ".safetensors file"
        ) from None
    except Exception as error:  # a damaged file raises almost anything
        raise InputError(
            f"hf:{name}: the weights cannot be had: {first_line(error)}\n"
            f"Without a network, give a folder (hf:/path/to/folder), or ask for `weights: random`."
        ) from None
    source = file or f"hf:{name}"
    missing = sorted(info["missing_keys"])
    if missing and layer != "pooled" and all(key.startswith("pooler.") for key in missing):
        model.pooler = None  # a checkpoint without it left it untrained, and this layer does not need it
        missing = []
    if missing:
        raise InputError(f"{source}: the weights lack {missing[0]!r} and {len(missing) - 1} more of the vision encoder")
    return model.eval()
