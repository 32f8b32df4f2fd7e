"""The public functions of `import vqa`; each imports what it needs when it is called.

What they raise for bad input is `vqa.InputError`, whose message names the file, the item and the right choices.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, overload

from vqa.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from vqa.data.dataset import QADataset, Strings
    from vqa.evaluation.accuracy import Score
    from vqa.features.cache.reader import FeatureCache
    from vqa.models import VQAModel
    from vqa.runs.answerer import Answer, Answerer

ImageInput = Union[str, PathLike[str], bytes, "Image", "np.ndarray[Any, Any]", "torch.Tensor"]
SIZES = ("vocab_size", "image_dim", "regions", "answers")
SECTIONS: dict[str, Any] = {"question_encoder": "lstm", "fusion": None, "classifier": {}}


def load(path: str | PathLike[str], *, weights: str | None = None, allow_code: bool = False) -> "Run":
    """Load a trained run, with the image encoder that its features came from.

    Args:
        path: the run folder, "experiments/runs/<name>/<seed>".
        weights: the image encoder's weights ("imagenet", "random" or a file) where the recorded ones cannot be found.
        allow_code: import code from outside vqa that the run's record names.

    Returns:
        The run, whose `answer` takes an image and a question.

    Raises:
        InputError: the folder is no run, its files do not belong together, or its encoder cannot be had.

    >>> import vqa
    >>> from vqa.testing import tiny_experiment
    >>> folder = vqa.train(tiny_experiment("tiny"))  # doctest: +ELLIPSIS
    tiny, seed 0
    ...
    >>> run = vqa.load(folder)
    >>> image = next(iter(vqa.read_dataset("vqa_v2", "tiny/data", "val").images.paths))
    >>> answer = run.answer(image, "is there a red circle?", choices=["yes", "no"])
    >>> sorted(text for text, probability in answer.best)
    ['no', 'yes']
    >>> [found.question for found in run.answer(image, ["is it red?", "how many circles are there?"])]
    ['is it red?', 'how many circles are there?']
    """
    from vqa.runs.answerer import Answerer

    return Run(Answerer.load(Path(path), weights=weights, allow_code=allow_code))


class Run:
    """A trained run that answers questions about images. Made by `vqa.load`."""

    def __init__(self, answerer: "Answerer") -> None:
        self._answerer = answerer

    def __repr__(self) -> str:
        return f"<vqa run {self.name}: {self.path}>"

    @property
    def name(self) -> str:
        """How tables call it: "san, seed 0"."""
        return self._answerer.run.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._answerer.run.folder.path

    @overload
    def answer(self, image: ImageInput, question: str, choices: Sequence[str] | None = None) -> "Answer": ...

    @overload
    def answer(
        self,
        image: ImageInput | list[ImageInput],
        question: list[str] | tuple[str, ...],
        choices: Sequence[str] | None = None,
    ) -> "list[Answer]": ...

    @overload
    def answer(
        self, image: list[ImageInput], question: str, choices: Sequence[str] | None = None
    ) -> "list[Answer]": ...

    def answer(
        self,
        image: ImageInput | list[ImageInput],
        question: str | list[str] | tuple[str, ...],
        choices: Sequence[str] | None = None,
    ) -> "Answer | list[Answer]":
        """Answer a question about an image, or several in one go.

        Args:
            image: a path, the bytes of a file, a Pillow image, or uint8 pixels `[H, W]` or `[H, W, 3]` (of a tensor
                also `[3, H, W]`); or a list of these.
            question: the question, or a list. One image or one question with a list of the other stands for them all.
            choices: choose among these instead of all answers that the run knows.

        Returns:
            The best answers with their probabilities (`best`), and where the model looked; a list for lists.

        Raises:
            InputError: an image cannot be read, no choice is an answer that the run knows, or the lists differ in
                length.
        """
        from vqa.features.encoders.preprocessing import as_file

        several = isinstance(image, list) or isinstance(question, list | tuple)
        images = [as_file(one) for one in (image if isinstance(image, list) else [image])]
        questions = [question] if isinstance(question, str) else list(question)
        count = max(len(images), len(questions)) if images and questions else 0
        images = images * count if len(images) == 1 else images
        questions = questions * count if len(questions) == 1 else questions
        if len(images) != len(questions):
            raise InputError(f"{len(images)} images and {len(questions)} questions: give one of either, or as many")
        answers = self._answerer.answer_all(images, questions, choices=choices)
        return answers if several else answers[0]


def read_dataset(
    format: str,
    root: str | PathLike[str],
    split: str,
    *,
    columns: Mapping[str, str | Sequence[str] | None] | None = None,
    where: Mapping[str, str | Sequence[str]] | None = None,
) -> "QADataset":
    """Read one split of a data set, as published.

    Args:
        format: how its files are laid out: "vqa_v2", "daquar", "table", …; a wrong one lists them all.
        root: the folder that they were unpacked into.
        split: "train", "val", "test", or the official name.
        columns: of a table: what is in which column, as in `{"image": "img_name"}`.
        where: of a table: only rows whose column has this text, as in `{"q_lang": "en"}`.

    Raises:
        InputError: an unknown name; or a file that is missing, damaged or contradicts another, with the item.

    >>> import vqa
    >>> from vqa.testing import tiny_experiment
    >>> experiment = tiny_experiment("tiny")  # makes tiny/data, a small synthetic data set
    >>> dataset = vqa.read_dataset("vqa_v2", "tiny/data", "val")
    >>> dataset.name, len(dataset.answers.row(0))
    ('vqa_v2 val2014', 10)
    >>> 80 < vqa.score(dataset, dataset.majority).overall <= 100
    True
    """
    from vqa.data.formats import read_dataset as read
    from vqa.data.formats.table import TableOptions

    return read(format, Path(root), split, TableOptions.of(columns, where))


def open_cache(path: str | PathLike[str]) -> "FeatureCache":
    """Open a cache of image features, the HDF5 file of `vqa features extract`.

    Raises:
        InputError: it is missing, truncated, or no feature cache.

    >>> import vqa
    >>> from vqa.testing import tiny_experiment
    >>> experiment = tiny_experiment("tiny")  # makes tiny/features.h5, of an encoder with random weights
    >>> cache = vqa.open_cache("tiny/features.h5")
    >>> cache.attributes["encoder"], cache.regions, cache.channels
    ('squeezenet1_1', 49, 128)
    >>> cache.read(cache.rows(cache.image_ids[:2])).shape
    torch.Size([2, 49, 128])
    """
    from vqa.features.cache.reader import FeatureCache

    return FeatureCache(Path(path))


def build_model(plan: Mapping[str, Any]) -> "VQAModel":
    """Build a model, weights as initialised.

    Args:
        plan: sections as in an experiment (`fusion`; `question_encoder` and `classifier` have the defaults of an
            experiment), each a mapping with `name` and options or a name alone; and the sizes of the data:
            `vocab_size` (tokens, padding and unknown included), `image_dim` (channels of a region), `regions` (an
            image) and `answers` (of the vocabulary).

    Raises:
        InputError: an unknown section, name or option, a wrong value, or a size that is missing.

    >>> import torch, vqa
    >>> from vqa.models import Image
    >>> model = vqa.build_model({
    ...     "fusion": {"name": "stacked_attention", "hops": 2}, "question_encoder": "gru",
    ...     "vocab_size": 100, "image_dim": 512, "regions": 49, "answers": 10,
    ... })
    >>> tokens_BT, length_B = torch.tensor([[5, 7, 2], [3, 4, 0]]), torch.tensor([3, 2])
    >>> predicted = model(Image(torch.rand(2, 49, 512)), tokens_BT, length_B)
    >>> predicted.logits_BA.shape, predicted.attention_BHR.shape
    (torch.Size([2, 10]), torch.Size([2, 2, 49]))
    """
    from vqa.models import build_model as build
    from vqa.models import is_pretrained
    from vqa.overrides import as_section

    known = (*SECTIONS, *SIZES)
    for key in plan:
        if key not in known:
            raise InputError(unknown_name("key of a model", str(key), known))
    missing = [key for key in known if plan.get(key, SECTIONS.get(key)) is None]
    if missing:
        raise InputError(f"a model needs {', '.join(missing)} besides {', '.join(map(str, plan)) or 'nothing'}")
    sections: dict[str, Any] = {key: as_section(plan.get(key, default)) for key, default in SECTIONS.items()}
    sizes: dict[str, Any] = {key: _size(key, plan[key]) for key in SIZES}
    transformer = None
    if isinstance(sections["question_encoder"], Mapping) and is_pretrained(sections["question_encoder"]):
        from vqa.features.encoders.text_encoders import hf_text_encoder

        transformer = hf_text_encoder(sections["question_encoder"]["name"]).transformer
    return build(**sections, **sizes, transformer=transformer)


def _size(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{key} must be int of at least 1, not {value!r}")
    return value


def score(
    references: "QADataset | Sequence[str] | Sequence[Sequence[str]]",
    answers: "Strings | Sequence[str]",
    protocol: Literal["2021", "2015", "harness"] = "2021",
) -> "Score":
    """Score answers by the official VQA accuracy, or by exact match where a question has one reference.

    Args:
        references: a data set whose answers are not hidden; or for each question what humans answered, a list of up to
            ten strings (or a single string).
        answers: one answer a question, in the same order.
        protocol: the official program's version, since or before commit a013f00, or the evaluation harnesses' rule
            (docs/metric.md).

    Returns:
        Accuracies: `overall` in percent, `accuracy_N` of each question from 0 to 1.

    Raises:
        InputError: other numbers of answers than of questions, no question, or what is no text.

    >>> import vqa
    >>> humans = [["yes"] * 8 + ["no"] * 2, ["two"] * 2 + ["2"] + ["three"] * 7]
    >>> scored = vqa.score(humans, ["yes", "2"])
    >>> scored.overall, scored.accuracy_N.round(2).tolist(), scored.protocol
    (95.0, [1.0, 0.9], '2021')
    >>> vqa.score(["a red bus", "Paris"], ["a red bus", "London"]).overall
    50.0
    """
    from vqa.data.dataset import QADataset, Strings
    from vqa.evaluation.accuracy import score as official_score

    dataset = references if isinstance(references, QADataset) else _as_dataset(references)
    if not isinstance(answers, Strings):
        answers = Strings.of(_texts("answers", answers))
    if len(answers.codes) != len(dataset):
        raise InputError(f"{len(answers.codes)} answers to {len(dataset)} questions; give one answer a question")
    return official_score(dataset, answers, protocol)


def _as_dataset(references: Sequence[str] | Sequence[Sequence[str]]) -> "QADataset":
    """Plain lists of human answers as a data set that can be scored."""
    import numpy as np

    from vqa.data.dataset import ImageTable, QADataset, Strings

    if isinstance(references, str) or not isinstance(references, Sequence):
        raise InputError(
            f"references must be a data set or a list with the answers to each question: {references!r:.60}"
        )
    rows = [[one] if isinstance(one, str) else _texts("references", one) for one in references]
    count = len(rows)
    return QADataset(
        format="lists",
        split="given",
        question_id_N=np.arange(count),
        image_row_N=np.zeros(count, np.int32),
        images=ImageTable((), ()),
        question=Strings.of([""] * count),
        answers=Strings.of_rows(rows, max(map(len, rows), default=1)),
    )


def _texts(what: str, values: Any) -> list[str]:
    """A list of strings; raises InputError for anything else, a single string included."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"{what} must be a list of strings, not {values!r:.60}")
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None or None in values:
        raise InputError(f"{what} must be a list of strings; {wrong!r:.60} among them is none")
    return list(values)


def train(experiment: str | PathLike[str] | Mapping[str, Any], *, resume: bool = False, **overrides: Any) -> Path:
    """Train an experiment, as `vqa train` does, and return its run folder.

    Args:
        experiment: a YAML file, the name of a recipe, or the same as a mapping.
        resume: go on with an interrupted run.
        overrides: keys to change, as on the command line: `seed=1`, `fusion="product"`, `**{"training.epochs": 5}`.

    Raises:
        InputError: bad data, caches or keys, before anything is written.
        InterruptedRunError: after Ctrl-C, with the state saved.
        NonFiniteLossError: naming the epoch and step.

    >>> import vqa
    >>> from vqa.testing import tiny_experiment
    >>> folder = vqa.train(tiny_experiment("tiny"), fusion="product", name="mine")  # doctest: +ELLIPSIS
    mine, seed 0
    ...
    >>> print(folder.as_posix())
    tiny/runs/mine/0
    """
    from vqa.experiment import check_overridden, read_experiment
    from vqa.overrides import Assignment, assign
    from vqa.training.train import train as train_experiment

    given = [Assignment(tuple(key.split(".")), _plain(value), f"{key}={value!r}") for key, value in overrides.items()]
    if isinstance(experiment, Mapping):
        values = _plain(experiment)
        plan = check_overridden(lambda some: assign(values, some), given, "experiment")
    else:
        plan = read_experiment(Path(experiment), given)
    return train_experiment(plan, resume=resume, command="vqa.train(…, resume=True)").path


def _plain(value: Any) -> Any:
    """A value from Python as YAML would give it."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, PathLike) else value
