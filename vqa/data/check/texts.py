"""What is wrong with the questions and answers of a data set.

Legend: `N` questions, `C` choices a question, `S` distinct strings.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vqa.data.check.findings import NAMED, TEN_ANSWERS, Finding, Level, some
from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.data.formats import FORMATS
from vqa.text.normalise import SPELLINGS, Spelling
from vqa.text.tokenize import tokenize
from vqa.text.vocabulary import MOST_WORDS

PAIRS = "complementary_pairs"
LONG_WORD = 25  # letters a word on average: only questions whose script is not cut into words have more


def question_findings(dataset: QADataset) -> Iterator[Finding]:
    """Questions asked twice, without a word, of one word, too long, and in scripts that are not cut into words."""
    ids, file = dataset.question_id_N, _file(dataset)
    pair_N2 = np.stack([dataset.image_row_N, dataset.question.codes], axis=1)
    _, first = np.unique(pair_N2, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(ids)), first)
    yield from some("note", file, ids[again], "asked before in the same words about the same image")
    cut = [tokenize(text) for text in dataset.question.distinct]
    words_N = np.array([len(words) for words in cut], dtype=np.int64)[dataset.question.codes]
    letters_N = np.array([sum(map(len, words)) for words in cut], dtype=np.int64)[dataset.question.codes]
    uncut_N = letters_N > LONG_WORD * words_N
    yield from some("warning", file, ids[words_N == 0], "without a word")
    published = dataset.format in FORMATS and dataset.format != "table"
    one_word: Level = "note" if published else "warning"
    yield from some(one_word, file, ids[(words_N == 1) & ~uncut_N], "of one word; is something cut off?")
    yield from some(
        "warning", file, ids[uncut_N],
        f"of words of more than {LONG_WORD} letters: their script is not cut into words here, so that hardly two "
        "questions share one; put spaces between the words",
    )  # fmt: skip
    long = f"of more than {MOST_WORDS} words; a training reads so many, or as many as words.longest says"
    yield from some("warning", file, ids[words_N > MOST_WORDS], long)


def answer_findings(dataset: QADataset) -> Iterator[Finding]:
    """Answers that are too few, not the majority's, not among the choices, or differ only in spelling."""
    if dataset.answers is None or dataset.majority is None:
        return
    ids, file = dataset.question_id_N, _file(dataset)
    if dataset.format in TEN_ANSWERS:
        few = (dataset.answers.codes != ABSENT).sum(axis=1) < 10
        yield from some("warning", file, ids[few], "with fewer than ten answers")
    outside = ~_among(dataset.majority, dataset.answers)
    yield from some("warning", file, ids[outside], "whose most frequent answer no one gave")
    if dataset.choices is not None:
        outside = ~_among(dataset.majority, dataset.choices)
        yield from some("warning", file, ids[outside], "whose answer is not among the choices")
    yield from _spellings(dataset, file)


def _file(dataset: QADataset) -> str:
    """The file of the answers, or of the questions where there are none."""
    return str([path for path in dataset.files if not path.name.endswith(f"_{PAIRS}.json")][-1])


def _among(value: Strings, rows: Strings) -> NDArray[np.bool_]:
    """Whether each row of a one-dimensional column is among the strings of that row of another `[N]`."""
    index = {text: code for code, text in enumerate(rows.distinct)}
    code_of = np.array([index.get(text, ABSENT - 1) for text in value.distinct], dtype=np.int64)
    return (rows.codes == code_of[value.codes][:, None]).any(axis=1)


def _spellings(dataset: QADataset, file: str) -> Iterator[Finding]:
    """Answers that a training takes for different ones, though they differ only in capitals or punctuation.

    The metric of sets with ten answers joins most of them, so there it is only good to know.
    """
    assert dataset.majority is not None
    codes, count = np.unique(dataset.majority.codes[dataset.majority.codes != ABSENT], return_counts=True)
    asked = {dataset.majority.distinct[code]: int(number) for code, number in zip(codes, count, strict=True)}
    spellings: tuple[Spelling, ...] = ("lower", "official")
    groups = {how: _several(asked, how) for how in spellings}
    if not groups["official"]:
        return
    joined = ", ".join(
        f"{how} joins {sum(map(len, found)):,} into {len(found):,}" for how, found in groups.items() if found
    )
    largest = sorted(groups["official"], key=lambda group: -min(asked[text] for text in group))[:NAMED]
    shown = "; ".join(" = ".join(repr(text) for text in group[:NAMED]) for group in largest)
    level: Level = "note" if dataset.format in TEN_ANSWERS else "warning"
    words = f"answers that differ only in spelling count as different ones ({shown}): answers.normalise joins them"
    yield Finding(level, file, dataset.split, f"{words} ({joined})")


def _several(texts: dict[str, int], how: Spelling) -> list[list[str]]:
    """Groups of more than one text that are one by this spelling, the most frequent text of each first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for text in sorted(texts, key=lambda text: (-texts[text], text)):
        groups[SPELLINGS[how](text)].append(text)
    return [group for group in groups.values() if len(group) > 1]
