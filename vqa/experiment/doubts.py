"""What an experiment asks for that can hardly be meant, found before anything runs: each with what to do."""

from collections.abc import Iterator

from vqa.experiment.reading import Experiment
from vqa.models import is_outside, reads_of

LARGE_RATE = {"sgd": 10.0}  # learning rates from here on are hardly meant; of the others each step moves a weight by it
USUAL_LARGE_RATE = 0.1
HARDLY_ANY = 1e-3  # of the learning rate, left after one epoch


def doubts(experiment: Experiment, *, regions: int | None = None, questions: int | None = None) -> list[str]:
    """The doubts, a sentence each.

    Args:
        regions: of an image's features, where they are known.
        questions: that are trained on in an epoch, where they are known.
    """
    return [*_of_data(experiment, regions, questions), *_of_rate(experiment, questions), *_of_epochs(experiment)]


def _of_data(experiment: Experiment, regions: int | None, questions: int | None) -> Iterator[str]:
    fusion, training, data = experiment.fusion, experiment.training, experiment.data
    if regions == 1 and not is_outside("fusion", fusion) and reads_of(fusion) == "map":
        yield (
            f"fusion {fusion['name']} chooses among regions, and these features have 1 an image, which gets all of the "
            f"attention; take features of a map (layer pool5, for one) or another fusion (product)"
        )
    if questions is not None and training.batch_size > questions:
        yield (
            f"training.batch_size {training.batch_size:,} is more than the {questions:,} training questions: an epoch "
            f"is one step; lower it"
        )
    if data.holdout is None and data.val == data.train:
        yield (
            f"data.val is the training split, {data.train}: the epoch is chosen on what was trained on; set "
            f"data.holdout=0.1"
        )
    elif data.holdout is not None and data.val not in (None, "val"):
        yield (
            f"data.holdout keeps {data.holdout:g} of the training images for validation, so data.val, {data.val}, is "
            f"not used; leave out one of them"
        )


def _of_rate(experiment: Experiment, questions: int | None) -> Iterator[str]:
    training = experiment.training
    optimizer, schedule = training.optimizer, training.schedule
    rates = {"": optimizer.learning_rate}
    rates |= {f"parts.{name}.": one.learning_rate for name, one in optimizer.parts.items() if one.learning_rate}
    for where, rate in rates.items():
        if rate >= LARGE_RATE.get(optimizer.name, USUAL_LARGE_RATE):
            yield (
                f"training.optimizer.{where}learning_rate {rate:g} is very large for {optimizer.name}; usual are 1e-4 "
                f"to {'1' if optimizer.name == 'sgd' else '1e-2'}"
            )
    if schedule.name == "exponential" and questions is not None:
        steps = -(-questions // training.batch_size)
        if (left := schedule.factor**steps) < HARDLY_ANY:
            yield (
                f"training.schedule.factor {schedule.factor:g} counts for every step: after one epoch, {steps:,} "
                f"steps, {left:.1g} of the learning rate is left; for a factor each epoch take the schedule step"
            )
    if schedule.warmup >= training.epochs:
        yield (
            f"training.schedule.warmup {schedule.warmup:g} takes all of the {training.epochs} epochs: the learning "
            f"rate never gets to training.optimizer.learning_rate; lower it"
        )


def _of_epochs(experiment: Experiment) -> Iterator[str]:
    training = experiment.training
    schedule = training.schedule
    late = [epoch for epoch in schedule.at if epoch >= training.epochs]
    if late:
        yield f"training.schedule.at {late[0]} comes after the last of {training.epochs} epochs and does nothing"
    if schedule.name == "step" and not schedule.at and schedule.every >= training.epochs:
        yield (
            f"training.schedule.every {schedule.every} comes after the last of {training.epochs} epochs: the learning "
            f"rate never falls"
        )
    if training.patience is not None and training.patience >= training.epochs:
        yield f"training.patience {training.patience} is not less than the {training.epochs} epochs and does nothing"
