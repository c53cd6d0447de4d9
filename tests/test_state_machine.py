"""The whole classifier against one that simply relearns what survives.

The model keeps the journal as a list and, for every comparison, replays it into an empty classifier
in its plainest form: the surviving events, each with its surviving pictures. Digest, classes and
the bits of the head must be equal.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import retain
from retain.errors import CannotUndo, InputError, NotCorrected, PinConflict
from tests.verbs.conftest import fingerprint

D = 6
POOL = np.random.default_rng(0).normal(size=(24, D)).astype(np.float32)
LABELS = ["ant", "bee", "cat"]


class Living(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.shop = retain.create(self.folder / "shop", extractor=f"vectors:{D}")
        # [kind, payload, alive], one per event of the journal, in its order.
        self.events = []
        self.gone = set()
        self.apart = {}
        self.made = 0

    def teardown(self):
        self.shop.close()
        shutil.rmtree(self.folder)

    # -- the model -----------------------------------------------------------------------------

    def alive(self):
        alive = [True] * len(self.events)
        for i in range(len(self.events) - 1, -1, -1):
            kind, payload = self.events[i]
            if kind == "undo" and alive[i]:
                alive[payload] = False
        return alive

    def members(self):
        found = {}
        for (kind, payload), alive in zip(self.events, self.alive(), strict=True):
            if not alive:
                continue
            if kind in {"learn", "correct"}:
                found.update((k, v) for k, v in payload.items() if k not in self.gone)
            elif kind in {"rename", "merge"}:
                old, new = payload
                found = {k: new if v == old else v for k, v in found.items()}
        return found

    def teachable(self):
        """Whether the survivors can be taught one after the other.

        Undoing an undo may bring back a correction below a lesson that came while it was away. The
        lesson counts, being later; but nobody could teach it now, since no lesson overrules a
        correction.
        """
        pinned = set()
        for (kind, payload), alive in zip(self.events, self.alive(), strict=True):
            if alive and kind in {"learn", "correct"}:
                rows = set(payload) - self.gone
                if kind == "learn" and rows & pinned:
                    return False
                pinned |= rows if kind == "correct" else set()
        return True

    def relearned(self):
        self.made += 1
        twin = retain.create(self.folder / f"twin{self.made}", extractor=f"vectors:{D}")
        for (kind, payload), alive in zip(self.events, self.alive(), strict=True):
            if not alive:
                continue
            if kind in {"learn", "correct"}:
                rows = [(k, v) for k, v in sorted(payload.items()) if k not in self.gone]
                if rows and kind == "learn":
                    twin.learn(POOL[[k for k, _ in rows]], [v for _, v in rows], force=True)
                elif rows:
                    apart = {k for k, _ in rows} <= self.apart[id(payload)]
                    twin.correct_many(
                        [(POOL[k], v) for k, v in rows], replace=True, exception=apart, force=True
                    )
            elif (kind == "rename" and payload[0] in twin.labels) or (
                kind == "merge" and payload[0] in twin.labels
            ):
                verb = twin.merge if payload[1] in twin.labels else twin.rename
                verb(*payload)
        return twin

    def pinned(self):
        found = {}
        for (kind, payload), alive in zip(self.events, self.alive(), strict=True):
            if alive and kind == "correct":
                found.update(dict.fromkeys(payload, True))
            elif alive and kind == "learn":
                found.update(dict.fromkeys(payload, False))
        return {k for k, pinned in found.items() if pinned and k not in self.gone}

    # -- the verbs -----------------------------------------------------------------------------

    @rule(
        chosen=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=6, unique=True),
        label=st.sampled_from(LABELS),
    )
    def learn(self, chosen, label):
        members, pinned = self.members(), self.pinned()
        if all(k in pinned and members[k] != label for k in chosen):
            with pytest.raises(InputError, match="corrected to"):
                self.shop.learn(POOL[chosen], label, force=True)
            return
        change = {k: label for k in chosen if members.get(k) != label and k not in pinned}
        update = self.shop.learn(POOL[chosen], label, force=True)
        assert update.learned + update.relabelled == len(change)
        assert (update.event is None) == (not change)
        if change:
            self.gone -= set(change)
            self.events.append(("learn", change))

    @rule(
        chosen=st.integers(0, len(POOL) - 1),
        label=st.sampled_from(LABELS),
        exception=st.booleans(),
    )
    def correct(self, chosen, label, exception):
        try:
            update = self.shop.correct(
                POOL[chosen], label, replace=True, exception=exception, force=True
            )
        except (PinConflict, NotCorrected):
            return  # six numbers a feature: corrections may truly contradict each other
        assert update.fixed
        assert self.shop.predict(POOL[chosen : chosen + 1])[0].label == label
        if update.event is not None:
            self.gone -= {chosen}
            payload = {chosen: label}
            self.apart[id(payload)] = {chosen} if update.corrected[0].exception else set()
            self.events.append(("correct", payload))

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def undo(self, data):
        target = data.draw(st.integers(1, len(self.events)))
        try:
            self.shop.undo(target)
        except (CannotUndo, PinConflict):
            return
        self.events.append(("undo", target - 1))

    @precondition(lambda self: self.members())
    @rule(data=st.data())
    def forget(self, data):
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.members())), min_size=1, max_size=3))
        images = [p.image for p in self.shop.predict(POOL[sorted(chosen)])]
        try:
            receipt = self.shop.forget(images, force=True)
        except PinConflict:
            return
        assert receipt.images == len(chosen)
        for _kind, payload in self.events:
            if isinstance(payload, dict):
                for k in chosen:
                    payload.pop(k, None)
        self.events.append(("forget", None))

    @precondition(lambda self: self.members())
    @rule(data=st.data(), new=st.sampled_from(["elk", "fox", *LABELS]))
    def rename_or_merge(self, data, new):
        present = set(self.members().values())
        old = data.draw(st.sampled_from(sorted(present)))
        if new == old:
            return
        kind = "merge" if new in present else "rename"
        try:
            getattr(self.shop, kind)(old, new)
        except PinConflict:
            return
        self.events.append((kind, (old, new)))

    @rule()
    def reopen(self):
        self.shop.close()
        self.shop = retain.open(self.folder / "shop")

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def membership_is_the_models(self):
        labels = sorted(sample.label for sample in self.shop.samples())
        assert labels == sorted(self.members().values())

    @invariant()
    def it_equals_relearning_the_survivors(self):
        if not self.teachable():
            return
        with self.relearned() as twin:
            assert fingerprint(self.shop) == fingerprint(twin)

    @rule()
    def verify(self):
        found = self.shop.verify()
        assert found.ok, found.problems


Living.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLiving = Living.TestCase
