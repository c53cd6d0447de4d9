"""Verbs on many pictures at once read them in several threads."""

import threading
import time

import numpy as np

from retain.values import Source
from retain.vision import VectorExtractor, encode_vector, extract_many


def test_vectors_are_parsed_one_at_a_time(monkeypatch):
    """Once one picture in thousands was lost.

    NumPy reads the header of an `.npy` file with Python's parser, which before Python 3.12
    fails now and then when two threads are in it ("AST constructor recursion depth mismatch").
    """
    inside, most = 0, 0
    real, guard = np.lib.format.read_array, threading.Lock()

    def watched(*args, **kwargs):
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.002)
        try:
            return real(*args, **kwargs)
        finally:
            with guard:
                inside -= 1

    monkeypatch.setattr(np.lib.format, "read_array", watched)
    data = [encode_vector(np.array([i, 1.0])) for i in range(40)]
    sources = [Source(str(i), (lambda each=each: each)) for i, each in enumerate(data)]
    found = list(extract_many(sources, VectorExtractor(2), threads=4))
    assert [each.feature.tolist() for each in found] == [[i, 1.0] for i in range(40)]
    assert most == 1
