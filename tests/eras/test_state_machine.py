"""A classifier that changes its extractor against one made with the last, that relearns.

As in `test_state_machine`: the model keeps the journal as a list and replays what survives into an
empty classifier, which is made with the extractor that the surviving `adapt` events end with.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import retain
from retain.errors import BadOption, CannotUndo, InputError, NotCorrected, PinConflict
from retain.values import content_hash
from retain.vision import encode_array
from tests.eras.small import adapt, answers, files, shop
from tests.verbs.adopted import pictures
from tests.verbs.conftest import fingerprint

EYES = [files(1), files(2), files(3, 12)]
POOL = [*pictures(8, seed=1), *pictures(5, seed=2, tint=1), *pictures(5, seed=3, tint=2)]
NAMES = [content_hash(encode_array(row)) for row in POOL]
ASKED = pictures(4, seed=9)


class Adapting(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.shop = shop(self.folder / "shop", EYES[0])
        self.names = NAMES
        self.events = []
        self.trained = {}
        self.apart = {}
        self.told = {}
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

    def eyes(self):
        return ([0] + [payload for kind, payload in self.active() if kind == "adapt"])[-1]

    def replayed(self):
        found = {}
        for kind, payload in self.active():
            if kind in {"learn", "correct"}:
                found.update((k, (v, kind == "correct")) for k, v in payload.items())
        return found

    def teachable(self):
        pinned = set()
        for kind, payload in self.active():
            if kind == "learn" and set(payload) & pinned:
                return False
            pinned |= set(payload) if kind == "correct" else set()
        return True

    def relearned(self):
        self.made += 1
        twin = shop(self.folder / f"twin{self.made}", EYES[self.eyes()])
        for kind, payload in self.active():
            rows = sorted(payload.items()) if kind in {"learn", "correct"} else []
            if rows and kind == "learn":
                twin.learn([POOL[k] for k, _ in rows], [v for _, v in rows], force=True)
            for k, v in rows if kind == "correct" else []:
                twin.correct(
                    POOL[k], v, replace=True, exception=self.apart[id(payload)], force=True
                )
        return twin

    def note(self, kind, payload):
        self.events.append((kind, payload))
        number = len(self.events)
        if self.shop.labels:
            self.told[number] = answers(self.shop, ASKED)

    # -- the verbs -----------------------------------------------------------------------------

    @rule(
        chosen=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=6, unique=True),
        label=st.sampled_from(["ant", "bee", "cat"]),
    )
    def learn(self, chosen, label):
        known = self.replayed()
        change = {
            k: label for k in chosen if k not in known or (known[k][0] != label and not known[k][1])
        }
        try:
            update = self.shop.learn([POOL[k] for k in chosen], label, force=True)
        except InputError:
            assert not change
            return
        assert (update.event is None) == (not change)
        if change:
            self.note("learn", change)

    @rule(
        chosen=st.integers(0, len(POOL) - 1),
        label=st.sampled_from(["ant", "bee"]),
        exception=st.booleans(),
    )
    def correct(self, chosen, label, exception):
        try:
            update = self.shop.correct(
                POOL[chosen], label, replace=True, exception=exception, force=True
            )
        except (PinConflict, NotCorrected):
            return
        if update.event is not None:
            payload = {chosen: label}
            self.apart[id(payload)] = update.corrected[0].exception
            self.note("correct", payload)

    @rule(which=st.integers(0, len(EYES) - 1), data=st.data())
    def adapt(self, which, data):
        members = sorted(self.replayed())
        trained = data.draw(st.sets(st.sampled_from(members))) if members else set()
        try:
            adapt(self.shop, EYES[which], trained=[self.names[k] for k in trained])
        except BadOption:
            assert which == self.eyes()
            return
        except (PinConflict, NotCorrected):
            return
        assert which != self.eyes()
        self.note("adapt", which)
        self.trained[len(self.events)] = set(trained)

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
        try:
            receipt = self.shop.forget([self.names[k] for k in chosen], force=True)
        except PinConflict:
            return
        seen = {event for event, rows in self.trained.items() if rows & chosen}
        assert set(receipt.pending) == seen
        assert receipt.level == ("pending" if seen else "exact")
        for _, payload in self.events:
            if isinstance(payload, dict):
                for k in chosen:
                    payload.pop(k, None)
        for rows in self.trained.values():
            rows -= chosen
        self.told.clear()  # every version is now what it would be had they never been there
        self.note("forget", None)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def ask_an_old_version(self, data):
        number = data.draw(st.sampled_from(sorted(self.told)))
        assert answers(self.shop, ASKED, version=number) == self.told[number]

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
    def it_equals_relearning_the_survivors_with_the_extractor_of_now(self):
        labels = sorted(sample.label for sample in self.shop.samples())
        assert labels == sorted(label for label, _ in self.replayed().values())
        if not self.teachable():
            return
        try:
            twin = self.relearned()
        except (PinConflict, NotCorrected):
            # In these eyes what was corrected one by one in others cannot be taught in order.
            return
        with twin:
            assert fingerprint(self.shop) == fingerprint(twin)


Adapting.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAdapting = Adapting.TestCase
