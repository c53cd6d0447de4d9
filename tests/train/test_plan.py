"""Which layers learn: blocks of any network, states, rates, and what is really frozen."""

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from retain.errors import BadOption  # noqa: E402
from retain.train import methods  # noqa: E402
from retain.train.augment import Views  # noqa: E402
from retain.train.blocks import blocks_of  # noqa: E402
from retain.train.cifar import cifar_resnet  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.laid import Laid  # noqa: E402
from retain.train.lessons import Taught, teach  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.plan import PRESETS, Plan, Rule  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.zoos import last_layer  # noqa: E402

from .small import equal, net, pictures, start, weights  # noqa: E402

# The number of blocks with the head, the first, the last two before the head, by hand.
KNOWN = {
    "timm:resnet18": (10, "conv1", ["layer4.0", "layer4.1"]),
    "timm:resnet50": (18, "conv1", ["layer4.1", "layer4.2"]),
    "timm:mobilenetv2_100": (20, "conv_stem", ["blocks.6", "conv_head"]),
    "timm:tf_efficientnet_lite0": (19, "conv_stem", ["blocks.6", "conv_head"]),
    "timm:convnext_atto": (17, "stem", ["stages.3.blocks.0", "stages.3.blocks.1"]),
    "timm:vit_tiny_patch16_224": (14, "patch_embed", ["blocks.10", "blocks.11"]),
    "timm:vgg16": (15, "features.0", ["features.28", "pre_logits"]),
    "timm:inception_v3": (17, "Conv2d_1a_3x3", ["Mixed_7b", "Mixed_7c"]),
    "torchvision:resnet18": (10, "conv1", ["layer4.0", "layer4.1"]),
    "torchvision:resnet50": (18, "conv1", ["layer4.1", "layer4.2"]),
    "torchvision:mobilenet_v2": (20, "features.0", ["features.17", "features.18"]),
    "torchvision:efficientnet_b0": (19, "features.0", ["features.7", "features.8"]),
    "torchvision:convnext_tiny": (23, "features.0", ["features.7.1", "features.7.2"]),
    "torchvision:vgg16": (16, "features.0", ["classifier.0", "classifier.3"]),
    "torchvision:vgg16_bn": (16, "features.0", ["classifier.0", "classifier.3"]),
    "torchvision:swin_t": (17, "features.0", ["features.7.0", "features.7.1"]),
    "torchvision:vit_b_16": (
        14,
        "conv_proj",
        ["encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11"],
    ),
    "torchvision:inception_v3": (18, "Conv2d_1a_3x3", ["Mixed_7b", "Mixed_7c"]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_blocks_of_known_networks(name):
    library, bare = name.split(":")
    with torch.device("meta"):
        if library == "timm":
            module = timm.create_model(bare)
        else:
            extra = {"init_weights": False} if "inception" in bare else {}
            module = torchvision.models.get_model(bare, weights=None, **extra)
    blocks = blocks_of(module, last_layer(module, 1000))
    count, first, last = KNOWN[name]
    assert len(blocks) == count
    assert blocks[0].name == first
    assert [each.name for each in blocks[-3:-1]] == last
    assert [each.head for each in blocks] == [False] * (count - 1) + [True]
    # Every parameter is in one layer, and in one only.
    named = [p for block in blocks for layer in block.layers for p in layer.parameters]
    assert sorted(named) == sorted(name for name, _ in module.named_parameters())
    assert sum(block.size for block in blocks) == sum(p.numel() for p in module.parameters())


def test_normalisations_and_tokens_belong_to_a_block():
    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224")
    blocks = blocks_of(vit, "head")
    assert [each.name for each in blocks[0].layers] == [
        "cls_token",
        "pos_embed",
        "patch_embed.proj",
    ]
    assert blocks[-2].layers[-1].name == "norm"
    assert [each.name for each in blocks_of(net(), "9")[0].layers] == ["0", "1"]


def test_blocks_of_ones_own_network():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3, 1, 1))
            self.stem = torch.nn.Conv2d(3, 4, 3)
            self.norm = torch.nn.BatchNorm2d(4, affine=False)
            self.deep = torch.nn.ModuleList([torch.nn.Conv2d(4, 4, 1) for _ in range(3)])
            self.out = torch.nn.Linear(4, 2)

    blocks = blocks_of(Own(), "out")
    assert [each.name for each in blocks] == ["stem", "deep.0", "deep.1", "deep.2", "out"]
    assert [each.name for each in blocks[0].layers] == ["scale", "stem", "norm"]
    with pytest.raises(BadOption, match="no layer 'fc'"):
        blocks_of(Own(), "fc")
    with pytest.raises(BadOption, match="nothing before its last layer"):
        blocks_of(torch.nn.Sequential(torch.nn.Linear(4, 2)), "0")


def table(plan, model=None):
    rows = plan.describe(model or start())
    result = {}
    for row in rows:
        result.setdefault(row.block, []).append((row.state, row.learning > 0, round(row.rate, 4)))
    return result


@pytest.mark.parametrize(
    ("plan", "first", "second", "head"),
    [
        (Plan.preset("feature-extraction"), "frozen", "frozen", "re-initialised"),
        (Plan.preset("head"), "frozen", "frozen", "fine-tuned"),
        (Plan.preset("last-block"), "frozen", "fine-tuned", "fine-tuned"),
        (Plan.preset("full"), "fine-tuned", "fine-tuned", "fine-tuned"),
        (Plan.preset("gradual-unfreezing"), "fine-tuned", "fine-tuned", "fine-tuned"),
        (Plan.preset("from-scratch"), "re-initialised", "re-initialised", "re-initialised"),
        (Plan(copy_first=1), "frozen", "re-initialised", "re-initialised"),
        (Plan(copy_first=1, copied="fine-tuned"), "fine-tuned", *["re-initialised"] * 2),
        (Plan(rules=(Rule("0", "frozen"), Rule("9*", "re-initialised"))), "frozen", "fine-tuned",
         "re-initialised"),
    ],
)  # fmt: skip
def test_states(plan, first, second, head):
    found = table(plan)
    assert {state for state, _, _ in found["0"]} == {first}
    assert {state for state, _, _ in found["3"]} == {second}
    assert {state for state, _, _ in found["9"]} == {head}
    for rows in found.values():
        for state, learns, rate in rows:
            assert learns == (state != "frozen") == (rate > 0)


def test_rates():
    found = table(Plan(layer_decay=0.5, head_rate=10, rate=2, rules=(Rule("3", rate=3),)))
    assert {rate for _, _, rate in found["0"]} == {0.5}
    assert {rate for _, _, rate in found["3"]} == {3.0}
    assert {rate for _, _, rate in found["9"]} == {10.0}


def test_rules_by_name():
    model = start()
    rows = Plan(rules=(Rule("1", "frozen"), Rule("*.bias", "frozen"))).describe(model)
    # A bias is part of its layer, and a layer is what is frozen.
    assert {row.layer: row.state for row in rows}["1"] == "frozen"
    only = Plan(rules=(Rule("1", "frozen"),)).describe(model)
    assert [row.layer for row in only if row.state == "frozen"] == ["1"]
    by_stage = Plan(rules=(Rule("layer4", "re-initialised"),))
    resnet = growing(timm.create_model("resnet18", num_classes=2)).grown(["x"])
    states = {row.layer: row.state for row in by_stage.describe(resnet)}
    assert states["layer4.1.bn2"] == "re-initialised"
    assert states["layer3.1.bn2"] == "fine-tuned"


def test_impossible_plans():
    for make, match in (
        (lambda: Plan.preset("half"), "no plan is called 'half'; there are feature-extraction"),
        (lambda: Plan.preset("full", depth=3), "cannot be changed so"),
        (lambda: Plan(body="cold"), "the state 'cold' is not known"),
        (lambda: Plan(last=-1), "last is -1"),
        (lambda: Plan(lora=0), "lora is 0"),
        (lambda: Plan(layer_decay=1.5), "layer_decay is 1.5"),
        (lambda: Plan(layer_decay=0.0), "layer_decay is 0.0; give a number above 0"),
        (lambda: Recipe(seed=-1), "seed is -1; give a whole number from 0 on"),
        (lambda: Recipe(seed=0.5), "seed is 0.5; give a whole number from 0 on"),
        (lambda: Plan(head_rate=-1), "rate of -1"),
        (lambda: Plan(batchnorm="off"), "batchnorm is 'off'"),
        (lambda: Plan(copy_first=1, last=1), "last=1 would count for nothing beside it"),
        (lambda: Plan.preset("head", copy_first=1), "body=frozen would count for nothing"),
        (lambda: Plan.preset("last-block", copy_first=1), "last=1 would count for nothing"),
        (lambda: Plan(copy_first=1, head="frozen"), "head=frozen would count for nothing"),
        (lambda: Plan.preset("lora", copy_first=1), "lora=8 would count for nothing"),
        (lambda: Plan(copied="fine-tuned"), "nothing is copied; give copy_first too"),
        (lambda: Plan(last=3).describe(start()), "last is 3, but the network has 2 blocks"),
        (lambda: Plan(copy_first=9).describe(start()), "has 2 blocks before its head: 0, 3"),
        (lambda: Plan(rules=(Rule("layer9"),)).describe(start()), "no layer is called 'layer9'"),
        (
            lambda: fit(
                start(), pictures("abc"), Recipe(), plan=Plan(body="frozen", head="frozen")
            ),
            "nothing would learn",
        ),
    ):
        with pytest.raises(BadOption, match=match):
            make()


@pytest.mark.parametrize("preset", PRESETS)
def test_what_moves_is_what_the_table_says(preset):
    model = start(dropout=0.3)
    before = weights(model)
    fitted = fit(
        model, pictures("abc"), Recipe(epochs=2, batch=12, rate=0.1), plan=Plan.preset(preset)
    )
    after = weights(fitted.model)
    assert equal(model, start(dropout=0.3)), "the network that is given stays as it is"
    assert after.keys() == before.keys()
    for row in fitted.rows:
        moved = any(not torch.equal(before[name], after[name]) for name in row.names)
        assert moved == (row.state != "frozen"), row
        statistics = f"{row.layer}.running_mean"
        if statistics in before:
            same = torch.equal(before[statistics], after[statistics])
            assert same == (row.state == "frozen"), row
            assert same == torch.equal(
                before[f"{row.layer}.num_batches_tracked"],
                after[f"{row.layer}.num_batches_tracked"],
            )


def test_frozen_features_are_the_same_features():
    model = start(dropout=0.5)
    data = pictures("abc")
    fitted = fit(model, data, Recipe(epochs=2), plan=Plan.preset("head"))
    with torch.no_grad():
        model.module.eval()
        views = Views()(data.pictures)
        torch.testing.assert_close(
            fitted.model(views).features, model(views).features, rtol=0, atol=0
        )


def test_frozen_batch_normalisation_everywhere():
    model = start()
    fitted = fit(model, pictures("abc"), Recipe(epochs=1), plan=Plan(batchnorm="frozen"))
    before, after = weights(model), weights(fitted.model)
    assert torch.equal(before["1.running_var"], after["1.running_var"])
    assert torch.equal(before["1.weight"], after["1.weight"])
    assert not torch.equal(before["0.weight"], after["0.weight"])


@pytest.mark.parametrize(
    ("plan", "first", "second"),
    [
        (Plan.preset("from-scratch", batchnorm="frozen"), "re-initialised", "re-initialised"),
        (Plan(copy_first=1, batchnorm="frozen"), "frozen", "re-initialised"),
        (Plan(copy_first=1, copied="fine-tuned", batchnorm="frozen"), "frozen", "re-initialised"),
    ],
)
def test_what_begins_anew_begins_with_its_batch_normalisation(plan, first, second):
    """Random convolutions behind old statistics and scales, frozen for good, were no beginning."""
    states = {row.layer: row.state for row in plan.describe(start())}
    assert (states["1"], states["4"]) == (first, second)
    model = start()
    model.module[4].running_mean += 9
    after = weights(fit(model, pictures("abc"), Recipe(epochs=1, rate=0.1), plan=plan).model)
    assert (int(after["4.num_batches_tracked"]) > 0) == (second == "re-initialised")
    assert float(after["4.running_mean"].max()) < 9
    assert not torch.equal(after["4.weight"], torch.ones(8))


@pytest.mark.parametrize("epochs", [1, 2, 3, 6])
def test_the_table_says_with_which_epoch_a_block_joins(epochs):
    model = growing(cifar_resnet(10, 20)).grown(["a", "b"])
    laid = Laid(Plan.preset("gradual-unfreezing"), model, seed=0, epochs=epochs)
    first = {}
    for epoch in range(epochs):
        laid.learn(epoch)
        for name, parameter in model.module.named_parameters():
            if parameter.requires_grad:
                first.setdefault(name, epoch + 1)
    assert {name: row.since for row in laid.rows for name in row.names} == first
    assert max(first.values()) == (1 if epochs == 1 else epochs // 2 + 1)
    assert {row.since for row in Plan().describe(model, epochs)} == {1}


def test_gradual_unfreezing_opens_from_the_top():
    model = start().copy()
    laid = Laid(Plan.preset("gradual-unfreezing"), model, seed=0, epochs=4)
    learned = []
    for epoch in range(4):
        laid.learn(epoch)
        learned.append(
            {n.split(".")[0] for n, p in model.module.named_parameters() if p.requires_grad}
        )
    assert learned == [{"9"}, {"9", "3", "4"}, *[{"9", "3", "4", "0", "1"}] * 2]
    laid.learn(1)
    assert not model.module[1].training
    assert model.module[4].training


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_gradual_unfreezing_opens_everything_in_the_end(epochs):
    plan = Plan.preset("gradual-unfreezing")
    assert [plan.closed(blocks, epochs - 1, epochs) for blocks in (1, 2, 8, 17)] == [0] * 4


def test_weight_decay_spares_norms_and_biases():
    model = growing(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)).grown(["x"])
    laid = Laid(Plan(), model, seed=0, epochs=1)
    decayed = {id(p) for g in laid.groups(0.1) if g["weight_decay"] for p in g["params"]}
    named = dict(model.module.named_parameters())
    assert {n for n, p in named.items() if id(p) in decayed} == {
        "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight", "head.0.weight",
    }  # fmt: skip


def test_re_initialised_layers_depend_on_the_seed_alone():
    made = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        model = start()
        torch.manual_seed(noise)
        Laid(Plan.preset("from-scratch"), model, seed=seed, epochs=1)
        made.append(weights(model))
    assert all(torch.equal(made[0][n], made[1][n]) for n in made[0])
    assert not torch.equal(made[0]["0.weight"], made[2]["0.weight"])
    # He 2015: the deviation of a convolution is √(2 / (outputs × area)).
    wide = growing(torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3), torch.nn.Flatten(),
                                       torch.nn.Linear(64, 2))).grown(["x"])  # fmt: skip
    Laid(Plan.preset("from-scratch"), wide, seed=0, epochs=1)
    assert float(wide.module[0].weight.detach().std()) == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.02
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_what_is_shrunk_lies_between_its_weights_and_new_ones(share):
    """The slow twin: number by number; what is frozen, the head and counters stay."""
    model, fresh = start(), start(seed=5)
    with torch.no_grad():
        for each in model.module.state_dict().values():
            each.copy_(each + 3)
    was = weights(model)
    frozen = Rule("3", "frozen")
    Laid(Plan.preset("from-scratch"), fresh, seed=7, epochs=1)
    new = weights(fresh)
    Laid(Plan(rules=(frozen,), shrink=share), model, seed=7, epochs=1)
    now = weights(model)
    assert {name.split(".")[0] for name in was} == {"0", "1", "3", "4", "9"}
    for name, each in was.items():
        if name.split(".")[0] in ("0", "1") and each.is_floating_point():
            expected = share * each.double() + (1 - share) * new[name].double()
            torch.testing.assert_close(now[name].double(), expected, rtol=1e-6, atol=1e-7)
            assert torch.equal(now[name], each) == (share == 1)
        else:
            assert torch.equal(now[name], each), name
    with pytest.raises(BadOption, match=r"shrink is 1\.5; give a number from 0 to 1"):
        Plan(shrink=1.5)


@pytest.mark.parametrize(
    "name", ["timm:convnext_atto", "timm:vit_tiny_patch16_224", "torchvision:vit_b_16"]
)
def test_whole_networks_can_begin_again(name):
    library, bare = name.split(":")
    if library == "timm":
        module = timm.create_model(bare, num_classes=2)
    else:
        module = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=2)
    model = growing(module).grown(["x", "y"])
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.fill_(7.0)
    Laid(Plan.preset("from-scratch"), model, seed=0, epochs=1)
    for parameter_name, parameter in model.module.named_parameters():
        assert not bool((parameter == 7.0).any()), parameter_name


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("timm:resnet18", "bn2"),
        ("timm:seresnet50", "bn3"),
        ("torchvision:resnet18", "bn2"),
        ("torchvision:resnet50", "bn3"),
        ("retain:resnet14", "bn2"),
    ],
)
def test_residual_blocks_that_begin_again_are_their_shortcuts(name, scale):
    """Goyal 2017, §5.1: what else is in a block has no say until it learns."""
    library, bare = name.split(":")
    if library == "retain":
        module = cifar_resnet(2, 14).module
    elif library == "timm":
        module = timm.create_model(bare, num_classes=2)
    else:
        module = getattr(torchvision.models, bare)(num_classes=2)
    model = growing(module).grown(["x", "y"])
    for parameter in model.module.parameters():
        parameter.data.fill_(7.0)
    Laid(Plan.preset("from-scratch"), model, seed=0, epochs=1)
    blocks = [each for each in model.module.modules() if hasattr(each, scale)]
    blocks = [each for each in blocks if hasattr(each, "conv2")]
    # The second block of a stage keeps its size: nothing but the shortcut is left, and a ReLU.
    maps = (16 if library == "retain" else 64) * (4 if scale == "bn3" else 1)
    x = torch.randn(2, maps, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(blocks[1].eval()(x), x.relu(), rtol=0, atol=0)
    assert len(blocks) in {6, 8, 16}
    norms = [each for each in model.module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert sum(not bool(each.weight.detach().any()) for each in norms) == len(blocks)


def test_a_network_without_shortcuts_begins_with_scales_of_one():
    model = growing(cifar_resnet(2, 14, shortcuts=False)).grown(["x", "y"])
    Laid(Plan.preset("from-scratch"), model, seed=0, epochs=1)
    norms = [each for each in model.module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert all(bool((each.weight == 1).all()) for each in norms)


@pytest.mark.parametrize("shortcuts", [True, "projections"])
@pytest.mark.parametrize("shrink", [False, True])
def test_blocks_that_began_with_scales_of_one_begin_so_again(shortcuts, shrink):
    """He 2015's start, of which the network says that it was its own."""
    network = cifar_resnet(2, 14, shortcuts=shortcuts, zero_init=False)
    model = growing(network).grown(["x", "y"])
    norms = [each for each in model.module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for each in norms:
        each.weight.data.fill_(3.0)
    plan = Plan(shrink=0.5) if shrink else Plan.preset("from-scratch")
    Laid(plan, model, seed=0, epochs=1)
    wanted = 2.0 if shrink else 1.0  # half of what it was, and half of a new one
    assert all(bool((each.weight == wanted).all()) for each in norms)
    closed = cifar_resnet(2, 14, shortcuts=shortcuts)
    other = growing(closed).grown(["x", "y"])
    Laid(Plan.preset("from-scratch"), other, seed=0, epochs=1)
    assert sum(name.endswith("bn2.weight") and not bool(tensor.any())
               for name, tensor in other.module.state_dict().items()) == 6  # fmt: skip


def test_gdumb_begins_such_a_network_as_it_was_built():
    begun = Taught(growing(cifar_resnet(2, 14, zero_init=False)))
    still = Recipe(epochs=1, batch=4, rate=1e-9, weight_decay=0.0, device="cpu")
    found = teach(methods.make("gdumb"), begun, pictures("ab", 4, side=32), still)
    scales = {n: t for n, t in found.model.module.state_dict().items() if "bn2.weight" in n}
    assert len(scales) == 6
    for each in scales.values():
        torch.testing.assert_close(each, torch.ones_like(each))


def test_adapters_change_nothing_until_they_learn_and_merge_exactly():
    pytest.importorskip("peft")
    model = growing(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)).grown(
        ["a", "b"]
    )
    model.module.eval()
    views = Views()(pictures("ab", side=32).pictures)
    with torch.no_grad():
        wanted = model(views).logits
        twin = model.copy()
        laid = Laid(Plan.preset("lora"), twin, seed=0, epochs=1)
        twin.module.eval()
        torch.testing.assert_close(twin(views).logits, wanted, rtol=0, atol=0)
        for name, parameter in twin.module.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted = twin(views).logits
        assert (adapted - wanted).abs().max() > 1e-3
        found = laid.finish()
        torch.testing.assert_close(found(views).logits, adapted, rtol=1e-4, atol=1e-5)
    assert [*found.module.state_dict()] == [*model.module.state_dict()]
    learning = sum(row.learning for row in laid.rows if row.state == "adapted")
    width, rank = 192, 8
    assert learning == 2 * rank * ((3 + 1 + 1 + 1) * width + (width + 4 * width) * 2)
