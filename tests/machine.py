"""A random life of a classifier, beside the list of what happened to it: what such tests share.

The model keeps the journal as a list of (kind, payload), one for each event; what `learn`,
`correct` and `reference` tell of pictures by number, what `undo` undoes, what `rename` and `merge`
make of what. For a comparison `relearned` teaches the surviving events, each with its surviving
pictures, to a classifier that begins empty.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import retain
from retain.errors import CannotUndo, InputError, NotCorrected, PinConflict

TOLD = {"learn", "correct", "reference"}


class Machine(RuleBasedStateMachine):
    """
    Attributes:
        pool: the pictures, by number.
        labels: those that are taught.
        refusals: what `learn` may raise for the sake of corrections, so that nothing happened.
    """

    pool = ()
    labels = ()
    refusals = ()

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.shop = self.begin("shop")
        self.events = []
        self.apart = {}
        self.made = 0
        self.strained = False

    def begin(self, name):
        """An empty classifier of this name in the folder."""
        raise NotImplementedError

    def some(self, numbers):
        """Pictures, as they are given to a verb."""
        return [self.pool[k] for k in numbers]

    def note(self, kind, payload):
        self.events.append((kind, payload))
        self.strained |= bool(self.shop._session.state.conflict)

    def teardown(self):
        self.shop.close()
        shutil.rmtree(self.folder)

    # -- the model -----------------------------------------------------------------------------

    def survivors(self):
        alive = [True] * len(self.events)
        for i in range(len(self.events) - 1, -1, -1):
            kind, payload = self.events[i]
            if kind == "undo" and alive[i]:
                alive[payload] = False
        return [event for event, kept in zip(self.events, alive, strict=True) if kept]

    def replayed(self):
        """Picture → (label, pinned); the label of a reference picture is empty."""
        found = {}
        for kind, payload in self.survivors():
            if kind in TOLD:
                found.update((k, (v, kind == "correct")) for k, v in payload.items())
            elif kind in {"rename", "merge"}:
                old, new = payload
                found = {k: (new if v == old else v, p) for k, (v, p) in found.items()}
        return found

    def teachable(self):
        """Whether the survivors can be taught one after the other.

        Undoing an undo may bring back a correction below a lesson that came while it was away. The
        lesson counts, being later; but nobody could teach it now, since no lesson overrules a
        correction. It may also bring a label back below a reference that came meanwhile. Where
        corrections contradicted each other for a while, who is told them anew climbs the ladder.
        """
        if self.strained:
            return False
        seen, pinned = set(), set()
        for kind, payload in self.survivors():
            rows = set(payload) if kind in TOLD else set()
            if (kind == "learn" and rows & pinned) or (kind == "reference" and rows & seen):
                return False
            seen |= rows
            pinned |= rows if kind == "correct" else set()
        return True

    def relearned(self):
        self.made += 1
        twin = self.begin(f"twin{self.made}")
        for kind, payload in self.survivors():
            if kind in TOLD and payload:
                self.retell(twin, kind, payload)
            elif kind in {"rename", "merge"} and payload[0] in twin.labels:
                verb = twin.merge if payload[1] in twin.labels else twin.rename
                verb(*payload)
        return twin

    def retell(self, twin, kind, payload):
        rows = sorted(payload.items())
        pictures = self.some([k for k, _ in rows])
        if kind == "learn":
            twin.learn(pictures, [v for _, v in rows], force=True)
        elif kind == "reference":
            twin.reference(pictures)
        else:
            pairs = [(self.pool[k], v) for k, v in rows]
            twin.correct_many(pairs, replace=True, exception=self.apart[id(payload)], force=True)

    # -- the verbs -----------------------------------------------------------------------------

    @rule(data=st.data())
    def learn(self, data):
        numbers = st.integers(0, len(self.pool) - 1)
        chosen = data.draw(st.lists(numbers, min_size=1, max_size=6, unique=True))
        label = data.draw(st.sampled_from(self.labels))
        known = self.replayed()
        own = [known.get(k, ("", False)) for k in chosen]
        if all(pinned and was != label for was, pinned in own):
            with pytest.raises(InputError, match="corrected to"):
                self.shop.learn(self.some(chosen), label, force=True)
            return
        told = zip(chosen, own, strict=True)
        change = {k: label for k, (was, pinned) in told if was != label and not pinned}
        try:
            update = self.shop.learn(self.some(chosen), label, force=True)
        except self.refusals:
            return
        assert update.learned + update.relabelled == len(change)
        assert (update.event is None) == (not change)
        if change:
            self.note("learn", change)

    @rule(data=st.data(), exception=st.booleans())
    def correct(self, data, exception):
        chosen = data.draw(st.integers(0, len(self.pool) - 1))
        label = data.draw(st.sampled_from(self.labels))
        try:
            update = self.shop.correct(
                self.pool[chosen], label, replace=True, exception=exception, force=True
            )
        except (PinConflict, NotCorrected):
            return  # with few numbers a feature, corrections may truly contradict each other
        assert update.fixed
        assert self.shop.predict(self.some([chosen]))[0].label == label
        if update.event is not None:
            payload = {chosen: label}
            self.apart[id(payload)] = update.corrected[0].exception
            self.note("correct", payload)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def undo(self, data):
        target = data.draw(st.integers(1, len(self.events)))
        try:
            self.shop.undo(target, force=True)
        except (CannotUndo, PinConflict):
            return
        self.note("undo", target - 1)

    @precondition(lambda self: self.replayed())
    @rule(data=st.data())
    def forget(self, data):
        members = sorted(self.replayed())
        chosen = data.draw(st.sets(st.sampled_from(members), min_size=1, max_size=3))
        images = [each.image for each in self.shop.predict(self.some(sorted(chosen)))]
        try:
            receipt = self.shop.forget(images, force=True)
        except PinConflict:
            return
        assert receipt.images == len(chosen)
        for _, payload in self.events:
            if isinstance(payload, dict):
                for k in chosen:
                    payload.pop(k, None)
        self.forgotten(receipt, chosen)
        self.note("forget", None)

    def forgotten(self, receipt, chosen):
        """What else must hold of a receipt."""

    def renamed(self, old, new, refusals=()):
        kind = "merge" if new in self.shop.labels else "rename"
        try:
            getattr(self.shop, kind)(old, new)
        except (PinConflict, *refusals):
            return
        self.note(kind, (old, new))

    @rule()
    def reopen(self):
        self.shop.close()
        self.shop = retain.open(self.folder / "shop")

    @rule()
    def verify(self):
        found = self.shop.verify()
        assert found.ok, found.problems


def as_test(machine, examples, steps):
    """The test of a machine."""
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return machine.TestCase
