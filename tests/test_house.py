"""The rules of the house that no linter knows: sizes, private names in tests, what is called and imported, signals."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import pytest
from helpers.recipes import ABLATION_FILES, EXPERIMENT_FILES
from helpers.training import PROJECT

MODULES = 15  # in one folder; of more nobody knows which to open
TABLES = {"vqa/data/formats", "vqa/models/fusions", "vqa/models/question_encoders"}  # one file a format or paper
FILE_LINES = 420  # a file is read in one sitting
FUNCTION_LINES = 70  # a function and its docstring are seen at once, on one tall screen
PARAMETERS = 10  # beyond that callers confuse them; a small frozen record of options takes their place
TRACKERS = {"wandb", "trackio", "tensorboard"}
TRACKING = "vqa/training/tracking/"
PLAIN_PICKLE = "vqa/data/pickles.py"  # reads another project's pickles, and refuses all code

# Private by their name, but promised by whom they belong to.
PROMISED = {"_asdict", "_exit", "_fields", "_make", "_replace"}
NOT_OURS = {
    "_process_input": "torchvision's vision transformer",
    "_VF": "torch's recurrent layers, which have no fake form",
    "_lazy_init": "torch's look for a driver",
    **dict.fromkeys(("_C", "_only_lift_cpu_tensors", "_set_only_lift_cpu_tensors"), "torch.tensor's way to a device"),
}


@cache
def sources(folder: str) -> dict[str, ast.Module]:
    """Every Python file below a folder of the project, parsed, by its path within the project."""
    paths = sorted((PROJECT / folder).rglob("*.py"))
    assert paths
    return {path.relative_to(PROJECT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_no_folder_is_a_drawer() -> None:
    modules: dict[str, int] = {}
    for path in sources("vqa"):
        folder, name = path.rsplit("/", 1)
        modules[folder] = modules.get(folder, 0) + (name != "__init__.py")
    assert {folder: count for folder, count in modules.items() if count > MODULES and folder not in TABLES} == {}


def test_no_file_is_longer_than_a_sitting() -> None:
    lines = {path: (PROJECT / path).read_text(encoding="utf-8").count("\n") for path in sources("vqa")}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller may give."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(parameter.arg not in ("self", "cls") for parameter in every)


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether typer calls it with what the user types, every option a parameter."""
    return any(re.search(r"\.(command|callback)\(", ast.unparse(decorator)) for decorator in function.decorator_list)


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path}: {function.name}": lines_of(function)
        for path, module in sources("vqa").items()
        for function in functions(module)
    }
    assert {name: count for name, count in long.items() if count > FUNCTION_LINES} == {}


def test_no_function_takes_more_than_its_caller_can_remember() -> None:
    taken = {
        f"{path}: {function.name}": parameters_of(function)
        for path, module in sources("vqa").items()
        for function in functions(module)
        if not (path.startswith("vqa/cli/") and is_command(function))
    }
    assert {name: count for name, count in taken.items() if count > PARAMETERS} == {}


def foreign_code(module: ast.Module) -> list[str]:
    """Calls that run text as code, and readers of pickles, which run whatever code a file names."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            found += [f"class of {ast.unparse(base)}" for base in node.bases if ast.unparse(base).endswith("Unpickler")]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            name in ("eval", "exec")
            or re.search(r"\bpickle\.(load|loads|Unpickler)$", name)
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (re.fullmatch(r"(np|numpy)\.(load|save|savez)", name) and given.get("allow_pickle") != "False")
        ):
            found.append(name)
    return found


def test_no_text_is_run_and_no_pickle_is_read() -> None:
    assert {path: found for path, module in sources("vqa").items() if (found := foreign_code(module))} == {
        PLAIN_PICKLE: ["class of pickle.Unpickler"]
    }


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec(text)", "pickle.load(file)", "torch.load(path)", "torch.load(path, weights_only=False)",
        "np.load(path)", "np.savez(file, allow_pickle=True, a=a)", "class Reader(pickle.Unpickler): pass",
    ],
)  # fmt: skip
def test_a_reader_of_code_is_found(source: str) -> None:
    assert len(foreign_code(ast.parse(source))) == 1
    assert foreign_code(ast.parse("model.eval(); re.compile('a'); torch.load(path, weights_only=True)")) == []


def imported(module: ast.Module) -> set[str]:
    """The packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return names


def test_trackers_are_known_to_the_tracking_alone() -> None:
    for path, module in sources("vqa").items():
        known = {part for name in imported(module) if not name.startswith("vqa") for part in name.split(".")}
        assert path.startswith(TRACKING) or not known & TRACKERS, path


def private_names(module: ast.Module) -> list[str]:
    """Private names of others that a module imports, uses, or puts something else in the place of."""
    found = []
    for node in ast.walk(module):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [part for name in node.names if name.name.startswith("vqa.") for part in name.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vqa":
            names = [*node.module.split("."), *(name.name for name in node.names)]
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.Call) and re.search(r"(attr|patch|patch\.object|getter)$", ast.unparse(node.func)):
            texts = [text.value for text in node.args if isinstance(text, ast.Constant) and isinstance(text.value, str)]
            names = [part for text in texts for part in text.split(".")]
        found += [name for name in names if re.match(r"_[A-Za-z]", name) and name not in PROMISED | NOT_OURS.keys()]
    return found


def test_tests_use_public_names_only() -> None:
    """What a test takes from a private name, no change of the inside can keep; a fault is made from outside."""
    assert {path: names for path, module in sources("tests").items() if (names := private_names(module))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from vqa.demo import MODELS, _overrides", "from vqa.models._inner import part", "import vqa._inner",
        "steps = loop._steps", "run.folder._write()", 'monkeypatch.setattr(loop, "_validate", look)',
        'monkeypatch.setattr("vqa.data.synthetic.write._write_files", interrupted)', 'getattr(loop, "_steps")',
        'mock.patch.object(loop, "_steps")', 'mock.patch("vqa.demo._overrides")', 'monkeypatch.delattr(loop, "_a")',
    ],
)  # fmt: skip
def test_a_private_name_is_found(source: str) -> None:
    assert len(private_names(ast.parse(source))) == 1


def test_names_that_are_not_private_are_left() -> None:
    source = "self._a = row._replace(a=1); os._exit(0); from torch._x import y; module.__name__; logged['_step']"
    assert private_names(ast.parse(source)) == []


def test_signals_are_at_their_defaults_where_they_arrive_ignored() -> None:
    """As in `make test &` in a script, which ignores Ctrl-C."""
    program = (
        "import signal\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "import conftest\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT / "tests", check=True)


PAGES = ("README", "CONTRIBUTING", "features_cache/README", "experiments/RESULTS", "experiments/BENCHMARKS")
WORDS = {"picture": "image", "tower": "encoder", "by lot": "random", "drawn": "synthetic, random, sampled or plotted"}
SPOKEN = {  # where such a word is what somebody else says, or stands in files that are read for ever
    "vqa/data/formats/daquar.py": r'"picture"',  # an object that DAQUAR's questions ask about
    "vqa/data/synthetic/balance.py": r'"picture": "pitcure"',  # a misspelling of people
    "vqa/data/synthetic/questions.py": r"[Ii]n the picture",  # as people ask
    "vqa/data/synthetic/write.py": r'"pictures"|"Drawn shapes in the VQA format',  # bytes of data sets
    "vqa/evaluation/contamination.py": r'"picture"',  # a key in files of runs
    "vqa/features/cache/imports/__init__.py": r'"pictures"',  # a key in caches
}


def other_words(text: str) -> list[str]:
    """Words of which the field has another one, in the middle of names, too."""
    return re.findall(r"picture|tower|\bby lot\b|(?<![a-z])drawn", text.lower())


def test_the_words_are_those_of_the_field() -> None:
    """One word for one thing, in code, messages, help, docs and recipes."""
    pages = [PROJECT / f"{name}.md" for name in PAGES] + EXPERIMENT_FILES + ABLATION_FILES
    pages += [*(PROJECT / "docs").rglob("*.md"), *(PROJECT / "vqa").rglob("*.py")]
    found = {}
    for path in pages:
        name = path.relative_to(PROJECT).as_posix()
        text = path.read_text(encoding="utf-8")
        words = other_words(re.sub(SPOKEN[name], "", text) if name in SPOKEN else text)
        if words:
            found[name] = {word: WORDS[word] for word in words}
    assert found == {}


def test_a_word_of_another_field_is_found() -> None:
    assert other_words("PictureTable, two_towers: drawn by lot") == ["picture", "tower", "drawn", "by lot"]
    assert other_words("withdrawn, draws, drawing") == []


EXTRAS = {"scikit-image": "skimage", "scikit-learn": "sklearn", "pillow": "PIL", "PyYAML": "yaml"}  # named otherwise
# protobuf, for the classes of W&B's own files; the Hub's own client
BROUGHT = {"google": "wandb", "huggingface_hub": "transformers", "tokenizers": "transformers"}


def declared() -> set[str]:
    """The packages of requirements.txt and of the extras that users install, as they are imported."""
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines += [line for name, group in extras.items() if name != "dev" for line in group]
    return {EXTRAS.get(name, name) for line in lines if (name := re.split(r"[^\w.-]", line)[0])}


def test_every_library_that_is_imported_is_declared() -> None:
    used: dict[str, str] = {}
    for path, module in sources("vqa").items():
        used |= {name.partition(".")[0]: path for node in ast.walk(module) for name in absolute_imports(node)}
    known = declared() | set(sys.stdlib_module_names) | {"vqa"}
    assert {name: path for name, path in used.items() if BROUGHT.get(name, name) not in known} == {}


def absolute_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_what_is_installed_satisfies_the_floors() -> None:
    for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, floor = line.partition(">=")
            installed, least = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (version(name), floor))
            assert installed >= least, line
