"""mlgpu.vision: what its rows in the table do not say, against scipy.ndimage and the standards."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from guide import ROOT, run, sections
from scipy import ndimage
from table.vision import boxes as drawn_boxes
from table.vision import kept

import mlgpu
from mlgpu import vision
from mlgpu.cpu import fast
from mlgpu.errors import DerivativeError, DTypeError, PositionError, ShapeError
from mlgpu.ops import nms as nms_blocks
from mlgpu.testing import gradcheck


def numbers(tensor):
    return tensor.detach().cpu().numpy()


def each_plane(function, x):
    flat = x.reshape(-1, *x.shape[-2:])
    return np.stack([function(plane) for plane in flat]).reshape(x.shape)


# --- boxes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(4)
    found = drawn_boxes(rng, (130, 4)) * [2, 1, 2, 1]
    return found.astype(np.float32), (rng.integers(0, 90, 130) / 128).astype(np.float32)


@pytest.mark.parametrize("block", [64, 7])
def test_nms_is_the_definition_in_blocks_of_any_size(many, block, device, monkeypatch):
    monkeypatch.setattr(nms_blocks, "BLOCK", block)
    monkeypatch.setattr(nms_blocks, "PAIRS", 40)
    boxes, scores = (mlgpu.tensor(a, device=device) for a in many)
    for threshold in (0.0, 0.35):
        expected = kept(many[0].astype(float), many[1], threshold=threshold)
        assert numbers(vision.nms(boxes, scores, threshold)).tolist() == expected.tolist()
    classes = np.arange(130) % 3
    found = vision.batched_nms(boxes, scores, mlgpu.tensor(classes, device=device), 0.35)
    assert numbers(found).tolist() == kept(many[0].astype(float), many[1], classes, 0.35).tolist()
    assert found.dtype is mlgpu.int64


def test_nms_leaves_out_what_has_a_low_score_and_stops(many, device):
    boxes, scores = (mlgpu.tensor(a, device=device) for a in many)
    every = vision.nms(boxes, scores, 0.35)
    assert numbers(vision.nms(boxes, scores, 0.35, max_output=5)).tolist() == every[:5].tolist()
    above = vision.nms(boxes, scores, 0.35, score_threshold=0.5)
    assert above.tolist() == [i for i in every.tolist() if many[1][i] > 0.5]
    assert tuple(vision.nms(boxes[:0], scores[:0], 0.5).shape) == (0,)


def test_nms_keeps_boxes_whose_overlap_is_the_threshold(device):
    boxes = mlgpu.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [math.nan] * 4], device=device)
    scores = mlgpu.tensor([3.0, 2, 1], device=device, requires_grad=True)
    assert vision.nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert vision.nms(boxes, scores, 0.499999).tolist() == [0, 2]
    # 0.1 is not a float32: the next ones below and above are on its two sides.
    tenth = mlgpu.tensor([[0.0, 0, 10, 1], [0, 0, 1, 1]], device=device)
    assert vision.nms(tenth, scores[:2], 0.1).tolist() == (
        [0, 1] if np.float32(0.1) <= 0.1 else [0])


def test_complete_iou_holds_alpha_constant(device):
    rng = np.random.default_rng(1)
    a, b = (mlgpu.tensor(drawn_boxes(rng, (4, 4)), device=device, requires_grad=True)
            for _ in range(2))

    def angle(box):
        return ((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1])).atan()

    v = 4 / math.pi ** 2 * (angle(a)[:, None] - angle(b)) ** 2
    alpha = (v / (1 - vision.box_iou(a, b) + v + 1e-7)).detach()
    pairs = vision.distance_box_iou(a, b) - alpha * v
    losses = 1 - pairs.diagonal()
    for found, expected, tolerance in ((vision.complete_box_iou(a, b).sum(), pairs.sum(), 1e-12),
                                       (vision.complete_box_iou_loss(a, b).sum(), losses.sum(),
                                        1e-5)):
        for x, y in zip(mlgpu.autograd.grad(found, (a, b)),
                        mlgpu.autograd.grad(expected, (a, b), retain_graph=True), strict=True):
            np.testing.assert_allclose(numbers(x), numbers(y), tolerance, tolerance)


def test_boxes_of_integers_and_of_half_types_have_room(device):
    wide = mlgpu.tensor([[0, 0, 60000, 60000]], dtype=mlgpu.int32, device=device)
    assert vision.box_area(wide).tolist() == [3_600_000_000]
    assert vision.box_iou(wide, wide).tolist() == [[1.0]]
    half = mlgpu.tensor([[0.0, 0, 1000, 1000]], dtype=mlgpu.float16, device=device)
    assert vision.box_area(half).tolist() == [1e6]
    small = mlgpu.tensor([[3, 3, 1, 1]], dtype=mlgpu.uint8, device=device)
    assert vision.box_convert(small, "xywh", "xyxy").tolist() == [[3, 3, 4, 4]]


def test_losses_are_reduced_as_asked(device):
    rng = np.random.default_rng(2)
    a, b = (mlgpu.tensor(drawn_boxes(rng, (2, 3, 4)), device=device) for _ in range(2))
    for loss in (vision.generalized_box_iou_loss, vision.distance_box_iou_loss,
                 vision.complete_box_iou_loss):
        each = loss(a, b)
        assert tuple(each.shape) == (2, 3)
        np.testing.assert_allclose(loss(a, b, "mean").item(), numbers(each).mean())
        np.testing.assert_allclose(loss(a, b, reduction="sum").item(), numbers(each).sum())


def test_masks_have_boxes(device):
    masks = np.zeros((3, 6, 9), bool)
    masks[0, 2:5, 3:8] = masks[1, 5, 0] = True
    found = vision.masks_to_boxes(mlgpu.tensor(masks, device=device))
    assert found.tolist() == [[3, 2, 7, 4], [0, 5, 0, 5], [0, 0, 0, 0]]
    assert found.dtype is mlgpu.float32
    boxes = mlgpu.tensor([[0.0, 0, 5, 2], [1, 1, 4, 4], [0, 0, 3, 3]], device=device)
    assert vision.remove_small_boxes(boxes, 3).tolist() == [1, 2]


# --- regions --------------------------------------------------------------------------------------


def test_boxes_come_numbered_or_by_image(device):
    x = mlgpu.randn(2, 3, 8, 8, device=device)
    lists = [mlgpu.tensor([[0.0, 0, 4, 4], [1, 2, 7, 6]], device=device),
             mlgpu.tensor([[2.0, 2, 5, 7]], device=device)]
    joined = mlgpu.tensor([[0.0, 0, 0, 4, 4], [0, 1, 2, 7, 6], [1, 2, 2, 5, 7]], device=device)
    for pool in (vision.roi_align, vision.roi_pool):
        assert mlgpu.equal(pool(x, lists, 2), pool(x, joined, (2, 2)))
        assert tuple(pool(x, joined[:0], (2, 3)).shape) == (0, 3, 2, 3)
        nothing = pool(x, mlgpu.tensor([[0.0, *[math.nan] * 4]], device=device), 2)
        assert not nothing.any().item()


def test_boxes_must_have_an_image_and_no_gradient(device):
    x = mlgpu.ones(2, 1, 4, 4, device=device)
    wrong = mlgpu.tensor([[2.0, 0, 0, 3, 3]], device=device)
    with pytest.raises(PositionError, match="image 2 is out of range for 2 images"):
        vision.roi_align(x, wrong, 2).cpu()
    with pytest.raises(PositionError, match="roi_pool: image 2"):
        vision.roi_pool(x, wrong, 2).cpu()
    with pytest.raises(DerivativeError, match="detach"):
        vision.roi_align(x, (wrong * 0).requires_grad_(), 2)


# --- components -----------------------------------------------------------------------------------


def spiral(size):
    """One path of pixels that winds to the middle, with as wide a gap."""
    image = np.zeros((size, size), bool)
    y, x, (dy, dx) = 0, -1, (0, 1)
    lengths = [size, *[n for k in range(size - 1, 0, -2) for n in (k, k)]]
    for length in lengths:
        for _ in range(length):
            y, x = y + dy, x + dx
            image[y, x] = True
        dy, dx = dx, -dy
    return image


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_are_those_of_scipy(connectivity, device):
    rng = np.random.default_rng(0)
    images = np.stack([spiral(41), ~spiral(41), np.ones((41, 41), bool), np.zeros((41, 41), bool),
                       *(rng.random((41, 41)) < p for p in (0.3, 0.45, 0.6))])
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    given = mlgpu.tensor(images, device=device)
    labels, stats = vision.connected_components_with_stats(given, connectivity)
    assert isinstance(stats, vision.ComponentStats)
    assert mlgpu.equal(labels, vision.connected_components(given.int() * -3, connectivity))
    for image, found, count, areas, boxes in zip(images, *(
            numbers(t) for t in (labels, stats.counts, stats.areas, stats.boxes)), strict=True):
        expected, number = ndimage.label(image, structure)
        np.testing.assert_array_equal(found, expected)
        assert count == number
        np.testing.assert_array_equal(areas[:number + 1],
                                      np.bincount(expected.reshape(-1), minlength=number + 1))
        places = ndimage.find_objects(expected)
        assert boxes[1:number + 1].tolist() == [
            [x.start, y.start, x.stop - 1, y.stop - 1] for y, x in places]
        assert not areas[number + 1:].any()
        assert not boxes[number + 1:].any()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_compiled_components_are_the_same(connectivity, monkeypatch):
    pytest.importorskip("numba", reason="compiled loops need Numba: pip install 'mlgpu[fast]'")
    rng = np.random.default_rng(6)
    images = np.stack([np.kron(spiral(31), np.ones((8, 9), bool)),
                       *(rng.random((248, 279)) < p for p in (0.4, 0.6))])
    asked = []
    load = fast.load
    monkeypatch.setattr(fast, "load", lambda *given: asked.append(given[0]) or load(*given))
    found = vision.connected_components(mlgpu.tensor(images), connectivity)
    assert asked == ["components"]
    monkeypatch.setattr(fast, "load", lambda family, work: None)
    assert mlgpu.equal(found, vision.connected_components(mlgpu.tensor(images), connectivity))


def test_components_keep_the_shape_of_batches(device):
    x = mlgpu.zeros(2, 0, 3, 4, device=device)
    labels, stats = vision.connected_components_with_stats(x)
    assert tuple(labels.shape) == (2, 0, 3, 4)
    assert tuple(stats.boxes.shape) == (2, 0, 1, 4)
    empty = vision.connected_components(mlgpu.zeros(3, 0, 5, device=device))
    assert tuple(empty.shape) == (3, 0, 5)


# --- morphology -----------------------------------------------------------------------------------

MODES = {"reflect": "mirror", "replicate": "nearest", "circular": "wrap"}


@pytest.mark.parametrize("border", ["ignore", "constant", *MODES])
@pytest.mark.parametrize("kernel", [3, (1, 5), "cross", "ellipse"])
def test_morphology_is_that_of_scipy(border, kernel, device):
    if isinstance(kernel, str):
        kernel = vision.structuring_element(kernel, (3, 5))
        footprint = kernel.numpy()
    else:
        footprint = np.ones((kernel, kernel) if isinstance(kernel, int) else kernel, bool)
    x = np.random.default_rng(0).integers(0, 200, (2, 7, 9)).astype(np.float32)
    for function, reference, worst in ((vision.erode, ndimage.grey_erosion, np.inf),
                                       (vision.dilate, ndimage.grey_dilation, -np.inf)):
        cval = worst if border == "ignore" else 100.0
        expected = each_plane(lambda p, reference=reference, cval=cval: reference(
            p, footprint=footprint, mode=MODES.get(border, "constant"), cval=cval), x)
        found = function(mlgpu.tensor(x, device=device), kernel, border=border, value=100.0)
        np.testing.assert_array_equal(numbers(found), expected)


def test_binary_morphology_is_that_of_scipy(device):
    x = np.random.default_rng(0).random((12, 17)) < 0.7
    given = mlgpu.tensor(x, device=device)
    cross = vision.structuring_element("cross", 3)
    for iterations in (0, 1, 3):
        for function, reference in ((vision.erode, ndimage.binary_erosion),
                                    (vision.dilate, ndimage.binary_dilation)):
            expected = reference(x, iterations=iterations) if iterations else x
            found = function(given, cross, iterations=iterations, border="constant")
            np.testing.assert_array_equal(numbers(found), expected)
    gradient = vision.morphological_gradient(given)
    assert mlgpu.equal(gradient, vision.dilate(given) & ~vision.erode(given))
    assert gradient.dtype is mlgpu.bool


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_opening_and_closing_change_nothing_the_second_time(dtype, device):
    rng = np.random.default_rng(3)
    x = mlgpu.tensor(rng.integers(0, 9 if dtype != "bool" else 2, (15, 16)), device=device)
    x = x.to(getattr(mlgpu, dtype))
    element = mlgpu.tensor(rng.random((4, 3)) < 0.5)
    opened, closed = vision.opening(x, element), vision.closing(x, element)
    assert mlgpu.equal(vision.opening(opened, element), opened)
    assert mlgpu.equal(vision.closing(closed, element), closed)
    assert (opened <= x).all().item()
    assert (closed >= x).all().item()
    assert mlgpu.equal(vision.top_hat(x, element).bool(), opened != x)
    assert mlgpu.equal(vision.black_hat(x, element).bool(), closed != x)


def test_nothing_is_eroded_to_nothing(device):
    for shape in ((0, 4, 4), (2, 0, 4), (2, 4, 0)):
        x = mlgpu.zeros(*shape, device=device, requires_grad=True)
        y = vision.opening(x, 3)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad.shape == x.shape


def test_many_taps_and_nan(device):
    disc = vision.structuring_element("ellipse", 21)
    assert disc.sum().item() > 255
    x = mlgpu.tensor(np.random.default_rng(0).permutation(30 * 23).reshape(30, 23) / 8.0,
                     device=device, requires_grad=True)
    y = vision.dilate(x, disc)
    y.sum().backward()
    chosen, times = np.unique(numbers(y), return_counts=True)
    expected = np.zeros(x.shape)
    for value, count in zip(chosen, times, strict=True):
        expected[numbers(x) == value] = count
    np.testing.assert_array_equal(numbers(x.grad), expected)
    z = mlgpu.tensor([[1.0, math.nan, 3, 4]], device=device)
    assert numbers(vision.erode(z, (1, 3)))[0, 3] == 3
    assert np.isnan(numbers(vision.dilate(z, (1, 3)))[0]).tolist() == [True, True, True, False]


# --- filters --------------------------------------------------------------------------------------


def canny(x, low, high):
    """Canny's steps, pixel by pixel."""
    smooth = ndimage.gaussian_filter(x, 1.0, radius=2, mode="mirror")
    dy, dx = (ndimage.sobel(smooth, axis, mode="nearest") / 8 for axis in (0, 1))
    steep = np.hypot(dx, dy)
    wide = np.pad(steep, 1)
    ridge = np.zeros(x.shape, bool)
    for i, j in np.ndindex(*x.shape):
        angle = math.degrees(math.atan2(dy[i, j], dx[i, j])) % 180
        down, right = [(0, 1), (1, 1), (1, 0), (1, -1), (0, 1)][int((angle + 22.5) // 45)]
        first, second = (wide[1 + i - s * down, 1 + j - s * right] for s in (1, -1))
        ridge[i, j] = first < steep[i, j] >= second
    weak, strong = ridge & (steep > low), ridge & (steep > high)
    labels, _ = ndimage.label(weak, np.ones((3, 3)))
    return weak & np.isin(labels, np.unique(labels[strong]))


def test_canny_goes_by_its_steps(device):
    rng = np.random.default_rng(5)
    x = np.zeros((2, 30, 34))
    x[0, 7:21, 9:26] = 0.5  # edges in the middle of a pixel: no two neighbours are as steep
    x[0, 8:20, 10:25] = 1
    x[1] = ndimage.gaussian_filter(rng.standard_normal((30, 34)), 2) * 4
    found = vision.canny(mlgpu.tensor(x, device=device), 0.05, 0.15)
    assert found.dtype is mlgpu.bool
    for image, edges in zip(x, numbers(found), strict=True):
        np.testing.assert_array_equal(edges, canny(image, 0.05, 0.15))
    edges = numbers(found)[0]
    assert edges[9:19, [9, 25]].all()
    assert edges[[7, 20], 11:24].all()
    assert not edges[9:19, 11:24].any()
    flat = vision.canny(mlgpu.ones(4, 5, device=device))
    assert not flat.any().item()


def test_filters_take_planes_of_any_batch(device):
    x = mlgpu.randn(7, 9, device=device)
    batch = x.expand(2, 3, 7, 9)
    kernel = mlgpu.tensor([[1, 2], [3, 4]], device=device)
    for function in (lambda x: vision.filter2d(x, kernel), lambda x: vision.median_blur(x, 3),
                     lambda x: vision.gaussian_blur(x, 5), lambda x: vision.box_blur(x, (1, 3)),
                     vision.sobel, vision.laplacian):
        np.testing.assert_allclose(numbers(function(batch)[1, 2]), numbers(function(x)), 1e-5,
                                   1e-5)
    scharr = vision.spatial_gradient(x, "scharr", normalized=False)[1]
    central = vision.spatial_gradient(mlgpu.arange(9.0, device=device).expand(7, 9), "central")
    wide = each_plane(lambda p: ndimage.correlate(
        p, np.outer([-1, 0, 1], [3, 10, 3]).astype(np.float32), mode="nearest"), numbers(x))
    np.testing.assert_allclose(numbers(scharr), wide, 1e-5, 1e-5)
    assert numbers(central[0])[:, 1:-1].tolist() == np.ones((7, 7)).tolist()
    assert not central[1].any().item()
    np.testing.assert_allclose(vision.gaussian_kernel1d(3, 1.0).tolist(),
                               [0.27406862, 0.45186276, 0.27406862], 1e-6)


# --- colours --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cube():
    """Colours on a grid of the cube, black, white and greys among them: (3, 6, 36)."""
    levels = np.linspace(0, 1, 6)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, 6, 36)


@pytest.mark.parametrize("space", ["hsv", "hsl", "lab", "luv", "xyz", "yuv", "ycbcr",
                                   "linear_rgb"])
def test_colours_come_back_and_gradients_are_numbers(space, cube, device):
    x = mlgpu.tensor(cube, device=device, requires_grad=True)
    there = getattr(vision, f"rgb_to_{space}")(x)
    back = getattr(vision, f"{space}_to_rgb")(there)
    np.testing.assert_allclose(numbers(back), cube, atol=1e-9)
    for total in (there.sum(), back.sum()):
        gradient, = mlgpu.autograd.grad(total, x, retain_graph=True)
        assert np.isfinite(numbers(gradient)).all()


@pytest.mark.parametrize(("space", "reference"), [
    ("hsv", colorsys.rgb_to_hsv), ("hsl", lambda *rgb: np.take(colorsys.rgb_to_hls(*rgb),
                                                               (0, 2, 1)))])
def test_hues_of_corners_are_colorsys(space, reference, cube, device):
    found = numbers(getattr(vision, f"rgb_to_{space}")(mlgpu.tensor(cube, device=device)))
    expected = [reference(*p) for p in cube.reshape(3, -1).T]
    np.testing.assert_allclose(found.reshape(3, -1).T, expected, atol=1e-12)


def test_whites_and_known_colours(device):
    white = mlgpu.ones(3, 1, 1, dtype=mlgpu.float64, device=device)
    for space, expected in (("lab", [100, 0, 0]), ("luv", [100, 0, 0]), ("hsv", [0, 0, 1]),
                            ("ycbcr", [1, 0.5, 0.5]), ("yuv", [1, 0, 0]),
                            ("xyz", [0.9505, 1, 1.089])):  # D65, as IEC 61966-2-1 gives it
        found = numbers(getattr(vision, f"rgb_to_{space}")(white)).reshape(-1)
        np.testing.assert_allclose(found, expected, atol=1e-9)
    middle = vision.rgb_to_linear_rgb(white * 0.5)
    np.testing.assert_allclose(numbers(middle).reshape(-1), 0.21404114048, rtol=1e-9)


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarters_of_a_turn_are_exact(turns, device):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 9))
    found = vision.rotate(mlgpu.tensor(x, device=device), 90.0 * turns, expand=True)
    np.testing.assert_array_equal(numbers(found), np.rot90(x, turns, (2, 3)))


def test_matrices_compose(device):
    angle, x, y = (mlgpu.tensor(v, dtype=mlgpu.float64, device=device, requires_grad=True)
                   for v in ([30.0, -10], [1.5, 0.5], [0.3, 2]))
    whole = vision.get_affine_matrix2d((x, 1.0), (3.0, y), (x, 2.0), angle, (5.0, y))
    parts = (vision.translation_matrix(x, 1.0) @ vision.rotation_matrix(angle, (3.0, y))
             @ vision.shear_matrix(x * 0 + 5, y, (3.0, y)) @ vision.scale_matrix(x, 2.0, (3.0, y)))
    np.testing.assert_allclose(numbers(whole), numbers(parts), atol=1e-12)
    centre = numbers(vision.rotation_matrix(77.0, (3.0, 4.0))) @ [3, 4, 1]
    np.testing.assert_allclose(centre, [3, 4, 1], atol=1e-5)
    turn = np.radians(30.0)
    np.testing.assert_allclose(numbers(vision.rotation_matrix(30.0))[0], [
        math.cos(turn), -math.sin(turn), 0], atol=1e-6)
    assert gradcheck(lambda a, b: vision.get_affine_matrix2d((b, 1.0), (3.0, a), (b, 2.0), a,
                                                             (5.0, b)), (angle, x))


def test_four_points_go_where_they_are_sent(device):
    rng = np.random.default_rng(0)
    source = np.array([[0.0, 0], [8, 0], [8, 5], [0, 5]])
    ends = source + rng.uniform(-1, 1, (2, 4, 2))
    given = mlgpu.tensor(np.stack([source, source]), device=device)
    matrix = numbers(vision.get_perspective_transform(given, mlgpu.tensor(ends, device=device)))
    moved = np.concatenate([source, np.ones((4, 1))], 1) @ matrix.transpose(0, 2, 1)
    np.testing.assert_allclose(moved[..., :2] / moved[..., 2:], ends, atol=1e-9)


def test_images_go_where_matrices_say(device):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 9))
    given = mlgpu.tensor(x, device=device)
    shift = mlgpu.tensor([[1.0, 0, 2], [0, 1, -1]], device=device)
    moved = np.zeros_like(x)
    moved[..., :5, 2:] = x[..., 1:, :7]
    np.testing.assert_allclose(numbers(vision.warp_affine(given, shift, (6, 9))), moved, atol=1e-6)
    filled = vision.warp_affine(given, shift, (6, 9), fill=[1.0, 2, 3])
    assert numbers(filled)[0, :, -1, 0].tolist() == [1, 2, 3]
    edge = vision.warp_affine(given, shift, (6, 9), padding_mode="border")
    np.testing.assert_allclose(numbers(edge)[..., 5, :2], x[..., 5, :1].repeat(2, -1), atol=1e-6)
    same = vision.affine(given, 0.0, (2.0, -1.0), 1.0, 0.0, "bilinear")
    np.testing.assert_allclose(numbers(same), moved, atol=1e-6)
    flat = vision.warp_affine(given, shift * 0, (4, 4))  # onto a point: nothing is left to see
    assert not flat.any().item()
    half = vision.warp_affine(given.half(), shift.half(), (6, 9))
    assert half.dtype is mlgpu.float16
    np.testing.assert_allclose(numbers(half), moved, atol=2e-3)
    corners = [(0.0, 0.0), (8.0, 0.0), (8.0, 5.0), (0.0, 5.0)]
    to = [(a + 2, b - 1) for a, b in corners]
    np.testing.assert_allclose(numbers(vision.perspective(given, corners, to)), moved, atol=1e-4)
    assert tuple(vision.rotate(given[0], 45.0, expand=True).shape) == (3, 11, 11)


def test_numbers_of_affine_have_gradients(device):
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal((1, 5, 6)), device=device)
    angle, scale = (mlgpu.tensor(v, dtype=mlgpu.float64, device=device, requires_grad=True)
                    for v in (13.0, 0.9))
    assert gradcheck(lambda a, s: vision.affine(x, a, (0.3, 0.1), s, 4.0, "bilinear"),
                     (angle, scale))


# --- depth ----------------------------------------------------------------------------------------


def test_samples_are_left_out_whole(device):
    mlgpu.manual_seed(3)
    x = mlgpu.ones(400, 2, 3, device=device)
    for y in (vision.drop_path(x, 0.25), vision.StochasticDepth(0.25, "row")(x)):
        rows = numbers(y).reshape(400, -1)
        assert (rows == rows[:, :1]).all()
        assert set(np.unique(rows).tolist()) == {0.0, np.float32(1 / 0.75).item()}
        assert abs((rows[:, 0] > 0).mean() - 0.75) < 0.1
    whole = numbers(vision.stochastic_depth(x, 0.5, "batch"))
    assert len(np.unique(whole)) == 1
    assert not vision.stochastic_depth(x, 1.0, "row").any().item()
    assert vision.StochasticDepth(0.25, "row").eval()(x) is x


# --- errors ---------------------------------------------------------------------------------------

IMAGE, WHOLE = (3, 4, 5), mlgpu.int64


def ones(*shape, dtype=None):
    return mlgpu.ones(*shape, dtype=dtype)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: vision.box_iou(ones(3, 5), ones(2, 4)), ShapeError, "boxes must be"),
    (lambda: vision.box_iou(ones(4), ones(2, 4)), ShapeError, r"\(n, 4\)"),
    (lambda: vision.box_area(ones(2, 4, dtype=mlgpu.bool)), DTypeError, "integers or floating"),
    (lambda: vision.box_convert(ones(2, 4), "xyxy", "yxyx"), ShapeError, "formats are"),
    (lambda: vision.box_convert(ones(2, 4, dtype=WHOLE), "xyxy", "cxcywh"), DTypeError, "centre"),
    (lambda: vision.generalized_box_iou_loss(ones(2, 4), ones(3, 4)), ShapeError, "one shape"),
    (lambda: vision.distance_box_iou_loss(ones(2, 4), ones(2, 4, dtype=WHOLE)), DTypeError,
     "floating"),
    (lambda: vision.complete_box_iou_loss(ones(2, 4), ones(2, 4), "all"), ShapeError, "reduction"),
    (lambda: vision.masks_to_boxes(ones(4, 4)), ShapeError, "masks must be"),
    (lambda: vision.remove_small_boxes(ones(4), 1), ShapeError, r"\(n, 4\)"),
    (lambda: vision.nms(ones(3, 4), ones(2), 0.5), ShapeError, r"\(n,\)"),
    (lambda: vision.nms(ones(3, 4, dtype=WHOLE), ones(3), 0.5), DTypeError, "boxes must be"),
    (lambda: vision.nms(ones(3, 4), ones(3, dtype=WHOLE), 0.5), DTypeError, "scores must be"),
    (lambda: vision.nms(ones(3, 4), ones(3), 0.5, max_output=-1), ShapeError, "max_output"),
    (lambda: vision.batched_nms(ones(3, 4), ones(3), ones(3), 0.5), DTypeError, "idxs"),
    (lambda: vision.roi_align(ones(3, 4, 4), ones(1, 5), 2), ShapeError, "feature maps"),
    (lambda: vision.roi_align(ones(1, 3, 4, 4), ones(1, 4), 2), ShapeError, r"\(k, 5\)"),
    (lambda: vision.roi_align(ones(2, 3, 4, 4), [ones(1, 4)], 2), ShapeError, "each of 2 images"),
    (lambda: vision.roi_pool(ones(1, 3, 4, 4), ones(1, 5), 0), ShapeError, "output_size"),
    (lambda: vision.roi_pool(ones(1, 3, 4, 4), ones(1, 5, dtype=WHOLE), 2), DTypeError,
     "floating"),
    (lambda: vision.connected_components(ones(4)), ShapeError, r"\(\.\.\., h, w\)"),
    (lambda: vision.connected_components(ones(4, 4), 6), ShapeError, "4 or 8"),
    (lambda: vision.connected_components(ones(4, 4).to(mlgpu.complex64)), DTypeError, "complex64"),
    (lambda: vision.structuring_element("star", 3), ShapeError, "rect, cross, ellipse"),
    (lambda: vision.erode(ones(4), 3), ShapeError, r"\(\.\.\., h, w\)"),
    (lambda: vision.erode(ones(4, 4), 0), ShapeError, "cover something"),
    (lambda: vision.erode(ones(4, 4), ones(3)), ShapeError, r"\(kh, kw\)"),
    (lambda: vision.dilate(ones(4, 4), 3, anchor=(3, 0)), ShapeError, "anchor"),
    (lambda: vision.dilate(ones(4, 4), 3, border="wrap"), ShapeError, "border must be"),
    (lambda: vision.dilate(ones(4, 4), 9, border="reflect"), ShapeError, "too far"),
    (lambda: vision.opening(ones(4, 4).to(mlgpu.complex64)), DTypeError, "no order"),
    (lambda: vision.filter2d(ones(4, 4), ones(3)), ShapeError, "kernel"),
    (lambda: vision.filter2d(ones(4, 4, dtype=mlgpu.uint8), ones(3, 3)), DTypeError, r"\.float"),
    (lambda: vision.filter2d(ones(2, 2), ones(5, 5)), ShapeError, "too far"),
    (lambda: vision.gaussian_blur(ones(4, 4), 3, -1.0), ShapeError, "sigma"),
    (lambda: vision.gaussian_blur(ones(0, 4), 3), ShapeError, "gaussian_blur: .* not empty"),
    (lambda: vision.box_blur(ones(4, 4), 0), ShapeError, "kernel_size"),
    (lambda: vision.spatial_gradient(ones(4, 4), "prewitt"), ShapeError, "sobel, scharr"),
    (lambda: vision.canny(ones(4, 4), 0.5, 0.2), ShapeError, "thresholds"),
    (lambda: vision.rgb_to_hsv(ones(4, 4, 4)), ShapeError, r"\(\.\.\., 3, h, w\)"),
    (lambda: vision.rgb_to_lab(ones(*IMAGE, dtype=mlgpu.uint8)), DTypeError, "/ 255"),
    (lambda: vision.grayscale_to_rgb(ones(*IMAGE)), ShapeError, r"\(\.\.\., 1, h, w\)"),
    (lambda: vision.warp_affine(ones(1, *IMAGE), ones(2, 2), (4, 4)), ShapeError, r"\(n, 2, 3\)"),
    (lambda: vision.warp_affine(ones(1, *IMAGE), ones(2, 2, 3), (4, 4)), ShapeError, "for each"),
    (lambda: vision.warp_perspective(ones(1, *IMAGE), ones(2, 3), (4, 4)), ShapeError, "3, 3"),
    (lambda: vision.rotate(ones(*IMAGE), 10.0, "box"), ShapeError, "mode must be"),
    (lambda: vision.rotate(ones(*IMAGE, dtype=mlgpu.uint8), 10.0), DTypeError, r"\.float"),
    (lambda: vision.affine(ones(4, 4), 0.0, (0, 0), 1.0, 0.0), ShapeError, r"c, h, w"),
    (lambda: vision.warp_affine(ones(1, *IMAGE), ones(2, 3), (4, 4), padding_mode="border",
                                fill=1.0), ShapeError, "fill goes with"),
    (lambda: vision.get_perspective_transform(ones(3, 2), ones(3, 2)), ShapeError, "4, 2"),
    (lambda: vision.rotation_matrix(mlgpu.tensor(3)), DTypeError, "floating"),
    (lambda: vision.stochastic_depth(ones(2), 0.5, "column"), ShapeError, "row"),
])
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- the guide and PyTorch's names ----------------------------------------------------------------

GUIDE = ROOT / "docs" / "vision.md"


@pytest.mark.parametrize("section", sections(GUIDE.read_text(encoding="utf-8")),
                         ids=lambda section: section.title)
def test_the_guide_runs(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(section, GUIDE.name, "")


def test_the_guide_names_everything():
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in vision.__all__ if f"`{name}" not in text] == []


def test_torchvision_has_them():
    from mlgpu.as_torch import vision_ops

    for name in set(vision_ops.__all__) - {"FrozenBatchNorm2d"}:
        assert getattr(vision_ops, name) is getattr(vision, name)
