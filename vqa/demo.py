"""`vqa demo`: the whole path on a synthetic data set, ending in one page.

The four experiments are the recipes demo/*; this file only puts the steps in order.
"""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqa.data.synthetic import generate_dataset
from vqa.evaluation.floors import question_only_bound
from vqa.evaluation.report.page import Report, write_report
from vqa.evaluation.scores import floor_above
from vqa.experiment import Experiment, read_experiment
from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, extract_dataset, imagenet_weights_at_hand
from vqa.files import write_json
from vqa.progress import console
from vqa.runs.evaluate import Evaluation, evaluate_run
from vqa.tables import Table, print_table
from vqa.training.train import train

EXPERIMENTS = Path("experiments/demo")  # of the current folder, else the recipes
MODELS = ("question_only", "concat", "product", "stacked_attention")
USUAL_PLACE = Path("experiments/runs/demo")
MODEL_SHOWN = "stacked_attention"  # whose confusions and examples the report shows


def run_demo(out: Path = USUAL_PLACE, scenes: int = 3000, seed: int = 0) -> dict[str, Any]:
    """Generate a set, extract features, train four models, evaluate both tasks, write report.html and summary.json.

    What an earlier call finished is kept, so that a stopped demo goes on where it was.

    Returns:
        What summary.json holds: accuracies in percent (protocol 2021) on the val split, and the seconds taken.
    """
    started = time.perf_counter()
    experiments = {name: read_experiment(EXPERIMENTS / f"{name}.yaml", _overrides(out, seed)) for name in MODELS}
    shown = experiments[MODEL_SHOWN]

    console.rule("1 of 4: generate a data set")
    generated = generate_dataset(Path(shown.data.root), scenes, seed, "real", shown.features.image_size or 112)
    bound = generated["question_only_bound"]
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
    write_report(out / "report.html", demo_report(evaluations, tables, bound, summary["seconds"], scenes))
    print_table(tables[0])
    for sentence in floor_sentences(evaluations, scenes):
        console.print(sentence, style="bold")
    console.print(f"\nreport: {out / 'report.html'}  ({summary['seconds']:.0f} s)", style="bold")
    console.print("next:")
    dataset = evaluations[MODEL_SHOWN].dataset
    asked = shlex.join([str(dataset.images.paths[dataset.image_row_N[0]]), dataset.question.at(0)])
    console.print(f"  vqa predict {folders[MODEL_SHOWN]} {asked} --attention where.png")
    places = [] if out == USUAL_PLACE else _overrides(out, seed)[2:]
    for words in (
        ["vqa", "ablate", "fusion"],
        ["vqa", "train", "demo/stacked_attention", "name=one_hop", "fusion.hops=1"],
    ):
        console.print(f"  {shlex.join([*words, *places])}")
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
            "random. That is enough for synthetic shapes; photographs need trained weights."
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
        accuracy = evaluation.judgement.own.as_json()
        summary[name] = {task: accuracy[task]["overall"] for task in ("open_ended", "multiple_choice")}
    judgement = evaluations[MODEL_SHOWN].judgement
    summary["floors"] = {
        row.name: {task: numbers["overall"] for task, numbers in row.as_json().items()}
        for row in judgement.scored
        if row.kind == "floor"
    }
    summary["ceiling"] = judgement.scored[-1].as_json()["open_ended"]["overall"]
    summary["question_only_bound"] = round(question_only_bound(judgement.dataset), 2)
    return summary | {"protocol": judgement.options.protocol, "seconds": round(seconds, 1)}


def result_tables(evaluations: dict[str, Evaluation]) -> tuple[Table, ...]:
    """All models side by side, beside floor and ceiling; then stacked attention and the others by question type."""
    judgement = evaluations[MODEL_SHOWN].judgement
    models = [evaluation.judgement.own._replace(name=name) for name, evaluation in evaluations.items()]
    together = replace(judgement, scored=(*models, *judgement.scored[1:]), other_choices=None)
    return together.tables()[:2]


def floor_sentences(evaluations: dict[str, Evaluation], scenes: int) -> tuple[str, ...]:
    """A sentence for each task in which models are below a floor, as they are where the scenes are too few to learn."""
    said = []
    for task in evaluations[MODEL_SHOWN].judgement.answers.by_task:
        below: dict[str, list[str]] = {}
        for name, evaluation in evaluations.items():
            if floor := floor_above(evaluation.judgement.scored, task):
                below.setdefault(floor, []).append(name)
        for floor, names in below.items():
            row = next(row for row in evaluations[MODEL_SHOWN].judgement.scored if row.name == floor)
            reached = row.of(task)
            assert reached is not None
            bound = f"{reached.overall:.1f}%, the {floor}"
            if MODEL_SHOWN in names:
                what = (
                    f"{scenes:,} scenes are too few for attention to beat every floor: {', '.join(names)} below {bound}"
                )
            else:
                what = f"{', '.join(names)} stay below {bound}: nothing can be concluded of them with {scenes:,} scenes"
            said.append(f"{task.capitalize()}, {what}. More scenes teach more: --scenes.")
    return tuple(said)


def demo_report(
    evaluations: dict[str, Evaluation], tables: tuple[Table, ...], bound: float, seconds: float, scenes: int
) -> Report:
    """The page of all four models."""
    shown = evaluations[MODEL_SHOWN]
    best, blind = (evaluations[name].judgement.own.open_ended for name in (MODEL_SHOWN, "question_only"))
    assert best is not None and blind is not None
    examples = shown.examples(others=[evaluations[name] for name in MODELS if name != MODEL_SHOWN])
    curves = [evaluation.learning_curve() for evaluation in evaluations.values()]
    return replace(
        shown.judgement.report(shown.run.experiment.name, shown.facts(), examples, curves),
        title="vqa demo: four ways to fuse a question with an image",
        summary=(
            f"Two-hop stacked attention answers {best.overall:.1f}% of open-ended questions; without the image it is "
            f"{blind.overall:.1f}%, and no model without the image can pass {bound:.1f}% on these questions (VQA "
            f"accuracy, protocol {best.protocol}).",
            *floor_sentences(evaluations, scenes),
            f"Synthetic images of coloured shapes, in the official VQA file formats; everything took {seconds:.0f} s.",
        ),
        tables=tables,
    )
