"""What an evaluation is of: which checkpoint, which images, when, and whether these were seen in training.

Claims what the checkpoint's record of its images proves, and nothing more.
"""

from __future__ import annotations

import hashlib
import os
import time

from imgcls.data import draws
from imgcls.data.images import FileImages, Images
from imgcls.data.listing import Listing
from imgcls.data.splits import Splits
from imgcls.provenance import provenance
from imgcls.report import Origin, Seen
from imgcls.schema import Finding, ModelCard

READ = 16  # files of a split whose content is hashed: names and sizes can be those of other images
SEEN: tuple[Seen, ...] = ("trained on", "validated on")


def origin(ckpt: str, card: ModelCard, data: str, listing: Listing) -> Origin:
    """Describe an evaluation that begins now.

    Args:
        ckpt: the model's file; it is read once more for its hash (0.1 s for resnet18's).
        card: what that file says of itself.
        data: what `--data` names.
        listing: the images that will be measured.
    """
    real = os.path.realpath(ckpt)
    with open(real, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(
        checkpoint=ckpt,
        file=ckpt if real == os.path.abspath(ckpt) else os.path.relpath(real),
        sha256=digest,
        arch=card.arch,
        epoch=card.epoch,
        reached=card.reached,
        data=data,
        where=listing.where,
        fingerprint=listing.images.fingerprint(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions=provenance()["versions"],
    )


def seen_images(splits: Splits) -> dict[str, str]:
    """Return what a checkpoint records of the images that it was trained on and validated on."""
    parts = zip(SEEN, (splits.train, splits.val), strict=True)
    return {seen: identity(part.images) for seen, part in parts if part is not None}


def seen_in_training(card: ModelCard, images: Images) -> Seen | None:
    """Tell whether these are the images that a model was trained on or validated on; None: not known.

    A checkpoint keeps no list of its images: a part of them, or a folder that was changed, is not known again.
    """
    recorded, found = card.run.get("images"), identity(images)
    if not isinstance(recorded, dict):  # of an older version
        return None
    return next((seen for seen in SEEN if recorded.get(seen) == found), None)


def identity(images: Images) -> str:
    """Hash the names of all images and the content of some; of a torchvision data set's arrays, all pixels."""
    if not isinstance(images, FileImages):
        return images.fingerprint()
    digest = hashlib.sha256("\n".join(images.names.tolist()).encode("utf-8", "surrogateescape"))
    for index in draws.sample(0, len(images), READ).tolist():
        try:
            with open(images.path(index), "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:  # decoding it will say so
            digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def findings(card: ModelCard, of: Origin, split: str, seen: Seen | None) -> list[Finding]:
    """Return what the user should know about that, if anything."""
    advice = "measure on images kept apart"
    if seen == "trained on":
        message = f"{of.where}: the model was trained on these images"
        return [Finding("trained-on", "warning", message, f"the accuracy says little about others: {advice}")]
    if seen == "validated on":
        message = f"{of.where}: these images chose the best epoch in training"
        return [Finding("validated-on", "note", message, f"the accuracy may be a little too good: {advice}")]
    if split != "test" and os.path.normpath(str(card.config.get("data"))) == os.path.normpath(of.data):
        message = f"{of.where}: the model was trained with --data {of.data} too, and may have seen some of these images"
        return [Finding("perhaps-trained-on", "warning", message, f"the accuracy says little then: {advice}")]
    return []
