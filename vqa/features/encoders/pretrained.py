"""What text and vision encoders out of transformers have in common: the configuration that says what a model is."""

from pathlib import Path
from typing import Any

from vqa.errors import InputError, first_line

ELSEWHERE = "Without a network, fetch the model elsewhere and give its folder: hf:/path/to/folder"


def read_config(name: str, source: str | Path) -> Any:
    """The model's config.json, as transformers has it.

    Args:
        name: "hf:NAME_OR_PATH", for messages.
        source: a folder, or a name on the Hugging Face Hub.

    Raises:
        InputError: it cannot be had, or is of no model that transformers knows.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{name}: the model's config.json cannot be had: {first_line(error)}\n{ELSEWHERE}") from None
