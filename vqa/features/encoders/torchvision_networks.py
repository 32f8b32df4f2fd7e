"""Image encoders out of torchvision's classification networks, cut at any node.

Legend: `S` side of the square image.
"""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPException
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from vqa.errors import InputError
from vqa.features.encoders.image_encoder import RANDOM_ORIGIN, RANDOM_SEED, RANDOM_WEIGHTS, ImageEncoder, on_meta
from vqa.features.encoders.preprocessing import Preparation
from vqa.features.encoders.weights import load_weights, read_weights

IMAGENET = "imagenet"
CAFFE = "_caffe"
CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red, as published with VGG's Caffe weights
# Karen Simonyan and Andrew Zisserman 2015, configurations D and E: the usual names of the layers, and the nodes where
# torchvision computes them. All but the poolings are taken after their ReLU.
NAMED_LAYERS = {
    "vgg16": {
        "fc7": "classifier.4",
        "fc6": "classifier.1",
        "pool5": "features.30",
        "conv5_3": "features.29",
        "pool4": "features.23",
    },
    "vgg19": {
        "fc7": "classifier.4",
        "fc6": "classifier.1",
        "pool5": "features.36",
        "conv5_4": "features.35",
        "pool4": "features.27",
    },
}
# The usual conversion of the Caffe weights (jcjohnson/pytorch-vgg) numbers the first two linear layers otherwise.
CONVERTED_LAYERS = {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}
DEFAULT_LAYERS = {"vgg16": "pool5", "vgg19": "pool5", "maxvit_t": "blocks"}
HEADS = ("avgpool", "dropout", "fc", "classifier", "head", "heads")  # what torchvision calls the parts above the map


def torchvision_encoder(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    """Any torchvision classification network, cut at one of its nodes.

    Args:
        name: as in `torchvision.models.list_models()`; "vgg16_caffe" and "vgg19_caffe" are the same networks with
            the preprocessing that the original Caffe weights need (blue, green, red; 0 to 255; mean subtracted).
        layer: a node name as `get_graph_node_names` lists them; for VGG also the names in `NAMED_LAYERS`.
            None takes the last map before the classifier (the last tokens of a ViT).
        weights: "imagenet" (torchvision's best), a torchvision weight name such as "IMAGENET1K_V1", "random"
            (seed 0, always the same values), or a file (.safetensors, .pth).
        preparation: size and resize mode; colours, mean, standard deviation and interpolation are set as the weights
            need them.

    Raises:
        InputError: when the layer or weights do not exist or do not fit, or cannot be downloaded.
    """
    architecture = name.removesuffix(CAFFE)
    enum = torchvision.models.get_model_weights(architecture)
    names = [] if name.endswith(CAFFE) else [IMAGENET, *enum.__members__]
    published = enum.__members__.get(weights, enum.DEFAULT)
    file = None if weights in (RANDOM_WEIGHTS, *names) else Path(weights)
    if file is not None and not file.is_file():
        choices = ", ".join([RANDOM_WEIGHTS, *names])
        raise InputError(
            f"{name}: weights {weights!r}: no such file; give a .safetensors or .pth file or one of: {choices}"
        )
    if weights in names:
        model = download_network(architecture, published, preparation.size)
        origin = f"torchvision's {enum.__name__}.{published.name}, from {published.url}"
    else:
        model = _random_network(architecture, preparation.size)
        origin = RANDOM_ORIGIN
    layer = layer or DEFAULT_LAYERS.get(architecture) or _last_map(model, name, preparation.size)
    network = _cut(model, architecture, layer)
    if file is not None:
        load_weights(network, _as_torchvision(architecture, read_weights(file)), model.state_dict(), file)
        origin = f"weights from the file {file}"
    if name.endswith(CAFFE):
        preparation = replace(preparation, colours="BGR", divisor=1.0, mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0))
    else:
        transforms = published.transforms()
        preparation = replace(
            preparation,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            interpolation=transforms.interpolation.value,
        )
    return ImageEncoder(
        network,
        name=name,
        layer=layer,
        preparation=preparation,
        weights_origin=origin,
        read_output=itemgetter("output"),
    )


def published_sizes(name: str, weights: str) -> tuple[int, int]:
    """What the shorter edge is scaled to, and the side that is cropped of it, by torchvision's transforms of weights.

    Args:
        name, weights: as for `torchvision_encoder`.

    Raises:
        InputError: the network has no such transforms, or the weights are a file and could be any of several.
    """
    if name.endswith(CAFFE):
        raise InputError(f"{name}: resize 'weights' is for torchvision's own weights; use centre-crop")
    enum = torchvision.models.get_model_weights(name)
    sizes = {one.name: (one.transforms().resize_size[0], one.transforms().crop_size[0]) for one in enum}
    if weights in enum.__members__:
        return sizes[weights]
    if weights not in (IMAGENET, RANDOM_WEIGHTS) and len(set(sizes.values())) > 1:
        shown = ", ".join(f"{one}: {edge} to {side}" for one, (edge, side) in sizes.items())
        raise InputError(
            f"{name}: a file of weights does not say which of its transforms is meant by resize 'weights' ({shown}); "
            "use centre-crop with a resize-to and an image size"
        )
    return sizes[enum.DEFAULT.name]


def _as_torchvision(architecture: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file's weights by torchvision's names; only a converted VGG differs."""
    if architecture not in NAMED_LAYERS or any(key.startswith("classifier.0.") for key in weights):
        return weights
    renamed = {}
    for key, value in weights.items():
        layer, _, parameter = key.rpartition(".")
        renamed[f"{CONVERTED_LAYERS[layer]}.{parameter}" if layer in CONVERTED_LAYERS else key] = value
    return renamed


def _options(name: str, image_size: int) -> dict[str, Any]:
    """What some torchvision constructors must be told to be built as their published weights need them."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": True, "transform_input": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name == "maxvit_t":
        return {"input_size": (image_size, image_size)}
    return {}


def _random_network(name: str, image_size: int) -> nn.Module:
    """The whole network with seeded weights; the caller's random state is left as it was."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return torchvision.models.get_model(name, weights=None, **_options(name, image_size)).eval()
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{name} cannot take images of {image_size} px: {error}") from None


def download_network(name: str, published: Any, image_size: int) -> nn.Module:
    """The whole network with torchvision's published weights, from torch.hub's cache or the network."""
    options = _options(name, image_size) if name.startswith(("vit_", "maxvit_")) else {}
    try:
        return torchvision.models.get_model(name, weights=published, progress=True, **options).eval()
    except ValueError as error:
        raise InputError(f"{name} with weights {published.name}: {error}") from None
    except (OSError, HTTPException, RuntimeError, EOFError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        raise InputError(
            f"the weights {published.name} of {name} cannot be had: {str(error).splitlines()[0]}\n"
            f"Without a network, fetch {published.url} elsewhere and either put it at {file} or give the file as "
            f"weights; or ask for `weights: random` (an untrained network)."
        ) from None


def _last_map(model: nn.Module, name: str, image_size: int) -> str:
    """The last top-level part that gives a map or tokens, pooling and classifier left out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(child: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: shapes.update({child: tuple(getattr(output, "shape", ()))})

    hooks = [part.register_forward_hook(note(child)) for child, part in model.named_children()]
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        torch.func.functional_call(model, on_meta(model), (image,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"{name} cannot take images of {image_size} px: {str(error).splitlines()[0]}") from None
    finally:
        for hook in hooks:
            hook.remove()
    maps = [child for child, shape in shapes.items() if len(shape) in (3, 4) and child not in HEADS]
    if not maps:
        raise InputError(f"{name} has no obvious last map; name a layer: {', '.join(shapes)}")
    return maps[-1]


def _cut(model: nn.Module, name: str, layer: str) -> nn.Module:
    """The part of the network that computes `layer`, and nothing above it."""
    named = NAMED_LAYERS.get(name, {})
    node = named.get(layer, layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training and inference graphs differ, and only inference is used
        nodes = get_graph_node_names(model)[1]
        if not any(known == node or known.startswith(f"{node}.") for known in nodes):
            inner = [".".join(known.split(".")[:depth]) for known in nodes[1:] for depth in range(1, 5)]
            near = difflib.get_close_matches(layer, dict.fromkeys([*named, *inner, *nodes[1:]]), n=5, cutoff=0.4)
            parts = list(dict.fromkeys([*named, *(known.split(".")[0] for known in nodes[1:])]))
            hint = f" (did you mean {', '.join(near)}?)" if near else ""
            raise InputError(
                f"{name} has no layer {layer!r}{hint}; its parts: {', '.join(parts)}; every node: "
                f"torchvision.models.feature_extraction.get_graph_node_names"
            )
        return create_feature_extractor(model, {node: "output"}, suppress_diff_warning=True)
