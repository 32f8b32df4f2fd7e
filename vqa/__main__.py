"""`python -m vqa` is the same as the console script `vqa`."""

from vqa.cli import main

main()
