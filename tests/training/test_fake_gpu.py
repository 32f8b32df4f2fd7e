"""A step as a GPU would run it: no tensor on the wrong device, no wait of the host, no type but those stated.

Every fusion, question encoder and loss in both precisions, with questions of one length and of several. A sample of the
combinations runs by default, all of them as slow tests.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.features import SIDE, small_encoder
from helpers.gpu import GPU, FakeGPU, GPUError, fake_gpu, make_up_gradients
from helpers.language import whole_model
from helpers.models import small_options
from torch import Tensor, nn

from vqa.experiment import TrainingSection
from vqa.features.encoders.image_encoder import EVERYTHING
from vqa.features.extraction.question_vectors import QuestionVectors
from vqa.features.tables.pixel_table import PixelBatch, PixelTable
from vqa.models import FUSIONS, LANGUAGE_FUSIONS, LOSSES, QUESTION_ENCODERS, Image, Target, build_model
from vqa.models.precision import set_recurrent_type
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.runtime.device import Machine
from vqa.runtime.transfer import to_device
from vqa.testing.batches import IMAGE_DIM, REGIONS, VOCAB, random_tokens
from vqa.training import step
from vqa.training.inputs.batches import EncodedQuestions, batches, batches_by_image
from vqa.training.model import TunedModel
from vqa.training.optimise import make_optimizer
from vqa.training.step import Tally, stream, take_step

ANSWERS, FEW = 7, 15
PRETRAINED: dict[str, dict[str, Any]] = {
    "hf:frozen": {"tuned": False},
    "hf:tuned": {"tuned": True},
    "hf:embedded": {"words": "embeddings"},
}
MIXED, EQUAL = (3, 1, 6, 4), (5, 5, 5, 5)


@dataclass(frozen=True)
class Case:
    """One kind of training step."""

    fusion: str = "product"
    encoder: str = "lstm"
    loss: str = "cross_entropy"
    bfloat16: bool = True
    lengths: tuple[int, ...] = MIXED
    options: Mapping[str, Any] = field(default_factory=dict)  # of the fusion
    standardise: bool = False
    tuned_images: bool = False
    shared_images: bool = False
    vectors_on_host: bool = False
    optimizer: str = "adam"
    recurrent: torch.dtype | None = None
    language_model: bool | int = False

    def __str__(self) -> str:
        precision = "bfloat16" if self.bfloat16 else "float32"
        return f"{self.fusion}-{self.encoder}-{self.loss}-{precision}-{'mixed' if self.lengths == MIXED else 'equal'}"


@pytest.fixture
def gpu() -> Iterator[FakeGPU]:
    with fake_gpu() as gpu:
        yield gpu


def encoded(case: Case) -> EncodedQuestions:
    """A batch of questions on the GPU."""
    tokens_NT, length_N = random_tokens(case.lengths)
    tokens_NT = tokens_NT.remainder(FEW) if case.encoder in PRETRAINED else tokens_NT
    count, answer_NK = len(tokens_NT), torch.arange(len(tokens_NT))[:, None] % ANSWERS
    target = Target(answer_NK[:, 0], answer_NK, torch.ones(count, 1), torch.ones(count, 1))
    questions = EncodedQuestions(tokens_NT, length_N, torch.arange(count) // 2, target, None).to(GPU)
    if case.encoder != "hf:frozen":
        return questions
    place = torch.device("cpu") if case.vectors_on_host else GPU
    packed_PD, start_N = torch.ones(int((1 + length_N).sum()), 16).half(), (1 + length_N).cumsum(0) - 1 - length_N
    vectors = QuestionVectors(packed_PD.to(place), start_N.to(place))
    return EncodedQuestions(questions.tokens_NT, length_N, questions.image_row_N, questions.target, None, vectors)


def build(case: Case) -> nn.Module:
    """A small model on the GPU."""
    section = {"name": case.encoder, **(PRETRAINED.get(case.encoder) or small_options(case.encoder))}
    encoder = small_encoder() if case.tuned_images else None
    if encoder is not None:
        encoder.tune_from(EVERYTHING)
    inside = {"tuned": case.language_model} if case.fusion in LANGUAGE_FUSIONS else {}
    with torch.device("cpu"):
        transformer = TextTransformer(whole_model("opt" if inside else "bert"), 0, causal=bool(inside))
        model = build_model(
            question_encoder=section,
            fusion={"name": case.fusion, **small_options(case.fusion), **case.options, **inside},
            classifier={},
            vocab_size=VOCAB,
            image_dim=IMAGE_DIM if encoder is None else encoder.channels,
            regions=REGIONS if encoder is None else encoder.regions,
            answers=ANSWERS,
            standardise=case.standardise,
            transformer=transformer if case.encoder in PRETRAINED else None,
        )
    set_recurrent_type(model, case.recurrent)
    return (model if encoder is None else TunedModel(encoder, model)).to(GPU).train()


def images(case: Case, machine: Machine, rows: list[Tensor]) -> list[Image | PixelBatch]:
    """What a feature table gives: on the GPU, of its type there."""
    if not case.tuned_images:
        return [features(case, machine, len(row_B)) for row_B in rows]
    batches: list[Image | PixelBatch] = []
    for row_B in rows:
        row_U, place_B = row_B.unique(return_inverse=True)
        pixels_U3SS = torch.empty(len(row_U), 3, SIDE, SIDE, dtype=torch.uint8, device=GPU)
        batches.append(PixelBatch(pixels_U3SS, to_device(place_B, GPU)))
    return batches


def features(case: Case, machine: Machine, count: int) -> Image:
    """Features of a batch, with boxes; of padded regions and images asked twice where the case says so."""
    regions_IRC = torch.empty(count, REGIONS, IMAGE_DIM, dtype=machine.feature_dtype, device=GPU)
    boxes_IR4 = torch.empty(count, REGIONS, 4, device=GPU)
    if not case.shared_images:
        return Image(regions_IRC, boxes_IR4=boxes_IR4)
    row_B = to_device(torch.arange(count) // 2, GPU)
    mask_IR = torch.empty(count, REGIONS, dtype=torch.bool, device=GPU)
    return Image(regions_IRC, row_B, mask_IR, boxes_IR4)


def train_a_step(case: Case, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of one step; raises GPUError."""
    gpu.strict = False
    machine, questions, model = Machine(GPU, case.bfloat16), encoded(case), build(case)
    training = TrainingSection.model_validate(
        {"clip_norm": 1.0, "clip_value": 1.0, "optimizer": {"name": case.optimizer}}
    )
    optimizer, loss = make_optimizer(training.optimizer, model), LOSSES[case.loss]()
    tally = Tally([0.0, 0.0, 0.0], GPU, machine.group)
    monkeypatch.setattr(Tensor, "backward", lambda loss: make_up_gradients(model))
    order = batches_by_image if case.tuned_images else batches
    todo = order(questions, len(case.lengths), 0, 0)
    seen = images(case, machine, [batch.image_rows(questions) for batch in todo])
    table: Any = object.__new__(PixelTable) if case.tuned_images else SimpleNamespace(device=GPU)
    table.stream = lambda rows: iter(seen)
    prepared: Any = SimpleNamespace(train_questions=questions, machine=machine, features=table)
    gpu.strict = True
    for number, inputs in enumerate(stream(prepared, todo)):
        tally.add(*take_step(model, loss, optimizer, inputs, machine, training), inputs, number)
    gpu.strict = False


FIRST = [
    *(
        Case(fusion=name, bfloat16=bool(place % 3), shared_images=bool(place % 2))
        for place, name in enumerate(sorted(FUSIONS))
    ),
    *(Case(encoder=name, fusion="stacked_attention") for name in (*sorted(QUESTION_ENCODERS), "hf:frozen")),
    Case(encoder="hf:tuned", lengths=EQUAL),
    *(Case(loss=name, encoder="gru", lengths=EQUAL) for name in sorted(LOSSES)),
    *(Case(encoder="hierarchical", fusion=name) for name in ("ban", "multi_glimpse")),
    *(Case(fusion="ban", options={"counter": 3}, bfloat16=half, shared_images=half) for half in (True, False)),
    *(Case(fusion="graph", options={"relation": "spatial"}, shared_images=shared) for shared in (True, False)),
    Case(fusion="co_attention", options={"form": "alternating"}, shared_images=True),
    Case(standardise=True),
    Case(recurrent=torch.float32, encoder="bilstm"),
    Case(recurrent=torch.bfloat16, bfloat16=False),
    Case(encoder="hf:frozen", vectors_on_host=True),
    Case(tuned_images=True),
    Case(tuned_images=True, bfloat16=False),
    *(Case(name, "hf:embedded", language_model=tuned) for name in LANGUAGE_FUSIONS for tuned in (False, 1, True)),
    *(Case(name, "hf:embedded", bfloat16=False, shared_images=True) for name in LANGUAGE_FUSIONS),
]


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_a_step(case: Case, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    train_a_step(case, gpu, monkeypatch)
    assert gpu.operations > 20


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*sorted(QUESTION_ENCODERS), *PRETRAINED])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_step(fusion: str, encoder: str, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (EQUAL,) if encoder == "hf:tuned" else (MIXED, EQUAL)
    for bfloat16, lengths in itertools.product((True, False), kinds):
        train_a_step(Case(fusion, encoder, "cross_entropy", bfloat16, lengths), gpu, monkeypatch)
    for loss in sorted(LOSSES.keys() - {"cross_entropy"}):
        train_a_step(Case(fusion, encoder, loss, lengths=kinds[0]), gpu, monkeypatch)


def test_a_tuned_language_model_waits_where_questions_are_padded(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one wait that is not ours: transformers looks whether a mask masks anything."""
    with pytest.raises(GPUError, match=r"pretrained\.py:\d+: output: Any = self\.model"):
        train_a_step(Case(encoder="hf:tuned"), gpu, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_step_that_tunes_its_images(fusion: str, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    for bfloat16 in (True, False):
        train_a_step(Case(fusion, bfloat16=bfloat16, tuned_images=True), gpu, monkeypatch)


WAITS: dict[str, Any] = {
    "float": lambda values_N: float(values_N[0]),
    "bool": lambda values_N: bool(values_N[0] > 0),
    "cpu": lambda values_N: values_N.cpu(),
    "mask": lambda values_N: values_N[values_N > 0],
    "nonzero": lambda values_N: values_N.nonzero(),
    "unique": lambda values_N: values_N.unique(),
    "pageable": lambda values_N: torch.zeros(len(values_N)).to(values_N.device, non_blocking=True),
    "blocking": lambda values_N: torch.zeros(len(values_N)).pin_memory().to(values_N.device),
    "two devices": lambda values_N: values_N + torch.zeros(len(values_N)),
    "float16": lambda values_N: values_N.half() * 2,
    "mixed": lambda values_N: values_N.half() + values_N.bfloat16(),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_a_step_must_not_do_is_found(name: str, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    def clip(model: nn.Module, *limits: Any) -> None:
        WAITS[name](torch.cat([parameter.detach().flatten() for parameter in model.parameters()])[:9])

    monkeypatch.setattr(step, "clip_gradients", clip)
    with pytest.raises(GPUError, match=r"vqa/training/step\.py:\d+: clip_gradients"):
        train_a_step(Case(), gpu, monkeypatch)
