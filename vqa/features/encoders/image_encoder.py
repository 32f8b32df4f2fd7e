"""`ImageEncoder`: a network cut at one layer, with all that happens to an image before it.

Legend: `B` batch, `S` side of the square image, `R` regions (positions of the map, row by row), `C` channels;
the 3 is the colour channel (red, green, blue).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vqa.data.images import STATED, Decoding
from vqa.errors import InputError, unknown_name
from vqa.features.encoders.preprocessing import DecodedImage, ImageFile, Preparation, load_image
from vqa.features.encoders.weights import weights_sha256
from vqa.features.precision import Precision
from vqa.models.contracts import Image

EVERYTHING = "all"
WITH_GEOMETRY = "+geometry"  # ends the layer of an encoder that adds each box's place as channels
RANDOM_WEIGHTS = "random"  # how a user asks for them
RANDOM_SEED = 0
RANDOM_ORIGIN = f"RANDOM weights (seed {RANDOM_SEED}): an untrained network, for tests and demonstrations only"


class ImageEncoder(nn.Module):
    """A network cut at one layer, always in eval mode. Called, it never keeps gradients; `encode` may (`tune_from`).

    Attributes:
        name: the encoder's name, e.g. "vgg16".
        layer: the layer that is read, by the name that the user gave.
        image_size: `S`.
        regions: `R`; 1 for a layer that describes the whole image.
        channels: `C`.
        preparation: what happens to an image before the network.
        preprocessing: the same, ready for JSON.
        weights: what was asked for: "imagenet", "random", a file …; set by `build_image_encoder`.
        weights_origin: where the weights come from, one sentence to print.
        code: of an encoder from outside the package, where its code comes from; else "".
        weights_sha256: digest of the values of the parameters that are used, in float32.
        precision: how it computes; `with_precision` makes another.
        boxed: whether an image has boxes, of any number up to `R`: `images` says how many, and where they lie.
        range_from_images: the range of pixels of more than 8 bits is still to be found, on the images of a table.
    """

    weights: str = ""
    code: str = ""
    precision: Precision = Precision()
    range_from_images: bool = False
    mean_311: Tensor
    std_311: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        layer: str,
        preparation: Preparation,
        weights_origin: str,
        read_output: Callable[[Any], Tensor],
        shape: tuple[int, int] | None = None,
        read_boxes: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Wrap a network that takes normalised images `[B, 3, S, S]`.

        `read_output` takes from what it returns one tensor, which may be
        a map `[B, C, H, W]` (or `[B, H, W, C]`), tokens `[B, R, C]` or a vector `[B, C]`.
        `shape` is `(R, C)` where a run without data cannot tell it (a detector, numpy code).
        `read_boxes` takes from what a detector returns how many regions of each image are real (int64 `[B]`, at least
        1, the first ones), and where they lie as shares of the prepared image's side (`[B, R, 4]`).

        Raises:
            InputError: when the network cannot take images of this size or returns something else.
        """
        super().__init__()
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.read_output, self.read_boxes = read_output, read_boxes
        self.boxed = read_boxes is not None
        self.name, self.layer, self.image_size = name, layer, preparation.size
        self.preparation, self.preprocessing = preparation, preparation.as_json()
        self.weights_origin = weights_origin
        self.weights_sha256 = weights_sha256(network)
        self.register_buffer("mean_311", torch.tensor(preparation.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_311", torch.tensor(preparation.std).view(3, 1, 1), persistent=False)
        self.regions, self.channels = shape or self._output_shape()

    def _output_shape(self) -> tuple[int, int]:
        """(R, C), found by a run on no data."""
        state = on_meta(self.network)
        image = torch.empty(1, 3, self.image_size, self.image_size, device="meta")
        try:
            output = as_regions(self.read_output(torch.func.functional_call(self.network, state, (image,))))
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise InputError(
                f"{self.name} up to {self.layer!r} cannot take images of {self.image_size} px "
                f"or gives no map, tokens or vector: {str(error).splitlines()[0]}"
            ) from None
        return output.shape[1], output.shape[2]

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Stay in eval mode, whatever the parent module is set to: features must not depend on dropout."""
        return super().train(False)

    def decode_as(self, decoding: Decoding) -> None:
        """Decode images this way from now on, and state it."""
        self.range_from_images = False
        self.preparation = replace(self.preparation, decoding=decoding)
        kept = {key: value for key, value in self.preprocessing.items() if key not in STATED}
        self.preprocessing = kept | decoding.as_json()

    def load(self, file: ImageFile) -> DecodedImage:
        """Read one image as this encoder takes it; raises InputError that names the file."""
        return load_image(file, self.preparation)

    def load_image(self, file: ImageFile) -> Tensor:
        """Read one image: uint8 `[3, S, S]`; raises InputError that names the file."""
        return self.load(file).pixels_3SS

    def normalise(self, image_B3SS: Tensor) -> Tensor:
        """Pixels 0 to 255 (uint8 `[B, 3, S, S]`) as the network wants them: float32 `[B, 3, S, S]`."""
        if image_B3SS.dtype != torch.uint8:
            raise TypeError(f"an image encoder takes uint8 pixels, not {image_B3SS.dtype}")
        if self.preparation.colours == "BGR":
            image_B3SS = image_B3SS.flip(1)
        pixels = image_B3SS.to(self.mean_311.dtype, memory_format=torch.channels_last)
        return pixels.div_(self.preparation.divisor).sub_(self.mean_311).div_(self.std_311)

    @torch.inference_mode()
    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Encode images (uint8 `[B, 3, S, S]`, on the encoder's device): float32 `[B, R, C]`."""
        return self.encode(image_B3SS)

    @torch.inference_mode()
    def images(self, image_B3SS: Tensor, size_B2: Tensor) -> Image:
        """The same, and where there are boxes which regions are real and where on the whole image they lie.

        Args:
            size_B2: width and height of each whole image (`DecodedImage.size`).
        """
        if self.read_boxes is None:
            return Image(self(image_B3SS))
        output = self._output(image_B3SS)
        regions_BRC = as_regions(self.read_output(output)).float()
        count_B, box_BR4 = self.read_boxes(output)
        mask_BR = torch.arange(self.regions, device=count_B.device) < count_B[:, None]
        box_BR4 = self.preparation.on_image(box_BR4, size_B2).masked_fill(~mask_BR[:, :, None], 0)
        return Image(regions_BRC, None, mask_BR, box_BR4)

    def encode(self, image_B3SS: Tensor) -> Tensor:
        """The same as calling it, in the caller's mode, so that what `tune_from` chose gets gradients."""
        return as_regions(self.read_output(self._output(image_B3SS))).float()

    def _output(self, image_B3SS: Tensor) -> Any:
        """What the network returns."""
        pixels = self.normalise(image_B3SS)
        return self.network(pixels.to(self.precision.dtype, memory_format=self.precision.memory_format))

    def tune_from(self, part: str) -> None:
        """Let the parameters of one part of the network, and of all parts after it, be trained.

        Args:
            part: the name of a module, such as "features.9", or "all". Parts follow each other in the order in which
                the network lists them, from the image to the output.

        Raises:
            InputError: when the network has no such part with parameters.
        """
        named = list(self.network.named_parameters())
        first = 0
        if part != EVERYTHING:
            inside = [place for place, (name, _) in enumerate(named) if name == part or name.startswith(f"{part}.")]
            if not inside:
                words = [name.split(".") for name, _ in named]
                parts = dict.fromkeys(".".join(some[:count]) for some in words for count in range(1, len(some)))
                wrong = unknown_name(f"part of {self.name} to tune from", part, [EVERYTHING, *parts])
                raise InputError(f"features.tune_from: {wrong}")
            first = inside[0]
        for _, parameter in named[first:]:
            parameter.requires_grad_(True)

    def with_precision(self, precision: Precision) -> "ImageEncoder":
        """The same encoder computing in another way; this one stays as it is.

        Raises:
            ValueError: when this one does not hold its weights in float32 any more.
        """
        if precision == self.precision:
            return self
        if self.precision.dtype != torch.float32 or self.precision.compiled:
            raise ValueError(f"{self.precision} cannot become {precision}: start from float32, not compiled")
        other = copy.copy(self)
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        network = copy.deepcopy(self.network).eval()  # a copied torch.fx graph is in training mode, dropout and all
        network = network.to(precision.dtype).to(memory_format=precision.memory_format)
        # one size of batch: a compiler that allows for others may compute otherwise from one size to the next
        other.network = cast(nn.Module, torch.compile(network, dynamic=False)) if precision.compiled else network
        other.precision = precision
        return other

    def attributes(self) -> dict[str, Any]:
        """What a feature cache states about its encoder."""
        code = {"code": self.code} if self.code else {}
        return code | {
            "encoder": self.name,
            "layer": self.layer,
            "image_size": self.image_size,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "weights_origin": self.weights_origin,
            "preprocessing": self.preprocessing,
        }


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms at the first batch of a shape, and keep to the fastest; nothing on a CPU.

    For many batches of one shape. Which algorithm is the fastest may change from one run to the next, and with it the
    last digits.
    """
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def as_regions(output: Tensor) -> Tensor:
    """A layer's output as regions `[B, R, C]`; a map of a square image is square, which tells where its channels are.

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


def on_meta(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer without its data, for a run that only finds shapes."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return {key: value.to("meta") for key, value in named}
