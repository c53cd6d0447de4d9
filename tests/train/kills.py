"""Trainings that are killed: how a child is, and the law that nobody begins again.

It is a child that keeps its state after every step, and says where it is before each.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

HARNESS = """
import functools, sys, torch, retain
from retain import train
train.fit, train.teach = (functools.partial(f, save_every=0.0) for f in (train.fit, train.teach))
take = train.loop._Run._take
def told(run, *given):
    print(run.checkpoint._path.parent.name, run.step, flush=True)
    return take(run, *given)
train.loop._Run._take = told
torch.set_num_threads(int(sys.argv[2]))
"""


def killed(script, path, enough, wait):
    """The steps that a child took until it was killed.

    Args:
        script: what it runs on the classifier at `path`.
        path: of the classifier.
        enough: whether the steps that it took so far are enough to kill it.
        wait: so many seconds after they are.
    """
    with subprocess.Popen(
        [sys.executable, "-c", HARNESS + script, str(path), str(torch.get_num_threads())],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "begun\n"
        found = []
        while not enough(found):
            line = child.stdout.readline()
            assert line, "the child came to its end before it was killed"
            found.append(_step(line))
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        return found + [_step(line) for line in child.stdout if line.endswith("\n")]


def _step(line):
    phase, number = line.split()
    return phase, int(number)


def assert_resumes(whole, children, last):
    """That each child went on where the one before it was killed, and nobody began again.

    Args:
        whole: the steps of a training that nobody kills.
        children: the steps of each child that was killed.
        last: those of the process that was let finish; empty where nothing was left to train.
    """
    place, begun = 0, []
    for found in [*children, last]:
        if not found:
            continue
        first = whole.index(found[0])
        # The step that was under way is there if it was saved, and otherwise taken again.
        assert first in ((place, place + 1) if begun else (0,))
        assert found == whole[first : first + len(found)]
        begun.append(first)
        place = first + len(found) - 1
    assert begun == sorted(begun)
    assert sum(each > 0 for each in begun) >= 2, "hardly one of them began in the middle"
    assert len(last) < len(whole)
