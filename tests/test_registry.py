"""The literal tables name what exists, all of it, and each entry can be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torchvision

from imgcls.models.families import Family
from imgcls.registry import ARCHITECTURES, BACKENDS, DATASETS, resolve

OWN = {"small-cnn", "bn-cnn", "simple-cnn", "lenet", "resnet9", "resnet9-half"}


def test_the_architectures_are_our_own_and_every_classification_network_of_torchvision() -> None:
    published = set(torchvision.models.list_models(module=torchvision.models))
    assert len(published) == 80
    assert set(ARCHITECTURES) == published | OWN


@pytest.mark.parametrize("entry", sorted({*DATASETS.values(), *BACKENDS.values()}))
def test_an_entry_names_a_function(entry: str) -> None:
    assert callable(resolve(entry))


@pytest.mark.parametrize("entry", sorted(set(ARCHITECTURES.values())))
def test_an_architecture_names_its_family(entry: str) -> None:
    assert isinstance(resolve(entry), Family)


def test_the_data_sets_are_those_of_the_design() -> None:
    assert set(DATASETS) == {
        *("cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", "stl10", "food101", "oxford-pets", "flowers102")
    }


def test_the_tables_cost_no_torch() -> None:
    """`--help` lists the names; importing torch for that would take seconds."""
    code = "import sys, imgcls.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
