"""Where training may start from: published weights out of the cache or the network, a local file, a checkpoint.

A server on this machine plays download.pytorch.org; a folder of the test plays the torch hub cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from imgcls import checkpoint, download
from imgcls.errors import CheckpointError, Exit, UsageError
from imgcls.models import pretrained
from imgcls.models.classifier import Classifier, build_network
from imgcls.models.pretrained import Start, apply, choose, fetch, from_file
from imgcls.models.surgery import head
from imgcls.models.torchvision import recipe
from imgcls.schema import CARD_NAME, ModelCard, Preprocess, Pretrained

ARCH = "shufflenet_v2_x0_5"  # 1.4 million weights with its 1000 classes, the fewest of all but one
CLASSES = ("ant", "bee", "cat")
SIZE, SMALL = 224, 32  # pixels
PREPROCESS = Preprocess(size=SMALL, resize=SMALL)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty torch hub cache of this test's own, and no proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to reach the network end the test."""

    def refuse(url: str, *_: Any) -> None:
        pytest.fail(f"tried to fetch {url}")

    monkeypatch.setattr(pretrained, "download", refuse)


def theirs(arch: str = ARCH, **options: Any) -> nn.Module:
    """Build torchvision's own network with weights that tell one from another, as if they were published."""
    torch.manual_seed(1)
    network: nn.Module = torchvision.models.get_model(arch, weights=None, **options)
    return network.eval()


def publish(cache: Path, state: Any, arch: str = ARCH) -> Path:
    """Put a file into the cache under the name of the published weights."""
    path = cache / recipe(arch).url.rsplit("/", 1)[-1]
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def all_but_the_head(network: nn.Module) -> dict[str, torch.Tensor]:
    name = head(network)[0]
    return {key: value for key, value in network.state_dict().items() if not key.startswith(f"{name}.")}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refused(action: Callable[[], Any]) -> str:
    """Return the one line with which weights are refused."""
    with pytest.raises(CheckpointError) as caught:
        action()
    assert caught.value.exit_code == Exit.CHECKPOINT
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Published weights in the cache --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("asked", [True, None])
def test_cached_weights_are_used_for_all_but_the_head(asked: bool | None, cache: Path) -> None:
    source = theirs()
    publish(cache, source.state_dict())
    start = choose(ARCH, asked, 224)
    assert start.pretrained == Pretrained(
        asked="yes" if asked else "auto",
        used="torchvision ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1",
        reason="from the torch hub cache",
    )
    assert (start.pretrained.missing, start.notes) == (False, ())

    network = build_network(ARCH, 3, 224)
    fresh = head(network)[1].weight.clone()
    assert apply(start, network, ARCH, CLASSES, SIZE) == "new head for 3 classes"
    assert equal(all_but_the_head(network), all_but_the_head(source))
    assert torch.equal(head(network)[1].weight, fresh)


@pytest.mark.usefixtures("no_download")
def test_the_smallest_input_for_which_weights_are_looked_for_is_96_px(cache: Path) -> None:
    publish(cache, theirs().state_dict())
    assert choose(ARCH, None, 96).state is not None
    start = choose(ARCH, None, 95)
    assert (start.state, start.pretrained.missing) == (None, False)  # nothing was wanted: no reason to shout
    assert start.pretrained == Pretrained(asked="auto", used=None, reason="the input of 95 px is below 96 px")
    assert choose(ARCH, True, 32).state is not None  # asked for is asked for


@pytest.mark.usefixtures("no_download")
def test_no_pretrained_never_looks(cache: Path) -> None:
    publish(cache, theirs().state_dict())
    assert choose(ARCH, False, 224) == Start(Pretrained(asked="no", used=None, reason="--no-pretrained"))


@pytest.mark.usefixtures("no_download")
def test_our_own_networks_have_no_published_weights() -> None:
    start = choose("small-cnn", None, 224)
    assert start.pretrained == Pretrained(asked="auto", used=None, reason="small-cnn has no published weights")
    assert not start.pretrained.missing
    assert "small-cnn has no published weights" in refused(lambda: choose("small-cnn", True, 224))


@pytest.mark.usefixtures("no_download")
def test_a_licence_of_its_own_is_a_note(cache: Path) -> None:
    publish(cache, {"class_token": torch.zeros(1)}, arch="vit_h_14")
    (note,) = choose("vit_h_14", True, 518).notes
    assert note.startswith("ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1 has a licence of its own: https://")


class Harm:
    """Pickles into a call that makes a folder, as a malicious file would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("asked", [True, None])
def test_nothing_in_a_cached_file_runs(asked: bool | None, cache: Path, tmp_path: Path) -> None:
    path = publish(cache, theirs().state_dict() | {"extra": Harm(tmp_path / "mark")})
    assert str(path) in refused(lambda: choose(ARCH, asked, 224))
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("no_download")
def test_a_damaged_cached_file_is_refused_by_name(cache: Path) -> None:
    path = publish(cache, theirs().state_dict())
    path.write_bytes(path.read_bytes()[:50_000])
    assert str(path) in refused(lambda: choose(ARCH, True, 224))


# How published files differ from today's networks ---------------------------------------------------------------------


def without_counters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop what BatchNorm counts since torch 0.4.1."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.usefixtures("no_download")
def test_densenets_old_names_are_understood(cache: Path) -> None:
    """The files say `denselayer1.norm.1.weight` where the network says `denselayer1.norm1.weight`."""
    source = theirs("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in without_counters(source.state_dict()).items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    publish(cache, old, arch="densenet121")
    network = build_network("densenet121", 3, 224)
    apply(choose("densenet121", True, 224), network, "densenet121", CLASSES, SIZE)
    assert equal(all_but_the_head(network), all_but_the_head(source))


@pytest.mark.usefixtures("no_download")
def test_vision_transformers_old_names_are_understood(cache: Path) -> None:
    """The files are older than torchvision's MLP: `mlp.linear_1.weight` is `mlp.0.weight` now."""
    source = theirs("vit_b_32")
    old = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in source.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_0.mlp.linear_1.weight" in old
    publish(cache, old, arch="vit_b_32")
    network = build_network("vit_b_32", 3, 224)
    apply(choose("vit_b_32", True, 224), network, "vit_b_32", CLASSES, SIZE)
    assert equal(all_but_the_head(network), all_but_the_head(source))


@pytest.mark.usefixtures("no_download")
def test_files_from_before_batch_norm_counted_are_understood(cache: Path) -> None:
    source = theirs()
    publish(cache, without_counters(source.state_dict()))
    network = build_network(ARCH, 3, 224)
    apply(choose(ARCH, True, 224), network, ARCH, CLASSES, SIZE)
    assert equal(all_but_the_head(network), all_but_the_head(source))


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out(arch: str, cache: Path) -> None:
    source = theirs(arch, aux_logits=True, init_weights=False)
    assert any(key.startswith(("aux1.", "AuxLogits.")) for key in source.state_dict())
    publish(cache, source.state_dict(), arch=arch)
    network = build_network(arch, 3, 299)
    apply(choose(arch, True, 299), network, arch, CLASSES, SIZE)
    theirs_now, ours = all_but_the_head(source), all_but_the_head(network)
    assert equal(ours, {key: theirs_now[key] for key in ours})


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("arch", ["mnasnet0_5", "squeezenet1_1"])
def test_versioned_states_and_convolutional_heads_are_loaded(arch: str, cache: Path) -> None:
    source = theirs(arch)
    publish(cache, source.state_dict(), arch=arch)
    network = build_network(arch, 3, 224)
    apply(choose(arch, True, 224), network, arch, CLASSES, SIZE)
    assert equal(all_but_the_head(network), all_but_the_head(source))


@pytest.mark.usefixtures("no_download")
def test_a_vision_transformer_of_another_size_gets_its_positions_interpolated(cache: Path) -> None:
    """7x7 patches of 32 px become 4x4; a constant embedding stays what it is, and the class token is not a patch."""
    source = theirs("vit_b_32")
    positions = torch.full((1, 50, 768), 2.0)
    positions[:, 0] = 5.0
    publish(cache, source.state_dict() | {"encoder.pos_embedding": positions}, arch="vit_b_32")
    network = build_network("vit_b_32", 3, 128)
    apply(choose("vit_b_32", True, 128), network, "vit_b_32", CLASSES, 128)
    own = network.get_parameter("encoder.pos_embedding").detach()
    assert own.shape == (1, 17, 768)
    torch.testing.assert_close(own[:, 0], torch.full((1, 768), 5.0))
    torch.testing.assert_close(own[:, 1:], torch.full((1, 16, 768), 2.0))
    assert network.eval()(torch.rand(1, 3, 128, 128)).shape == (1, 3)
    assert torch.equal(network.get_parameter("conv_proj.weight"), source.get_parameter("conv_proj.weight"))


# The network ---------------------------------------------------------------------------------------------------------


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve on this machine and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


def sending(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def publish_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let torchvision's recipes name another address."""
    monkeypatch.setattr(pretrained, "published", lambda arch: dataclasses.replace(recipe(arch), url=url))


def saved(state: Any, folder: Path) -> bytes:
    torch.save(state, folder / "served.pth")
    return (folder / "served.pth").read_bytes()


def name_of(content: bytes) -> str:
    """Name a file as torchvision does: with the first digits of its hash."""
    return f"{ARCH}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def test_weights_are_fetched_once_into_the_torch_hub_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = theirs()
    content = saved(source.state_dict(), tmp_path)
    with server(sending(content)) as address:
        publish_at(monkeypatch, f"{address}/models/{name_of(content)}")
        start = choose(ARCH, None, 224)
    assert start.pretrained.reason == "fetched"
    assert os.listdir(cache) == [name_of(content)]
    assert choose(ARCH, True, 224).pretrained.reason == "from the torch hub cache"  # the server is gone

    network = build_network(ARCH, 3, 224)
    apply(start, network, ARCH, CLASSES, SIZE)
    assert equal(all_but_the_head(network), all_but_the_head(source))


def test_what_has_another_hash_than_its_name_says_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(sending(b"a login page of the hotel")) as address:
        publish_at(monkeypatch, f"{address}/{ARCH}-0123abcd.pth")
        assert "0123abcd" in refused(lambda: choose(ARCH, True, 224))
        assert choose(ARCH, None, 224).pretrained.missing
    assert os.listdir(cache) == []


def test_a_server_that_falls_silent_is_cut_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    over = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        request.wfile.write(b"the first bytes")
        request.wfile.flush()
        over.wait(20)

    begin = time.monotonic()
    with server(stall) as address:
        publish_at(monkeypatch, f"{address}/{ARCH}-0123abcd.pth")
        try:
            assert "timed out" in refused(lambda: choose(ARCH, True, 224))
        finally:
            over.set()
    assert time.monotonic() - begin < 5
    assert os.listdir(cache) == []


def test_a_server_that_never_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    over = threading.Event()
    begin = time.monotonic()

    def never(_request: BaseHTTPRequestHandler) -> None:
        over.wait(20)

    with server(never) as address:
        publish_at(monkeypatch, f"{address}/{ARCH}-0123abcd.pth")
        try:
            assert choose(ARCH, None, 224).pretrained.missing
        finally:
            over.set()
    assert time.monotonic() - begin < 5


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name an address on this machine where nobody listens (port 9, discard)."""
    publish_at(monkeypatch, f"http://127.0.0.1:9/{ARCH}-0123abcd.pth")


@pytest.mark.usefixtures("no_network")
def test_without_network_and_cache_training_goes_on_from_scratch_and_says_why() -> None:
    start = choose(ARCH, None, 224)
    assert (start.state, start.pretrained.missing) == (None, True)
    assert (start.pretrained.asked, start.pretrained.used) == ("auto", None)
    assert start.pretrained.reason.startswith(
        "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1 is neither in the torch hub cache nor could be fetched ("
    )


@pytest.mark.usefixtures("no_network")
def test_without_network_and_cache_pretrained_is_an_error() -> None:
    message = refused(lambda: choose(ARCH, True, 224))
    assert message.startswith("--pretrained: ")
    assert message.endswith("connect, or put the file into the cache")


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    content = saved(theirs().state_dict(), tmp_path)
    with server(sending(content)) as address:
        publish_at(monkeypatch, f"{address}/{name_of(content)}")
        assert choose(ARCH, None, 224).pretrained.missing
        refused(lambda: choose(ARCH, True, 224))


@pytest.mark.parametrize("code", [404, 500])
def test_an_error_of_the_server_is_a_failure_to_fetch(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda request: request.send_error(code)) as address:
        publish_at(monkeypatch, f"{address}/{ARCH}-0123abcd.pth")
        assert str(code) in choose(ARCH, None, 224).pretrained.reason


def test_fetch_says_where_the_file_was(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "some-01234567.pth").touch()
    path, where = fetch("https://example.org/models/some-01234567.pth")
    assert (path, where) == (cache / "some-01234567.pth", "from the torch hub cache")


# --weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_bare_or_wrapped_state_dict_starts_all_but_the_head(wrapper: str | None, tmp_path: Path) -> None:
    source, path = theirs(), tmp_path / "weights.pth"
    state = source.state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    start = from_file(str(path), ARCH)
    assert start.pretrained == Pretrained(asked=str(path), used=f"state dict {path}", reason="--weights")
    network = build_network(ARCH, 3, 224)
    said = apply(start, network, ARCH, CLASSES, SIZE)
    assert said == (f"read from its key '{wrapper}'; " if wrapper else "") + "new head for 3 classes"
    assert equal(all_but_the_head(network), all_but_the_head(source))


def trained(folder: Path, classes: tuple[str, ...], arch: str = "small-cnn", **options: Any) -> tuple[Classifier, str]:
    """Write a checkpoint as training does, with random weights."""
    card = ModelCard(
        arch=arch,
        arch_options=options,
        classes=classes,
        preprocess=PREPROCESS,
        pretrained=Pretrained(asked="no", used=None, reason="--no-pretrained"),
        imgcls_version="0.1.0",
    )
    torch.manual_seed(2)
    network = build_network(arch, len(classes), 32, **options)
    checkpoint.save(folder / "best.pt", checkpoint.Checkpoint(card, network.state_dict(), np.array([], dtype=np.int64)))
    return Classifier(network, PREPROCESS).eval(), str(folder / "best.pt")


def test_a_checkpoint_with_other_classes_gets_a_new_head(tmp_path: Path) -> None:
    source, path = trained(tmp_path, ("dog", "eel"))
    start = from_file(path, "small-cnn")
    assert start.pretrained.used == f"imgcls checkpoint {path}"
    assert start.pretrained.reason == "--weights; trained on 2 classes"
    network = build_network("small-cnn", 3, 32)
    assert apply(start, network, "small-cnn", CLASSES, SMALL) == "new head for 3 classes"
    assert equal(all_but_the_head(network), all_but_the_head(source.network))


@pytest.mark.parametrize("arch", ["small-cnn", "squeezenet1_1"])
def test_a_checkpoint_with_the_same_classes_in_another_order_keeps_its_head_by_name(arch: str, tmp_path: Path) -> None:
    source, path = trained(tmp_path, ("cat", "ant", "bee"), arch=arch)
    network = build_network(arch, 3, 32)
    said = apply(from_file(path, arch), network, arch, ("ant", "bee", "cat"), SMALL)
    assert said == "head taken over: the classes are the same"
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    now = Classifier(network, PREPROCESS).eval()
    torch.testing.assert_close(now(images), source(images)[:, [1, 2, 0]])


def test_as_many_classes_with_other_names_are_other_classes(tmp_path: Path) -> None:
    source, path = trained(tmp_path, ("ant", "bee", "dog"))
    network = build_network("small-cnn", 3, 32)
    assert apply(from_file(path, "small-cnn"), network, "small-cnn", CLASSES, SMALL) == "new head for 3 classes"
    assert not torch.equal(head(network)[1].weight, head(source.network)[1].weight)


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path) -> None:
    _, path = trained(tmp_path, CLASSES)
    assert "is a small-cnn, not a lenet: type --arch small-cnn" in refused(lambda: from_file(path, "lenet"))


def test_weights_of_another_network_name_the_first_differences_and_change_nothing(tmp_path: Path) -> None:
    torch.save(build_network("lenet", 3, 32).state_dict(), tmp_path / "lenet.pth")
    network = build_network("small-cnn", 3, 32)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    start = from_file(str(tmp_path / "lenet.pth"), "small-cnn")
    message = refused(lambda: apply(start, network, "small-cnn", CLASSES, SMALL))
    assert message.startswith("the weights are of another network: ")
    assert equal(network.state_dict(), before)


def test_a_missing_key_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    source = theirs()
    state = {key: value for key, value in source.state_dict().items() if key != "conv1.0.weight"}
    torch.save(state, tmp_path / "weights.pth")
    network = build_network(ARCH, 3, 224)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    start = from_file(str(tmp_path / "weights.pth"), ARCH)
    assert "conv1.0.weight is missing" in refused(lambda: apply(start, network, ARCH, CLASSES, SIZE))
    assert equal(network.state_dict(), before)


def test_weights_for_another_stem_do_not_fit(tmp_path: Path) -> None:
    _, path = trained(tmp_path, CLASSES, arch="resnet18", stem="small")
    network = build_network("resnet18", 3, 224)
    start = from_file(path, "resnet18")
    message = refused(lambda: apply(start, network, "resnet18", CLASSES, SIZE))
    assert "conv1.weight is [64, 3, 3, 3], not [64, 3, 7, 7]" in message
    assert message.endswith("it was trained with --size 32 --stem small")


def test_a_position_embedding_that_is_no_square_is_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = build_network("vit_b_32", 3, 224).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in state.items()}
    state["encoder.pos_embedding"] = torch.zeros(1, 40, 768)
    network = build_network("vit_b_32", 3, 128)
    start = Start(Pretrained(asked="w", used="w", reason="--weights"), state=state)
    message = refused(lambda: apply(start, network, "vit_b_32", CLASSES, 128))
    assert "encoder.pos_embedding is [1, 40, 768], not [1, 17, 768]" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"fc.weight": torch.tensor([1.0, float("nan")])}, "fc.weight has NaN or infinite values"),
        ({"fc.weight": "heavy"}, "fc.weight is str, not a tensor"),
        ({7: torch.zeros(2)}, "7 is no name of a tensor"),
        ({}, "is an empty dict"),
        ({"fc.weight": np.zeros(2, np.float32)}, "fc.weight is NumPy array, not a tensor"),
        ({"fc.weight": torch.zeros(1).expand(10**12)}, "fc.weight is no plain tensor"),
        ([torch.zeros(2)], "holds list, not a dict"),
        (torch.zeros(2), "holds Tensor, not a dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: Any, problem: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    network = build_network(ARCH, 3, 224)
    assert problem in refused(
        lambda: apply(from_file(str(tmp_path / "weights.pth"), ARCH), network, ARCH, CLASSES, SIZE)
    )


def test_a_forged_head_is_a_difference_like_any_other(tmp_path: Path) -> None:
    """The card names three classes and the head has rows for two."""
    _, path = trained(tmp_path, CLASSES)
    loaded = checkpoint.load(path)
    forged = dataclasses.replace(
        loaded, model={key: value[:2] if key.startswith("10.") else value for key, value in loaded.model.items()}
    )
    checkpoint.save(Path(path), forged)
    network = build_network("small-cnn", 3, 32)
    start = from_file(path, "small-cnn")
    message = refused(lambda: apply(start, network, "small-cnn", CLASSES, SMALL))
    assert "10.weight is [2, 128], not [3, 128]" in message


def test_a_safetensors_file_starts_a_network(tmp_path: Path) -> None:
    source, path = theirs(), tmp_path / "model.safetensors"
    state = {f"model.{key}": value.contiguous() for key, value in source.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state))
    network = build_network(ARCH, 3, 224)
    said = apply(from_file(str(path), ARCH), network, ARCH, CLASSES, SIZE)
    assert said == "names without 'model.'; new head for 3 classes"
    assert equal(all_but_the_head(network), all_but_the_head(source))
    path.write_bytes(path.read_bytes()[:100_000])
    assert "a safetensors file that is damaged or cut short" in refused(lambda: from_file(str(path), ARCH))


def test_an_exported_safetensors_file_would_lose_its_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.ones(2)}, {CARD_NAME: "{}"}))
    assert "give the checkpoint it was made from" in refused(lambda: from_file(str(path), ARCH))


@pytest.mark.parametrize(("name", "problem"), [("", "is a folder"), ("none.pth", "no such file")])
def test_no_file_is_an_error_of_usage(name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem):
        from_file(str(tmp_path / name), ARCH)


def test_a_zip_bomb_is_no_weights(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1 << 20)}, tmp_path / "honest.pth")
    bomb = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(tmp_path / "honest.pth") as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert "forged" in refused(lambda: from_file(str(bomb), ARCH))
