"""A synthetic data set: a unit test for visual question answering models, in the official file formats."""

from vqa.data.synthetic.write import generate_dataset

__all__ = ["generate_dataset"]
