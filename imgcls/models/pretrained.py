"""Weights to start from: published ones, a local state dict, or another imgcls checkpoint.

Knows the torch hub cache; knows nothing of training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgcls import checkpoint
from imgcls.download import download
from imgcls.errors import CheckpointError, WriteError
from imgcls.models.classifier import build_network
from imgcls.models.families import family, first_name, has_small_stem, published, size_problem
from imgcls.models.state import CONVERTED, State, find, fits, load_state, parts, resize_positions
from imgcls.models.surgery import head
from imgcls.paths import check_weights
from imgcls.registry import ARCHITECTURES
from imgcls.schema import ModelCard, Pretrained

SMALLEST_INPUT = 96  # pixels; below it published weights are not looked for unless asked
LARGE_INPUT = 224  # pixels, which every architecture takes

# Modules by which timm's networks are known from torchvision's.
_TIMM = re.compile(
    r"(^|\.)(conv_stem|conv_head|patch_embed|stages\.\d+\.blocks|blocks\.\d+\.attn|downsample\.reduction)\."
)


@dataclass(frozen=True)
class Start:
    """Where training starts from.

    Attributes:
        pretrained: what was asked for and used, and why; goes into the checkpoint.
        state: what the file holds, with the network's tensors somewhere in it; None: from scratch.
        stem: "small" where the file's first convolution is that of `--stem small`.
        card: of the imgcls checkpoint the state came from, if it did.
        notes: sentences for the user.
    """

    pretrained: Pretrained
    state: Mapping[Any, Any] | None = None
    stem: str = "standard"
    card: ModelCard | None = None
    notes: tuple[str, ...] = ()


def choose(arch: str, asked: bool | None, size: int, say: Callable[[str], None] = lambda text: None) -> Start:
    """Decide on published weights and get them, from the cache or the network.

    Args:
        arch: architecture.
        asked: True: an error if they cannot be had; False: never; None: when `size` is large enough.
        size: side of the network input, pixels.
        say: told before something is fetched, which may take minutes.

    Raises:
        CheckpointError: asked for, and there are none, or they cannot be had.
    """
    word = {True: "yes", False: "no", None: "auto"}[asked]
    found = published(arch)
    if asked is False:
        return Start(Pretrained(asked=word, used=None, reason="--no-pretrained"))
    if found is None:
        if asked:
            raise CheckpointError(f"--pretrained: {arch} has no published weights; drop it, or choose another --arch")
        return Start(Pretrained(asked=word, used=None, reason=f"{arch} has no published weights"))
    if asked is None and size < SMALLEST_INPUT:
        reason = f"the input of {size} px is below {SMALLEST_INPUT} px"
        return Start(Pretrained(asked=word, used=None, reason=reason))
    try:
        path, where = fetch(found.url, say)
    except (OSError, WriteError) as error:
        reason = f"{found.name} is neither in the torch hub cache nor could be fetched ({' '.join(str(error).split())})"
        if asked:
            raise CheckpointError(f"--pretrained: {reason}; connect, or put the file into the cache") from error
        return Start(Pretrained(asked=word, used=None, reason=reason, missing=True))
    try:
        values = checkpoint.load_tensors(path)
        checkpoint.check_finite(values, str(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: the cached file of {found.name} is damaged; delete it") from error
    notes = (f"{found.name} has a licence of its own: {found.license}",) if found.license else ()
    used = f"{family(arch).name} {found.name}"
    return Start(Pretrained(asked=word, used=used, reason=where), state=values, notes=notes)


def from_file(path: str, arch: str) -> Start:
    """Read `--weights`: an imgcls checkpoint of the same architecture, or a file that has a state dict in it.

    Raises:
        UsageError: no such file, or a package to read it is not installed.
        CheckpointError: another architecture, another kind of file, or no tensors.
    """
    check_weights(path)
    values = checkpoint.load_tensors(path)
    if "imgcls_version" in values:
        loaded = checkpoint.load(path)
        if loaded.card.arch != arch:
            raise CheckpointError(
                f"--weights {path}: is a {loaded.card.arch}, not a {arch}: type --arch {loaded.card.arch}"
            )
        used, reason = f"imgcls checkpoint {path}", f"--weights; trained on {len(loaded.card.classes)} classes"
        return Start(Pretrained(asked=path, used=used, reason=reason), state=loaded.model, card=loaded.card)
    if not parts(values):
        checkpoint.check_finite(values, f"--weights {path}")
        raise CheckpointError(f"--weights {path}: is an empty dict; give a state dict")
    stem = _stem(values, arch)
    return Start(Pretrained(asked=path, used=f"state dict {path}", reason="--weights"), state=values, stem=stem)


def apply(start: Start, network: nn.Module, arch: str, classes: tuple[str, ...], size: int) -> str:
    """Load the start's state into a fresh network; all but the head, which fits only the same classes.

    Args:
        start: with a state.
        network: receives it.
        arch: name of the network.
        classes: those of the network's head, in its order.
        size: side of the network input, pixels.

    Returns:
        How the weights were found and what happened to the head, for the user.

    Raises:
        CheckpointError: something other than the head differs; with what to type, where that is known.
    """
    assert start.state is not None
    name, _ = head(network)
    notes: tuple[str, ...] = ()
    if start.card is None:
        found = find(start.state, network, family(arch))
        state, notes = _as_float32(found.state, network), found.notes
    else:
        state = dict(start.state)
    # Files older than torch 0.4.1 lack the counters of BatchNorm, as do some published ones.
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(".num_batches_tracked")}
    state = resize_positions(counters | state, network, family(arch))
    try:
        if start.card is not None and sorted(start.card.classes) == sorted(classes):
            load_state(network, _with_rows(state, name, start.card.classes, classes))
            return "head taken over: the classes are the same"
        load_state(network, state, but=name)
    except CheckpointError as error:
        if start.card is None:
            advice = _advice(start.state, name, size)
        else:
            stem = start.card.arch_options.get("stem", "standard")
            advice = f"it was trained with --size {start.card.preprocess.size} --stem {stem}"
        raise CheckpointError(f"{error}; {advice}") from error
    return "; ".join((*notes, f"new head for {len(classes)} classes"))


def fetch(url: str, say: Callable[[str], None] = lambda text: None) -> tuple[Path, str]:
    """Return the cached file of a published weight URL, fetching it if needed, and a word on where it was.

    Raises:
        OSError: it cannot be fetched, or has another hash than its name says.
        WriteError: the cache cannot be written.
    """
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path, "from the torch hub cache"
    say(f"fetching {url}")
    prefix = re.search(r"-([0-9a-f]{8,})\.pth$", name)
    try:
        download(url, path, prefix[1] if prefix else "")
    except PermissionError as error:
        raise OSError(f"{os.path.dirname(path)} cannot be written") from error
    return path, "fetched"


def _with_rows(state: State, head_name: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return a state whose head answers for `ours`, the same classes as `theirs` in another order."""
    row_of = {class_name: row for row, class_name in enumerate(theirs)}
    rows = torch.tensor([row_of[class_name] for class_name in ours])
    keys = [key for key in (f"{head_name}.weight", f"{head_name}.bias") if len(state.get(key, ())) == len(rows)]
    return {**state, **{key: state[key][rows] for key in keys}}


def _as_float32(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Refuse values that are no numbers of their own (quantised, NaN); bring other precisions to float32."""
    checkpoint.check_finite(state, "its state dict")
    own = network.state_dict()
    for key, tensor in state.items():
        if key in own and own[key].is_floating_point() and tensor.dtype not in (torch.float32, *CONVERTED):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{key} is {kind}, as quantised weights are; give the weights before that")
    state = {key: tensor.float() if tensor.dtype in CONVERTED else tensor for key, tensor in state.items()}
    checkpoint.check_finite(state, "its state dict in float32")  # float64 reaches further
    return state


def _stem(values: Mapping[Any, Any], arch: str) -> str:
    """Return the stem that a file's first convolution is of: the only one that takes three channels."""
    kernels = {
        tuple(tensor.shape[2:])
        for part in parts(values).values()
        for name, tensor in part.items()
        if f".{name}".endswith(".conv1.weight") and tensor.dim() == 4 and tensor.shape[1] == 3
    }
    return "small" if has_small_stem(arch) and kernels == {(3, 3)} else "standard"


def _advice(values: Mapping[Any, Any], head_name: str, size: int) -> str:
    """Say which architecture of ours a file fits, or else what may differ and what the file's names are."""
    names = [name for part in parts(values).values() for name in part]
    for arch in ARCHITECTURES:
        known, first = family(arch), first_name(arch)
        if arch.startswith(known.off_meta) or not any(f".{name}".endswith(first) for name in names):
            continue
        stem = _stem(values, arch)
        with torch.device("meta"):
            network = build_network(arch, 2, LARGE_INPUT if size_problem(arch, size) else size, stem=stem)
        if fits(values, network, known):
            return f"these are the weights of {arch}: type --arch {arch}" + " --stem small" * (stem == "small")
    timm = " (timm's, where imgcls has torchvision's)" if any(_TIMM.search(name) for name in names) else ""
    begin = ", ".join(map(repr, names[:3]))
    return f"only the head, {head_name}, may differ; the file's names begin with {begin}{timm}"
