"""The benchmark compares like with like: same data, same models, the loop's own step."""

import re
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from vqa.bench import bounds, training
from vqa.bench.gate import conclude
from vqa.bench.steps.baselines import BaselineProduct, BaselineStackedAttention, QuestionRows
from vqa.bench.steps.kernels import TimeShares, count_waits, count_warnings, kernel_family, shares, time_spent
from vqa.bench.steps.ours import PRODUCT, STACKED_ATTENTION, StepMeasurement, begin, spread
from vqa.bench.synthetic import ANSWERS, Shape, make_features, make_questions, prepare_synthetic
from vqa.bench.training import TrainingOptions
from vqa.errors import InputError, SlowerError
from vqa.files import read_json, write_json
from vqa.models import Image
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
    image = data.features.gather(batch.image_rows(data.train_questions))
    assert isinstance(image, Image)
    image_BRC = image.regions_IRC
    full = (length_B == tokens_BT.shape[1]).nonzero().squeeze(1)  # the baseline lets padding through
    with torch.no_grad():
        expected_BA = ours(Image(image_BRC[full]), tokens_BT[full], length_B[full]).logits_BA
        torch.testing.assert_close(theirs(image_BRC[full], tokens_BT[full]), expected_BA, rtol=1e-4, atol=1e-5)


def test_the_baseline_loader_serves_the_same_rows_and_answers(tmp_path: Path) -> None:
    data = prepared(tmp_path, GRID)
    questions = data.train_questions
    loader = QuestionRows(tmp_path / "grid.h5", questions)
    image_RC, tokens_T, target_A, item, length = loader[17]
    assert torch.equal(image_RC, data.features.gather(questions.image_row_N[17:18])[0][0])
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
    assert not [name for name in stored["figures"] if re.search("GPU|kernels|launches|waits of", name)]
    assert "index_select alone, grid" in stored["figures"] and "tokens and targets, one table" in stored["figures"]
    for ratio in stored["ratios"].values():
        ratio["value"] *= 1000
    write_json(kept, stored)
    with pytest.raises(SlowerError, match="gather one / DataLoader"):
        conclude(training.bench_training(replace(options, parts=("data",))), against=kept)
    with pytest.raises(InputError, match="unknown part 'sann'"):
        training.bench_training(TrainingOptions(parts=("sann",)))


def test_what_a_step_makes_a_gpu_do_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = StepMeasurement(100.0, 100.0, 0.01, 1e9, TimeShares(0.5, {}), 180.0, 200.5, 0.25, 3 << 30)
    monkeypatch.setattr(training, "measure_steps", lambda *_: seen)
    monkeypatch.setattr(training, "FC7", ONE)
    monkeypatch.setattr(bounds, "SECONDS", 0.0)
    options = TrainingOptions(questions=40, device="cpu", parts=("product",), batch_size=8, seconds=0.05)
    figures = training.bench_training(options).figures
    found = {name: one.value for name, one in figures.items() if name.endswith(", product bfloat16")}
    assert found["kernels a step, product bfloat16"] == 180 and found["launches a step, product bfloat16"] == 200.5
    assert found["waits of the host a step, product bfloat16"] == 0.25
    assert found["peak GPU memory, product bfloat16"] == 3


def test_kernels_and_launches_are_told_apart() -> None:
    def row(name: str, count: int, device: DeviceType, microseconds: float, span: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            key=name, count=count, device_type=device, self_device_time_total=microseconds, self_cpu_time_total=7.0,
            is_user_annotation=span,
        )  # fmt: skip

    rows = [
        row("void add<float>(int)", 3, DeviceType.CUDA, 2e5), row("sm90_gemm", 2, DeviceType.CUDA, 3e5),
        row("Memcpy HtoD (Pinned -> Device)", 4, DeviceType.CUDA, 1e5), row("Memset (Device)", 1, DeviceType.CUDA, 1e5),
        row("Optimizer.step", 1, DeviceType.CUDA, 9e5, span=True), row("cudaLaunchKernel", 3, DeviceType.CPU, 0.0),
        row("cudaLaunchKernelExC", 1, DeviceType.CPU, 0.0), row("cuLaunchKernelEx", 1, DeviceType.CPU, 0.0),
        row("cudaMemcpyAsync", 4, DeviceType.CPU, 0.0), row("cudaMemsetAsync", 1, DeviceType.CPU, 0.0),
        row("cudaGraphLaunch", 2, DeviceType.CPU, 0.0), row("cudaStreamSynchronize", 5, DeviceType.CPU, 0.0),
        row("aten::mm", 6, DeviceType.CPU, 0.0),
    ]  # fmt: skip
    found = shares(rows, 1.0, gpu=True)
    assert found == TimeShares(0.5, {"sm90_gemm": 0.3, "add": 0.2}, kernels=5, launches=12)
    on_cpu = shares([row("aten::mm", 6, DeviceType.CPU, 0.0)], 1.0, gpu=False)
    assert on_cpu.kernels is None and on_cpu.launches is None and on_cpu.busy == pytest.approx(7e-6)


def test_waits_are_counted_and_other_warnings_stay() -> None:
    def work() -> None:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    with pytest.warns(UserWarning, match="something else") as seen:
        assert count_warnings(work) == 3
    assert len(seen) == 1
    assert count_waits(work, torch.device("cpu")) is None


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
