"""The baselines: what published code does, written out plainly.

Legend: `N` questions, `B` batch, `T` tokens, `R` regions, `C` channels, `A` answers.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vqa.bench.bounds import wait
from vqa.bench.synthetic import ANSWERS, HUMANS, make_photographs
from vqa.training.inputs.batches import EncodedQuestions

PADDED = 26  # tokens: the longest question of the published code
LOADED_AT_ONCE = 128  # questions a batch of the loader, as the peer's default has it
PREFETCHED = 5  # batches that the workers have made before the clock starts


class QuestionRows(Dataset[tuple[Tensor, Tensor, Tensor, int, int]]):
    """One HDF5 row a question, converted to float32, with its tokens and a dense target, as Cyanogenoid/pytorch-vqa."""

    def __init__(self, path: Path, questions: EncodedQuestions) -> None:
        self.path = path
        self.file: h5py.File | None = None  # opened in each worker
        self.questions = questions

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor, Tensor, int, int]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        row = int(self.questions.image_row_N[item])
        image_RC = torch.from_numpy(self.file["features"][row].astype("float32"))
        target = self.questions.target
        assert target is not None
        target_A = torch.zeros(ANSWERS)
        for answer, count in zip(target.answer_BK[item].tolist(), target.count_BK[item].tolist(), strict=True):
            if answer >= 0:
                target_A[answer] = count
        return image_RC, self.questions.tokens_NT[item], target_A, item, int(self.questions.length_N[item])


def loader_rate(path: Path, questions: EncodedQuestions, workers: int, seconds: float) -> float:
    """Questions/s of a shuffled `DataLoader` over `QuestionRows`, measured for so long once it is under way."""
    loader = DataLoader(QuestionRows(path, questions), LOADED_AT_ONCE, shuffle=True, num_workers=workers)
    batches = iter(loader)
    for _ in range(min(PREFETCHED, len(loader) - 1)):
        next(batches)
    count, started = 0, time.perf_counter()
    for image_BRC, *_ in batches:
        count += len(image_BRC)
        if time.perf_counter() - started > seconds:
            break
    return count / (time.perf_counter() - started)


class BaselineEncoder(nn.Module):
    """Word vectors, tanh, a two-layer LSTM over all of the padded tokens, the final states side by side."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 200, padding_idx=0)
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(200, 512, 2, batch_first=True, dropout=0.5)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        _, (hidden_LBD, cell_LBD) = self.lstm(torch.tanh(self.dropout(self.embedding(tokens_BT))))
        return torch.cat([hidden_LBD[0], cell_LBD[0], hidden_LBD[1], cell_LBD[1]], dim=1)


class BaselineProduct(nn.Module):
    """Deeper LSTM Q + norm I in plain PyTorch."""

    def __init__(self, vocab_size: int, channels: int) -> None:
        super().__init__()
        self.question = BaselineEncoder(vocab_size)
        self.dropout = nn.Dropout(0.5)
        self.image_layer, self.question_layer = nn.Linear(channels, 1024), nn.Linear(2048, 1024)
        self.answer = nn.Linear(1024, ANSWERS)

    def forward(self, image_BRC: Tensor, tokens_BT: Tensor) -> Tensor:
        image_BC = F.normalize(image_BRC[:, 0])
        image_BD = torch.tanh(self.image_layer(self.dropout(image_BC)))
        question_BD = torch.tanh(self.question_layer(self.dropout(self.question(tokens_BT))))
        logits_BA: Tensor = self.answer(self.dropout(image_BD * question_BD))
        return logits_BA


class BaselineStackedAttention(nn.Module):
    """Stacked attention of two hops in plain PyTorch."""

    def __init__(self, vocab_size: int, channels: int) -> None:
        super().__init__()
        self.question = BaselineEncoder(vocab_size)
        self.sentence, self.project = nn.Linear(2048, 512), nn.Linear(channels, 512)
        self.image_layers = nn.ModuleList(nn.Linear(512, 512, bias=False) for _ in range(2))
        self.query_layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(2))
        self.scores = nn.ModuleList(nn.Linear(512, 1, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(0.5)
        self.answer = nn.Linear(512, ANSWERS)

    def forward(self, image_BRC: Tensor, tokens_BT: Tensor) -> Tensor:
        region_BRD = torch.tanh(self.project(image_BRC))
        query_BD = self.sentence(torch.tanh(self.question(tokens_BT)))
        for image, query, score in zip(self.image_layers, self.query_layers, self.scores, strict=True):
            hidden_BRD = self.dropout(torch.tanh(image(region_BRD) + query(query_BD)[:, None]))
            weight_BR1 = score(hidden_BRD).softmax(dim=1)
            query_BD = query_BD + (weight_BR1 * region_BRD).sum(dim=1)
        logits_BA: Tensor = self.answer(self.dropout(query_BD))
        return logits_BA


def steps_rate(step: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Questions/s of a step taken again and again for so long, at least twice."""
    step()
    wait(device)
    count, steps, started = 0, 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - started < seconds:
        count, steps = count + step(), steps + 1
    wait(device)
    return count / (time.perf_counter() - started)


def baseline_steps(
    model: nn.Module, image_NRC: Tensor, questions: EncodedQuestions, batch_size: int, device: torch.device
) -> Callable[[], int]:
    """A training step in float32 on questions padded to 26 tokens, by torch's Adam as it comes.

    Args:
        image_NRC: float32 features in memory; a question takes its image's, counted round.

    Returns:
        What takes one step and returns how many questions it had.
    """
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tokens_NT = F.pad(questions.tokens_NT, (0, PADDED - questions.tokens_NT.shape[1]))
    target = questions.target
    assert target is not None
    majority_N = target.majority_B
    order = iter(_shuffled_forever(len(questions), batch_size))

    def step() -> int:
        index_B = next(order)
        image_BRC = image_NRC[questions.image_row_N[index_B] % len(image_NRC)].to(device)
        index_B = index_B.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image_BRC, tokens_NT[index_B]), majority_N[index_B], ignore_index=-1)
        loss.backward()
        optimizer.step()
        return len(index_B)

    return step


def _shuffled_forever(count: int, batch_size: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(count, generator=random).split(batch_size)


def loaded_training_rate(
    model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor, Tensor, int, int]], seconds: float, device: torch.device
) -> float:
    """Questions/s of training on what a `DataLoader` over `QuestionRows` loads, as Cyanogenoid/pytorch-vqa trains.

    Args:
        model: takes features and padded tokens.
        loader: of shuffled questions.
        seconds: how long to measure once it is under way; a whole epoch at the most, two steps at the least.
    """
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    count, steps, started = 0, -min(PREFETCHED, max(0, len(loader) - 2)), time.perf_counter()
    for image_BRC, tokens_BT, target_BA, *_ in loader:
        tokens_BT = F.pad(tokens_BT, (0, PADDED - tokens_BT.shape[1]))
        image_BRC, tokens_BT, target_BA = (
            one.to(device, non_blocking=True) for one in (image_BRC, tokens_BT, target_BA)
        )
        optimizer.zero_grad()
        loss = -(model(image_BRC, tokens_BT).log_softmax(dim=1) * target_BA / HUMANS).sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps <= 0:  # what the workers had ready before the clock started
            wait(device)
            started = time.perf_counter()
            continue
        count += len(image_BRC)
        if steps >= 2 and time.perf_counter() - started > seconds:
            break
    wait(device)
    return count / (time.perf_counter() - started)


def encoding_steps(vocab_size: int, folder: Path, device: torch.device, batch_size: int) -> Callable[[], int]:
    """As basic_vqa: every question's image is decoded and run through VGG19, then the model takes a step.

    Returns:
        What takes one step and returns how many questions it had.
    """
    from torchvision.models import vgg19

    paths = make_photographs(folder, batch_size, 224, 224).paths  # that code resizes them beforehand
    with torch.device("meta"):
        network = vgg19()
    network.classifier = network.classifier[:6]  # fc7
    network = network.to_empty(device=device).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.uniform_(-0.01, 0.01)
    model = BaselineProduct(vocab_size, 4096).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean, deviation = (torch.tensor(c).view(3, 1, 1) for c in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tokens_BT = torch.randint(2, vocab_size, (batch_size, PADDED), device=device)
    answer_B = torch.randint(0, ANSWERS, (batch_size,), device=device)

    def step() -> int:
        images = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]
        pixels = torch.stack([(image.permute(2, 0, 1) / 255 - mean) / deviation for image in images])
        with torch.no_grad():
            image_BC = network(pixels.to(device))
        optimizer.zero_grad()
        F.cross_entropy(model(image_BC[:, None], tokens_BT), answer_B).backward()
        optimizer.step()
        return batch_size

    return step
