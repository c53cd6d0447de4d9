"""A classifier that changes its extractor against one made with the last, that relearns.

As in the other machines; the empty classifier is made with the extractor that the surviving `adapt`
events end with.
"""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from retain.errors import BadOption, NotCorrected, PinConflict
from retain.values import content_hash
from retain.vision import encode_array
from tests.eras.small import adapt, answers, files, shop
from tests.machine import Machine, as_test
from tests.verbs.adopted import pictures
from tests.verbs.conftest import fingerprint

EYES = [files(1), files(2), files(3, 12)]
ASKED = pictures(4, seed=9)


class Adapting(Machine):
    pool = (*pictures(8, seed=1), *pictures(5, seed=2, tint=1), *pictures(5, seed=3, tint=2))
    labels = ("ant", "bee", "cat")
    names = tuple(content_hash(encode_array(row)) for row in pool)

    def __init__(self):
        super().__init__()
        self.trained = {}
        self.told = {}

    def begin(self, name):
        made = name != "shop"
        return shop(self.folder / name, EYES[self.eyes() if made else 0])

    def eyes(self):
        return ([0] + [payload for kind, payload in self.survivors() if kind == "adapt"])[-1]

    def note(self, kind, payload):
        super().note(kind, payload)
        if self.shop.labels:
            self.told[len(self.events)] = answers(self.shop, ASKED)

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

    def forgotten(self, receipt, chosen):
        seen = {event for event, rows in self.trained.items() if rows & chosen}
        assert set(receipt.pending) == seen
        assert receipt.level == ("pending" if seen else "exact")
        for rows in self.trained.values():
            rows -= chosen
        self.told.clear()  # every version is now what it would be had they never been there

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def ask_an_old_version(self, data):
        number = data.draw(st.sampled_from(sorted(self.told)))
        assert answers(self.shop, ASKED, version=number) == self.told[number]

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


TestAdapting = as_test(Adapting, 6, 12)
