"""Fewer images at a time where memory is too short for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imgcls.errors import ResourceError, out_of_memory


class Halving:
    """A function of a batch that goes on with half of it whenever memory runs out.

    Attributes:
        most: images at a time that it has come down to; None: any number.
    """

    def __init__(
        self, function: Callable[[Any], Any], join: Callable[[list[Any]], Any], say: Callable[[str], None]
    ) -> None:
        """Wrap a function.

        Args:
            function: of an array or a tensor whose first axis counts the images; so does that of its result.
            join: puts results together, as `numpy.concatenate` and `torch.cat` do.
            say: receives a sentence when fewer images are taken.
        """
        self._function, self._join, self._say = function, join, say
        self.most: int | None = None

    def __call__(self, images: Any) -> Any:
        """Return what the function makes of images, at once or in parts.

        Raises:
            ResourceError: there is no memory for a single one.
        """
        while True:
            most = min(self.most or len(images), len(images))
            try:
                parts = [self._function(images[start : start + most]) for start in range(0, len(images), most)]
                return parts[0] if len(parts) == 1 else self._join(parts)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if most == 1:
                    raise ResourceError("out of memory for a single image: free some, or type --device cpu") from error
            self.most = most // 2
            self._say(f"out of memory with {most} images at a time: going on with {self.most}, with the same answers")
