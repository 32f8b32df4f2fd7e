"""An encoder's parameters: read from a file, checked against the network, and named by a digest."""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vqa.errors import InputError, first_line

COUNTERS = "num_batches_tracked"  # batch normalisation counts steps; inference never reads it
# DenseNet's published files are older than the network's present parameter names ("norm.1" is now "norm1").
OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:\w+))$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or a PyTorch file (never unpickling code).

    A dict nested under "state_dict" or "model" is taken out, and the "module." that `DataParallel` puts in front of
    every key is removed.

    Raises:
        InputError: when the file is missing, damaged, or holds something other than named tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own message advises to run the file's code
        raise InputError(
            f"{path}: cannot be read as weights: damaged, or it holds more than tensors, and code is never run; take a "
            ".safetensors file, or one that holds a state dict"
        ) from None
    except Exception as error:  # torch raises almost anything for what is no file of weights
        reason = first_line(error)
        raise InputError(f"{path}: cannot be read as weights (damaged, or not a state dict): {reason}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: holds no state dict (names with tensors)")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return {OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in content.items()}


def load_weights(used: nn.Module, weights: Mapping[str, Tensor], known: Iterable[str], path: Path) -> None:
    """Copy `weights` into `used`, the part of a network that is computed.

    Keys of the network's other parts (`known`: every key of the whole network) may be missing or present.

    Raises:
        InputError: for a key that the network does not have, that is missing, or whose shape is wrong; the message
            names the file and the key.
    """
    known = set(known)
    needed = {key: value for key, value in used.state_dict().items() if key in known}
    unexpected = [key for key in weights if key not in known]
    if unexpected:
        raise InputError(f"{path}: {_first(unexpected)} not in this network; is it another architecture's file?")
    missing = [key for key in needed if key not in weights and not key.endswith(COUNTERS)]
    if missing:
        raise InputError(f"{path}: {_first(missing)} missing, and the layer that was asked for needs it")
    for key, value in needed.items():
        if key in weights and weights[key].shape != value.shape:
            raise InputError(
                f"{path}: {key!r} has shape {tuple(weights[key].shape)}, the network needs {tuple(value.shape)}"
            )
    used.load_state_dict({key: weights[key] for key in needed if key in weights}, strict=False)


def _first(keys: list[str]) -> str:
    """ "'a' is", or "'a' and 3 more keys are"."""
    return f"{keys[0]!r} is" if len(keys) == 1 else f"{keys[0]!r} and {len(keys) - 1} more keys are"


def weights_sha256(module: nn.Module) -> str:
    """A digest of the parameter and buffer values of `module`, however they came there: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if key.endswith(COUNTERS):
            continue
        flat = value.detach().cpu().contiguous()
        digest.update(f"{key} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
