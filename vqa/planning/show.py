"""What `vqa describe` shows on the terminal."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.experiment import Experiment, doubts
from vqa.files import write_json
from vqa.planning.describe import Description, describe
from vqa.planning.sizes import SizeOptions
from vqa.progress import console
from vqa.runtime.memory import human_bytes
from vqa.tables import Column, Row, Table, print_table

DIMENSIONS = {
    "image": "[B, regions, channels]",
    "tokens": "[B, tokens]",
    "words": "[B, tokens, word]",
    "sentence": "[B, question]",
    "fused": "[B, fusion]",
    "attention": "[B, {looks}, regions]",
    "logits": "[B, answers]",
}


READS = {
    "map": "every region, so it can look",
    "mean": "the mean region, so it cannot look",
    "nothing": "nothing of the image",
}


def print_description(description: Description, experiment: Experiment) -> None:
    """Equations, shapes, costs, memory and steps, each under its heading."""
    console.print(description.name, style="bold")
    for part in description.parts:
        console.print(f"\n{part.kind}  {part.name}: {part.words}")
        for line in part.equations:
            console.print(f"    {line}")
        if part.reads is not None:
            where = "; it needs their boxes" if part.needs_boxes else ""
            console.print(f"    reads: {READS[part.reads]}{where}")
        console.print(f"    options: {_options(part.options)}")
        for inner in part.inside:
            console.print(f"    {inner.key}  {inner.name}: {inner.words} {inner.parameters:,} parameters")
            for line in inner.equations:
                console.print(f"        {line}")
            console.print(f"        options: {_options(part.options[inner.key])}")
    console.print(f"\nloss  {description.loss[0]}: {description.loss[1]}")
    console.print("\nsizes")
    for name, source in description.sizes.sources.items():
        console.print(f"    {name:<10} {getattr(description.sizes, name):>9,}  {source}")
    console.print(f"\nshapes of a batch, B = {experiment.training.batch_size}")
    for name, shape in description.shapes.items():
        dimensions = DIMENSIONS[name].format(looks=re.sub(r"(?<![aeiou])y$", "ie", description.attention_name) + "s")
        console.print(f"    {name:<10} {dimensions:<24} {list(shape)}")
    console.print()
    print_table(cost_table(description))
    if (tuned := description.image_encoder) is not None:
        console.print(
            f"image encoder  {tuned.name} {tuned.layer}, tuned from {tuned.tune_from}: {tuned.trained:,} of "
            f"{tuned.parameters:,} parameters trained; {tuned.forward_flops / 1e6:,.1f} MFLOP an image forward, "
            f"{tuned.training_flops / 1e6:,.1f} in training, in no sum: an image is encoded once for its questions"
        )
    console.print("memory in training, float32 (activations in bfloat16: about half)")
    for name, size in description.memory.items():
        if name == "features" and description.image_encoder is not None:
            continue  # there is no table of them
        held = f"  {description.features_held}" if name == "features" else ""
        console.print(f"    {name:<24} {'not known' if size is None else human_bytes(size):>10}{held}")
    console.print(_steps(description, experiment))
    sizes = description.sizes
    for doubt in doubts(experiment, regions=sizes.regions, questions=sizes.questions):
        console.print(f"warning: {doubt}")
    if description.image_encoder is not None:
        console.print(
            "The image encoder is in weights, gradients and optimiser state; its activations are not counted."
        )


def _options(options: Mapping[str, Any]) -> str:
    """Every option with its value; of a part inside, its name."""
    shown = {key: value["name"] if isinstance(value, Mapping) else value for key, value in options.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items() if key != "name")


def _steps(description: Description, experiment: Experiment) -> str:
    epochs = experiment.training.epochs
    if description.steps_per_epoch is None or description.sizes.questions is None:
        return f"steps: {epochs} epochs of an unknown number of questions; give --questions"
    flops = description.training_flops * description.sizes.questions * epochs
    return (
        f"steps: {description.steps_per_epoch:,} an epoch, {description.steps:,} in {epochs} epochs; "
        f"{flops / 1e15:,.3g} PFLOP in all"
    )


def cost_table(description: Description) -> Table:
    """Parameters, arithmetic and activations of each part and of all."""
    columns = (
        Column("parameters", decimals=0),
        Column("forward", "MFLOP a question", decimals=2),
        Column("training", "MFLOP a question", decimals=2),
        Column("activations kB", "a question", decimals=1),
    )
    rows = [
        Row(
            f"{part.kind} ({part.name})",
            (part.parameters, part.forward_flops / 1e6, part.training_flops / 1e6, part.activation_bytes / 1e3),
        )
        for part in description.parts
    ]
    sums = tuple(sum(row.values[place] or 0 for row in rows) for place in range(len(columns)))
    caption = "Matrix products, counted as torch.utils.flop_counter does: a multiplication and an addition are 2."
    return Table("Costs", caption, columns, (*rows, Row("all", sums)), row_heading="Part", best="none")


def write_description(experiment: Experiment, sizes: SizeOptions, json_file: Path | None) -> None:
    """`vqa describe`: print, and write the numbers where asked."""
    description = describe(experiment, sizes)
    print_description(description, experiment)
    if json_file is not None:
        write_json(json_file, description.as_json())
