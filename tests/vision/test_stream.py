"""`extract_many`: order, bounded memory, errors that stop nothing, stopping at once."""

import threading
import time

import numpy as np
import pytest

from retain.errors import BadImage, BadOption
from retain.values import Source, content_hash
from retain.vision import VectorExtractor, encode_vector, extract_many, usable_cores

EYES = VectorExtractor(1)


def source(number: int, delay: float = 0.0, log: list | None = None) -> Source:
    def read() -> bytes:
        time.sleep(delay)
        if log is not None:
            log.append(number)
        return encode_vector(np.array([float(number)]))

    return Source(str(number), read)


def failing(error: Exception) -> Source:
    def read() -> bytes:
        raise error

    return Source("bad", read)


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_the_order_is_the_one_given(threads):
    rng = np.random.default_rng(0)
    sources = [source(i, float(rng.uniform(0, 0.004))) for i in range(60)]
    given = list(extract_many(sources, EYES, threads=threads))
    assert [each.source for each in given] == sources
    assert [float(each.feature[0]) for each in given] == list(range(60))
    for each in given:
        assert each.image == content_hash(each.data)
        assert each.error is None
        assert not each.skipped


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_file_stops_nothing(threads):
    sources = [
        source(0),
        failing(BadImage("torn")),
        failing(PermissionError(13, "Permission denied")),
        Source("nonsense", lambda: b"nonsense"),
        source(4),
    ]
    given = list(extract_many(sources, EYES, threads=threads))
    assert [each.feature is not None for each in given] == [True, False, False, False, True]
    assert str(given[1].error) == "torn"
    assert "Permission denied" in str(given[2].error)
    assert isinstance(given[3].error, BadImage)
    assert given[3].image == content_hash(b"nonsense")
    assert given[1].image == ""


@pytest.mark.parametrize("threads", [1, 3])
def test_known_pictures_are_not_extracted(threads):
    class Counting(VectorExtractor.__mro__[1]):  # the abstract class
        name = fingerprint = "counting"
        dimension = 1

        def __init__(self):
            self.count = 0

        def feature(self, data):
            self.count += 1
            return np.ones(1, np.float32)

        def files(self):
            return {}

    eyes = Counting()
    known = {content_hash(source(i).read()) for i in range(0, 10, 2)}
    given = list(
        extract_many([source(i) for i in range(10)], eyes, skip=known.__contains__, threads=threads)
    )
    assert eyes.count == 5
    assert [each.skipped for each in given] == [True, False] * 5
    assert all(each.image for each in given)
    assert given[0].feature is None
    assert given[0].data is None


def test_an_error_that_is_not_the_pictures_fault_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(extract_many([source(0), failing(ZeroDivisionError()), source(2)], EYES, threads=2))


def test_only_a_few_are_under_way():
    taken = []

    def endless():
        for i in range(10**9):
            taken.append(i)
            yield source(i)

    stream = extract_many(endless(), EYES, threads=2)
    for _ in range(5):
        next(stream)
    time.sleep(0.05)
    assert len(taken) <= 5 + 2 * 4
    stream.close()


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_stopping_stops_the_workers_at_once(how):
    log: list[int] = []
    stream = extract_many([source(i, 0.05, log) for i in range(1000)], EYES, threads=2)
    start = time.perf_counter()
    if how == "close":
        next(stream)
        stream.close()
    else:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the loop is what is interrupted
            next(stream)
            stream.throw(KeyboardInterrupt)
    assert time.perf_counter() - start < 1
    done = len(log)
    time.sleep(0.15)
    assert len(log) == done < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("retain-eyes")]


def test_no_threads_are_left_behind_and_none_started_for_one_picture():
    assert len(list(extract_many([source(1)], EYES))) == 1
    assert list(extract_many([], EYES)) == []
    list(extract_many([source(i) for i in range(9)], EYES, threads=4))
    assert not [t for t in threading.enumerate() if t.name.startswith("retain-eyes")]


def test_numbers_of_threads():
    assert usable_cores() >= 1
    with pytest.raises(BadOption, match="0 threads"):
        extract_many([], EYES, threads=0)
