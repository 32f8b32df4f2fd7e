"""Image encoders: networks that turn pictures into regions of features.

Legend: `B` batch, `S` side of the square picture, `R` regions (positions of the map, row by row), `C` channels;
the 3 is the colour channel (red, green, blue).
"""

import difflib
import warnings
from collections.abc import Callable
from http.client import HTTPException
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from vqa.errors import InputError, unknown_name
from vqa.features.pictures import RESIZE_MODES, Picture, load_picture
from vqa.features.weights import load_weights, read_weights, weights_sha256

RANDOM_SEED = 0
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
DEFAULT_LAYERS = {"vgg16": "pool5", "vgg19": "pool5", "maxvit_t": "blocks"}
HEADS = ("avgpool", "dropout", "fc", "classifier", "head", "heads")  # what torchvision calls the parts above the map


class ImageEncoder(nn.Module):
    """A network cut at one layer, for inference only: it is always in eval mode and never keeps gradients.

    Attributes:
        name: the encoder's name, e.g. "vgg16".
        layer: the layer that is read, by the name that the user gave.
        image_size: `S`.
        regions: `R`; 1 for a layer that describes the whole picture.
        channels: `C`.
        resize: how a picture becomes square, a key of `RESIZE_MODES`.
        preprocessing: everything that happens to a picture before the network, ready for JSON.
        weights_origin: where the weights come from, one sentence to print.
        weights_sha256: digest of the values of the parameters that are used.
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        layer: str,
        image_size: int,
        resize: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        weights_origin: str,
        read_output: Callable[[Any], Tensor],
    ) -> None:
        """Wrap a network that takes normalised pictures `[B, 3, S, S]`.

        `read_output` takes from what it returns one tensor, which may be
        a map `[B, C, H, W]` (or `[B, H, W, C]`), tokens `[B, R, C]` or a vector `[B, C]`.

        Raises:
            InputError: when the network cannot take pictures of this size or returns something else.
        """
        super().__init__()
        if resize not in RESIZE_MODES:
            raise InputError(unknown_name("resize mode", resize, RESIZE_MODES))
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.read_output = read_output
        self.name, self.layer, self.image_size, self.resize = name, layer, image_size, resize
        self.preprocessing: dict[str, Any] = {
            "colours": "RGB",
            "exif_rotation": True,
            "resize": resize,
            "interpolation": "bilinear, antialiased",
            "size": [image_size, image_size],
            "scale": "1/255",
            "mean": list(mean),
            "std": list(std),
        }
        self.weights_origin = weights_origin
        self.weights_sha256 = weights_sha256(network)
        self.register_buffer("mean_311", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_311", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.regions, self.channels = self._output_shape()

    def _output_shape(self) -> tuple[int, int]:
        """(R, C), found by a run without data or arithmetic."""
        state = {key: value.to("meta") for key, value in self.network.state_dict().items()}
        picture = torch.empty(1, 3, self.image_size, self.image_size, device="meta")
        try:
            output = as_regions(self.read_output(torch.func.functional_call(self.network, state, (picture,))))
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise InputError(
                f"{self.name} up to {self.layer!r} cannot take pictures of {self.image_size} px "
                f"or gives no map, tokens or vector: {str(error).splitlines()[0]}"
            ) from None
        return output.shape[1], output.shape[2]

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Stay in eval mode, whatever the parent module is set to: features must not depend on dropout."""
        return super().train(False)

    def load(self, path: Path) -> Picture:
        """Read one picture as this encoder takes it; raises InputError that names the file."""
        return load_picture(path, self.image_size, self.resize)

    def load_picture(self, path: Path) -> Tensor:
        """Read one picture: uint8 `[3, S, S]`; raises InputError that names the file."""
        return self.load(path).pixels_3SS

    def normalise(self, picture_B3SS: Tensor) -> Tensor:
        """Pixels 0 to 255 (uint8 `[B, 3, S, S]`) as the network wants them: float32 `[B, 3, S, S]`."""
        if picture_B3SS.dtype != torch.uint8:
            raise TypeError(f"an image encoder takes uint8 pixels, not {picture_B3SS.dtype}")
        pixels = picture_B3SS.to(self.mean_311.dtype, memory_format=torch.channels_last)
        return pixels.div_(255).sub_(self.mean_311).div_(self.std_311)

    @torch.inference_mode()
    def forward(self, picture_B3SS: Tensor) -> Tensor:
        """Encode pictures (uint8 `[B, 3, S, S]`, on the encoder's device): float32 `[B, R, C]`."""
        return as_regions(self.read_output(self.network(self.normalise(picture_B3SS))))

    def attributes(self) -> dict[str, Any]:
        """What a feature cache states about its encoder."""
        return {
            "encoder": self.name,
            "layer": self.layer,
            "image_size": self.image_size,
            "weights_sha256": self.weights_sha256,
            "weights_origin": self.weights_origin,
            "preprocessing": self.preprocessing,
        }


def as_regions(output: Tensor) -> Tensor:
    """A layer's output as regions `[B, R, C]`; a map of a square picture is square, which tells where its channels are.

    Raises:
        ValueError: when the output is neither a map, nor tokens, nor a vector.
    """
    if not isinstance(output, Tensor) or not 2 <= output.ndim <= 4:
        raise ValueError("the layer's output is not a tensor of 2 to 4 dimensions")
    if output.ndim == 2:
        return output.unsqueeze(1)
    if output.ndim == 3:
        return output
    channels_last = output.shape[2] != output.shape[3] and output.shape[1] == output.shape[2]
    return (output if channels_last else output.permute(0, 2, 3, 1)).flatten(1, 2)


def torchvision_encoder(
    name: str, *, layer: str | None = None, image_size: int = 224, weights: str = "imagenet", resize: str = "squash"
) -> ImageEncoder:
    """Any torchvision classification network, cut at one of its nodes.

    Args:
        name: as in `torchvision.models.list_models()`.
        layer: a node name as `get_graph_node_names` lists them; for VGG also the names in `NAMED_LAYERS`.
            None takes the last map before the classifier (the last tokens of a ViT).
        image_size: side of the square picture in pixels.
        weights: "imagenet" (torchvision's best), a torchvision weight name such as "IMAGENET1K_V1", "random"
            (seed 0, always the same values), or a file (.safetensors, .pth).
        resize: a key of `RESIZE_MODES`.

    Raises:
        InputError: when the layer or weights do not exist or do not fit, or cannot be downloaded.
    """
    enum = torchvision.models.get_model_weights(name)
    published = enum.DEFAULT if weights == "imagenet" else enum.__members__.get(weights, enum.DEFAULT)
    file = None if weights in ("imagenet", "random", *enum.__members__) else Path(weights)
    if file is not None and not file.is_file():
        choices = ", ".join(["imagenet", "random", *enum.__members__])
        raise InputError(f"weights {weights!r}: no such file; give a .safetensors or .pth file or one of: {choices}")
    if weights in ("imagenet", *enum.__members__):
        model = _download(name, published, image_size)
        origin = f"torchvision's {enum.__name__}.{published.name}, from {published.url}"
    else:
        model = _random_network(name, image_size)
        origin = f"RANDOM weights (seed {RANDOM_SEED}): an untrained network, for tests and demonstrations only"
    layer = layer or DEFAULT_LAYERS.get(name) or _last_map(model, name, image_size)
    network = _cut(model, name, layer)
    if file is not None:
        load_weights(network, read_weights(file), model.state_dict(), file)
        origin = f"weights from the file {file}"
    transforms = published.transforms()
    return ImageEncoder(
        network,
        name=name,
        layer=layer,
        image_size=image_size,
        resize=resize,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        weights_origin=origin,
        read_output=itemgetter("output"),
    )


IMAGE_ENCODERS: dict[str, Callable[..., ImageEncoder]] = dict.fromkeys(
    torchvision.models.list_models(module=torchvision.models), torchvision_encoder
)


def build_image_encoder(
    name: str, *, layer: str | None = None, image_size: int = 224, weights: str = "imagenet", resize: str = "squash"
) -> ImageEncoder:
    """Build the encoder of that name; see `torchvision_encoder` for the arguments.

    Raises:
        InputError: when the name, layer, size, weights or resize mode is wrong; the message gives the right choices.
    """
    if name not in IMAGE_ENCODERS:
        raise InputError(unknown_name("image encoder", name, IMAGE_ENCODERS))
    if resize not in RESIZE_MODES:
        raise InputError(unknown_name("resize mode", resize, RESIZE_MODES))
    if image_size < 1:
        raise InputError(f"image size {image_size}: must be at least 1 px")
    return IMAGE_ENCODERS[name](name, layer=layer, image_size=image_size, weights=weights, resize=resize)


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
        raise InputError(f"{name} cannot take pictures of {image_size} px: {error}") from None


def _download(name: str, published: Any, image_size: int) -> nn.Module:
    """The whole network with torchvision's published weights, from torch.hub's cache or the network."""
    options = _options(name, image_size) if name.startswith(("vit_", "maxvit_")) else {}
    try:
        return torchvision.models.get_model(name, weights=published, progress=True, **options).eval()
    except ValueError as error:
        raise InputError(f"{name} with weights {published.name}: {error}") from None
    except (OSError, HTTPException, RuntimeError, EOFError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        raise InputError(
            f"the ImageNet weights of {name} cannot be had: {str(error).splitlines()[0]}\n"
            f"Without a network, fetch {published.url} elsewhere and either put it at {file} or give the file as "
            f"weights; or ask for `weights: random` (an untrained network)."
        ) from None


def _last_map(model: nn.Module, name: str, image_size: int) -> str:
    """The last top-level part that gives a map or tokens, pooling and classifier left out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(child: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: shapes.update({child: tuple(getattr(output, "shape", ()))})

    hooks = [part.register_forward_hook(note(child)) for child, part in model.named_children()]
    state = {key: value.to("meta") for key, value in model.state_dict().items()}
    picture = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        torch.func.functional_call(model, state, (picture,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"{name} cannot take pictures of {image_size} px: {str(error).splitlines()[0]}") from None
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
