"""An experiment: what its file may say, and how it is read."""

from vqa.experiment.choosing import validated_on, weights_chosen
from vqa.experiment.reading import (
    Experiment,
    check_experiment,
    check_overridden,
    check_recorded,
    outside_parts,
    read_experiment,
)
from vqa.experiment.sections import (
    AnswersSection,
    DataSection,
    FeaturesSection,
    HoldoutSection,
    OptimizerSection,
    PartSection,
    ScheduleSection,
    Section,
    Seed,
    TrackingSection,
    TrainingSection,
)

__all__ = [
    "AnswersSection",
    "DataSection",
    "Experiment",
    "FeaturesSection",
    "HoldoutSection",
    "OptimizerSection",
    "PartSection",
    "ScheduleSection",
    "Section",
    "Seed",
    "TrackingSection",
    "TrainingSection",
    "check_experiment",
    "check_overridden",
    "check_recorded",
    "outside_parts",
    "read_experiment",
    "validated_on",
    "weights_chosen",
]
