"""A drawn data set: a unit test for visual question answering models, in the official file formats."""

from vqa.data.synthetic.write import draw_dataset

__all__ = ["draw_dataset"]
