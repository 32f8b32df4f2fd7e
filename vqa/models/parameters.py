"""A model's parameters by the part that they belong to, and what their biases begin with.

Legend: `H` width of a recurrent layer.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vqa.errors import InputError, unknown_name
from vqa.models.question_encoders.pretrained import TextTransformer

BEGUN = ("question_encoder", "fusion", "classifier")  # an image encoder begins from trained weights
GATES = {nn.LSTM: (True, True, False, True), nn.GRU: (True, True, False)}  # in torch's order; False: the candidate


def parameters_by_part(named: Mapping[str, nn.Parameter], parts: Collection[str], key: str) -> dict[str, list[str]]:
    """Each parameter's name under the part that it belongs to, the longest that fits; "" holds what no part names.

    Args:
        named: all parameters, by their names in the saved weights.
        parts: names, or the beginnings of names up to a dot.
        key: of the experiment file, for the message.

    Raises:
        InputError: a part that the model does not have.
    """
    prefixes = [name.split(".") for name in named]
    known = {".".join(words[:count]) for words in prefixes for count in range(1, len(words) + 1)}
    for part in parts:
        if part not in known:
            shown = sorted(name for name in known if name.count(".") < 2)
            raise InputError(f"{key}: {unknown_name('part of the model', part, shown)}")
    members: dict[str, list[str]] = {"": [], **{part: [] for part in parts}}
    for name in named:
        fitting = [part for part in parts if name == part or name.startswith(f"{part}.")]
        members[max(fitting, key=len, default="")].append(name)
    return members


@torch.no_grad()
def initialise_biases(model: nn.Module, values: Mapping[str, float]) -> None:
    """Set the biases of parts of a model: all to the part's number, but those of an LSTM or a GRU by gate.

    torch adds up two biases, so the number stands in the first and the second is 0: their sum is the part's number for
    the gates (an LSTM's input, forget and output gate, a GRU's reset and update gate), and 0 for the candidate.
    A pretrained question encoder's biases stay as they are.

    Args:
        values: the number of each part, named as in the saved weights.

    Raises:
        InputError: a part that the model does not have, or one without a bias.
    """
    key = "training.initial_bias"
    kept = {id(p) for module in model.modules() if isinstance(module, TextTransformer) for p in module.parameters()}
    named = {name: p for name, p in model.named_parameters() if name.split(".")[0] in BEGUN and id(p) not in kept}
    gates = {name: GATES[type(module)] for name, module in model.named_modules() if type(module) in GATES}
    for part, names in parameters_by_part(named, values, key).items():
        biases = [name for name in names if name.rpartition(".")[2].startswith("bias")]
        if part and not biases:
            raise InputError(f"{key}: {part} has no bias of its own")
        for name in biases if part else ():
            owner, _, own = name.rpartition(".")
            if owner in gates:
                _set_gates(named[name], gates[owner], values[part] if own.startswith("bias_ih") else 0.0)
            else:
                named[name].fill_(values[part])


def _set_gates(bias: Tensor, gates: tuple[bool, ...], value: float) -> None:
    for gate_H, is_gate in zip(bias.chunk(len(gates)), gates, strict=True):
        gate_H.fill_(value if is_gate else 0.0)
