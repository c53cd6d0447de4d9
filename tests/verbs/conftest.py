import numpy as np
import pytest

import retain

D = 12


def cluster(label, n, *, seed=0, spread=0.7):
    """Vectors [n, D] around a centre that the label decides, float32."""
    centre = np.random.default_rng([ord(c) for c in label]).normal(size=D)
    noise = np.random.default_rng([seed, *label.encode()]).normal(size=(n, D))
    return (centre + spread * noise).astype(np.float32)


def taught(shop, *labels, n=8, seed=0):
    """Teach each label, one event each; returns what was taught, by label."""
    given = {}
    for label in labels:
        given[label] = cluster(label, n, seed=seed)
        shop.learn(given[label], label)
    return given


def wrong_one(shop, labels, *, start=100):
    """A vector that the classifier gets wrong, and its right label."""
    for seed in range(start, start + 50):
        for label in labels:
            rows = cluster(label, 20, seed=seed, spread=1.5)
            for row, answer in zip(rows, shop.predict(rows), strict=True):
                if answer.label != label:
                    return row, label
    raise AssertionError("the classifier makes no mistakes; make the clusters wider")


def fingerprint(shop):
    """Everything that must be equal when two classifiers are: digest, and the bits of the head."""
    head = shop._session.mind.head
    if head is None:
        return shop.digest, None
    return shop.digest, head.classes, head.weights.tobytes(), head.bias.tobytes()


@pytest.fixture
def shop(tmp_path):
    with retain.create(tmp_path / "shop", extractor=f"vectors:{D}") as made:
        yield made


@pytest.fixture
def fresh(tmp_path):
    """Makes as many empty classifiers as asked for."""
    made = []

    def make(**options):
        made.append(retain.create(tmp_path / f"c{len(made)}", extractor=f"vectors:{D}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
