"""An adopted classifier against one adopted anew that simply relearns what survives.

As in `test_state_machine`, with what an adopted one has besides: rows that stay without pictures,
a reference, names of its own, exceptions.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import retain
from retain.errors import BadLabel, CannotUndo, InputError, NotCorrected, PinConflict
from tests.verbs.adopted import NAMES, adopt, pictures
from tests.verbs.conftest import fingerprint

POOL = [*pictures(10, seed=1), *pictures(5, seed=2, tint=1), *pictures(5, seed=3, tint=2)]
LABELS = ["ant", "cat", "elk", "fox"]
ASKED = pictures(5, seed=9)


class Adopted(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.shop = adopt(self.folder, "shop")
        # [kind, payload] of each event, in the journal's order; pictures by number.
        self.events = []
        self.apart = {}
        self.made = 0

    def teardown(self):
        self.shop.close()
        shutil.rmtree(self.folder)

    # -- the model -----------------------------------------------------------------------------

    def active(self):
        alive = [True] * len(self.events)
        for i in range(len(self.events) - 1, -1, -1):
            kind, payload = self.events[i]
            if kind == "undo" and alive[i]:
                alive[payload] = False
        return [event for event, kept in zip(self.events, alive, strict=True) if kept]

    def replayed(self):
        """Picture → (label, pinned); the label of a reference picture is empty."""
        found = {}
        for kind, payload in self.active():
            if kind in {"learn", "correct", "reference"}:
                found.update((k, (v, kind == "correct")) for k, v in payload.items())
            elif kind in {"rename", "merge"}:
                old, new = payload
                found = {k: (new if v == old else v, p) for k, (v, p) in found.items()}
        return found

    def teachable(self):
        """Whether the survivors can be taught one after the other; see `test_state_machine`.

        Here an undone undo may also bring a label back below a reference that came meanwhile.
        """
        seen, pinned = set(), set()
        for kind, payload in self.active():
            if (kind == "learn" and pinned & set(payload)) or (
                kind == "reference" and seen & set(payload)
            ):
                return False
            if kind in {"learn", "correct", "reference"}:
                seen |= set(payload)
            if kind == "correct":
                pinned |= set(payload)
        return True

    def relearned(self):
        self.made += 1
        twin = adopt(self.folder, f"twin{self.made}")
        for kind, payload in self.active():
            if kind in {"learn", "correct", "reference"} and payload:
                rows = sorted(payload.items())
                if kind == "learn":
                    twin.learn([POOL[k] for k, _ in rows], [v for _, v in rows], force=True)
                elif kind == "reference":
                    twin.reference([POOL[k] for k, _ in rows])
                else:
                    apart = set(payload) <= self.apart[id(payload)]
                    twin.correct_many(
                        [(POOL[k], v) for k, v in rows], replace=True, exception=apart, force=True
                    )
            elif kind in {"rename", "merge"} and payload[0] in twin.labels:
                verb = twin.merge if payload[1] in twin.labels else twin.rename
                verb(*payload)
        return twin

    # -- the verbs -----------------------------------------------------------------------------

    @rule(
        chosen=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=6, unique=True),
        label=st.sampled_from(LABELS),
    )
    def learn(self, chosen, label):
        members = self.replayed()
        if all(members.get(k, ("", False))[1] and members[k][0] != label for k in chosen):
            with pytest.raises(InputError, match="corrected to"):
                self.shop.learn([POOL[k] for k in chosen], label, force=True)
            return
        change = {
            k: label
            for k in chosen
            if members.get(k, ("", False))[0] != label and not members.get(k, ("", False))[1]
        }
        try:
            update = self.shop.learn([POOL[k] for k in chosen], label, force=True)
        except PinConflict:
            return
        assert update.learned + update.relabelled == len(change)
        if change:
            self.events.append(("learn", change))

    @rule(chosen=st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True))
    def reference(self, chosen):
        members = self.replayed()
        fresh = {k: "" for k in chosen if k not in members}
        try:
            update = self.shop.reference([POOL[k] for k in chosen])
        except PinConflict:
            return
        assert update.learned == len(fresh)
        if fresh:
            self.events.append(("reference", fresh))

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
            return
        assert self.shop.predict([POOL[chosen]])[0].label == label
        if update.event is not None:
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

    @precondition(lambda self: self.replayed())
    @rule(data=st.data())
    def forget(self, data):
        members = sorted(self.replayed())
        chosen = data.draw(st.sets(st.sampled_from(members), min_size=1, max_size=3))
        images = [p.image for p in self.shop.predict([POOL[k] for k in sorted(chosen)])]
        try:
            receipt = self.shop.forget(images, force=True)
        except PinConflict:
            return
        assert receipt.images == len(chosen)
        for _, payload in self.events:
            if isinstance(payload, dict):
                for k in chosen:
                    payload.pop(k, None)
        self.events.append(("forget", None))

    @rule(data=st.data(), new=st.sampled_from(["gnu", *NAMES, *LABELS]))
    def rename_or_merge(self, data, new):
        old = data.draw(st.sampled_from(self.shop.labels))
        if new == old:
            return
        kind = "merge" if new in self.shop.labels else "rename"
        try:
            getattr(self.shop, kind)(old, new)
        except (PinConflict, BadLabel, CannotUndo):
            return
        self.events.append((kind, (old, new)))

    @rule()
    def reopen(self):
        self.shop.close()
        self.shop = retain.open(self.folder / "shop")

    @rule()
    def verify(self):
        found = self.shop.verify()
        assert found.ok, found.problems

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def membership_is_the_models(self):
        labels = sorted(sample.label for sample in self.shop.samples())
        assert labels == sorted(label for label, _ in self.replayed().values())

    @invariant()
    def corrections_hold(self):
        for k, (label, pinned) in self.replayed().items():
            if pinned and self.events[-1][0] in {"correct", "rename", "reopen"}:
                assert self.shop.predict([POOL[k]])[0].label == label or self.twins(k)

    def twins(self, k):
        """A later exception or lesson may have silenced an exception, if forced."""
        image = self.shop.predict([POOL[k]])[0].image
        return self.shop.show(image).sample.exception

    @invariant()
    def it_equals_relearning_the_survivors(self):
        if not self.teachable():
            return
        with self.relearned() as twin:
            assert fingerprint(self.shop) == fingerprint(twin)
            assert self.shop.predict(ASKED) == twin.predict(ASKED)
            ours, theirs = (one._session.mind.exceptions for one in (self.shop, twin))
            assert ours.images == theirs.images
            assert ours.thresholds.tobytes() == theirs.thresholds.tobytes()


Adopted.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAdopted = Adopted.TestCase
