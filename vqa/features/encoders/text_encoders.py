"""Question encoders out of transformers: a language model, or a text encoder, with its own tokenizer."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqa.errors import InputError, first_line
from vqa.features.encoders.pretrained import ELSEWHERE, read_config
from vqa.features.encoders.weights import weights_sha256
from vqa.models.question_encoders import HUB
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.progress import console

NO_LIMIT = 1 << 20  # tokenizers that know of no longest question state a number far above


@dataclass(frozen=True)
class TextEncoder:
    """A pretrained model and what turns questions into its tokens.

    Attributes:
        name: "hf:NAME_OR_PATH".
        transformer: in eval mode, float32.
        config: the configuration that `transformer` was built from.
        tokenizer: the tokenizer of transformers.
        longest: tokens that the model takes, special ones included.
        weights_sha256: digest of all weights as they were read; "" where they were not.
        tokenizer_sha256: digest of what the tokenizer does.
    """

    name: str
    transformer: TextTransformer
    config: Any
    tokenizer: Any
    longest: int
    weights_sha256: str
    tokenizer_sha256: str

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, question: str) -> list[int]:
        """The question as integers, special tokens included."""
        return self.encode_all([question])[0]

    def encode_all(self, questions: Sequence[str]) -> list[list[int]]:
        """Many questions as integers; those longer than the model takes are cut, and how many is printed."""
        if not questions:
            return []
        encoded: list[list[int]] = self.tokenizer(list(questions), verbose=False)["input_ids"]
        long = [row for row, tokens in enumerate(encoded) if len(tokens) > self.longest]
        for row in long:
            encoded[row] = self.tokenizer(questions[row], truncation=True, max_length=self.longest)["input_ids"]
        if long:
            console.print(
                f"note: {len(long):,} of {len(questions):,} questions are longer than the {self.longest} tokens that "
                f"{self.name} takes; they are cut there",
            )
        return [tokens or [self.transformer.padding] for tokens in encoded]

    def unknown(self, question: str) -> tuple[str, ...]:
        """None: a pretrained model's vocabulary does not follow from the training questions."""
        return ()

    def recorded(self) -> dict[str, Any]:
        """What the run folder says of it."""
        import transformers

        return {
            "weights_sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "longest": self.longest,
            "transformers": transformers.__version__,
        }

    def save_files(self, folder: Path) -> None:
        """Write configuration and tokenizer, without weights, for `hf_text_encoder`; what was there before goes."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as part:
            self.config.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            if folder.exists():
                shutil.rmtree(folder)
            shutil.copytree(part, folder)


def hf_text_encoder(name: str, *, files: Path | None = None, weights: bool = True) -> TextEncoder:
    """Load a pretrained model with its tokenizer.

    Args:
        name: "hf:NAME_OR_PATH": a folder in the form in which transformers saves, or a name on the Hugging Face Hub.
        files: a folder that configuration and tokenizer are read from instead.
        weights: read them; otherwise the model has random ones, and the caller loads others.

    Raises:
        InputError: when model or tokenizer cannot be had, the weights lack some, or it is no model of text.
    """
    source = name.removeprefix(HUB)
    config = _read_config(name, files or source)
    tokenizer = _read_tokenizer(name, files or source)
    digest = _tokenizer_digest(tokenizer)
    model = _pretrained(name, source, config) if weights else _random(name, config)
    model = _encoder_of(model).eval()
    _require_same_tokens(name, tokenizer, model)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    transformer = _as_text(name, model, padding or 0, _is_causal(config))
    return TextEncoder(
        name=name,
        transformer=transformer,
        config=config,
        tokenizer=tokenizer,
        longest=longest_text(config, tokenizer, model),
        weights_sha256=weights_sha256(transformer) if weights else "",
        tokenizer_sha256=digest,
    )


def transformer_without_weights(name: str) -> TextTransformer:
    """The model's shape alone, on the meta device; needs its config.json and nothing else.

    Raises:
        InputError: when that cannot be had, or is of no model of text.
    """
    config = _read_config(name, name.removeprefix(HUB))
    with torch.device("meta"):
        return _as_text(name, _encoder_of(_model_class(name, config)(config)), 0, _is_causal(config))


def question_lengths(name: str, questions: Sequence[str]) -> list[int]:
    """How many tokens each question has; needs the tokenizer of "hf:NAME_OR_PATH" and no weights."""
    tokenizer = _read_tokenizer(name, name.removeprefix(HUB))
    return [len(tokens) for tokens in tokenizer(list(questions), verbose=False)["input_ids"]]


def _as_text(name: str, model: nn.Module, padding: int, causal: bool) -> TextTransformer:
    try:
        return TextTransformer(model, padding, causal)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise InputError(f"{name}: not a model of text: {first_line(error)}") from None


def _read_config(name: str, source: str | Path) -> Any:
    """The configuration of the model, or of its text part."""
    config = read_config(name, source)
    return getattr(config, "text_config", config)


def _read_tokenizer(name: str, source: str | Path) -> Any:
    from transformers import AutoTokenizer

    wrong = "only special tokens are there"  # what transformers makes up where there are no files
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if not set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            return tokenizer
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        wrong = first_line(error)
    raise InputError(
        f"{name}: the tokenizer cannot be had: {wrong}\n"
        f"The folder needs tokenizer.json and tokenizer_config.json, as tokenizer.save_pretrained writes them."
    )


def _model_class(name: str, config: Any) -> Any:
    """What transformers reads such a model's text part with."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    for table in (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING):
        if type(config) in table:
            return table[type(config)]
    raise InputError(f"{name}: not a model of text that transformers knows: {type(config).__name__}")


def _pretrained(name: str, source: str, config: Any) -> nn.Module:
    """The model with its own weights, every one of them read; a pooler that was never trained is taken away."""
    try:
        model, info = _model_class(name, config).from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # a damaged file raises almost anything
        raise InputError(f"{name}: the weights cannot be had: {first_line(error)}\n{ELSEWHERE}") from None
    missing = sorted(info["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):
        model.pooler = None
        missing = []
    if missing:
        raise InputError(f"{name}: the weights lack {missing[0]!r} and {len(missing) - 1} more of the model")
    return model


def _random(name: str, config: Any) -> nn.Module:
    """The model with random weights; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return _model_class(name, config)(config).float()


def _encoder_of(model: nn.Module) -> Any:
    """The part of an encoder-decoder model that reads; others as they are."""
    config: Any = model.config
    whole = config.is_encoder_decoder or type(model).__name__.endswith("EncoderModel")
    return model.get_encoder() if whole else model  # type: ignore[operator]


def _is_causal(config: Any) -> bool:
    """Whether such a model writes text from left to right, and does nothing else."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    writes = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    one_way = getattr(config, "is_causal", True) and getattr(config, "attn_type", "uni") == "uni"  # XLNet looks ahead
    return bool(writes and one_way) and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def _require_same_tokens(name: str, tokenizer: Any, model: Any) -> None:
    """Raise InputError when the tokenizer has numbers that the model does not."""
    table = model.get_input_embeddings()
    largest = max(tokenizer.get_vocab().values())
    if isinstance(table, nn.Embedding) and largest >= table.num_embeddings:
        raise InputError(
            f"{name}: the tokenizer counts to {largest}, the model to {table.num_embeddings - 1}: they are not of the "
            f"same model"
        )


def longest_text(config: Any, tokenizer: Any, model: nn.Module) -> int:
    """How many tokens the tokenizer and the table of positions allow; `NO_LIMIT` where neither says."""
    limits = [limit for limit in (tokenizer.model_max_length,) if limit < NO_LIMIT]
    for key, table in model.named_modules():
        if key.endswith(("position_embeddings", "position_embedding", "wpe")) and isinstance(table, nn.Embedding):
            # RoBERTa and its kin count positions from behind the padding token's number on
            limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    positions = getattr(config, "max_position_embeddings", None)
    return int(min([*limits, positions] if isinstance(positions, int) else [*limits, NO_LIMIT]))


def _tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of what the tokenizer does; its state of truncation and padding left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        content = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()
