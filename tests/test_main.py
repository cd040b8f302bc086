"""How the process ends, from shell to shell."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, imgcls.__main__
{imports}
atexit.register(print, "handler")
class Last:
    def __del__(self): print("taken apart")
last = Last()
sys.argv = ["imgcls", *{words}]
imgcls.__main__.main()
"""


def ended(imports: str, *words: str) -> tuple[int, str]:
    program = PROGRAM.format(imports=imports, words=words)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["predict", "absent.jpg", "--ckpt", "absent.pt"], 2)])
def test_with_torch_the_process_ends_once_all_is_printed_and_handlers_ran(words: list[str], code: int) -> None:
    returned, text = ended("import torch", *words)
    assert returned == code
    assert text.endswith("handler\n")


def test_without_torch_python_ends_as_ever() -> None:
    assert ended("", "--version")[1].endswith("handler\ntaken apart\n")
