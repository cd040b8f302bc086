"""Weights to start from: torchvision's published ones, a local state dict, or another imgcls checkpoint.

Knows the torch hub cache; knows nothing of training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgcls import checkpoint
from imgcls.download import download
from imgcls.errors import CheckpointError, UsageError, WriteError
from imgcls.models.build import State, head, load_state
from imgcls.models.torchvision_networks import AUXILIARY, Recipe, recipe
from imgcls.registry import ARCHITECTURES
from imgcls.schema import ModelCard, Preprocess, Pretrained

SMALLEST_INPUT = 96  # pixels; below it published weights are not looked for unless asked

# Names in published files that are older than torchvision's networks: densenet's and vision transformers'.
_RENAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)"), r"\1\2"),
    (re.compile(r"(\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.mlp\.)linear_2\."), r"\g<1>3."),
)


@dataclass(frozen=True)
class Start:
    """Where training starts from.

    Attributes:
        pretrained: what was asked for and used, and why; goes into the checkpoint.
        state: tensors by the network's own keys, or None: from scratch.
        card: of the imgcls checkpoint the state came from, if it did.
        notes: sentences for the user.
    """

    pretrained: Pretrained
    state: State | None = None
    card: ModelCard | None = None
    notes: tuple[str, ...] = ()


def published(arch: str) -> Recipe | None:
    """Return the recipe of an architecture's published weights, or None when it has none."""
    return recipe(arch) if ARCHITECTURES[arch].endswith("torchvision_networks:build") else None


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
    state = renamed(values)
    notes = (f"{found.name} has a licence of its own: {found.license}",) if found.license else ()
    return Start(Pretrained(asked=word, used=f"torchvision {found.name}", reason=where), state=state, notes=notes)


def from_file(path: str, arch: str) -> Start:
    """Read `--weights`: an imgcls checkpoint of the same architecture, or a bare state dict.

    Raises:
        UsageError: no such file.
        CheckpointError: another architecture, not a dict of tensors, or NaN weights.
    """
    if not os.path.isfile(path):
        raise UsageError(f"--weights {path}: no such file; give a state dict or an imgcls checkpoint")
    values = checkpoint.load_tensors(path)
    if "imgcls_version" in values:
        loaded = checkpoint.load(path)
        if loaded.card.arch != arch:
            raise CheckpointError(
                f"--weights {path}: is a {loaded.card.arch}, not a {arch}: type --arch {loaded.card.arch}"
            )
        used, reason = f"imgcls checkpoint {path}", f"--weights; trained on {len(loaded.card.classes)} classes"
        return Start(Pretrained(asked=path, used=used, reason=reason), state=loaded.model, card=loaded.card)
    for wrapper in ("state_dict", "model"):
        if isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    checkpoint.check_finite(values, f"--weights {path}")
    return Start(Pretrained(asked=path, used=f"state dict {path}", reason="--weights"), state=renamed(values))


def apply(start: Start, network: nn.Module, classes: tuple[str, ...], preprocess: Preprocess) -> str:
    """Load the start's state into a fresh network; all but the head, which fits only the same classes.

    Returns:
        What happened to the head, for the user.

    Raises:
        CheckpointError: something other than the head differs.
    """
    assert start.state is not None
    name, _ = head(network)
    # Files older than torch 0.4.1 lack the counters of BatchNorm, as do some published ones.
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(".num_batches_tracked")}
    state = _resized(counters | dict(start.state), network, preprocess)
    if start.card is not None and set(start.card.classes) == set(classes) and len(start.card.classes) == len(classes):
        rows = torch.tensor([start.card.classes.index(class_name) for class_name in classes])
        for part in ("weight", "bias"):
            if len(state.get(f"{name}.{part}", ())) == len(rows):
                state[f"{name}.{part}"] = state[f"{name}.{part}"][rows]
        load_state(network, state)
        return "head taken over: the classes are the same"
    load_state(network, state, but=name)
    return f"new head for {len(classes)} classes"


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


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Bring the keys of torchvision's files up to date: old names, no auxiliary heads."""
    kept = {key: value for key, value in values.items() if not key.startswith(AUXILIARY)}
    for pattern, now in _RENAMES:
        kept = {pattern.sub(now, key): value for key, value in kept.items()}
    return kept


def _resized(state: dict[str, Any], network: nn.Module, preprocess: Preprocess) -> dict[str, Any]:
    """Interpolate a vision transformer's position embedding to another input size."""
    key = "encoder.pos_embedding"
    own = network.state_dict().get(key)
    if own is None or key not in state or state[key].shape == own.shape:
        return state
    from torchvision.models.vision_transformer import interpolate_embeddings

    patch = network.get_parameter("conv_proj.weight").shape[-1]
    try:
        resized: dict[str, Any] = interpolate_embeddings(preprocess.size, patch, state)
    except ValueError:  # no square grid: the difference of shapes is named when it is loaded
        return state
    return resized
