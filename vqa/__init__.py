"""vqa: train, ablate and evaluate visual question answering models on cached image features.

    import vqa

    run = vqa.load("experiments/runs/san/0")
    run.answer("kitchen.jpg", "what is on the table?").best

The names below are imported when they are first used, so that `import vqa` takes no time and needs no torch.
"""

TYPE_CHECKING = False  # typing's own costs more time than all of this file
if TYPE_CHECKING:
    from vqa.api import build_model, load, open_cache, read_dataset, score, train
    from vqa.errors import InputError
    from vqa.text.tokenize import tokenize

__version__ = "0.2.0"
__all__ = ["InputError", "build_model", "load", "open_cache", "read_dataset", "score", "tokenize", "train"]

PUBLIC = {  # name to module
    "build_model": "vqa.api",
    "load": "vqa.api",
    "open_cache": "vqa.api",
    "read_dataset": "vqa.api",
    "score": "vqa.api",
    "train": "vqa.api",
    "InputError": "vqa.errors",
    "tokenize": "vqa.text.tokenize",
}

if not TYPE_CHECKING:  # else a type checker would take every name for one of these

    def __getattr__(name: str) -> object:
        if name not in PUBLIC:
            raise AttributeError(f"module 'vqa' has no attribute {name!r}; its public names: {', '.join(__all__)}")
        from importlib import import_module

        return getattr(import_module(PUBLIC[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
