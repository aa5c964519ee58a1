"""Models, local training, DP-SGD and evaluation; the only package that imports torch and opacus."""

import os

# Intel's MKL, which torch multiplies matrices with, else sums a row by its place in the matrix and in memory: then a
# record's gradient depends on the records beside it (per_record/company.py). Read when MKL is first used; AUTO,STRICT
# makes every row the same, at no cost that was measured (docs/decisions/0009).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
