"""The images held out of training for validation: chosen once, by name and content, and found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from imgcls.data import draws
from imgcls.data.listing import Listing, normal
from imgcls.schema import Finding

Hashes = npt.NDArray[np.int64]


NO_HOLDOUT: Hashes = np.empty(0, dtype=np.int64)


def choose_holdout(train: Listing, hashes: Hashes, share: float, seed: int) -> Hashes:
    """Choose a seeded, stratified share of the images to hold out: at least one of each class of two or more.

    Args:
        train: the images to choose from.
        hashes: of their names, int64 [n].
        share: of each class, 0 to 0.9.
        seed: another seed, another choice.

    Returns:
        The chosen hashes, sorted, int64.
    """
    ranks = draws.hashed(draws.Stream.HOLDOUT, seed, 0, hashes)
    chosen = []
    # Sorted once: looking through all labels for each class took 10 s for 21,841 classes of 50 images.
    ordered = hashes[np.lexsort((ranks, train.labels))]
    for members in np.split(ordered, np.cumsum(train.counts())[:-1]):
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def recall(
    text: str, train: Listing, holdout: Hashes, content: Hashes
) -> tuple[Listing | None, Listing, list[Finding]]:
    """Find the images held out in training again.

    Names alone prove nothing: cameras and scripts number the pictures of every folder from 1. Where at least half of
    the images that bear a held-out name have its content too, this is the data set of the training: these are the
    hold-out, and those with other content are left out of both parts (a file that was renumbered may have been
    trained on). With fewer it is another data set, and nothing of it was held out.

    Args:
        text: what `--data` names.
        train: the images among which they may be.
        holdout: sorted hashes of names, int64.
        content: hashes of content in the same order, int64; empty: not recorded, and names decide.

    Returns:
        The held-out images (None: none is here), the others, and what the user should know.
    """
    position = positions(train, name_hashes(train), holdout)
    named = np.flatnonzero(position >= 0)
    same = np.ones(len(named), dtype=np.bool_)
    if len(content) == len(holdout):
        same = (
            np.array([train.images.content(int(index)) for index in named], dtype=np.int64) == content[position[named]]
        )
    if not len(named):
        return None, train, []
    here, changed, recorded = int(same.sum()), int((~same).sum()), len(holdout)
    if here < changed:
        message = (
            f"{text}: {len(named)} images have the names of images held out in training, and {changed} of them another "
            "content: taken for another data set, of which nothing was held out"
        )
        advice = "if it is the same one in another form, the accuracy on images that were trained on says nothing"
        return None, train, [Finding("hold-out-elsewhere", "warning", message, advice)]
    chosen = np.zeros(len(train.images), dtype=np.bool_)
    chosen[named[same]] = True
    held_out, _ = split_off(train, chosen)
    _, rest = split_off(train, position >= 0)
    said = []
    if here < recorded:
        other = f", {changed} more have other content and are left out" if changed else ""
        message = f"{text}: {here} of the {recorded} images held out in training are here{other}"
        advice = "the accuracy is of these; look for the others"
        said = [Finding("hold-out-incomplete", "warning", message, advice)]
    return held_out, rest, said


def name_hashes(listing: Listing) -> Hashes:
    """Return the hash of each image's name, int64 [n]; the same for either Unicode form of a name."""
    names = (listing.images.name(index) for index in range(len(listing.images)))
    return np.array([draws.name_hash(normal(name)) for name in names], dtype=np.int64)


def positions(listing: Listing, hashes: Hashes, holdout: Hashes) -> Hashes:
    """Return each image's position among the held-out ones, int64 [n]; -1 when it is none of them.

    Args:
        listing: the images.
        hashes: of their names.
        holdout: sorted hashes of names.
    """
    if not len(holdout):
        return np.full(len(hashes), -1, dtype=np.int64)
    position = np.searchsorted(holdout, hashes).clip(max=len(holdout) - 1)
    found: Hashes = np.where(holdout[position] == hashes, position, -1)
    for index in np.flatnonzero(found < 0):  # older checkpoints hashed names in the form they had
        name = listing.images.name(int(index))
        if not name.isascii() and name != normal(name):
            written = np.int64(draws.name_hash(name))
            at = min(int(np.searchsorted(holdout, written)), len(holdout) - 1)
            found[index] = at if holdout[at] == written else -1
    return found


def content_hashes(listing: Listing, position: Hashes, count: int) -> Hashes:
    """Return the hashes of the content of held-out images in the order of the hold-out, int64 [count].

    Args:
        listing: all images.
        position: each one's place in the hold-out, -1 for the others.
        count: of held-out images; 0 stands for the content of one that is not in the listing.
    """
    content = np.zeros(count, dtype=np.int64)
    for index in np.flatnonzero(position >= 0):
        content[position[index]] = listing.images.content(int(index))
    return content


def split_off(train: Listing, inside: npt.NDArray[np.bool_]) -> tuple[Listing, Listing]:
    """Return (held-out images, the others)."""
    held_out = replace(train.take(np.flatnonzero(inside)), where=f"{train.where} (held out)", findings=())
    return held_out, train.take(np.flatnonzero(~inside))
