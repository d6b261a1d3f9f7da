"""Index of a corpus: what is nearest to a text that is not in it, and where that text lies on the maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.learn.arrays import Float32Array
from layertap.learn.exploring.nearest import normalised
from layertap.learn.exploring.planes import Plane
from layertap.page.content import PageArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorpusIndex:
    """Vectors of N texts at each layer, to compare further texts with.

    Attributes:
        units: for each layer, float32 [N, H], vectors of length 1.
        planes: for each layer, the plane of its map.
    """

    units: tuple[Float32Array, ...]
    planes: tuple[Plane, ...]

    @classmethod
    def of(cls, layers: Iterable[Float32Array], planes: Iterable[Plane]) -> CorpusIndex:
        """Return the index of the vectors of each layer."""
        return cls(units=tuple(map(normalised, layers)), planes=tuple(planes))

    def search(self, vectors: Sequence[Float32Array], number: int) -> dict[str, PageArray]:
        """Compare a text with those of the corpus.

        Args:
            vectors: for each of L layers, float32 [H], the vector of the text.
            number: number of nearest texts to return; at most N are.

        Returns:
            Arrays for a page: `near` uint32 [L, K], numbers of the nearest texts; `cosine` float32 [L, K], their
            cosines in falling order; `place` float32 [L, 2], the place of the text on each map.
        """
        near, cosines, places = [], [], []
        for vector, units, plane in zip(vectors, self.units, self.planes, strict=True):
            all_cosines = (units @ normalised(vector[None])[0]).clip(-1, 1)
            order = np.lexsort((np.arange(len(units)), -all_cosines))[:number]
            near.append(order)
            cosines.append(all_cosines[order])
            places.append(plane.places(vector[None])[0])
        return {
            "near": np.array(near, dtype=np.uint32),
            "cosine": np.array(cosines, dtype=np.float32),
            "place": np.array(places, dtype=np.float32),
        }
