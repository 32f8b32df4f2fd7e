"""`vqa bench score`: scoring a results file of the size of the VQA v2 validation split."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vqa.bench.child import ANNOTATIONS, QUESTIONS, RESULTS
from vqa.bench.gate import BenchReport
from vqa.bench.memory import measure_ways
from vqa.bench.reading import Bars, cost_report, write_v2_sized_files
from vqa.data.dataset import Strings
from vqa.data.formats.official import read_official
from vqa.evaluation.results import write_results

V2_VAL_QUESTIONS = 214_354
ANSWERS = 3000  # different ones among the predictions
FIRST = "vqa score, files read the first time"
AGAIN = "vqa score, files read before"
LOADED = "vqa score, from loaded arrays"
# The child's ways by name, in this order: the later two find what the first scoring has kept.
SCORING_WAYS = {
    "json.load of the annotations": "load_annotations",
    FIRST: "score_files",
    AGAIN: "score_files",
    LOADED: "score_arrays",
}
SCORING_BARS: Bars = {FIRST: (1.0, None), AGAIN: (1.0, None), LOADED: (None, None)}


def bench_scoring(questions: int = V2_VAL_QUESTIONS, repeat: int = 3) -> BenchReport:
    """Score synthetic answers to so many questions in each of `SCORING_WAYS`; the median of `repeat` times counts."""
    with TemporaryDirectory(prefix="vqa-bench-") as temporary:
        folder = Path(temporary)
        write_v2_sized_files(folder, questions)
        dataset = read_official(folder / QUESTIONS, folder / ANNOTATIONS)
        answered = np.random.default_rng(0).zipf(1.4, questions).clip(max=ANSWERS)
        write_results(folder / RESULTS, dataset, Strings.of([f"answer {code}" for code in answered.tolist()]))
        costs = measure_ways(SCORING_WAYS, folder, repeat)
    return cost_report("Scoring", costs, questions, SCORING_BARS)
