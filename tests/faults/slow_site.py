"""Slow labs in processes that a test does not make itself: copied as ``sitecustomize.py`` into a folder on their path.

The labs in ``FEDSCI_TEST_SLOW`` take ``FEDSCI_TEST_SLOW_S`` seconds longer for a round, as long as the file
``FEDSCI_TEST_SLOW_WHILE`` is there; without that variable in the first round only.
"""

import importlib.abc
import importlib.util
import os
import sys
import time
from pathlib import Path

MODULE = "fedsci.site.round"


class SlowOnceImported(importlib.abc.MetaPathFinder):
    """Changes the module when somebody imports it; others are not kept waiting for torch."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            slow_down(module.Contributor)

        spec.loader.exec_module = exec_module
        return spec


def slow_down(contributor):
    whole, labs = contributor.contribution, os.environ["FEDSCI_TEST_SLOW"].split()
    switch = os.environ.get("FEDSCI_TEST_SLOW_WHILE")

    def contribution(self, model, number, **about):
        if self.name in labs and (Path(switch).exists() if switch else number == 1):
            time.sleep(float(os.environ["FEDSCI_TEST_SLOW_S"]))
        return whole(self, model, number, **about)

    contributor.contribution = contribution


sys.meta_path.insert(0, SlowOnceImported())
