"""The one thing pyproject.toml cannot say: experiments/*.yaml go into the wheel, as vqa/experiments/*.yaml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vqa", "vqa.*"]), "vqa.experiments"],
    package_dir={"vqa.experiments": "experiments"},
)
