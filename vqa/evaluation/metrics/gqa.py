"""GQA's suite (Hudson and Manning 2019, section 4.4), over the balanced questions, in the form of its eval.py.

accuracy: the answer is the true one, letter by letter; "binary" of all structural types but "query", "open" of those.
validity, plausibility: the answer is in the question's list of valid, or plausible, ones in the choices file; of the
detailed types whose name holds "Common" the lists are the words color, material, shape.
distribution: in each global group of questions, chi-square of the answers given against the true ones, weighted by
questions, divided by 100; lower is better.
consistency: of each question answered rightly, the share of its other entailed questions answered rightly, on average;
they need not be balanced, so that all questions and answers to them are needed.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from vqa.data.formats.decode import decode_file
from vqa.errors import InputError

_COMMON = ("color", "material", "shape")  # what two objects of a "Common" question can have in common


class _Types(msgspec.Struct, gc=False):
    structural: str | None = None
    detailed: str = ""


class _Groups(msgspec.Struct, gc=False, rename={"everywhere": "global"}):
    everywhere: str | None = None


class _Question(msgspec.Struct, gc=False, rename={"balanced": "isBalanced"}):
    answer: str | None = None
    balanced: bool = True
    types: _Types | None = None
    groups: _Groups | None = None
    entailed: list[str] | None = None


class _Choices(msgspec.Struct, gc=False):
    valid: list[str]
    plausible: list[str]


Figures = tuple[dict[str, float], dict[str, str]]


def gqa_figures(questions: Sequence[Path], choices: Path | None, answers: Mapping[str, str]) -> Figures:
    """The figures that the files allow, in percent but for the distribution; and what each of the others needs.

    Args:
        questions: the questions file, or its parts.
        choices: the choices file, or None.
        answers: the model's, by question id without leading zeros; balanced questions without one are left out.

    Raises:
        InputError: naming the file and the item.
    """
    asked: dict[str, _Question] = {}
    for path in questions:
        asked |= {_plain(key): one for key, one in decode_file(path, dict[str, _Question]).items()}
    scored = [key for key, one in asked.items() if one.balanced and key in answers]
    if not scored:
        raise InputError(f"{questions[0]}: no balanced question has an answer")
    hidden = next((key for key in scored if asked[key].answer is None), None)
    if hidden is not None:
        raise InputError(f"{questions[0]}: question {hidden} has no answer to compare with")
    right = {key: answers[key] == asked[key].answer for key in scored}
    figures, lacking = {"accuracy": _percent(list(right.values()))}, dict[str, str]()
    for part, need in (
        (_by_structure(asked, right), {"binary, open": "the questions' types, in GQA's questions file"}),
        (_lists(asked, answers, scored, choices), {"validity, plausibility": "--choices FILE, GQA's choices file"}),
        (_distribution(asked, answers, scored), {"distribution": "the questions' groups, in GQA's questions file"}),
        (
            _consistency(asked, answers, right),
            {"consistency": "all questions (--questions val_all_questions.json) and answers to all of them"},
        ),
    ):
        figures |= part or {}
        lacking |= need if part is None else {}
    return figures, lacking


def _plain(key: str) -> str:
    return key.lstrip("0") or "0"


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values) if values else 0.0


def _by_structure(asked: Mapping[str, _Question], right: Mapping[str, bool]) -> dict[str, float] | None:
    kinds: dict[str, list[float]] = {"binary": [], "open": []}
    for key, correct in right.items():
        types = asked[key].types
        if types is None or types.structural is None:
            return None
        kinds["open" if types.structural == "query" else "binary"].append(correct)
    return {kind: _percent(values) for kind, values in kinds.items()}


def _lists(
    asked: Mapping[str, _Question], answers: Mapping[str, str], scored: Sequence[str], choices: Path | None
) -> dict[str, float] | None:
    if choices is None:
        return None
    listed = {_plain(key): one for key, one in decode_file(choices, dict[str, _Choices]).items()}
    missing = next((key for key in scored if key not in listed), None)
    if missing is not None:
        raise InputError(f"{choices}: question {missing} is not in it; is it of another split?")
    found: dict[str, list[float]] = {"validity": [], "plausibility": []}
    for key in scored:
        types = asked[key].types
        common = types is not None and "Common" in types.detailed
        found["validity"].append(answers[key] in (_COMMON if common else listed[key].valid))
        found["plausibility"].append(answers[key] in (_COMMON if common else listed[key].plausible))
    return {name: _percent(values) for name, values in found.items()}


def _distribution(
    asked: Mapping[str, _Question], answers: Mapping[str, str], scored: Sequence[str]
) -> dict[str, float] | None:
    true: dict[str, Counter[str]] = defaultdict(Counter)
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for key in scored:
        groups, answer = asked[key].groups, asked[key].answer
        if groups is None:
            return None
        if groups.everywhere is not None and answer is not None:
            true[groups.everywhere][answer] += 1
            given[groups.everywhere][answers[key]] += 1
    if not true:
        return None
    total = 0.0
    for group, counts in true.items():
        square = sum((given[group][answer] - count) ** 2 / count for answer, count in counts.items())
        total += square * counts.total()
    return {"distribution (chi-square, lower is better)": total / sum(one.total() for one in true.values()) / 100}


def _consistency(
    asked: Mapping[str, _Question], answers: Mapping[str, str], right: Mapping[str, bool]
) -> dict[str, float] | None:
    shares = []
    for key, correct in right.items():
        entailed = asked[key].entailed
        if entailed is None:
            return None
        others = [_plain(other) for other in entailed if _plain(other) != key]
        if not correct or not others:
            continue
        if any(other not in asked or other not in answers for other in others):
            return None
        shares.append(sum(answers[other] == asked[other].answer for other in others) / len(others))
    return {"consistency": _percent(shares)}
