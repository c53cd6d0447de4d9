"""Tiny extractors, as many as asked for, and classifiers that go from one to another."""

import hashlib
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import retain
from retain import adapting
from retain.vision import preset
from tests.verbs.adopted import SIDE, pictures

KINDS = ("ant", "bee", "cat")


def files(seed=0, dimension=8):
    """An extractor of its own features: a convolution, rectified and pooled."""
    rng = np.random.default_rng([seed, dimension])
    kernel = (rng.normal(size=(dimension, 3, 3, 3)) / 400).astype(np.float32)
    bias = (0.2 + rng.random(dimension) / 5).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, (1, dimension))],
        [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(bias, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = made.SerializeToString()
    told = {
        "format": 1,
        "name": f"tiny-{seed}-{dimension}",
        "dimension": dimension,
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocess": preset("raw", SIDE, SIDE).to_json(),
    }
    return {"features.onnx": data, "preprocess.json": json.dumps(told).encode()}


def blind(dimension=8):
    """An extractor to which all pictures look nearly alike."""
    made = files(99, dimension)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["m"]),
            helper.make_node("MatMul", ["m", "w"], ["s"]),
            helper.make_node("Add", ["s", "one"], ["f"]),
        ],
        "blind",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, (1, dimension))],
        [
            numpy_helper.from_array(np.zeros((3, dimension), np.float32), "w"),
            numpy_helper.from_array(np.ones((1, dimension), np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    told = json.loads(made["preprocess.json"])
    told |= {"name": "blind", "sha256": hashlib.sha256(data).hexdigest()}
    return {"features.onnx": data, "preprocess.json": json.dumps(told).encode()}


def laid(folder, made):
    """The folder of an extractor."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return folder


def shop(path, made, **options):
    """An empty classifier of an extractor."""
    folder = laid(path.with_name(f"{path.name}-eyes"), made)
    return retain.create(path, extractor=folder, **options)


def of_kind(kind, n=8, seed=0):
    """Pictures of a kind; those of one kind look alike."""
    return pictures(n, seed=seed, tint=1 + KINDS.index(kind))


def taught(one, *kinds, n=8, seed=0):
    """Teach each kind, one event each."""
    for kind in kinds:
        one.learn(of_kind(kind, n, seed), kind, force=True)
    return one


def adapt(one, made, **options):
    """Another extractor in the place of the one in force."""
    return adapting.replace(one._session, made, **{"force": True, **options})


def answers(one, asked, **options):
    """Everything that is answered, to the last bit."""
    return [
        (p.label, p.probability, p.typicality, tuple((s.label, s.probability) for s in p.top))
        for p in one.predict(asked, **options)
    ]


def images(one):
    """The members, by hash."""
    return [sample.image for sample in one.samples()]
