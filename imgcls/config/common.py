"""What several commands take, word for word, and how a device is named."""

from __future__ import annotations

from functools import partial

from imgcls.errors import UsageError
from imgcls.settings import not_known, setting

DEVICES = ("auto", "cpu", "cuda", "mps")
SOURCE = "FOLDER|NAME[:ROOT]"
ckpt_setting = partial(
    setting, "best.pt", "Checkpoint of imgcls train, or .onnx file of imgcls export.", metavar="FILE"
)
positive_setting = partial(setting, None, "Two classes: the one to be found.", unset="the second", metavar="CLASS")
workers_setting = partial(setting, None, "Decoders at once.", low=0, auto="the CPUs, at most 8")
device_setting = partial(
    setting, "auto", "auto, cpu, cuda, cuda:N or mps; auto is cuda, then mps, then cpu.", metavar="NAME"
)
amp_setting = partial(setting, False, "Mixed precision (CUDA only); answers may differ slightly.")


def parse_device(text: str) -> tuple[str, int | None]:
    """Split `--device` into its kind (auto, cpu, cuda, mps) and the number in cuda:N.

    Raises:
        UsageError: none of these.
    """
    kind, colon, number = text.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UsageError(not_known("--device", text, DEVICES, "auto, cpu, cuda, cuda:N, mps"))
    return kind, int(number) if number else None


def check_device(device: str, amp: bool | None) -> None:
    """Refuse a device of no known kind, and mixed precision on one that has none.

    Raises:
        UsageError: naming the flag to change.
    """
    kind, _ = parse_device(device)
    if amp and kind not in ("auto", "cuda"):
        raise UsageError(f"--amp needs CUDA, not --device {device}: drop --amp")
