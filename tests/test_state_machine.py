"""The whole classifier against one that simply relearns what survives, in its plainest form.

Digest, classes and the bits of the head must be equal.
"""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

import retain
from tests.machine import Machine, as_test
from tests.verbs.conftest import fingerprint

D = 6


class Living(Machine):
    pool = np.random.default_rng(0).normal(size=(24, D)).astype(np.float32)
    labels = ("ant", "bee", "cat")

    def begin(self, name):
        return retain.create(self.folder / name, extractor=f"vectors:{D}")

    def some(self, numbers):
        return self.pool[list(numbers)]

    @precondition(lambda self: self.replayed())
    @rule(data=st.data(), new=st.sampled_from(["elk", "fox", *labels]))
    def rename_or_merge(self, data, new):
        present = {label for label, _ in self.replayed().values()}
        old = data.draw(st.sampled_from(sorted(present)))
        if new != old:
            self.renamed(old, new)

    @invariant()
    def membership_is_the_models(self):
        labels = sorted(sample.label for sample in self.shop.samples())
        assert labels == sorted(label for label, _ in self.replayed().values())
        assert set(self.shop.labels) == set(labels)

    @invariant()
    def it_equals_relearning_the_survivors(self):
        if not self.teachable():
            return
        with self.relearned() as twin:
            assert fingerprint(self.shop) == fingerprint(twin)


TestLiving = as_test(Living, 12, 14)
