"""A trained run as an object that answers: any image, any question.

Legend: `B` questions, `U` distinct images, `T` tokens, `A` answers, `C` choices, `H` hops, `R` regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from vqa.data.dataset import Strings
from vqa.data.images import Framing
from vqa.errors import InputError
from vqa.evaluation.multiple_choice import choice_classes, choice_scores
from vqa.evaluation.report.boxes import attention_shown
from vqa.evaluation.report.figures import WHOLE
from vqa.features.cache.reader import IMPORTED, differences, frame_of, grid_of
from vqa.features.encoders.preprocessing import ImageFile, read_rgb
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.dataset import encoder_of
from vqa.features.extraction.fisher import FISHER
from vqa.files import ATTENTION_FORMATS, atomic_write, format_of, write_json
from vqa.models import Image
from vqa.progress import console
from vqa.runs.load import BEST_ANSWERS, TrainedRun, load_run
from vqa.training.model import TunedModel

AT_ONCE = 32  # questions, which bounds the memory of their images


@dataclass(frozen=True)
class Answer:
    """What a model says to one question about one image.

    Attributes:
        image: the image's file, or what is in it.
        question: as asked.
        unknown_words: words of the question that the training split never had.
        best: the most probable answers (or the choices), best first, with softmax probabilities 0..1.
        attention_HR: float32, where the model looked, or None.
        grid: rows and columns of the regions, or None where they are no grid.
        framing: which square of the image the grid lies on.
        box_R4: float32, where the regions lie, x1, y1, x2, y2 as shares of the image's width and height, or None.
            Padded regions are neither here nor in the attention.
    """

    image: ImageFile
    question: str
    unknown_words: tuple[str, ...]
    best: tuple[tuple[str, float], ...]
    attention_HR: np.ndarray | None
    grid: tuple[int, int] | None = None
    framing: Framing = WHOLE
    box_R4: np.ndarray | None = None


class Answerer:
    """A trained run with the image encoder that its features came from. Build with `Answerer.load`."""

    def __init__(self, run: TrainedRun, encoder: ImageEncoder) -> None:
        self.run, self.encoder = run, encoder

    @classmethod
    def load(cls, path: Path, *, weights: str | None = None, allow_code: bool = False) -> "Answerer":
        """Load a run folder and its image encoder.

        Args:
            weights: the encoder's weights ("imagenet", "random" or a file) where the recorded ones cannot be found.
            allow_code: see `load_run`.

        Raises:
            InputError: when the folder is no run, or the encoder's weights are not those the features were made with.
        """
        run = load_run(path, allow_code=allow_code)
        made = run.recorded["features"]
        if isinstance(run.model, TunedModel):
            return cls(run, run.model.image_encoder)
        if not made["encoder"].startswith((FISHER, IMPORTED)) and "resize" not in made["preprocessing"]:
            raise InputError(f"{path / 'experiment.yaml'}: recorded.features.preprocessing: lacks `resize`")
        encoder = encoder_of(made, weights, path, allow_code=allow_code)
        if encoder.weights_sha256 != made["weights_sha256"]:
            raise InputError(
                f"{path}: was trained on features from other encoder weights ({made['weights_origin']}, sha256 "
                f"{made['weights_sha256'][:12]}) than these ({encoder.weights_origin}, sha256 "
                f"{encoder.weights_sha256[:12]}); give the right ones with --weights"
            )
        wrong = differences(encoder.preprocessing, made["preprocessing"], path / "experiment.yaml")
        if wrong:
            raise InputError("\n".join(["the encoder prepares images otherwise than when trained:", *wrong]))
        return cls(run, encoder.to(run.machine.device))

    def answer(self, image: ImageFile, question: str, *, choices: Sequence[str] | None = None) -> Answer:
        """Answer one question, or choose among `choices`.

        Raises:
            InputError: when the image cannot be read, the question is empty, or no choice is an answer that the model
                knows.
        """
        return self.answer_all([image], [question], choices=choices)[0]

    def answer_all(
        self, images: Sequence[ImageFile], questions: Sequence[str], *, choices: Sequence[str] | None = None
    ) -> list[Answer]:
        """The same for several questions, each about the image in its place; an image is encoded once a batch.

        Raises:
            InputError: also where a question is empty.
        """
        require_questions(questions)
        starts = range(0, len(questions), AT_ONCE)
        batches = ((images[start : start + AT_ONCE], questions[start : start + AT_ONCE]) for start in starts)
        return [answer for batch in batches for answer in self._answer_batch(*batch, choices)]

    @torch.inference_mode()
    def _answer_batch(
        self, images: Sequence[ImageFile], questions: Sequence[str], choices: Sequence[str] | None
    ) -> list[Answer]:
        run, device = self.run, self.run.machine.device
        row = {image: place for place, image in enumerate(dict.fromkeys(images))}
        decoded = [self.encoder.load(image) for image in row]
        pixels_U3SS = torch.stack([one.pixels_3SS for one in decoded]).to(device)
        size_U2 = torch.tensor([one.size for one in decoded])
        if isinstance(run.model, TunedModel):
            with run.machine.autocast():
                found = self.encoder.images(pixels_U3SS, size_U2)
            image_URC, told = found.regions_IRC, {}
        else:  # the cache stores float16, and the model was trained on what the cache gives
            found, told = self.encoder.images(pixels_U3SS, size_U2), run.recorded["features"]
            image_URC = found.regions_IRC.half().to(run.machine.feature_dtype)
        tokens = [torch.tensor(run.tokenizer.encode(question)) for question in questions]
        tokens_BT = pad_sequence(tokens, batch_first=True).to(device)
        with run.machine.autocast():
            row_B = torch.tensor([row[image] for image in images], device=device)
            mask_UR = found.mask_IR if told.get("region_count") else None
            features = Image(image_URC, row_B, mask_UR, found.boxes_IR4 if told.get("boxes") else None)
            predicted = run.model(features, tokens_BT, torch.tensor([len(one) for one in tokens]))
        probability_BA = predicted.logits_BA.float().softmax(dim=1).cpu().numpy()
        attention = predicted.attention_BHR
        counts = [image_URC.shape[1]] * len(row) if found.mask_IR is None else found.mask_IR.sum(dim=1).tolist()
        box_UR4 = None if found.boxes_IR4 is None else found.boxes_IR4.cpu().numpy()
        return [
            Answer(
                image=image,
                question=question,
                unknown_words=run.tokenizer.unknown(question),
                best=self._best(probability_BA[place], choices),
                framing=frame_of(run.recorded["features"]),
                attention_HR=None
                if attention is None
                else attention[place, :, : counts[row[image]]].float().cpu().numpy(),
                box_R4=None if box_UR4 is None else box_UR4[row[image], : counts[row[image]]],
                grid=grid_of(run.recorded["features"], image_URC.shape[1]),
            )
            for place, (image, question) in enumerate(zip(images, questions, strict=True))
        ]

    def _best(self, probability_A: np.ndarray, choices: Sequence[str] | None) -> tuple[tuple[str, float], ...]:
        names = self.run.answers.answers
        if choices is None:
            return tuple((names[i], float(probability_A[i])) for i in np.argsort(-probability_A)[:BEST_ANSWERS])
        column = Strings.of_rows([list(choices)], len(choices))
        score_C = choice_scores(column, choice_classes(column, self.run.answers), probability_A[None])[0]
        if np.isinf(score_C).all():
            raise InputError(
                f"none of the choices is among the {len(names)} answers that the model knows, or shares a word with "
                f"one: {', '.join(choices)}"
            )
        scored = zip(choices, score_C.clip(0).tolist(), strict=True)
        return tuple(sorted(scored, key=lambda item: -item[1]))


def require_questions(questions: Sequence[str]) -> None:
    """Raise InputError where a question has no letter or digit: a model would answer it all the same."""
    for number, question in enumerate(questions, start=1):
        if not any(letter.isalnum() for letter in question):
            which = f"question {number} of {len(questions)}" if len(questions) > 1 else "the question"
            raise InputError(f"{which} has no word ({question!r}); ask one, as in 'what color is the bus?'")


def all_choices(question: str, first: Sequence[str] | None, more: Sequence[str] | None) -> list[str] | None:
    """The choices of `--choices a b c`, of which the command line keeps the first apart; None without any.

    Raises:
        InputError: for words after the question that no `--choices` asks for.
    """
    if more and not first:
        whole = " ".join([question, *more])
        raise InputError(f"words after the question: put it in quotes ('{whole}'), or use --choices")
    return [*(first or []), *(more or [])] or None


def print_answer(answer: Answer, *, attention: Path | None = None, json_file: Path | None = None) -> None:
    """Print the best answers; write the attention image and the numbers where asked."""
    for text, probability in answer.best:
        bar = "█" * round(20 * probability)
        console.print(f"{100 * probability:5.1f}%  {text:<20} {bar}")
    if answer.unknown_words:
        console.print(f"words the model never saw: {', '.join(answer.unknown_words)}")
    if attention is not None:
        write_attention(answer, attention)
        console.print(f"attention: {attention}")
    if json_file is not None:
        best = [{"answer": text, "probability": probability} for text, probability in answer.best]
        write_json(json_file, {"image": str(answer.image), "question": answer.question, "best": best})


def write_attention(answer: Answer, path: Path) -> None:
    """Write the image beside one overlay a hop, glimpse or map, in the format that the file's ending names.

    Raises:
        InputError: when the model does not look at regions, its regions are no grid, or the ending names no format.
    """
    from PIL import Image, ImageOps

    format = format_of(path, ATTENTION_FORMATS, "an attention image")
    if answer.attention_HR is None or (answer.grid is None and answer.box_R4 is None):
        raise InputError(
            f"{path}: this model does not look at regions of a grid or at boxes, so there is no attention to draw"
        )
    image = ImageOps.contain(read_rgb(answer.image), (480, 480))
    if max(image.size) < 336:
        image = ImageOps.contain(image, (336, 336))
    regions = (answer.grid, answer.framing, answer.box_R4)
    panels = [image, *(attention_shown(image, weights_R, *regions)[0] for weights_R in answer.attention_HR)]
    sheet = Image.new("RGB", (sum(panel.width + 8 for panel in panels) - 8, image.height), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + 8
    with atomic_write(path, "wb") as file:
        sheet.save(file, format=format, quality=95)
