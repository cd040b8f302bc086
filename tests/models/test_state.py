"""Whatever stands around a network's weights in a file of others: what is loaded equals them, or nothing is loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from imgcls.errors import CheckpointError, Exit
from imgcls.models.classifier import build_network
from imgcls.models.families import family
from imgcls.models.pretrained import apply, from_file
from imgcls.models.state import find, fits, load_state, parts, resize_positions
from imgcls.models.surgery import head

SMALL = "shufflenet_v2_x0_5"  # 1.4 million weights; its head is `fc`, of 1024 features
SIZE = 64  # pixels
CLASSES = ("ant", "bee", "cat")

State = dict[str, torch.Tensor]


def theirs(arch: str = SMALL, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=10)
    return network


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def but_head(state: State, name: str = "fc") -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}


def start(values: Any, path: Path, arch: str = SMALL, **options: Any) -> tuple[nn.Module, str]:
    """Save a file, start a new network from it as training does, and return that and what is said."""
    torch.save(values, path / "w.pth")
    network = build_network(arch, len(CLASSES), 64, **options)
    return network, apply(from_file(str(path / "w.pth"), arch), network, arch, CLASSES, SIZE)


def assert_started(network: nn.Module, source: State, head_name: str) -> None:
    """Compare every tensor before the head with the file's."""
    backbone = but_head(dict(network.state_dict()), head_name)
    assert len(backbone) > 20
    for name, tensor in backbone.items():
        assert torch.equal(tensor, source[name].to(tensor.dtype)), name


def refused(values: Any, path: Path, arch: str = SMALL, **options: Any) -> str:
    """Return the words with which weights are refused, and see that the network keeps its own."""
    network = build_network(arch, len(CLASSES), 64, **options)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(values, path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        apply(from_file(str(path / "w.pth"), arch), network, arch, CLASSES, SIZE)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Where the weights stand ---------------------------------------------------------------------------------------------

Form = Callable[[State], dict[str, Any]]
FORMS: dict[str, tuple[Form, str]] = {
    "bare": (lambda state: state, ""),
    "DistributedDataParallel": (lambda state: under("module.", state), "names without 'module.'; "),
    "torch.compile": (lambda state: under("_orig_mod.", state), "names without '_orig_mod.'; "),
    "compiled, distributed, wrapped": (
        lambda state: {"state_dict": under("module._orig_mod.", state), "epoch": 3},
        "read from its key 'state_dict'; names without 'module._orig_mod.'; ",
    ),
    "an attribute of any name": (lambda state: under("my_own_part.", state), "names without 'my_own_part.'; "),
    "PyTorch's tutorial": (
        lambda state: {"epoch": 5, "model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": 0.4},
        "read from its key 'model_state_dict'; ",
    ),
    "a tensor beside it": (lambda state: {"net": state, "accuracy": torch.tensor(0.9)}, "read from its key 'net'; "),
    "deep inside": (lambda state: {"a": {"b": {"c": state}}}, "read from its key 'a.b.c'; "),
    "twice the same": (lambda state: {"model": state, "best": dict(state)}, "read from its key 'model'; "),
    "Lightning with a weighted loss": (
        lambda state: {"state_dict": under("model.", state) | {"criterion.weight": torch.ones(10)}},
        "read from its key 'state_dict'; names without 'model.'; left out 'criterion.weight'; ",
    ),
    "torch's average of weights": (
        lambda state: {"n_averaged": torch.tensor(3), **under("module.", state)},
        "names without 'module.'; left out 'n_averaged'; ",
    ),
    "a profiler's counters": (
        lambda state: state | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
        "left out 'conv1.total_params', 'total_ops'; ",
    ),
    "before torch counted batches": (
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        "",
    ),
    "no head": (but_head, ""),
    "a head of two layers": (
        lambda state: (
            but_head(state)
            | {"fc.0.weight": torch.ones(64, 1024), "fc.0.bias": torch.ones(64)}
            | {"fc.3.weight": torch.ones(5, 64), "fc.3.bias": torch.ones(5)}
        ),
        "left out 'fc.0.bias', 'fc.0.weight', 'fc.3.bias' and 1 more; ",
    ),
    "a head of another name": (
        lambda state: but_head(state) | {"fc_new.weight": torch.ones(5, 1024), "fc_new.bias": torch.ones(5)},
        "left out 'fc_new.bias', 'fc_new.weight'; ",
    ),
    "two heads of other names, with BatchNorm": (
        lambda state: (
            but_head(state)
            | {"hidden.weight": torch.ones(64, 1024), "hidden.bias": torch.ones(64), "norm.weight": torch.ones(64)}
            | {"norm.num_batches_tracked": torch.tensor(1), "answer.weight": torch.ones(5, 64)}
        ),
        "left out 'answer.weight', 'hidden.bias', 'hidden.weight' and 2 more; ",
    ),
    "a layer after the old head": (
        lambda state: under("0.", state) | {"1.weight": torch.ones(5, 10), "1.bias": torch.ones(5)},
        "names without '0.'; left out '1.bias', '1.weight'; ",
    ),
    "a head beside the backbone": (
        lambda state: under("backbone.", but_head(state)) | {"head.weight": torch.ones(5, 1024)},
        "names without 'backbone.'; left out 'head.weight'; ",
    ),
    "parameters": (
        lambda state: {
            name: nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in state.items()
        },
        "",
    ),
    "float16": (lambda state: floats(state, torch.float16), "float16 made float32; "),
    "bfloat16": (lambda state: floats(state, torch.bfloat16), "bfloat16 made float32; "),
    "float64": (lambda state: floats(state, torch.float64), "float64 made float32; "),
}


def floats(state: State, kind: torch.dtype) -> State:
    return {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_found_and_loaded_and_the_line_says_how(form: str, tmp_path: Path) -> None:
    make, said = FORMS[form]
    source = dict(theirs().state_dict())
    if form in ("float16", "bfloat16"):  # what the file says is what is loaded
        source = floats(source, getattr(torch, form))
    network, line = start(make(source), tmp_path)
    assert line == f"{said}new head for 3 classes"
    if form == "before torch counted batches":
        source |= {name: tensor for name, tensor in network.state_dict().items() if "num_batches" in name}
    assert_started(network, source, "fc")


@pytest.mark.parametrize(
    ("arch", "layer", "replacement"),
    [
        ("mobilenet_v2", "classifier", nn.Linear(1280, 5)),
        ("mobilenet_v2", "classifier", nn.Sequential(nn.Linear(1280, 64), nn.ReLU(), nn.Linear(64, 5))),
        ("mobilenet_v3_small", "classifier.3", nn.Sequential(nn.Dropout(), nn.Linear(1024, 5))),
        ("squeezenet1_1", "classifier.1", nn.Conv2d(512, 5, 1)),
        ("squeezenet1_1", "classifier", nn.Sequential(nn.Conv2d(512, 64, 1), nn.ReLU(), nn.Conv2d(64, 5, 1))),
        ("densenet121", "classifier", nn.Sequential(nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 5))),
        ("shufflenet_v2_x0_5", "fc", nn.Identity()),
    ],
)
def test_the_heads_that_tutorials_put_there(arch: str, layer: str, replacement: nn.Module, tmp_path: Path) -> None:
    source = theirs(arch)
    parent, _, name = layer.rpartition(".")
    setattr(source.get_submodule(parent), name, replacement)
    network, _ = start(under("module.", dict(source.state_dict())), tmp_path, arch)
    assert_started(network, dict(source.state_dict()), head(network)[0])


@pytest.mark.parametrize(("arch", "wanted"), [("vgg11", "classifier.7"), ("vit_b_32", "heads"), ("swin_t", "head.0")])
def test_heads_of_large_networks_by_their_names_alone(arch: str, wanted: str) -> None:
    with torch.device("meta"):
        source, network = theirs(arch), build_network(arch, 3, 224)
    width = head(network)[1].weight.shape[1] if wanted != "classifier.7" else 10
    state = (
        dict(source.state_dict()) if wanted == "classifier.7" else but_head(dict(source.state_dict()), head(network)[0])
    )
    found = find(
        state | {f"{wanted}.weight": torch.ones(5, width), f"{wanted}.bias": torch.ones(5)}, network, family(arch)
    )
    assert found.fits
    assert found.notes == (f"left out '{wanted}.bias', '{wanted}.weight'",)


# Several networks in a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", ["model", "state_dict"])
@pytest.mark.parametrize("average", ["model_ema", "ema", "state_dict_ema"])
def test_of_a_network_and_its_average_the_average_is_taken(plain: str, average: str, tmp_path: Path) -> None:
    other, averaged = dict(theirs(seed=2).state_dict()), dict(theirs(seed=3).state_dict())
    network, line = start({plain: other, average: under("module.", averaged)}, tmp_path)
    assert line.startswith(f"the averaged weights '{average}.module', not '{plain}'; ")
    assert_started(network, averaged, "fc")


@pytest.mark.parametrize("inside", ["keys", "prefixes"])
def test_two_networks_that_both_fit_are_named(inside: str, tmp_path: Path) -> None:
    one, other = dict(theirs(seed=2).state_dict()), dict(theirs(seed=3).state_dict())
    values = {"teacher": one, "student": other}
    if inside == "prefixes":
        values = {"net": under("teacher.", one) | under("student.", other)}
    names = "'teacher', 'student'" if inside == "keys" else "'net.teacher', 'net.student'"
    assert f"several networks that fit: {names}; save the state dict of one" in refused(values, tmp_path)


def test_of_two_networks_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    state = dict(theirs().state_dict())
    network, line = start({"generator": theirs("squeezenet1_1").state_dict(), "classifier": state}, tmp_path)
    assert line == "read from its key 'classifier'; new head for 3 classes"
    assert_started(network, state, "fc")


# What is refused -----------------------------------------------------------------------------------------------------


def changed(name: str, tensor: torch.Tensor | None) -> State:
    state = dict(theirs().state_dict()) | ({name: tensor} if tensor is not None else {})
    return state if tensor is not None else {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("stage2.0.branch2.0.weight", None, "stage2.0.branch2.0.weight is missing"),
        ("conv1.1.running_mean", None, "conv1.1.running_mean is missing"),
        ("conv1.1.weight", torch.ones(25), "conv1.1.weight is [25], not [24]"),
        ("conv1.1.weight", torch.ones(0), "conv1.1.weight is [0], not [24]"),
        ("stage2.0.attention.weight", torch.ones(4, 24), "stage2.0.attention.weight is not known"),
        ("attention.weight", torch.ones(4, 24, 1, 1), "attention.weight is not known"),  # takes early features
        ("conv1.1.weight", torch.ones(24, dtype=torch.int8), "conv1.1.weight is int8, as quantised weights are"),
        ("conv1.1.weight", torch.ones(24, dtype=torch.complex64), "conv1.1.weight is no plain tensor"),
        ("conv1.1.weight", torch.ones(24).to_sparse(), "conv1.1.weight is no plain tensor"),
        ("conv1.1.weight", torch.full((24,), float("nan")), "conv1.1.weight has NaN or infinite values"),
        ("conv1.1.weight", torch.full((24,), 1e300, dtype=torch.float64), "conv1.1.weight has NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_anything_else_in_the_backbone_is_named_and_nothing_is_loaded(
    prefix: str, name: str, tensor: torch.Tensor | None, problem: str, tmp_path: Path
) -> None:
    assert problem in refused(under(prefix, changed(name, tensor)), tmp_path)


def test_what_stands_beside_the_network_and_is_no_head_of_it_is_named(tmp_path: Path) -> None:
    """A decoder of early features, and a first layer that the prefix leaves out."""
    state = under("encoder.", dict(theirs().state_dict()))
    said = refused(state | {"decoder.weight": torch.ones(3, 24, 3, 3)}, tmp_path)
    assert "decoder.weight (beside encoder.) is not known" in said
    said = refused(state | {"conv1.0.weight": torch.ones(24, 3, 3, 3)}, tmp_path)
    assert "conv1.0.weight (beside encoder.) is not known" in said


def test_a_layer_between_those_of_the_classifier_is_no_head() -> None:
    """vgg11's own names are all there; a BatchNorm among its last layers makes it another network."""
    with torch.device("meta"):
        source, network = theirs("vgg11"), build_network("vgg11", 3, 64)
    assert fits(source.state_dict(), network, family("vgg11"))
    assert not fits(dict(source.state_dict()) | {"classifier.1.weight": torch.ones(4096)}, network, family("vgg11"))


@pytest.mark.parametrize(
    ("given", "asked", "advice"),
    [
        ("shufflenet_v2_x1_0", SMALL, "these are the weights of shufflenet_v2_x1_0: type --arch shufflenet_v2_x1_0"),
        ("squeezenet1_1", SMALL, "these are the weights of squeezenet1_1: type --arch squeezenet1_1"),
        ("mnasnet0_5", "resnet18", "these are the weights of mnasnet0_5: type --arch mnasnet0_5"),
    ],
)
def test_weights_of_another_network_of_ours_say_what_to_type(
    given: str, asked: str, advice: str, tmp_path: Path
) -> None:
    said = refused({"net": under("module.", dict(theirs(given).state_dict()))}, tmp_path, asked)
    assert said.startswith("the weights are of another network: ")
    assert said.endswith(advice)


def test_weights_of_no_network_of_ours_say_what_was_met(tmp_path: Path) -> None:
    state = {"conv_stem.weight": torch.ones(32, 3, 3, 3), "bn1.weight": torch.ones(32), "blocks.0.0.x": torch.ones(2)}
    assert refused(state, tmp_path).endswith(
        "only the head, fc, may differ; the file's names begin with 'conv_stem.weight', 'bn1.weight', 'blocks.0.0.x' "
        "(timm's, where imgcls has torchvision's)"
    )


def test_containers_that_hold_each_other_come_to_an_end() -> None:
    values: dict[str, Any] = {"weight": torch.ones(2)}
    for number in range(100):
        values[f"again{number}"] = values
    assert list(parts(values)) == [""]


# The small stem ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A ResNet-18 with a 3x3 stem, as CIFAR's are, under a prefix."""
    source = theirs("resnet18")
    source.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    path = tmp_path_factory.mktemp("cifar") / "cifar.pth"
    torch.save({"net": under("module.", dict(source.state_dict()))}, path)
    return path, dict(source.state_dict())


def test_a_3x3_stem_asks_for_the_small_stem(cifar: tuple[Path, State]) -> None:
    path, state = cifar
    begin = from_file(str(path), "resnet18")
    assert begin.stem == "small"
    network = build_network("resnet18", 3, 64, stem="small")
    apply(begin, network, "resnet18", CLASSES, SIZE)
    assert_started(network, state, "fc")
    with pytest.raises(CheckpointError, match=r"not \[64, 3, 7, 7\].*type --arch resnet18 --stem small"):
        apply(begin, build_network("resnet18", 3, 64), "resnet18", CLASSES, SIZE)


def test_a_standard_stem_asks_for_the_standard_one(tmp_path: Path) -> None:
    source = theirs("resnet18").state_dict()
    torch.save(source, tmp_path / "w.pth")
    assert from_file(str(tmp_path / "w.pth"), "resnet18").stem == "standard"
    network = build_network("resnet18", 3, 64, stem="small")
    with pytest.raises(CheckpointError, match=r"not \[64, 3, 3, 3\].*: type --arch resnet18$"):
        apply(from_file(str(tmp_path / "w.pth"), "resnet18"), network, "resnet18", CLASSES, SIZE)


def test_train_takes_the_small_stem_by_itself_and_says_so(cifar: tuple[Path, State], colours: Path, run: Any) -> None:
    options = ("--data", colours, "--arch", "resnet18", "--weights", cifar[0], "--size", 64, "--limit", 4)
    done = run("train", *options, "--workers", 0, "--batch-size", 4, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "small (the first convolution of --weights is 3x3)" in done.stderr
    assert f"starting from state dict {cifar[0]}: read from its key 'net'; names without 'module.'; new" in done.stderr
    done = run("train", *options, "--workers", 0, "--stem", "standard", "--dry-run")
    assert done.exit_code == 4
    assert "type --arch resnet18 --stem small" in done.stderr


# Loading --------------------------------------------------------------------------------------------------------------


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_state_is_loaded_whole() -> None:
    source, target = build_network("lenet", 7, 32), build_network("lenet", 7, 32)
    load_state(target, source.state_dict())
    assert same(copied(source), copied(target))


def test_a_state_that_does_not_fit_changes_nothing_and_names_the_first_differences() -> None:
    network = build_network("bn-cnn", 7, 32)
    before = copied(network)
    state = {key: torch.ones_like(value) for key, value in before.items()}
    del state["0.weight"]
    state["extra"] = torch.zeros(1)
    state["3.weight"] = torch.zeros(1, 2)
    state["25.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        load_state(network, state)
    assert str(caught.value) == (
        "the weights are of another network: 0.weight is missing; extra is not known; "
        "3.weight is [1, 2], not [64, 64, 3, 3] and 1 more"
    )
    assert caught.value.exit_code == Exit.CHECKPOINT
    assert same(before, copied(network))


def test_all_but_the_head_can_be_loaded() -> None:
    source, target = build_network("lenet", 1000, 32), build_network("lenet", 7, 32)
    fresh, name = copied(target), head(target)[0]
    load_state(target, source.state_dict(), but=name)
    given, now = copied(source), copied(target)
    for key, value in now.items():
        assert torch.equal(value, fresh[key] if key.startswith(f"{name}.") else given[key])


def test_the_head_may_be_absent_when_it_is_not_wanted() -> None:
    target = build_network("lenet", 7, 32)
    name = head(target)[0]
    state = {key: value for key, value in target.state_dict().items() if not key.startswith(f"{name}.")}
    load_state(target, state, but=name)
    with pytest.raises(CheckpointError, match=f"{name}.weight is missing"):
        load_state(target, state)


# The size of the input -----------------------------------------------------------------------------------------------


def test_positions_are_interpolated_as_torchvision_does() -> None:
    torch.manual_seed(0)
    state = {"encoder.pos_embedding": torch.randn(1, 50, 768)}  # 7x7 patches of 32 px
    for size in (64, 128, 224, 320):
        with torch.device("meta"):
            network = build_network("vit_b_32", 3, size)
        theirs = interpolate_embeddings(size, 32, OrderedDict(state))["encoder.pos_embedding"]
        ours = resize_positions(state, network, family("vit_b_32"))["encoder.pos_embedding"]
        assert torch.equal(ours, theirs), size


@pytest.mark.parametrize("shape", [(1, 49, 768), (1, 50, 384), (2, 50, 768), (1, 1, 768), (50, 768)])
def test_positions_of_no_square_stay_as_they_are(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build_network("vit_b_32", 3, 128)
    state = {"encoder.pos_embedding": torch.zeros(shape)}
    assert resize_positions(state, network, family("vit_b_32")) is state
