"""Visual question answering in one sitting: read, encode, two-hop stacked attention, the loop.

    python examples/plain.py data/vqa_v2 features_cache/vqa_v2_vgg16_pool5.h5

Source of the model: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering" (arXiv 1511.02274).
`vqa train` gives the same losses (a test compares them), and adds what experiments need: resuming, tracking, other
fusions, features larger than memory, several GPUs.

Legend: `N` questions, `B` batch, `T` words, `E` width of a word, `R` regions, `C` channels, `D` question, `H` hidden,
`A` answers.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import vqa

PADDING, UNKNOWN = 0, 1  # the first two tokens; words follow, the most frequent first


class QstEncoder(nn.Module):
    """Embedding, tanh, LSTM, then its last hidden and cell state side by side, tanh and linear."""

    def __init__(self, words: int, embedding_dim: int, hidden_dim: int, question_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding_dim, padding_idx=PADDING)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
        self.output = nn.Linear(2 * hidden_dim, question_dim)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        embedded_BTE = self.embedding(tokens_BT).tanh()
        packed = pack_padded_sequence(embedded_BTE, length_B, batch_first=True, enforce_sorted=False)
        hidden_1BH, cell_1BH = self.lstm(packed)[1]
        question_BD: Tensor = self.output(torch.cat([hidden_1BH[0], cell_1BH[0]], dim=1).tanh())
        return question_BD


class StackedAttention(nn.Module):
    """The question looks at the regions, adds what it found to itself, and looks again."""

    def __init__(self, image_dim: int, question_dim: int, attention_dim: int, answers: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(image_dim, question_dim)
        self.image = nn.ModuleList(nn.Linear(question_dim, attention_dim, bias=False) for _ in range(2))
        self.query = nn.ModuleList(nn.Linear(question_dim, attention_dim) for _ in range(2))
        self.logit = nn.ModuleList(nn.Linear(attention_dim, 1, bias=False) for _ in range(2))
        self.classify = nn.Linear(question_dim, answers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image_BRC: Tensor, query_BD: Tensor) -> Tensor:
        region_BRD = self.project(image_BRC).tanh()
        for image, query, logit in zip(self.image, self.query, self.logit, strict=True):
            hidden_BRH = (image(region_BRD) + query(query_BD)[:, None]).tanh()
            attention_BR1 = logit(self.dropout(hidden_BRH)).softmax(dim=1)  # where it looks: sums to 1 over the regions
            query_BD = (attention_BR1 * region_BRD).sum(dim=1) + query_BD
        logits_BA: Tensor = self.classify(self.dropout(query_BD))
        return logits_BA


def texts(column: Any) -> list[str]:
    """A column of a data set as a list; it keeps each distinct text once, and a number a row."""
    return [column.distinct[code] for code in column.codes]


def frequent(found: list[str]) -> list[str]:
    """Distinct texts, the most frequent first, of equally frequent ones in alphabetical order."""
    counts = Counter(found)
    return sorted(counts, key=lambda text: (-counts[text], text))


def encode(questions: list[str], number: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Tokens `[N, T]`, padded on the right, and lengths `[N]`, both int64."""
    rows = [[number.get(word, UNKNOWN) for word in vqa.tokenize(text)] or [UNKNOWN] for text in questions]
    length_N = torch.tensor([len(row) for row in rows])
    tokens_NT = torch.full((len(rows), int(length_N.max())), PADDING)
    for n, row in enumerate(rows):
        tokens_NT[n, : len(row)] = torch.tensor(row)
    return tokens_NT, length_N


def batches(length_N: np.ndarray, size: int, seed: int, epoch: int) -> list[Tensor]:
    """Every question once, questions of similar length together, in an order that depends on seed and epoch alone."""
    random = np.random.default_rng([seed, epoch])
    order_N = random.permutation(len(length_N))
    order_N = order_N[np.argsort(length_N[order_N], kind="stable")]
    cut = [torch.from_numpy(order_N[start : start + size]) for start in range(0, len(order_N), size)]
    return [cut[place] for place in random.permutation(len(cut))]


def main(
    root: str | Path, features: str | Path, *, seed: int = 0, epochs: int = 20, batch_size: int = 256,
    learning_rate: float = 1e-3, dropout: float = 0.5, widths: tuple[int, int, int, int] = (300, 512, 512, 512),
) -> list[float]:  # fmt: skip
    """Train on VQA v2 and print loss and val accuracy an epoch. Widths are of word, LSTM, question and attention."""
    train, val = (vqa.read_dataset("vqa_v2", root, split) for split in ("train", "val"))
    cache = vqa.open_cache(features)

    asked, answered = texts(train.question), texts(train.majority)  # both vocabularies are of the training split alone
    words = frequent([word for text in asked for word in vqa.tokenize(text)])
    answers = frequent(answered)[:1000]
    number = {word: place for place, word in enumerate(words, start=2)}
    class_of = {answer: place for place, answer in enumerate(answers)}
    target_N = torch.tensor([class_of.get(text, -1) for text in answered])
    tokens_NT, length_N = encode(asked, number)
    known_N = (target_N >= 0).nonzero().squeeze(1)  # a question whose answer is no class teaches nothing
    tokens_NT, length_N, target_N = tokens_NT[known_N], length_N[known_N], target_N[known_N]
    image_NRC, row_N = cache.read(cache.rows(train.images.ids)).float(), torch.from_numpy(train.image_row_N)[known_N]
    tokens_VT, length_V = encode(texts(val.question), number)
    image_VRC, row_V = cache.read(cache.rows(val.images.ids)).float(), torch.from_numpy(val.image_row_N)

    torch.manual_seed(seed)
    encoder = QstEncoder(len(words) + 2, *widths[:3])
    model = StackedAttention(image_NRC.shape[2], widths[2], widths[3], len(answers), dropout)
    optimizer = torch.optim.Adam([*encoder.parameters(), *model.parameters()], lr=learning_rate)

    losses: list[float] = []
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for index_B in batches(length_N.numpy(), batch_size, seed, epoch):
            question_BD = encoder(tokens_NT[index_B], length_N[index_B])
            loss = F.cross_entropy(model(image_NRC[row_N[index_B]], question_BD), target_N[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index_B)
        losses.append(total / len(target_N))

        model.eval()
        best = []
        with torch.no_grad():
            for rows in torch.arange(len(length_V)).split(batch_size):
                question_BD = encoder(tokens_VT[rows], length_V[rows])
                best += [answers[place] for place in model(image_VRC[row_V[rows]], question_BD).argmax(dim=1)]
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}, val {vqa.score(val, best).overall:.2f}% (VQA accuracy)")
    return losses


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
