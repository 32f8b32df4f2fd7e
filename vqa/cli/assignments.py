"""`--key.path=value` beside `key.path=value`, as agents of hyperparameter sweeps and many people call a command."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typer.core import TyperCommand

from vqa.errors import InputError, near_names

KEY = re.compile(r"--([A-Za-z_]\w*(?:\.\w+)*)(?:=(.*))?", re.DOTALL)


class OverridingCommand(TyperCommand):
    """A command that takes keys of an experiment as options, too: `--fusion.hops=2`, or `--fusion.hops 2`.

    They become the arguments `fusion.hops=2`. A name without a dot is a key where an experiment or an ablation has it
    (`--seed=1`) and the command has no option of that name. Everything else is left to the parser, which refuses it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite the keys among the words of the command line, then parse them."""
        return super().parse_args(ctx, list(_rewritten(args, self.get_params(ctx))))


def _rewritten(args: Sequence[str], options: Iterable[Any]) -> Iterator[str]:
    """The words of a command line, keys of the experiment as arguments, and none of them before the file."""
    own = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
    words, early, begun = iter(args), list[str](), False
    for word in words:
        name, equals, _ = word.partition("=")
        found = KEY.fullmatch(word)
        if word == "--":
            yield from [*early, word, *words]
            return
        if word.startswith("-") and name in own:
            yield word
            option = own[name]
            if not equals and not option.is_flag:
                yield from _next(words)
        elif found and _is_key(found[1]):
            value = found[2] if equals else next(words, None)
            if value is None:
                raise InputError(f"{word}: needs a value, as in {word}=2")
            if begun:
                yield f"{found[1]}={value}"
            else:  # the file comes first
                early.append(f"{found[1]}={value}")
        elif word.startswith("-"):
            if found:
                _refuse_short_form(name, own)
            yield word
        else:
            yield word
            yield from early
            early, begun = [], True
    yield from early


def _next(words: Iterator[str]) -> Iterator[str]:
    """The next word, if there is one."""
    yield from (word for word in [next(words, None)] if word is not None)


def _refuse_short_form(name: str, own: Iterable[str]) -> None:
    """Raise InputError where a word is the last part of a key, and near no option: `--epochs`."""
    from vqa.experiment import keys_of  # not for --help

    meant = [key for key in keys_of() if key.rpartition(".")[2] == name.lstrip("-").replace("-", "_")]
    if meant and not near_names(name, own):
        raise InputError(f"no such option: {name} (did you mean {' or '.join(f'--{key}' for key in meant)}?)")


def _is_key(name: str) -> bool:
    """Whether a name may be a key of an experiment, or the cell of an ablation."""
    if "." in name:
        return True
    from vqa.experiment import Experiment  # not for --help

    return name in Experiment.model_fields or name == "cell"
