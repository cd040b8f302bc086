"""safetensors: the weights alone, by the network's own keys, with the description in the file's header."""

from __future__ import annotations

import json
from pathlib import Path

from imgcls.errors import missing_extra
from imgcls.exporters.model import Exportable, reloaded
from imgcls.inference.model import Model
from imgcls.models.classifier import Classifier, build_model
from imgcls.schema import CARD_NAME, ModelCard


def write(exported: Exportable, path: Path) -> None:
    """Write a safetensors file.

    Raises:
        UsageError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing_extra("safetensors", "safetensors") from error
    assert isinstance(exported.model, Classifier)
    state = {name: tensor.contiguous() for name, tensor in exported.model.network.state_dict().items()}
    # Not its `save_file`, which gives the file to its owner alone.
    path.write_bytes(save(state, {CARD_NAME: exported.description}))


def read(path: Path) -> Model:
    """Build the network from the file's header and load its weights."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        description = file.metadata()[CARD_NAME]
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    card = ModelCard.from_dict(json.loads(description))
    return reloaded(build_model(card, state).eval(), description)
