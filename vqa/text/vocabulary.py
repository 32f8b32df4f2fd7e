"""Words and answers as integers, and the file that keeps both with a trained model."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from vqa.errors import InputError
from vqa.files import read_json, write_json
from vqa.progress import console
from vqa.text.cutters import UNICODE, Cutter
from vqa.text.normalise import SPELLINGS, Spelling

PADDING = 0
UNKNOWN = 1
_FIRST_WORD = 2
MOST_WORDS = 200  # of a question, where nothing else is said; those of published sets have far fewer


class Tokenizer(Protocol):
    """What turns questions into integers: the training questions' words, or a pretrained model's own tokens."""

    def __len__(self) -> int:
        """How many different integers there are."""

    def encode(self, question: str) -> list[int]:
        """The question as integers, at least one."""

    def encode_all(self, questions: Sequence[str]) -> list[list[int]]:
        """The same for many."""

    def unknown(self, question: str) -> tuple[str, ...]:
        """The words of a question that were never seen, each once, in order."""


def _ranked(counts: Mapping[str, int], min_count: int) -> list[str]:
    """The strings seen at least `min_count` times, most frequent first, ties alphabetical."""
    return sorted(
        (text for text, count in counts.items() if count >= min_count), key=lambda text: (-counts[text], text)
    )


def _index(texts: tuple[str, ...], first: int, kind: str) -> dict[str, int]:
    index = {text: number for number, text in enumerate(texts, start=first)}
    if len(index) < len(texts):
        twice = next(text for text, count in Counter(texts).items() if count > 1)
        raise InputError(f"{kind} vocabulary: {twice!r} is there twice")
    return index


@dataclass(frozen=True)
class Vocabulary:
    """The words a question encoder knows: 0 is padding, 1 any unknown word, `words[i]` is i + 2.

    Attributes:
        words: most frequent first.
        longest: words of a question that are read; what comes after is cut off, for every question takes the memory
            of the longest.
        cutter: how questions are cut into words.

    Raises:
        InputError: a word is there twice.
    """

    words: tuple[str, ...]
    longest: int = MOST_WORDS
    cutter: Cutter = UNICODE
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", _index(self.words, _FIRST_WORD, "word"))

    def cut(self, question: str) -> list[str]:
        """The question's words."""
        return self.cutter.cut(question)

    @classmethod
    def build(
        cls, questions: Iterable[str], min_count: int = 1, longest: int = MOST_WORDS, cutter: Cutter = UNICODE
    ) -> "Vocabulary":
        """The words of `questions` seen at least `min_count` times, most frequent first, ties alphabetical."""
        counts = Counter(word for question in questions for word in cutter.cut(question))
        return cls(tuple(_ranked(counts, min_count)), longest, cutter)

    def __len__(self) -> int:
        return len(self.words) + _FIRST_WORD

    def encode(self, question: str) -> list[int]:
        """The question as integers; one without any word is `[UNKNOWN]`, so that no length is 0."""
        return self._encode_whole(question)[: self.longest]

    def encode_all(self, questions: Sequence[str]) -> list[list[int]]:
        """Many questions as integers; how many were cut is printed."""
        encoded = [self._encode_whole(question) for question in questions]
        long = sum(len(tokens) > self.longest for tokens in encoded)
        if long:
            console.print(
                f"note: {long:,} of {len(questions):,} questions have more than {self.longest} words (words.longest); "
                f"they are cut there",
            )
        return [tokens[: self.longest] for tokens in encoded]

    def _encode_whole(self, question: str) -> list[int]:
        return [self.index.get(word, UNKNOWN) for word in self.cut(question)] or [UNKNOWN]

    def unknown(self, question: str) -> tuple[str, ...]:
        """The words of a question that the vocabulary does not have, each once, in order."""
        return tuple(dict.fromkeys(word for word in self.cut(question) if word not in self.index))


@dataclass(frozen=True)
class AnswerVocabulary:
    """The answers a classifier chooses from: `answers[i]` is class i.

    Attributes:
        answers: the most frequent first; of answers that count as one, the most frequent spelling.
        normalise: which answers count as one, as `answers.normalise` of an experiment.
        index: the class of an answer, by what `SPELLINGS[normalise]` makes of it.

    Raises:
        InputError: an answer is there twice, or there is none.
    """

    answers: tuple[str, ...]
    normalise: Spelling = "none"
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.answers:
            raise InputError("answer vocabulary: no answer is left; lower min_count")
        spelt = tuple(map(SPELLINGS[self.normalise], self.answers))
        object.__setattr__(self, "index", _index(spelt, 0, "answer"))

    @classmethod
    def build(
        cls, counts: Mapping[str, int], size: int | None, min_count: int = 1, normalise: Spelling = "none"
    ) -> "AnswerVocabulary":
        """The `size` most frequent answers (None: all) seen at least `min_count` times, ties alphabetical.

        Args:
            normalise: which answers count as one; they are counted together.
        """
        spelling, joined = dict[str, str](), Counter[str]()
        for text in _ranked(counts, 1):  # the most frequent spelling comes first and names the class
            joined[spelling.setdefault(SPELLINGS[normalise](text), text)] += counts[text]
        return cls(tuple(_ranked(joined, min_count)[:size]), normalise)

    def find(self, answer: str) -> int | None:
        """The class of an answer in any spelling that counts as one with it; None where there is none.

        >>> AnswerVocabulary(("Yes", "no"), "lower").find("YES")
        0
        """
        return self.index.get(SPELLINGS[self.normalise](answer))

    def __len__(self) -> int:
        return len(self.answers)


class _File(msgspec.Struct):
    words: tuple[str, ...]
    answers: tuple[str, ...]
    digest: str


def vocabulary_digest(words: Vocabulary, answers: AnswerVocabulary) -> str:
    """SHA-256 over both vocabularies, 64 hexadecimal digits: equal only for the same words in the same order."""
    content = json.dumps([words.words, answers.answers], ensure_ascii=True)
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def write_vocabularies(path: Path, words: Vocabulary, answers: AnswerVocabulary) -> None:
    """Write both vocabularies and their digest as JSON, atomically."""
    write_json(path, {"digest": vocabulary_digest(words, answers), "words": words.words, "answers": answers.answers})


def read_vocabularies(
    path: Path, longest: int = MOST_WORDS, cutter: Cutter = UNICODE, normalise: Spelling = "none"
) -> tuple[Vocabulary, AnswerVocabulary]:
    """Read what `write_vocabularies` wrote; `longest`, `cutter` and `normalise` as in the vocabularies.

    Raises:
        InputError: the file is missing, is not a vocabulary file, or was changed after it was written.
    """
    content = read_json(path, _File)
    try:
        words, answers = Vocabulary(content.words, longest, cutter), AnswerVocabulary(content.answers, normalise)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if vocabulary_digest(words, answers) != content.digest:
        raise InputError(f"{path}: the words or answers do not match the file's digest; it was changed or damaged")
    return words, answers
