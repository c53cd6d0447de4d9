"""Decoders in processes of their own: the same pixels, and whatever happens there stays there."""

import io
import os
import shlex
import signal
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="serving needs the extra: pip install 'retain[server]'")

from PIL import Image

from retain.errors import BadImage
from retain.faces.server.guard import Guard
from retain.vision import decode, encode_array


def picture(side=300, kind="JPEG", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side + 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def guard():
    made = Guard(1, seconds=5.0)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("shorter", [None, 64])
def test_the_same_pixels(guard, kind, shorter):
    data = picture(kind=kind)
    assert (guard.decode(data, shorter=shorter) == decode(data, shorter=shorter)).all()


@pytest.mark.parametrize("data", [b"", b"nonsense", picture()[:200], b"%PDF-1.4"])
def test_the_same_refusals(guard, data):
    with pytest.raises(BadImage) as there:
        guard.decode(data)
    with pytest.raises(BadImage) as here:
        decode(data)
    assert str(there.value) == str(here.value)


def test_a_bomb_is_refused_and_the_next_one_is_answered(guard):
    """Sixty-three million pixels in sixty kilobytes, in a process that has 100 MB."""
    tight = Guard(1, memory=100 << 20)
    try:
        file = io.BytesIO()
        Image.new("RGB", (7900, 8000)).save(file, "PNG")
        with pytest.raises(BadImage, match=r"memory|gave up"):
            tight.decode(file.getvalue())
        assert tight.decode(picture(50)).shape == (50, 90, 3)
    finally:
        tight.close()


def test_a_picture_that_takes_too_long_is_given_up():
    slow = Guard(1, seconds=1.5)
    try:
        slow.decode(picture(20))
        child = slow._idle.queue[0]._child
        os.kill(child.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(BadImage, match="gave up"):
            slow.decode(picture(20))
        assert time.monotonic() - started < 4
        assert slow.restarts == 1
        slow._seconds = 10.0
        assert slow.decode(picture(20)).shape == (20, 60, 3)
    finally:
        slow.close()


def test_a_decoder_that_begins_slowly_is_no_pictures_fault(tmp_path, monkeypatch):
    """As on a machine that does much else: found where six programs shared each core."""
    late = tmp_path / "late"
    late.write_text(f'#!/bin/sh\nsleep 4\nexec {shlex.quote(sys.executable)} "$@"\n')
    late.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(late))
    patient = Guard(1, seconds=3.5)
    try:
        assert patient.decode(picture(20)).shape == (20, 60, 3)
        assert patient.restarts == 0
    finally:
        patient.close()


def test_a_decoder_that_never_begins_refuses_the_picture(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    broken = Guard(1)
    try:
        with pytest.raises(BadImage, match="gave up"):
            broken.decode(picture(20))
        assert broken.restarts == 2
    finally:
        broken.close()


def test_a_decoder_that_was_killed_is_replaced_and_nothing_is_lost(guard):
    guard.decode(picture(20))
    for _ in range(3):
        guard._idle.queue[0]._child.kill()
        assert guard.decode(picture(20)).shape == (20, 60, 3)


def test_a_crash_is_the_pictures_fault_the_second_time(guard, monkeypatch):
    def crash(child, request, deadline):
        os.kill(process._child.pid, signal.SIGSEGV)  # before it can answer
        return real(child, request, deadline)

    from retain.faces.server import guard as module

    process, real = guard._idle.queue[0], module._send
    monkeypatch.setattr(module, "_send", crash)
    with pytest.raises(BadImage, match="gave up"):
        guard.decode(picture(20))
    monkeypatch.undo()
    assert guard.decode(picture(20)).shape == (20, 60, 3)


def in_threads(ask):
    """Call it with 0 to 3, at the same time."""
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def test_answers_are_never_mixed_between_threads():
    shared, wrong = Guard(2), []
    pictures = [encode_array(np.full((20 + i, 30, 3), i, np.uint8)) for i in range(12)]

    def ask(start):
        for k in range(40):
            i = (start + k) % 12
            pixels = shared.decode(pictures[i])
            if pixels.shape != (20 + i, 30, 3) or (pixels != i).any():
                wrong.append(i)

    in_threads(ask)
    shared.close()
    assert not wrong


def test_drawn_small(guard):
    small = Image.open(io.BytesIO(guard.draw(picture(400), 64)))
    assert small.format == "JPEG"
    assert max(small.size) == 64


# -- pictures in a line: the next is decoded while its thread is busy with the one before ---------


def said(decoder, data):
    """The pixels, or the refusal."""
    try:
        return decoder(data).tobytes()
    except BadImage as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_a_line_gives_what_each_alone_gives(guard, seed):
    random = np.random.default_rng(seed)
    files = [picture(20 + i, kind=["JPEG", "PNG"][i % 2], seed=i) for i in range(6)]
    files += [b"", b"nonsense", picture()[:200], picture(20)]
    for _ in range(5):
        line = [files[i] for i in random.permutation(len(files))[: random.integers(1, 9)]]
        with guard.in_line(line):
            for data in line:
                kind = random.integers(5)
                if kind == 0:
                    continue  # left out
                asked = [data, files[random.integers(len(files))]] if kind == 1 else [data]
                for each in asked:
                    assert said(guard.decode, each) == said(decode, each)
    assert guard.decode(picture(20)).shape == (20, 60, 3)


def test_a_line_decodes_the_next_ones_while_its_thread_is_busy(guard, monkeypatch):
    line = [picture(20, seed=i) for i in range(7)]
    asked = []
    from retain.faces.server import guard as module

    real = module._write
    monkeypatch.setattr(module, "_write", lambda file, data: asked.append(data) or real(file, data))
    with guard.in_line(line):
        for place, data in enumerate(line):
            guard.decode(data)
            assert asked == line[: place + 1 + module._AHEAD]


def test_who_is_not_of_the_line_comes_between(guard):
    line = [picture(20 + i, seed=i) for i in range(6)]
    other = picture(40, seed=9)
    with guard.in_line(line):
        for data in line[:3]:
            assert (guard.decode(data) == decode(data)).all()
        assert (guard.decode(other) == decode(other)).all()
        for data in line[3:]:
            assert (guard.decode(data) == decode(data)).all()


def test_who_dies_on_a_picture_ahead_takes_no_other_with_it(monkeypatch):
    alone = Guard(1, seconds=5.0)
    try:
        line = [picture(20, seed=i) for i in range(4)]
        with alone.in_line(line):
            assert (alone.decode(line[0]) == decode(line[0])).all()
            alone._lines.line.process._child.kill()
            for data in line[1:]:
                assert (alone.decode(data) == decode(data)).all()
        assert alone.restarts <= 1
        tight = picture(20)
        with alone.in_line([tight]):
            pass
        assert alone.decode(tight).shape == (20, 60, 3)
    finally:
        alone.close()


def test_a_bomb_ahead_is_refused_and_the_others_are_answered():
    tight = Guard(1, memory=100 << 20)
    try:
        file = io.BytesIO()
        Image.new("RGB", (7900, 8000)).save(file, "PNG")
        line = [picture(50), file.getvalue(), picture(60)]
        with tight.in_line(line):
            assert tight.decode(line[0]).shape == (50, 90, 3)
            with pytest.raises(BadImage, match=r"memory|gave up"):
                tight.decode(line[1])
            assert tight.decode(line[2]).shape == (60, 100, 3)
    finally:
        tight.close()


def test_lines_in_threads_are_never_mixed():
    shared, wrong = Guard(2), []
    pictures = [encode_array(np.full((20 + i, 30, 3), i, np.uint8)) for i in range(12)]

    def ask(start):
        for k in range(12):
            numbers = [(start + k + j) % 12 for j in range(5)]
            with shared.in_line([pictures[i] for i in numbers]):
                for i in numbers[:: 1 + k % 2]:
                    pixels = shared.decode(pictures[i])
                    if pixels.shape != (20 + i, 30, 3) or (pixels != i).any():
                        wrong.append(i)

    in_threads(ask)
    shared.close()
    assert not wrong
