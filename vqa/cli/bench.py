"""`vqa bench …`"""

from typing import Annotated

import typer

from vqa.cli.options import JsonOption

bench_app = typer.Typer(no_args_is_help=True, help="What this machine reaches, beside the usual way.")


@bench_app.command("data", epilog="Example: vqa bench data --questions 50000")
def bench_data(
    questions: Annotated[int, typer.Option(help="Questions to make up; the default is VQA v2 train.", min=1)] = 443_757,
    repeat: Annotated[int, typer.Option(help="Measure this often; the median is shown.", min=1)] = 3,
    json: JsonOption = None,
) -> None:
    """Time and memory of reading a large split, first and second time, beside json.load."""
    from vqa.evaluation.bench import print_reading_bench

    print_reading_bench(questions, repeat, json_file=json)


@bench_app.command("score", epilog="Example: vqa bench score --questions 50000")
def bench_score(
    questions: Annotated[int, typer.Option(help="Questions to make up; the default is VQA v2 val.", min=1)] = 214_354,
    repeat: Annotated[int, typer.Option(help="Measure this often; the median is shown.", min=1)] = 3,
    json: JsonOption = None,
) -> None:
    """Time and memory of scoring a large split, from files and from arrays, beside json.load of its annotations."""
    from vqa.evaluation.bench import print_scoring_bench

    print_scoring_bench(questions, repeat, json_file=json)
