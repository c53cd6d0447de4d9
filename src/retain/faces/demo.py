"""The demo: a classifier's life on 500 real pictures, told with real numbers.

Everything happens through the public door, on ordinary files in one folder, so that whoever
watched can go on with commands of their own. Chance has one seed: which order the comparison
learns the pictures in.
"""

from __future__ import annotations

import random
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import files
from pathlib import Path

import retain
from retain.faces.story import Corrected, Forgotten, Story, Timing, restricted, share, untouched
from retain.faces.text import percent
from retain.values import Prediction, Progress, Report, Sample, Update

__all__ = ["SEED", "Bar", "Say", "live", "run", "unseen"]

SEED = 0
_MARK = ".retain-demo"
_OWN = ("classifier", "pictures", "report.html", _MARK)
_FIRST = 6
_CORRECTIONS = 3

Say = Callable[..., None]
"""Called as ``say(text)`` or ``say(text, style)`` with one line of the story."""

Bar = Callable[[str], AbstractContextManager[Progress | None]]
"""``with bar("learning") as tick`` gives what `Classifier.learn` takes as `progress`."""


def unseen(what: str) -> AbstractContextManager[Progress | None]:
    """A progress bar that nobody sees."""
    return nullcontext()


def run(out: Path, say: Say, bar: Bar = unseen) -> Path:
    """Live the story in the folder `out`, tell it, write the report; returns the report's path.

    Raises:
        AlreadyExists: if the folder holds something that no demo put there.
    """
    story = live(out, say, bar)
    from retain.faces.report import demo_page

    page = out / "report.html"
    page.write_text(demo_page(story), encoding="utf-8")
    _tell_the_end(story, page, say)
    return page


def live(out: Path, say: Say, bar: Bar = unseen) -> Story:
    """Do everything, telling it line by line."""
    started = time.perf_counter()
    _prepare(out)
    trained = _unpack(out / "pictures")
    classes = tuple(sorted({label for _, label in trained}))
    old, new = classes[:_FIRST], classes[_FIRST:]
    timings: list[Timing] = []

    def timed(what: str, seconds: float, pictures: int) -> None:
        timings.append(Timing(what, seconds, pictures))

    with retain.create(out / "classifier") as shop:

        def learn(lesson: str) -> Update:
            with bar("learning") as tick:
                return shop.learn(out / "pictures" / lesson, progress=tick)

        def evaluate() -> Report:
            with bar("evaluating") as tick:
                return shop.evaluate(out / "pictures" / "test", progress=tick)

        _head(say, 1, f"Learn six classes: {', '.join(old)}")
        first = learn("lesson-1")
        timed("learn six classes", first.seconds, first.learned)
        say(f"{first.summary} in {first.seconds:.1f} s")
        at_six = evaluate()
        timed("evaluate", at_six.seconds, at_six.n)
        say(f"accuracy on {share(at_six, old)[1]} test pictures of these six: {_of(at_six, old)}")

        _head(say, 2, f"Add four new classes from their pictures alone: {', '.join(new)}")
        second = learn("lesson-2")
        timed("add four classes", second.seconds, second.learned)
        say(f"{second.summary} in {second.seconds:.1f} s; the first lesson was not needed again")
        at_ten = evaluate()
        say(f"accuracy on the new four: {_of(at_ten, new)}; on all ten: {_of(at_ten, classes)}")

        _head(say, 3, "Were the old ones forgotten?")
        say(f"the six, asked among six, before:  {_of(at_six, old)}")
        say(f"the six, asked among six, now:     {percent(restricted(at_ten, old))}")
        say(f"the six, asked among all ten, now: {_of(at_ten, old)} (four more ways to be wrong)")
        before_all = shop.digest
        with tempfile.TemporaryDirectory() as scratch:
            odd = next(each for each in shop.samples() if each.label == old[0])
            with bar("learning all at once") as tick:
                at_once, seconds = _at_once(Path(scratch), trained, odd.source, tick)
            timed("learn all ten at once, to compare", seconds, len(trained))
            same = at_once == before_all
            say(
                "all ten learned at once, in another order: "
                + ("the same digest, bit for bit" if same else "ANOTHER DIGEST, which is a bug")
            )

            _head(say, 4, "Correct three test pictures that it gets wrong")
            corrected = _correct(shop, at_ten, say)
            for each in corrected:
                timed(f"correct one picture to {each.truth}", each.update.seconds, 1)
            at_end = evaluate()
            _tell_changes(corrected, at_ten, at_end, say)
            changes = [
                change
                for each in corrected
                for change in (*each.update.worse, *each.update.better, *each.update.changed)
            ]
            pictures = {change.image: shop.image(change.image) for change in changes}

            _head(say, 5, "Undo the last correction, and redo it")
            digests = _undo_and_redo(shop, timed, say)

            _head(say, 6, f"Forget one picture for good: {Path(odd.source).name} ({odd.label})")
            pairs = [(Path(each.before.path), each.truth) for each in corrected]
            forgotten = _forget(shop, odd, Path(scratch) / "never", pairs, say)
            timed("forget one picture", forgotten.receipt.seconds, 1)

        _head(say, 7, "Verify: derive everything again from the journal")
        verification = shop.verify()
        timed("verify", verification.seconds, verification.images)
        say(
            f"ok: {verification.images} pictures, {verification.events} events"
            if verification.ok
            else "NOT OK: " + "; ".join(verification.problems)
        )
        return Story(
            folder=out,
            old=old,
            new=new,
            lessons=(first, second),
            at_six=at_six,
            at_ten=at_ten,
            at_end=at_end,
            same_as_at_once=same,
            corrected=corrected,
            digests=digests,
            forgotten=forgotten,
            verification=verification,
            events=tuple(shop.log()),
            status=shop.status(),
            pictures=pictures,
            timings=tuple(timings),
            seconds=time.perf_counter() - started,
            seed=SEED,
        )


def _of(report: Report, labels: Sequence[str]) -> str:
    right, count = share(report, labels)
    return percent(right / count)


def _head(say: Say, number: int, title: str) -> None:
    say("")
    say(f"{number}  {title}", "bold")


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise retain.AlreadyExists(f"{out} is a file; choose a folder for the demo with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise retain.AlreadyExists(
            f"{out} holds something else than a demo, and is left alone; choose another folder "
            f"with --out"
        )
    # Only what a demo made is made anew; what else lies in the folder stays.
    for name in _OWN:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text(
        "Made by `retain demo`, which makes this folder anew when run again.\n"
    )


def _unpack(folder: Path) -> list[tuple[Path, str]]:
    """The shipped pictures as files in class folders; returns (path, label) to learn from."""
    import numpy as np

    shipped = files("retain") / "data" / "mini_clothing10" / "mini_clothing10_128_cc0.npz"
    with shipped.open("rb") as stream, np.load(stream) as archive:
        bundle = {name: archive[name] for name in archive.files}
    labels = [str(bundle["classes"][i]) for i in bundle["labels"]]
    first = set(sorted(set(labels))[:_FIRST])
    trained: list[tuple[Path, str]] = []
    for i, label in enumerate(labels):
        test = str(bundle["split_names"][bundle["split"][i]]) == "test"
        part = "test" if test else "lesson-1" if label in first else "lesson-2"
        path = folder / part / label / f"{bundle['names'][i].decode()}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        start, end = bundle["offsets"][i : i + 2]
        path.write_bytes(bundle["data"][start:end].tobytes())
        if not test:
            trained.append((path, label))
    return trained


def _at_once(
    scratch: Path, trained: Sequence[tuple[Path, str]], odd: str, tick: Progress | None
) -> tuple[str, float]:
    """Another classifier that learns all classes at once, in another order.

    Just before it sees `odd`, a copy is put aside in `never`, the classifier that never saw it.
    Returns the digest, and the wall time in seconds.
    """
    started = time.perf_counter()
    pairs = list(trained)
    random.Random(SEED).shuffle(pairs)  # noqa: S311 - an order, not a secret
    last = [pair for pair in pairs if str(pair[0]) == odd or pair[0].name == Path(odd).name]
    rest = [pair for pair in pairs if pair not in last]
    with retain.create(scratch / "once") as other:
        other.learn([path for path, _ in rest], [label for _, label in rest], progress=tick)
    shutil.copytree(scratch / "once", scratch / "never")
    with retain.open(scratch / "once") as other:
        other.learn([path for path, _ in last], [label for _, label in last])
        return other.digest, time.perf_counter() - started


def _correct(shop: retain.Classifier, report: Report, say: Say) -> tuple[Corrected, ...]:
    """Correct the most confident mistakes, one of each class."""
    chosen: dict[str, Prediction] = {}
    for mistake, truth in zip(report.mistakes, report.truths, strict=True):
        chosen.setdefault(truth, mistake)
    done = []
    for truth, before in list(chosen.items())[:_CORRECTIONS]:
        path = Path(before.path)
        # The answer just before this correction: the one before may have changed it.
        before = shop.predict(path)[0]
        update = shop.correct(path, truth)
        after = shop.predict(path)[0]
        how = "an edit of the head" if update.pinned else "learning it was enough"
        say(
            f"{path.name}: {before.label} {percent(before.probability)} → {after.label} "
            f"{percent(after.probability)} ({how}, {1000 * update.seconds:.0f} ms)"
        )
        done.append(Corrected(truth, path.read_bytes(), before, after, update))
    return tuple(done)


def _tell_changes(corrected: Sequence[Corrected], before: Report, after: Report, say: Say) -> None:
    worse = sum(len(each.update.worse) for each in corrected)
    better = sum(len(each.update.better) for each in corrected)
    say(f"what else changed, of the remembered pictures: {worse} worse, {better} better")
    was, count = untouched(before, corrected)
    now, _ = untouched(after, corrected)
    say(
        f"what else changed, of the {count} other test pictures: {len(now - was)} worse, "
        f"{len(was - now)} better (accuracy {percent(1 - len(was) / count)} → "
        f"{percent(1 - len(now) / count)})"
    )


def _undo_and_redo(
    shop: retain.Classifier, timed: Callable[[str, float, int], None], say: Say
) -> tuple[str, str, str]:
    before = shop.digest
    undone = shop.undo()
    timed("undo a correction", undone.seconds, 1)
    without = shop.digest
    say(f"{undone.summary} in {1000 * undone.seconds:.0f} ms")
    redone = shop.undo(undone.event)
    timed("undo the undo", redone.seconds, 1)
    say(f"{redone.summary} in {1000 * redone.seconds:.0f} ms")
    say(
        "the digest is exactly the one before"
        if shop.digest == before
        else "THE DIGEST IS ANOTHER ONE, which is a bug"
    )
    return before, without, shop.digest


def _forget(
    shop: retain.Classifier,
    odd: Sample,
    never: Path,
    corrections: Sequence[tuple[Path, str]],
    say: Say,
) -> Forgotten:
    """Forget a picture; look for its bytes; compare with the classifier that never saw it."""
    picture = shop.image(odd.image)
    before = _files_with(shop.path, picture)
    receipt = shop.forget(odd.image)
    after = _files_with(shop.path, picture)
    with retain.open(never) as other:
        other.learn([path for path, _ in corrections], [label for _, label in corrections])
        same = other.digest == shop.digest
    say(f"{receipt.summary} in {1000 * receipt.seconds:.0f} ms (level: {receipt.level})")
    say(f"files of the classifier that hold its bytes: {before} before, {after} after")
    say(
        "a classifier that never saw it: "
        + ("the same digest, bit for bit" if same else "ANOTHER DIGEST, which is a bug")
    )
    return Forgotten(odd, receipt, before, after, same)


def _files_with(folder: Path, data: bytes) -> int:
    return sum(data in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def _tell_the_end(story: Story, page: Path, say: Say) -> None:
    shop, pictures = story.folder / "classifier", story.folder / "pictures"
    example = story.corrected[0] if story.corrected else None
    wrong = next(
        (
            (mistake.path, truth)
            for mistake, truth in zip(story.at_end.mistakes, story.at_end.truths, strict=True)
        ),
        None,
    )
    say("")
    say(f"All of it took {story.seconds:.0f} s. The report, with the pictures: {page}", "bold")
    say("")
    say("Go on yourself:")
    say("  " + shlex.join(["retain", "predict", str(shop), str(pictures / "test" / "Hat")]))
    if wrong or example:
        path, truth = wrong or (example.before.path, example.truth)  # type: ignore[union-attr]
        say("  " + shlex.join(["retain", "correct", str(shop), path, truth]))
    say("  " + shlex.join(["retain", "log", str(shop)]))
