"""The benchmark compares like with like: same data, same models, the loop's own step."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vqa.bench import bounds, training
from vqa.bench.baselines import BaselineProduct, BaselineStackedAttention, QuestionRows
from vqa.bench.gate import conclude
from vqa.bench.kernels import kernel_family, time_spent
from vqa.bench.ours import PRODUCT, STACKED_ATTENTION, begin, spread
from vqa.bench.synthetic import ANSWERS, Shape, make_features, make_questions, prepare_synthetic
from vqa.bench.training import TrainingOptions
from vqa.errors import InputError, SlowerError
from vqa.files import read_json, write_json
from vqa.runtime.device import Machine
from vqa.training.inputs.batches import batches
from vqa.training.inputs.prepare import TrainingData

ONE, GRID = Shape("one", 1, 16), Shape("grid", 4, 8)


def prepared(folder: Path, shape: Shape, questions: int = 300) -> TrainingData:
    cache = make_features(folder / f"{shape.name}.h5", shape, 70)
    return prepare_synthetic(make_questions(questions, 90), cache, Machine(torch.device("cpu"), False), None)


def test_synthetic_questions_are_as_long_as_those_of_vqa_v2() -> None:
    dataset = make_questions(5000, 100)
    lengths = [len(dataset.question.at(row).split()) for row in range(len(dataset))]
    assert np.mean(lengths) == pytest.approx(6.1, abs=0.15)
    assert dataset.answers is not None and dataset.answers.codes.shape == (5000, 10)


@pytest.mark.parametrize(
    ("shape", "sections", "baseline"),
    [(ONE, PRODUCT, BaselineProduct), (GRID, STACKED_ATTENTION, BaselineStackedAttention)],
)
def test_the_baseline_is_the_same_model(
    tmp_path: Path, shape: Shape, sections: dict[str, dict[str, object]], baseline: type[nn.Module]
) -> None:
    data = prepared(tmp_path, shape)
    ours = begin(data, sections, 32).model.eval()
    theirs = baseline(len(data.words), shape.channels).eval()
    here, there = list(ours.parameters()), list(theirs.parameters())
    # The same weights on both sides, paired by shape: every weight's place is then the same in both.
    assert sorted(tuple(weight.shape) for weight in here) == sorted(tuple(weight.shape) for weight in there)
    with torch.no_grad():
        for weight in [*here, *there]:
            random = torch.Generator().manual_seed(int(np.prod(weight.shape)))
            weight.copy_(0.05 * torch.randn(weight.shape, generator=random))
    batch = batches(data.train_questions, 8, 0, 0)[0]
    tokens_BT, length_B = batch.tokens(data.train_questions)
    image_BRC = data.features.gather(batch.image_rows(data.train_questions))
    full = (length_B == tokens_BT.shape[1]).nonzero().squeeze(1)  # the baseline lets padding through
    with torch.no_grad():
        expected_BA = ours(image_BRC[full], tokens_BT[full], length_B[full]).logits_BA
        torch.testing.assert_close(theirs(image_BRC[full], tokens_BT[full]), expected_BA, rtol=1e-4, atol=1e-5)


def test_the_baseline_loader_serves_the_same_rows_and_answers(tmp_path: Path) -> None:
    data = prepared(tmp_path, GRID)
    questions = data.train_questions
    loader = QuestionRows(tmp_path / "grid.h5", questions)
    image_RC, tokens_T, target_A, item, length = loader[17]
    assert torch.equal(image_RC, data.features.gather(questions.image_row_N[17:18])[0])
    assert torch.equal(tokens_T, questions.tokens_NT[17]) and item == 17 and length == int(questions.length_N[17])
    assert questions.target is not None and target_A.sum() == questions.target.count_BK[17].sum() == 10
    assert len(loader) == 300 and target_A.shape == (ANSWERS,)


def test_a_sample_of_batches_is_as_long_as_all_of_them(tmp_path: Path) -> None:
    todo = batches(prepared(tmp_path, ONE, 3000).train_questions, 16, 0, 0)
    mean = np.mean([batch.longest for batch in todo])
    for count in (3, 10, 400):
        some = spread(todo, count)
        assert len(some) == count and all(len(batch.index_B) == 16 for batch in some)
        assert np.mean([batch.longest for batch in some]) == pytest.approx(mean, rel=0.12)


def test_it_runs_keeps_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape in (("FC7", ONE), ("POOL5", GRID), ("RES5", Shape("large", 4, 16))):
        monkeypatch.setattr(training, name, shape)
    monkeypatch.setattr(bounds, "SECONDS", 0.0)
    kept = tmp_path / "train.json"
    options = TrainingOptions(questions=300, device="cpu", parts=("data", "product"), batch_size=8, seconds=0.05)
    conclude(training.bench_training(options), json_file=kept)
    stored = read_json(kept)
    assert stored["ratios"]["product float32 / usual step"]["bar"] == 3.0
    assert stored["ratios"]["gather one / DataLoader"]["value"] > 1
    assert all(figure["value"] >= 0 for figure in stored["figures"].values())
    assert "copying memory" in capsys.readouterr().out.replace("\n", " ")
    for ratio in stored["ratios"].values():
        ratio["value"] *= 1000
    write_json(kept, stored)
    with pytest.raises(SlowerError, match="gather one / DataLoader"):
        conclude(training.bench_training(replace(options, parts=("data",))), against=kept)
    with pytest.raises(InputError, match="unknown part 'sann'"):
        training.bench_training(TrainingOptions(parts=("sann",)))


def test_the_costliest_operator_is_found_and_shares_are_of_the_whole_time() -> None:
    left, few = torch.randn(600, 600), torch.randn(8)

    def work() -> None:
        for _ in range(20):
            few.exp()
            torch.mm(left, left)
        time.sleep(0.2)

    started = time.perf_counter()
    spent = time_spent(work, torch.device("cpu"))
    took = time.perf_counter() - started
    assert next(iter(spent.costliest)) == "aten::mm" and "aten::exp" in spent.costliest
    assert sum(spent.costliest.values()) <= spent.busy + 1e-9
    assert spent.busy <= 1 - 0.2 / took  # sleeping is no operator


def test_kernels_are_counted_by_family() -> None:
    one = "void at::native::vectorized_elementwise_kernel<4, at::native::add<float>>(int)"
    assert kernel_family(one) == "at::native::vectorized_elementwise_kernel"
    assert kernel_family("void at::native::(anonymous namespace)::adam<float>(float)") == "at::native::adam"
    assert kernel_family("sm90_xmma_gemm_bf16bf16_bf16f32_tn_n") == "sm90_xmma_gemm_bf16bf16_bf16f32_tn_n"
    assert kernel_family("Memcpy HtoD (Pinned -> Device)") == "Memcpy HtoD"
    assert kernel_family("aten::mm") == "aten::mm"
