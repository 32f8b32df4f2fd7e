"""`make results`: the tables of RESULTS.md and README, written from the numbers in `experiments/results/`.

`experiments/results/NAME.json` holds the numbers of one ablation (or of the demo), not rounded, with the command that
repeats them. Where the ablation's folder is there, under `experiments/runs/`, its numbers replace the file's first. A
table stands in a page between two marks, which say whose numbers it has, and which of them:

    <!-- table: daquar seeds -->
    ...
    <!-- end of table -->
"""
