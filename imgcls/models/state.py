"""State dicts: loading one whole or not at all, and finding a network's in a file of somebody else's.

There it may be inside another key, under a prefix, with another head or of another input size.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from imgcls.checkpoint import check_finite
from imgcls.errors import CheckpointError
from imgcls.models.families import Family
from imgcls.models.surgery import head

State = Mapping[str, torch.Tensor]
Tensors = dict[str, torch.Tensor]

DEPTH = 4  # containers within containers that are looked into
COUNTERS = ("total_ops", "total_params", "n_averaged")  # of a profiler (thop) and of an average of weights
CONVERTED = (torch.float16, torch.bfloat16, torch.float64)  # to float32; other types need more than their numbers
_AVERAGED = re.compile(r"(^|[^a-z])(ema|swa)([^a-z]|$)|averag")


@dataclass(frozen=True)
class Found:
    """The part of a file that is most like a network.

    Attributes:
        state: tensors by the network's own keys, and by the file's what has no place in the network.
        under: the key or prefix that leads to it, "" for the file itself.
        notes: what was done to read it, for the user.
        fits: the network has a place for everything but the head, of the same shape.
    """

    state: dict[str, torch.Tensor]
    under: str
    notes: tuple[str, ...]
    fits: bool


def load_state(network: nn.Module, state: State, *, but: str | None = None) -> None:
    """Load a state dict, all of it or nothing.

    Args:
        network: receives it.
        state: tensors by the network's own keys.
        but: name of a layer that keeps its fresh weights (the head).

    Raises:
        CheckpointError: naming the first keys or shapes that differ.
    """
    own = network.state_dict()
    given = check_fit(own, state, but)
    own.update(given)  # `own` keeps the version metadata that mnasnet asks for
    network.load_state_dict(own)


def check_fit(own: State, state: State, but: str | None = None) -> dict[str, torch.Tensor]:
    """Return `state` without the layer `but`; CheckpointError as of `load_state` where the rest differs from `own`."""
    expected = {key for key in own if but is None or not key.startswith(but + ".")}
    given = {key: value for key, value in state.items() if but is None or not key.startswith(but + ".")}
    differences = [f"{key} is missing" for key in own if key in expected and key not in given]
    differences += [f"{key} is not known" for key in given if key not in own]
    differences += [
        f"{key} is {list(given[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(f"the weights are of another network: {'; '.join(differences[:3])}{more}")
    return given


def resize_positions(state: Tensors, network: nn.Module, family: Family) -> Tensors:
    """Interpolate a vision transformer's position embedding to the network's input size, as torchvision does.

    What is no class token and square of patches stays as it is, to be refused when it is loaded.
    """
    name = family.positions
    if name is None or name not in state or name not in network.state_dict():
        return state
    own = network.get_parameter(name)
    if state[name].shape == own.shape or not _is_grid(state[name], own):
        return state
    token, patches = state[name][:, :1], state[name][:, 1:]
    old, new = math.isqrt(patches.shape[1]), math.isqrt(own.shape[1] - 1)
    grid = patches.permute(0, 2, 1).reshape(1, -1, old, old)
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=True).reshape(1, -1, new**2).permute(0, 2, 1)
    return state | {name: torch.cat([token, resized], dim=1)}


def parts(values: Mapping[Any, Any]) -> dict[str, State]:
    """Return every mapping in `values` that holds tensors by name, by the keys that lead to it."""
    return dict(_parts(values, (), set()))


def find(values: Mapping[Any, Any], network: nn.Module, family: Family) -> Found:
    """Find the tensors of a network; where nothing fits, what comes closest.

    Args:
        values: what a file holds: a state dict, or a dict that has one inside.
        network: the network with its new head, which may be on the meta device.
        family: that of the network; says how older files call its tensors, and which are not missed.

    Raises:
        CheckpointError: several networks fit.
    """
    candidates = _candidates(values, network, family)
    if not candidates:
        raise CheckpointError("it holds no tensors by name; give a state dict")
    fitting = [found for found, _ in candidates if found.fits]
    if len(fitting) > 1:
        for found in fitting:
            check_finite(found.state, found.under or "its own names")
        different = [found for found in fitting[1:] if not _same(found.state, fitting[0].state, family)]
        fitting = fitting[:1] + different
    if len(fitting) > 1:
        keys = [found.under for found in fitting]
        averaged = [found for found in fitting if _AVERAGED.search(found.under)]
        if len(fitting) != 2 or len(averaged) != 1:
            raise CheckpointError(
                f"it holds several networks that fit: {', '.join(map(repr, keys))}; save the state dict of one alone"
            )
        # What the scripts that keep both measure and publish is the average.
        (other,) = (key for key in keys if key != averaged[0].under)
        note = f"the averaged weights {averaged[0].under!r}, not {other!r}"
        return replace(averaged[0], notes=(note, *averaged[0].notes))
    if fitting:
        return fitting[0]
    return max(candidates, key=lambda candidate: candidate[1])[0]


def fits(values: Mapping[Any, Any], network: nn.Module, family: Family) -> bool:
    """Tell whether a file holds a network, or several."""
    return any(found.fits for found, _ in _candidates(values, network, family))


def _candidates(values: Mapping[Any, Any], network: nn.Module, family: Family) -> list[tuple[Found, int]]:
    """Return what may be the network, with how many of its names were found there."""
    found = []
    for key, part in parts(values).items():
        renamed = _renamed(part, family)
        prefixes = _prefixes(renamed, network)
        found += [(_ours(renamed, network, family, key, prefix, prefixes), count) for prefix, count in prefixes.items()]
    return found


def _parts(value: Any, keys: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, State]]:
    if not isinstance(value, dict) or len(keys) == DEPTH or id(value) in seen:
        return
    seen.add(id(value))  # a stranger's containers may hold each other
    named = {name: inner for name, inner in value.items() if isinstance(name, str)}
    if tensors := {name: inner for name, inner in named.items() if isinstance(inner, torch.Tensor)}:
        yield ".".join(keys), tensors
    for name, inner in named.items():
        yield from _parts(inner, (*keys, name), seen)


def _renamed(tensors: State, family: Family) -> State:
    """Bring the names of older files up to date."""
    for pattern, now in family.renames:
        tensors = {pattern.sub(now, name): tensor for name, tensor in tensors.items()}
    return tensors


def _backbone(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return what a file must hold: all but the head, and the counters that BatchNorm has since torch 0.4.1."""
    name = head(network)[0]
    return {
        key: tensor
        for key, tensor in network.state_dict().items()
        if not key.startswith(f"{name}.") and not key.endswith(".num_batches_tracked")
    }


def _prefixes(part: State, network: nn.Module) -> Counter[str]:
    """Count how many of the network's names follow each prefix; those of all, or else the best one."""
    wanted = _backbone(network).keys()
    counts = Counter({"": 0})
    for name in part:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            if name[start:] in wanted:
                counts[name[:start]] += 1
    whole = Counter({prefix: count for prefix, count in counts.items() if count == len(wanted)})
    return whole or Counter(dict(counts.most_common(1)))


def _ours(part: State, network: nn.Module, family: Family, key: str, prefix: str, prefixes: Iterable[str]) -> Found:
    own, wanted = network.state_dict(), _backbone(network)
    owners = {name: max((p for p in prefixes if name.startswith(p)), key=len, default=None) for name in part}
    inside = {name.removeprefix(prefix): tensor for name, tensor in part.items() if owners[name] == prefix}
    outside = {name: tensor for name, tensor in part.items() if owners[name] is None}
    state = {name: tensor for name, tensor in inside.items() if name in own}
    extra = {
        name: tensor for name, tensor in inside.items() if name not in own and not name.startswith(family.auxiliary)
    }
    known = set(_leftovers(network, inside, extra, outside))
    unknown = {name: tensor for name, tensor in extra.items() if name not in known}
    unknown |= {f"{name} (beside {prefix})": tensor for name, tensor in outside.items() if name not in known}
    state |= unknown
    fits = not unknown and all(
        name in state
        and (state[name].shape == tensor.shape or (name == family.positions and _is_grid(state[name], tensor)))
        for name, tensor in wanted.items()
    )
    types = sorted({_word(tensor) for tensor in state.values() if tensor.dtype in CONVERTED})
    notes = (
        *([f"read from its key {key!r}"] if key else []),
        *([f"names without {prefix!r}"] if prefix else []),
        *([f"left out {_listed(known)}"] if known else []),
        *([f"{' and '.join(types)} made float32"] if types else []),
    )
    return Found(state, ".".join(filter(None, (key, prefix.rstrip(".")))), notes, fits)


def _leftovers(network: nn.Module, inside: Tensors, extra: Tensors, outside: Tensors) -> list[str]:
    """Return the names that may be left out: counters, the head in another form, and what takes the features."""
    name, layer = head(network)
    backbone = _backbone(network)
    first = {key.partition(".")[0] for key in backbone}
    region = name  # the largest module around the head that holds nothing else
    while (parent := region.rpartition(".")[0]) and not any(key.startswith(f"{parent}.") for key in backbone):
        region = parent
    counters = [key for key in extra if key.rpartition(".")[2] in COUNTERS]
    # Of a wrapper: its average's counter, the class weights of its loss.
    counters += [key for key, tensor in outside.items() if tensor.dim() <= 1]
    heads = [key for key in inside if f"{key}.".startswith(f"{region}.") or _comes_after(key, name)]
    widths = {layer.weight.shape[1], *(inside[key].shape[0] for key in heads if inside[key].dim() > 1)}
    others = {
        key: tensor
        for key, tensor in (extra | outside).items()
        if key not in counters and key not in heads and (key in outside or key.partition(".")[0] not in first)
    }
    # A head of any name is what takes the features, and what takes its answers: its layers in their order.
    for key, tensor in others.items():
        if tensor.dim() > 1 and tensor.shape[1] in widths:
            widths.add(tensor.shape[0])
        elif not (tensor.dim() == 1 and len(tensor) in widths) and not key.endswith(".num_batches_tracked"):
            return counters + [key for key in heads if key in extra]
    return counters + [key for key in (*heads, *others) if key in extra or key in outside]


def _comes_after(key: str, name: str) -> bool:
    """Tell whether a tensor belongs to a later layer of the sequence that the head stands in."""
    parent, _, number = name.rpartition(".")
    if parent and not key.startswith(f"{parent}."):
        return False
    child = key[len(parent) + bool(parent) :].partition(".")[0]
    return child.isdigit() and number.isdigit() and int(child) > int(number)


def _is_grid(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Tell whether a position embedding can be interpolated: a class token and a square of patches."""
    if given.dim() != 3 or (given.shape[0], given.shape[2]) != (own.shape[0], own.shape[2]):
        return False
    return math.isqrt(given.shape[1] - 1) ** 2 == given.shape[1] - 1 if given.shape[1] > 1 else False


def _same(one: State, other: State, family: Family) -> bool:
    """Compare what fits, and so has the network's size; all but what need not have it."""
    sized = one.keys() - {family.positions}
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in sized)


def _word(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _listed(names: set[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, sorted(names)[:3])) + more
