"""Results as the benchmark writes them, made up: every figure is a formula, none was measured."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

METHODS: dict[str, tuple[str, float, float, float, float, bool]] = {
    # title, level, loss per step, seconds an update, bytes stored, hindsight
    "retain": ("ours, default head", 0.935, 0.0, 0.06, 9e6, False),
    "retain:nearest-mean": ("ours, nearest mean alone", 0.885, 0.0, 0.02, 9e6, False),
    "retain:ridge": ("ours, ridge alone", 0.925, 0.0, 0.05, 9e6, False),
    "retain-joint": ("ours, everything at once", 0.935, 0.0, 0.4, 9e6, True),
    "slda": ("streaming LDA", 0.923, 0.0, 0.9, 1.4e7, False),
    "ncm": ("nearest class mean", 0.884, 0.0, 0.004, 5e5, False),
    "fecam": ("FeCAM", 0.921, 0.002, 3.1, 6.6e8, False),
    "ranpac": ("random-projection ridge", 0.934, 0.0, 11.0, 8e8, False),
    "acil": ("ACIL", 0.919, 0.0, 1.8, 2e8, False),
    "knn": ("5 nearest neighbours", 0.87, 0.0, 0.01, 1.6e7, False),
    "sgd": ("SGDClassifier.partial_fit", 0.8, 0.06, 0.08, 1e6, False),
    "river-softmax": ("river's softmax regression", 0.7, 0.07, 6.0, 3e6, False),
    "fine-tune": ("plain fine-tuning of the last layer", 0.9, 0.2, 0.3, 1e6, False),
    "avalanche:slda": ("Avalanche StreamingLDA", 0.922, 0.0, 2.2, 1.4e7, False),
    "logistic": ("logistic regression, refitted", 0.936, 0.0, 7.0, 1.6e7, True),
    "lda": ("LDA, refitted", 0.915, 0.0, 2.0, 1.6e7, True),
}


def result(
    method: str,
    seed: int,
    *,
    status: str = "done",
    reason: str = "",
    steps: int = 10,
    kind: str = "class-incremental",
    **changes: Any,
) -> dict[str, Any]:
    """One result of a stream with ten classes a step."""
    made = "inc10x10" if kind == "class-incremental" else kind
    title, level, loss, seconds, stored, hindsight = METHODS.get(
        method, (method, 0.5, 0.0, 1.0, 1e6, False)
    )
    ours = method.startswith("retain")
    rng = np.random.default_rng([seed, sum(map(ord, "retain" if ours else method))])
    order_rng = np.random.default_rng(seed)
    order = [f"class {i:02d}" for i in order_rng.permutation(10 * steps)]
    difficulty = order_rng.normal(0, 0.012, steps)
    told = []
    for k in range(steps):
        by_task = [
            float(
                np.clip(
                    level + 0.05 * np.exp(-k / 3) - loss * (k - j) + difficulty[j]
                    + rng.normal(0, 0.004), 0, 1)
            )
            for j in range(k + 1)
        ]  # fmt: skip
        known = sorted(order[: 10 * (k + 1)])
        told.append(
            {
                "step": k, "verb": "learn", "images": 300,
                "new_classes": order[10 * k : 10 * k + 10],
                "wall_s": seconds * (1 + k / 10), "cpu_s": seconds * 1.6, "stored_bytes": stored,
                "peak_memory_bytes": int(2e8 + stored), "seen": 10 * (k + 1),
                "judged": 200 * (k + 1),
                "accuracy": float(np.mean(by_task)), "balanced": float(np.mean(by_task)),
                "by_task": by_task, "ece": 0.02 + 0.01 * rng.random(), "nll": 0.3 + 0.01 * k,
                "auroc_unseen": None if k == steps - 1 else 0.91, "got_worse": k, "got_better": 2,
                "digest": "sha256:" + hashlib.sha256("|".join(known).encode()).hexdigest()
                if ours else "",
                "old": None, "new": None, "harmonic": None,
            }
        )  # fmt: skip
    last = told[-1]["by_task"]
    lost = [
        max(told[k]["by_task"][j] for k in range(j, steps - 1)) - last[j] for j in range(steps - 1)
    ]
    if status != "done":
        told = []
    metrics = {
        "average_incremental_accuracy": float(np.mean([s["accuracy"] for s in told])),
        "last_accuracy": told[-1]["accuracy"], "forgetting": float(np.mean(lost)),
        "backward_transfer": -float(np.mean(lost)), "forward_transfer": None,
        "intransigence": 0.01, "recency_bias": loss, "negative_flips_per_update": 4.5 + 50 * loss,
        "ece": 0.025, "auroc_unseen": 0.91, "wall_s_per_update": seconds * (1 + rng.random() / 9),
        "cpu_s_per_update": seconds * 1.6, "peak_memory_bytes": int(2e8 + stored),
        "stored_bytes": stored, "harmonic": None,
    } if told else {}  # fmt: skip
    return {
        "format": "retain-bench-result/1", "status": status, "reason": reason,
        "stream": {"name": f"caltech101-{made}-s{seed}",
                   "kind": kind,
                   "pool": "caltech101_30_10", "pool_digest": "sha256:aa",
                   "digest": f"sha256:{seed}",
                   "seed": seed, "options": {"first": 10, "step": 10}},
        "order": order,
        "method": {"name": method, "title": title, "source": "made up", "options": {},
                   "hindsight": hindsight},
        "seed": seed,
        "environment": {"retain": "0.1.0", "commit": "abc1234", "python": "3.12.1",
                        "numpy": "2.4.0", "scikit-learn": "1.8.0", "platform": "Linux x86_64",
                        "cores": 2, "threads": 2, "date": "2026-01-02T03:04:05Z"},
        "steps": told, "metrics": metrics, **changes,
    }  # fmt: skip


def matrix(seeds: int = 3) -> list[dict[str, Any]]:
    """Every method and seed, with one run that failed and one that cannot."""
    made = [result(method, seed) for method in METHODS for seed in range(seeds)]
    made.append(
        result("pycil:icarl", 0, status="failed", reason="ImportError: no module named 'torch'")
    )
    made.append(result("acil", 0, kind="deletions", status="unsupported", reason="cannot forget"))
    return made
