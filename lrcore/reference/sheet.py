"""All that is measured of a network at one step."""

import numpy as np

from lrcore import formulas, layout
from lrcore.reference.gradient import loss_and_gradient
from lrcore.reference.metrics import balancedness, directions, mode_strengths, rank_metrics, vector_alignment
from lrcore.reference.products import product as make_product
from lrcore.reference.svd import principal_angles, singular_triplets
from lrcore.sheet import OF_A_LAYER, OF_RANKS, PRODUCT


def fill_sheet(sheet, point, out, work=None):
    """out[sheet.places[part]] = the numbers of each part, which `lrcore.sheet` describes."""
    if sheet.forms:
        make_product(point.params, sheet.widths, point.product)
        loss_and_gradient(point.params, sheet.widths, point.target, point.gradient)
        point.slope[...] = point.product - point.target
    matrices = {PRODUCT: point.product, ("gradient", PRODUCT): point.slope}
    matrices |= dict(enumerate(layout.layers(point.params, sheet.widths), start=1))
    slopes = enumerate(layout.layers(point.gradient, sheet.widths), start=1)
    matrices |= {("gradient", i): matrix for i, matrix in slopes}
    triplets = {key: singular_triplets(matrices[key].astype(np.float64)) for key in sheet.counts}
    for part, place in sheet.places.items():
        out[place] = _part(sheet, part, point, matrices, triplets)


def _part(sheet, part, point, matrices, triplets):
    """The numbers of one part."""
    name, *which = part
    compared = sheet.compared
    depth = layout.depth(sheet.widths)
    if name == "values":
        return triplets[which[0]][1]
    if name == "ranks":
        return _filled(
            OF_RANKS, lambda out: rank_metrics(triplets[which[0]][1], compared.numerical, compared.relative, out)
        )
    if name in ("cosines", "angles"):
        return _directions(name, which[0], compared, triplets[PRODUCT])
    if name == "strengths":
        count = compared.modes_left.shape[1]
        modes = compared.modes_left, compared.modes_right
        return _filled((1, count), lambda out: mode_strengths(matrices[PRODUCT], *modes, out))[0]
    if name == "balancedness":
        return _filled(depth - 1, lambda out: balancedness(point.params, sheet.widths, out))
    if name == "neighbours":
        return [abs(triplets[i][0][:, 0] @ triplets[i + 1][2][:, 0]) for i in range(1, depth)]
    if name == "directions":
        moved = point.params, point.gradient, sheet.widths, point.step_size
        return _filled((depth, OF_A_LAYER), lambda out: directions(*moved, out)).ravel()
    if name == "gradient_norm":
        return np.linalg.norm(point.gradient)
    if name == "squared_norm":
        return np.sum(point.params**2)
    return formulas.representation_cost(triplets[PRODUCT][1] / compared.scale, depth)


def _filled(shape, fill):
    """An array of this shape, after fill(array)."""
    out = np.empty(shape)
    fill(out)
    return out


def _directions(name, side, compared, triplets):
    """How the product's singular vectors of one side lie to the target's."""
    count = len(compared.clusters)
    teacher = compared.left if side == "left" else compared.right
    vectors = (triplets[0] if side == "left" else triplets[2])[:, :count]
    if name == "angles":
        return principal_angles([(vectors, teacher[:, :count])])[0]
    return _filled(count, lambda out: vector_alignment(vectors, teacher, compared.clusters, out))
