"""Ways of picking a batch out of tables, side by side: which one is fast is asked of each machine.

Legend: `N` rows of a table, `B` batch, `R` regions, `C` channels, `T` tokens, `K` distinct human answers a question,
`W` numbers a question in one table.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vqa.bench.bounds import best_seconds
from vqa.bench.synthetic import Shape
from vqa.models import Target
from vqa.training.inputs.batches import EncodedQuestions

Pick = Callable[[Tensor, Tensor], Tensor]
DISTINCT = 2048  # whole numbers that float16 holds exactly
FEATURE_WAYS: dict[str, Pick] = {
    "index_select": lambda table_NRC, row_B: table_NRC.index_select(0, row_B),
    "indexing": lambda table_NRC, row_B: table_NRC[row_B],
}


def numbered_table(rows: int, shape: Shape, device: torch.device) -> Tensor:
    """A float16 table `[N, R, C]` in which every number of a row is the row's own, counted round `DISTINCT`."""
    table_NRC = torch.empty((rows, shape.regions, shape.channels), dtype=torch.float16, device=device)
    return table_NRC.copy_(_number_of(torch.arange(rows, device=device))[:, None, None])


def wrong_rows(pick: Pick, table_NRC: Tensor, batch_size: int) -> int:
    """How many of the rows picked from all over a `numbered_table`, its first and last ones included, are others'."""
    count, device = len(table_NRC), table_NRC.device
    row_M = torch.linspace(0, count - 1, min(count, 8 * batch_size), dtype=torch.float64).round().long().to(device)
    wrong = 0
    for row_B in row_M.split(batch_size):
        right_BRC = pick(table_NRC, row_B) == _number_of(row_B)[:, None, None]
        wrong += int((~right_BRC.flatten(1).all(dim=1)).sum())
    return wrong


def _number_of(row_N: Tensor) -> Tensor:
    return (row_N % DISTINCT).to(torch.float16)


def feature_rates(table_NRC: Tensor, batch_size: int) -> dict[str, float]:
    """Rows/s of each way that picks the right ones; a way that does not is left out."""
    random = torch.Generator().manual_seed(0)
    row_B = torch.randint(0, len(table_NRC), (batch_size,), generator=random).to(table_NRC.device)
    return {
        name: batch_size / best_seconds(partial(pick, table_NRC, row_B), table_NRC.device)
        for name, pick in FEATURE_WAYS.items()
        if not wrong_rows(pick, table_NRC, batch_size)
    }


class QuestionTable:
    """Tokens and targets side by side in one table, so that one gather brings a batch of both.

    Whole numbers are int64 as the model takes them; two float32 share the place of one.
    """

    def __init__(self, questions: EncodedQuestions) -> None:
        target = questions.target
        assert target is not None
        self.tokens, self.answers = questions.tokens_NT.shape[1], target.answer_BK.shape[1]
        weights_N2K = torch.cat([target.count_BK, target.score_BK], dim=1)
        columns = [questions.tokens_NT, target.majority_B[:, None], target.answer_BK, weights_N2K.view(torch.int64)]
        self.table_NW = torch.cat(columns, dim=1)

    def take(self, index_B: Tensor, longest: int) -> tuple[Tensor, Target]:
        """Tokens `[B, T]` cut to the longest question, and targets: views of one gathered tensor."""
        row_BW = self.table_NW.index_select(0, index_B)
        whole_BW, weights_BK = row_BW.split([self.tokens + 1 + self.answers, self.answers], dim=1)
        tokens_BT, majority_B1, answer_BK = whole_BW.split([self.tokens, 1, self.answers], dim=1)
        count_BK, score_BK = weights_BK.view(torch.float32).chunk(2, dim=1)
        return tokens_BT[:, :longest], Target(majority_B1[:, 0], answer_BK, count_BK, score_BK)


def question_rates(questions: EncodedQuestions, batch_size: int) -> dict[str, float]:
    """Questions/s of picking tokens and targets column by column, as training does, and out of one table."""
    device = questions.tokens_NT.device
    index_B = torch.randperm(len(questions), generator=torch.Generator().manual_seed(0))[:batch_size].to(device)
    together, longest = QuestionTable(questions), questions.tokens_NT.shape[1]

    def one_by_one() -> None:
        questions.tokens_NT[:, :longest].index_select(0, index_B)
        questions.target_at(index_B)

    ways = {"column by column": one_by_one, "one table": lambda: together.take(index_B, longest)}
    return {name: len(index_B) / best_seconds(work, device) for name, work in ways.items()}
