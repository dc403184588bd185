"""Averages over the cells of a grid: the rule that looks at nothing, and so a control for the others.

Shapes: P patches of one image, S cells, D width of a patch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from stages.vlm.seen import Seen


def pooled(seen: Seen, patches_PD: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return averages over the cells of a grid laid over each picture of an image: the other control.

    Pictures share the ``count`` cells by their size, and each takes the largest grid that its share allows. A
    cell takes the position of the patch in its middle.
    """
    features, sources, start = [], [], 0
    for (rows, columns), share in zip(seen.panels, shares(seen.panels, count), strict=True):
        picture_DRC = patches_PD[start : start + rows * columns].T.reshape(-1, rows, columns)
        if share:
            down, across = cells(share, rows, columns)
            features.append(adaptive_avg_pool2d(picture_DRC, (down, across)).flatten(1).T)
            middle_R = ((torch.arange(down) + 0.5) * rows / down).long()
            middle_C = ((torch.arange(across) + 0.5) * columns / across).long()
            sources.append(start + (middle_R[:, None] * columns + middle_C).flatten())
        start += rows * columns
    return torch.cat(features), torch.cat(sources).to(patches_PD.device)


def shares(panels: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Divide ``count`` among pictures by their size, what is left over to the largest remainders.

    >>> shares([(4, 4), (8, 6)], 10)
    [3, 7]
    """
    sizes = [rows * columns for rows, columns in panels]
    exact = [count * size / sum(sizes) for size in sizes]
    found = [int(share) for share in exact]
    neediest = sorted(range(len(sizes)), key=lambda panel: found[panel] - exact[panel])
    for panel in neediest[: count - sum(found)]:
        found[panel] += 1
    return found


def cells(count: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the largest grid (rows, columns) of at most ``count`` cells at most twice as long as wide.

    Of grids with equally many cells, the one of squarest cells. Where no grid of such cells fits, any shape.

    >>> cells(16, 24, 24), cells(20, 24, 24), cells(13, 8, 8), cells(6, 4, 16)
    ((4, 4), (4, 5), (3, 4), (1, 6))
    """

    def distortion(grid: tuple[int, int]) -> float:
        wide, high = grid[1] * rows, grid[0] * columns
        return max(wide, high) / min(wide, high)

    every = [(down, across) for down in range(1, rows + 1) for across in range(1, columns + 1)]
    fitting = [grid for grid in every if grid[0] * grid[1] <= count]
    square = [grid for grid in fitting if distortion(grid) <= 2]
    return max(square or fitting, key=lambda grid: (grid[0] * grid[1], -distortion(grid), -grid[0]))
