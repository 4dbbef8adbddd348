"""Connected components: what belongs together through any chain of links."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Indices = npt.NDArray[np.int64]


def components(count: int, first: npt.ArrayLike, second: npt.ArrayLike) -> Indices:
    """Component of each of ``count`` items, int64 from 0, linked by pairs ``first[k] - second[k]``."""
    rows, columns = np.asarray(first, np.int64), np.asarray(second, np.int64)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
