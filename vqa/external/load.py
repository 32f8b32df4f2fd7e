"""A model of transformers by name or folder, with what makes its answers repeatable."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from vqa.errors import InputError
from vqa.external.classification import ClassificationModel
from vqa.external.contracts import PLACE, ExternalModel, Settings
from vqa.external.generation import GenerativeModel
from vqa.files import sha256_file
from vqa.runtime.device import fastest_device

# What the published recipes ask with: LLaVA-1.5's words for chat models, BLIP-2's for models that complete a text.
CHAT_PROMPT = "{question}\nAnswer the question using a single word or phrase."
COMPLETION_PROMPT = "Question: {question} Short answer:"
QUESTION_ALONE = "{question}"  # models fine-tuned on questions: ViLT, BLIP-VQA, GIT
COMPLETING = ("blip-2", "instructblip")


def load_external(name: str, *, prompt: str | None, batch_size: int, max_new_tokens: int) -> ExternalModel:
    """Load a model and its processor from the hub's cache, the hub or a folder.

    It computes on CUDA in bfloat16 (float16 where the GPU has none), on a CPU in float32.

    Args:
        prompt: with `{question}` in it; None takes the one of the model's kind.

    Raises:
        InputError: when there is no such model, it does not answer questions about images, its weights are not all
            there, or the prompt has no place for the question.
    """
    if prompt is not None and PLACE not in prompt:
        raise InputError(f"--prompt {prompt!r} has no {PLACE}, so the model would not read the question")
    config, processor = _config(name), _processor(name)
    device = fastest_device()
    model = _model(name, config, _dtype(device)).to(device).eval()
    generates = callable(getattr(model, "generate", None)) and model.can_generate()
    settings = Settings(
        prompt=prompt or default_prompt(config.model_type, getattr(processor, "chat_template", None), generates),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        device=device,
        dtype=_dtype(device),
    )
    kind = GenerativeModel if generates else ClassificationModel
    return kind(name, revision(name, config), model, processor, settings)


def default_prompt(model_type: str, chat_template: Any, generates: bool) -> str:
    """The prompt of a model's kind, where the user gives none."""
    if generates and chat_template:
        return CHAT_PROMPT
    return COMPLETION_PROMPT if model_type in COMPLETING else QUESTION_ALONE


def revision(name: str, config: Any) -> str:
    """What tells one state of a model from another: the hub's commit, or SHA-256 over a folder's files."""
    folder = Path(name)
    if not folder.is_dir():
        return str(config._commit_hash)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _config(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no model of transformers, in a folder or on the hub: {_first(error)}") from None


def _processor(name: str) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: its processor cannot be loaded: {_first(error)}") from None
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise InputError(f"{name}: needs a processor of images and text, but has a {type(processor).__name__}")
    return processor


def _model(name: str, config: Any, dtype: torch.dtype) -> Any:
    """The model, with every weight from its files."""
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING,
        AutoModelForImageTextToText,
        AutoModelForVisualQuestionAnswering,
    )

    auto = None
    if type(config) in MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING:
        auto = AutoModelForVisualQuestionAnswering
    elif type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        auto = AutoModelForImageTextToText
    if auto is None:
        raise InputError(
            f"{name}: transformers has no class for visual question answering or image-text-to-text for model type "
            f"{config.model_type!r}; models such as vilt, blip, blip-2, git, llava, qwen2_vl, smolvlm have one"
        )
    try:
        model, loaded = auto.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except Exception as error:  # a damaged file raises almost anything
        raise InputError(f"{name}: its weights cannot be loaded: {_first(error)}") from None
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise InputError(
            f"{name}: is no {type(model).__name__}: {len(missing)} of its weights are not in the files (first "
            f"{missing[0]}), so its answers would be random; take a checkpoint trained to answer questions"
        )
    return model


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
