"""A pretrained language model that runs inside a fusion, on word vectors that may not be words.

The fusion is given the model of the question encoder (`hf:NAME` with `words: embeddings`), and says what of it is
tuned: nothing, its last layers, or all of it. What stays as it is belongs to no checkpoint of the run; gradients pass
through it to what lies before it.

Legend: `B` batch, `T` tokens, `D` width of the model, `E` width of its word embeddings.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.question_encoders.pretrained import TextTransformer

Change = Callable[[Tensor], Tensor]  # of hidden states [B, T, D]
NO_CHANGES: Mapping[int, Change] = MappingProxyType({})


class LanguageModel(nn.Module):
    """A language model inside a fusion: frozen, its last layers tuned, or all of it.

    Args:
        transformer: the model; what of it is tuned changes in place.
        tuned: False: nothing; a number: so many of its last layers (a norm behind them stays as it is); True: all of
            it. What is frozen has its dropout off.

    Attributes:
        width: of its last hidden states.
        embedding_dim: of its word embeddings.
        causal: whether a token sees only itself and those before it.
        most: how many tokens it has positions for; None where nothing says.

    Raises:
        InputError: it takes tokens and no vectors, or it has not so many layers that can be found.
    """

    def __init__(self, transformer: TextTransformer, tuned: bool | int) -> None:
        super().__init__()
        model = transformer.model
        known = inspect.signature(model.forward).parameters
        if "inputs_embeds" not in known:
            raise InputError(
                f"{type(model).__name__} takes tokens alone, so no fusion can run it; choose another model"
            )
        self.width, self.causal = transformer.width, transformer.causal
        self.embedding_dim: int = transformer.embedding.embedding_dim
        self.most: int | None = getattr(model.config, "max_position_embeddings", None)
        self._keeps_cache = self.causal and "use_cache" in known
        # in a list it is no submodule: not saved, not trained, not counted
        self._whole = [transformer.requires_grad_(False).eval()]
        if tuned is True:
            transformer.drop_pooler()  # nothing would train it
            self.transformer = transformer.requires_grad_(True)
        elif tuned:
            if tuned > self.depth:
                raise InputError(f"fusion: tuned: {tuned}: {type(model).__name__} has {self.depth} layers")
            self.last_layers = nn.ModuleList(find_layers(model)[-tuned:]).requires_grad_(True)

    def _apply(self, fn: Any, recurse: bool = True) -> "LanguageModel":
        """Devices and types change for what is frozen, too; what is tuned is a part of the whole."""
        self.whole._apply(fn, recurse)
        return self

    @property
    def whole(self) -> TextTransformer:
        """The model itself, what is tuned and what is not."""
        return self._whole[0]

    @property
    def depth(self) -> int:
        """How many layers it has; raises InputError where they cannot be found."""
        return len(find_layers(self.whole.model))

    @property
    def frozen(self) -> list[nn.Parameter]:
        """What stays as it is."""
        return [parameter for parameter in self.whole.parameters() if not parameter.requires_grad]

    @torch.compiler.disable  # the model's code is not ours, and hooks come and go
    def forward(
        self, words_BTE: Tensor, mask_BT: Tensor | None = None, before: Mapping[int, Change] = NO_CHANGES
    ) -> Tensor:
        """The last hidden states `[B, T, D]`.

        The host waits once: of a causal model that counts positions (GPT-2, Llama and Qwen, not OPT) transformers looks
        whether a row holds several texts (`masking_utils.find_packed_sequence_indices`), of another one whether the
        mask masks anything.

        Args:
            words_BTE: one vector a token.
            mask_BT: bool, True on real tokens. A causal model needs none for tokens that are padded behind.
            before: what is done to the hidden states in front of a layer, by the layer's number.

        Raises:
            InputError: more tokens than the model has positions for.
        """
        if self.most is not None and words_BTE.shape[1] > self.most:
            raise InputError(
                f"{words_BTE.shape[1]:,} tokens, regions included, are more than the {self.most:,} that the language "
                f"model has positions for; take fewer regions or a model of longer texts"
            )
        model = self.whole.model
        attended = None if mask_BT is None or mask_BT.is_meta else mask_BT.to(torch.int64)
        # on the meta device there is nothing to look at, and with a cache of keys and values none looks
        options = {"use_cache": words_BTE.is_meta} if self._keeps_cache else {}
        handles = [
            find_layers(model)[place].register_forward_pre_hook(partial(_change, change), with_kwargs=True)
            for place, change in before.items()
        ]
        try:
            output: Any = model(inputs_embeds=words_BTE, attention_mask=attended, **options)
        finally:
            for handle in handles:  # the model may be another run's, too
                handle.remove()
        states_BTD: Tensor = output.last_hidden_state
        return states_BTD


def _change(change: Change, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hidden states are a layer's first argument, by place or by name."""
    if args:
        return (change(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Of the language models inside a model, what stays as it is; `model.parameters()` has none of it."""
    return [one for module in model.modules() if isinstance(module, LanguageModel) for one in module.frozen]


def find_layers(model: Any) -> nn.ModuleList:
    """The layers of a transformers model: the outermost list of as many modules as its configuration says.

    Raises:
        InputError: there is none.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"{type(model).__name__}: its layers cannot be found, to tune some of them or to look in between")


def last_real(values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The vector of each row's last real token, `[B, D]`, where padding is behind."""
    last_B = mask_BT.sum(dim=1) - 1
    return values_BTD[torch.arange(len(values_BTD), device=last_B.device), last_B]
