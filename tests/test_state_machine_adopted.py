"""An adopted classifier against one adopted anew that simply relearns what survives.

As in `test_state_machine`, with what an adopted one has besides: rows that stay without pictures,
a reference, names of its own, exceptions.
"""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from retain.errors import BadLabel, CannotUndo, PinConflict
from tests.machine import Machine, as_test
from tests.verbs.adopted import NAMES, adopt, pictures
from tests.verbs.conftest import fingerprint

ASKED = pictures(5, seed=9)


class Adopted(Machine):
    pool = (*pictures(10, seed=1), *pictures(5, seed=2, tint=1), *pictures(5, seed=3, tint=2))
    labels = ("ant", "cat", "elk", "fox")
    refusals = (PinConflict,)

    def begin(self, name):
        return adopt(self.folder, name)

    @rule(chosen=st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True))
    def reference(self, chosen):
        members = self.replayed()
        fresh = {k: "" for k in chosen if k not in members}
        try:
            update = self.shop.reference(self.some(chosen))
        except PinConflict:
            return
        assert update.learned == len(fresh)
        if fresh:
            self.note("reference", fresh)

    @rule(data=st.data(), new=st.sampled_from(["gnu", *NAMES, *labels]))
    def rename_or_merge(self, data, new):
        old = data.draw(st.sampled_from(self.shop.labels))
        if new != old:
            self.renamed(old, new, (BadLabel, CannotUndo))

    @invariant()
    def membership_is_the_models(self):
        labels = sorted(sample.label for sample in self.shop.samples())
        assert labels == sorted(label for label, _ in self.replayed().values())

    @invariant()
    def corrections_hold(self):
        for k, (label, pinned) in self.replayed().items():
            if pinned and self.events[-1][0] in {"correct", "rename", "reopen"}:
                assert self.shop.predict(self.some([k]))[0].label == label or self.twins(k)

    def twins(self, k):
        """A later exception or lesson may have silenced an exception, if forced."""
        image = self.shop.predict(self.some([k]))[0].image
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


TestAdopted = as_test(Adopted, 8, 10)
