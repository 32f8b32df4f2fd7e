"""`vqa demo`: the whole path on a drawn data set, ending in one page.

The four experiments are the recipes demo/*; this file only puts the steps in order.
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqa.data.synthetic import generate_dataset
from vqa.evaluation.bounds import type_rows
from vqa.evaluation.floors import question_only_bound
from vqa.evaluation.report.page import Report, confusions, write_report
from vqa.evaluation.scores import ModelScores, accuracy_table, question_type_table
from vqa.experiment import Experiment, read_experiment
from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, extract_dataset, imagenet_weights_at_hand
from vqa.files import write_json
from vqa.progress import console
from vqa.runs.evaluate import evaluate_run
from vqa.runs.predictions import Evaluation, stamped
from vqa.runs.report import examples, facts, learning_curve
from vqa.tables import Table, print_table
from vqa.training.train import train

EXPERIMENTS = Path("experiments/demo")  # of the current folder, else the recipes
MODELS = ("question_only", "concat", "product", "stacked_attention")
USUAL_PLACE = Path("experiments/runs/demo")
SHOWN = "stacked_attention"  # whose confusions and examples the report shows


def run_demo(out: Path = USUAL_PLACE, scenes: int = 3000, seed: int = 0) -> dict[str, Any]:
    """Draw a set, extract features, train four models, evaluate both tasks, write report.html and summary.json.

    What an earlier call finished is kept, so that a stopped demo goes on where it was.

    Returns:
        What summary.json holds: accuracies in percent (protocol 2021) on the drawn val split, and the seconds taken.
    """
    started = time.perf_counter()
    experiments = {name: read_experiment(EXPERIMENTS / f"{name}.yaml", _overrides(out, seed)) for name in MODELS}
    shown = experiments[SHOWN]

    console.rule("1 of 4: draw a data set")
    drawn = generate_dataset(Path(shown.data.root), scenes, seed, "real", shown.features.image_size or 112)
    bound = drawn["question_only_bound"]
    console.print(
        f"{scenes:,} images in {shown.data.root}; no model without images can score above {bound:.1f}% "
        "(VQA accuracy, protocol 2021)"
    )

    console.rule("2 of 4: extract image features, once")
    extract_features(shown)

    console.rule("3 of 4: train")
    folders = {}
    command = shlex.join(["vqa", "demo", "--out", str(out), "--scenes", str(scenes), "--seed", str(seed)])
    for name, experiment in experiments.items():
        folder = experiment.folder
        resume = (folder / "state.pt").is_file()
        folders[name] = train(experiment, resume=resume, command=command).path

    console.rule("4 of 4: evaluate both tasks")
    evaluations = {name: evaluate_run(folders[name]) for name in MODELS}
    summary = summarise(evaluations, time.perf_counter() - started)
    write_json(out / "summary.json", summary)
    tables = result_tables(evaluations)
    write_report(out / "report.html", demo_report(evaluations, tables, bound, summary["seconds"]))
    print_table(tables[0])
    console.print(f"\n[bold]report: {out / 'report.html'}[/]  ({summary['seconds']:.0f} s)\nnext:")
    dataset = evaluations[SHOWN].dataset
    asked = shlex.join([str(dataset.images.paths[dataset.image_row_N[0]]), dataset.question.at(0)])
    console.print(f"  vqa predict {folders[SHOWN]} {asked} --attention where.png")
    places = [] if out == USUAL_PLACE else _overrides(out, seed)[2:]
    for words in (
        ["vqa", "ablate", "fusion"],
        ["vqa", "train", "demo/stacked_attention", "name=one_hop", "fusion.hops=1"],
    ):
        console.print(f"  {shlex.join([*words, *places])}", markup=False)
    return summary


def _overrides(out: Path, seed: int) -> list[str]:
    changed = [f"seed={seed}", f"runs={out}", f"data.root={out / 'data'}"]
    # the cache of the experiment files is that of the usual place's images
    return changed if out == USUAL_PLACE else [*changed, f"features.cache={out / 'features.h5'}"]


def extract_features(experiment: Experiment) -> None:
    """Make the demo's cache: ImageNet weights where torchvision has them on this machine, else random ones."""
    features = experiment.features
    weights = "imagenet" if imagenet_weights_at_hand(features.encoder or "vgg16") else "random"
    if weights == "random":
        console.print(
            "ImageNet weights are not on this machine, and the demo downloads nothing: the encoder's weights are "
            "[bold]random[/]. That is enough for drawn shapes; photographs need trained weights."
        )
    encoder = EncoderOptions(features.encoder or "vgg16", features.layer, features.image_size or 112, weights)
    extract_dataset(
        Path(experiment.data.root), experiment.data.format, ["train", "val"], Path(features.cache[0]), encoder,
        ExtractOptions(command="vqa demo"),
    )  # fmt: skip


def summarise(evaluations: dict[str, Evaluation], seconds: float) -> dict[str, Any]:
    """The numbers of summary.json."""
    summary: dict[str, Any] = {}
    for name, evaluation in evaluations.items():
        own = evaluation.scored[0]
        assert own.open_ended is not None and own.multiple_choice is not None
        summary[name] = {"open_ended": own.open_ended.overall, "multiple_choice": own.multiple_choice.overall}
    last = evaluations[SHOWN]
    ceiling = last.scored[-1].open_ended
    assert ceiling is not None
    summary["ceiling"] = ceiling.overall
    summary["question_only_bound"] = round(question_only_bound(last.dataset), 2)
    return summary | {"protocol": last.protocol, "seconds": round(seconds, 1)}


def result_tables(evaluations: dict[str, Evaluation]) -> tuple[Table, ...]:
    """All models side by side, beside floor and ceiling; then stacked attention and the others by question type."""
    runs = [evaluation.scored[0]._replace(name=name) for name, evaluation in evaluations.items()]
    last = evaluations[SHOWN]
    rows: Sequence[ModelScores] = [*runs, *last.scored[1:]]
    name = last.dataset.name
    return (
        stamped(accuracy_table(rows, data=name), last.overlap),
        stamped(question_type_table(type_rows(tuple(rows)), "open-ended", data=name), last.overlap),
    )


def demo_report(evaluations: dict[str, Evaluation], tables: tuple[Table, ...], bound: float, seconds: float) -> Report:
    """The page of all four models."""
    last = evaluations[SHOWN]
    best, blind = (evaluations[name].scored[0].open_ended for name in (SHOWN, "question_only"))
    assert best is not None and blind is not None
    return Report(
        title="vqa demo: four ways to fuse a question with an image",
        summary=(
            f"Two-hop stacked attention answers {best.overall:.1f}% of open-ended questions; without the image it is "
            f"{blind.overall:.1f}%, and no model without the image can pass {bound:.1f}% on these questions (VQA "
            f"accuracy, protocol {last.protocol}).",
            f"Drawn images of coloured shapes, in the official VQA file formats; everything took {seconds:.0f} s.",
        ),
        facts=facts(last),
        tables=tables,
        beyond=last.beyond_tables(),
        charts=() if last.beyond is None else last.beyond.charts(),
        curves=tuple(learning_curve(name, evaluation.run.folder) for name, evaluation in evaluations.items()),
        confusions=tuple(confusions(last.dataset, last.answers["open-ended"])),
        examples=examples(last, others=[evaluations[name] for name in MODELS if name != SHOWN]),
        subject=f"{last.run.name}, {last.dataset.name}, open-ended",
        accuracy_name=f"open-ended VQA accuracy, protocol {last.protocol}",
    )
