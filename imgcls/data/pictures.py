"""One image by index, as it is the same in every epoch: what the cache keeps, and what augmentation begins with.

Where boxes are cut at random that is the picture itself, large enough for the smallest of them; elsewhere the frame
that the deterministic transform gives. So training sees the same pixels with a cache and without.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgcls.data.augment.recipe import Augmentation
from imgcls.data.draws import sample
from imgcls.data.images import Images
from imgcls.errors import DataError
from imgcls.pixels.decode import Pixels, reduced_size
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

SAMPLED = 256  # headers that tell how large the pictures are
SLACK = 1.25  # what the estimate from a few headers may be wrong by


@dataclass(frozen=True)
class Pictures:
    """The images of one split, decoded when asked for: uint8 [height, width, 3].

    Attributes:
        images: where they are.
        preprocess: the deterministic transform.
        augmentation: of training images; None: evaluated ones.
    """

    images: Images
    preprocess: Preprocess
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        """Decode one; ImageError when it cannot be read."""
        if self.shorter is not None:
            return self.images.load(index, self.shorter)
        return transform(self.images.load(index, self.preprocess.shorter), self.preprocess)

    @property
    def shorter(self) -> int | None:
        """The shorter side that random crops need, pixels; None: these are frames, uint8 [size, size, 3]."""
        return self.augmentation.shorter if self.augmentation else None

    def bytes(self) -> int:
        """Return how much they take decoded; for pictures of all sizes it is estimated from a few headers."""
        if self.shorter is None:
            return len(self) * 3 * self.preprocess.size**2
        sides = [reduced_size(width, height, self.shorter) for width, height in self.sampled_sizes()]
        return round(3 * len(self) * sum(width * height for width, height in sides) / len(sides))

    def sampled_sizes(self) -> list[tuple[int, int]]:
        """Return (width, height) in pixels of some of the images, from their headers."""
        return [self.images.size(int(index)) for index in sample(0, len(self), SAMPLED)]

    def most_bytes(self) -> int:
        """Return how much they take decoded at most, as long as the estimate is not too far out."""
        return self.bytes() if self.shorter is None else round(SLACK * self.bytes())


def unreadable(problem: str, *images: Images) -> DataError:
    """Return the error of an image that training or evaluation cannot do without.

    Args:
        problem: begins with its name.
        images: among which it is; all are looked at, because what changes one often changes more.
    """
    changed = [part.path(index) for part in images for index in part.changed()]
    if not any(problem.startswith(f"{path}: ") for path in changed):
        return DataError(f"{problem}: replace or remove the file")
    others = f", and {len(changed) - 1} more of {sum(map(len, images))}" if len(changed) > 1 else ""
    advice = "put back what was there, and repeat the line with --resume"
    return DataError(f"{changed[0]}: was changed or removed since the run began{others}; {advice}")
