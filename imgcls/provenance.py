"""How a run or an evaluation was made: its command line and the versions of what computed it."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

import torch

import imgcls


def provenance(earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the command line and the versions that a run was made with.

    Args:
        earlier: what this gave before the run was resumed; its command line stays, and the new one is put beside it.
    """
    versions = {"imgcls": imgcls.__version__, "python": platform.python_version()}
    versions |= {"torch": str(torch.__version__), "torchvision": metadata.version("torchvision")}
    line = list(sys.argv)
    first = (earlier or {}).get("command_line", line)
    return {"command_line": first, **({"resumed_by": line} if line != first else {}), "versions": versions}
