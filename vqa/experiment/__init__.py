"""An experiment: what its file may say, and how it is read."""

from vqa.experiment.choosing import validated_on, weights_chosen
from vqa.experiment.doubts import doubts
from vqa.experiment.files import RECORDED, files_of, read_values
from vqa.experiment.reading import (
    BESIDE_MODEL,
    Experiment,
    check_experiment,
    check_overridden,
    check_recorded,
    keys_of,
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
    "BESIDE_MODEL",
    "RECORDED",
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
    "doubts",
    "files_of",
    "keys_of",
    "outside_parts",
    "read_experiment",
    "read_values",
    "validated_on",
    "weights_chosen",
]
