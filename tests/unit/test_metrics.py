"""metrics and rulers: values against a closed form, a simulation or an independent package."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from scipy.stats import hypergeom, multivariate_normal, norm
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image.kid import KernelInceptionDistance

from gencore import data, metrics, rulers, store


def gauss(n, d, seed=0, mean=0.0, sd=1.0):
    return mean + sd * np.random.default_rng(seed).standard_normal((n, d))


def covariance(d, seed):
    root = gauss(d, d, seed)
    return root @ root.T / d


def rotation(d, seed=9):
    return np.linalg.qr(gauss(d, d, seed))[0]


# Fréchet distance


def test_frechet_gaussians_is_the_closed_form_for_diagonal_and_rotated_covariances():
    m1, m2 = gauss(2, 7, 1)
    v1, v2 = gauss(2, 7, 2) ** 2
    expected = ((m1 - m2) ** 2).sum() + ((v1**0.5 - v2**0.5) ** 2).sum()
    got = metrics.frechet_gaussians(m1, np.diag(v1), m2, np.diag(v2))
    assert got == pytest.approx(expected, abs=1e-8)
    r = rotation(7)
    rotated = r @ m1, r * v1 @ r.T, r @ m2, r * v2 @ r.T
    assert metrics.frechet_gaussians(*rotated) == pytest.approx(expected, abs=1e-8)


def test_frechet_gaussians_isotropic():
    # science 6.9: FID(N(0, s^2 I), N(0, t^2 I)) = d (s - t)^2; FID(N(0, I), N(m, I)) = |m|^2
    eye, zero = np.eye(5), np.zeros(5)
    assert metrics.frechet_gaussians(zero, 9 * eye, zero, 4 * eye) == pytest.approx(5, abs=1e-8)
    m = np.arange(5.0)
    assert metrics.frechet_gaussians(zero, eye, m, eye) == pytest.approx(30, abs=1e-8)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_frechet_gaussians_agrees_with_scipy_sqrtm(d):
    m1, m2, s1, s2 = *gauss(2, d, 3), covariance(d, 4), 2 * covariance(d, 5)
    cross = np.trace(sqrtm(s1 @ s2)).real
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross
    assert metrics.frechet_gaussians(m1, s1, m2, s2) == pytest.approx(expected, abs=1e-6)
    assert metrics.frechet_gaussians(m2, s2, m1, s1) == pytest.approx(expected, abs=1e-6)


def test_frechet_gaussians_stays_exact_for_singular_covariances():
    # two rank-one Gaussians along orthogonal axes; then two along one axis, in a rotated frame
    e = np.eye(64)
    one = metrics.frechet_gaussians(e[0], np.outer(e[0], e[0]), e[0], 4 * np.outer(e[1], e[1]))
    assert one == pytest.approx(1 + 4, abs=1e-8)
    v = rotation(64)[0]
    two = metrics.frechet_gaussians(e[0], np.outer(v, v), e[0], 4 * np.outer(v, v))
    assert two == pytest.approx(1, abs=1e-6)


def test_frechet_gaussians_takes_lists_and_checks_nothing():
    """The taught function: mathematics on plain numbers."""
    assert metrics.frechet_gaussians([2.0], [[9.0]], [0.0], [[4.0]]) == pytest.approx(5)
    assert metrics.frechet_gaussians(np.zeros(3), -np.eye(3), np.zeros(3), np.eye(3)) <= 0
    root = metrics.sqrt_psd(covariance(5, 1))
    assert root @ root == pytest.approx(covariance(5, 1)) and root == pytest.approx(root.T)


def test_frechet_moments_is_the_same_checked():
    m1, m2, s1, s2 = *gauss(2, 6, 3), covariance(6, 4), 2 * covariance(6, 5)
    expected = metrics.frechet_gaussians(m1, s1, m2, s2)
    assert metrics.frechet_moments(m1, s1, m2, s2) == expected
    tensors = [torch.tensor(x, requires_grad=True) for x in (m1, s1, m2, s2)]
    assert metrics.frechet_moments(*tensors) == expected
    single = [torch.tensor(x, dtype=torch.float32) for x in (m1, s1, m2, s2)]
    assert metrics.frechet_moments(*single) == pytest.approx(expected, rel=1e-5)
    assert metrics.frechet_moments(m1, s1, m1, s1) >= 0
    flat = np.outer(m1, m1)  # of rank one: its other eigenvalues are zeros up to rounding
    assert metrics.frechet_moments(m1, flat, m1, flat) == pytest.approx(0, abs=1e-7)
    assert metrics.frechet_moments(m1, 0 * flat, m1, flat) == pytest.approx((m1**2).sum())


def test_frechet_of_samples_is_that_of_their_moments():
    a, b = gauss(300, 6, 1), gauss(400, 6, 2, 0.5, 2.0)
    b[:, 0] += b[:, 1]
    s1, s2 = (np.einsum("ni,nj->ij", x - x.mean(0), x - x.mean(0)) / (len(x) - 1) for x in (a, b))
    cross = np.trace(sqrtm(s1 @ s2)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2) - 2 * cross
    assert metrics.frechet(a, b) == pytest.approx(expected, abs=1e-6)
    assert metrics.frechet(b, a) == pytest.approx(expected, abs=1e-6)
    assert metrics.frechet(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-6)


def test_frechet_is_invariant_to_rotation_and_shift_and_zero_for_a_set_with_itself():
    a, b = gauss(200, 5, 1), gauss(200, 5, 2, 1.0, 0.3)
    r = rotation(5)
    assert metrics.frechet(a @ r + 3, b @ r + 3) == pytest.approx(metrics.frechet(a, b), abs=1e-8)
    assert 0 <= metrics.frechet(a, a) < 1e-8
    dead = np.concatenate([a, np.zeros((200, 2))], 1)  # features that are never active
    assert 0 <= metrics.frechet(dead, dead) < 1e-6


def test_frechet_in_one_dimension_is_the_wasserstein_distance_of_two_normals():
    a, b = gauss(50, 1, 1), gauss(60, 1, 2, 2.0, 3.0)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert metrics.frechet(a, b) == pytest.approx(expected, abs=1e-10)


def test_expected_floor_formula():
    for d, n in ((16, 1000), (64, 1000), (128, 1000)):
        expected = (2 * d + d * (d + 1) / 2) / n
        assert metrics.expected_floor(d, n) == pytest.approx(expected)
        assert metrics.expected_floor(np.eye(d), n, n) == pytest.approx(expected)
    unequal = (metrics.expected_floor(8, 300) + metrics.expected_floor(8, 700)) / 2
    assert metrics.expected_floor(8, 300, 700) == pytest.approx(unequal)
    flat = np.diag([2.0, 0.0, 0.0])  # a dead feature adds nothing
    alone = metrics.expected_floor(2 * np.eye(1), 50)
    assert metrics.expected_floor(flat, 50) == pytest.approx(alone)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_frechet_bias_falls_as_one_over_n(spread):
    # claim C17: the mean over pairs of samples of ONE Gaussian, against the formula, at two sizes
    d, scales = 16, np.geomspace(1, spread, 16)
    means = {}
    for n, repeats in ((400, 60), (1600, 60)):
        pairs = [(gauss(n, d, 2 * i), gauss(n, d, 2 * i + 1)) for i in range(repeats)]
        values = [metrics.frechet(a * scales, b * scales) for a, b in pairs]
        floor = metrics.expected_floor(np.diag(scales**2), n)
        error = np.std(values) / repeats**0.5
        assert abs(np.mean(values) - floor) < 4 * error + 0.02 * floor
        means[n] = np.mean(values)
    assert means[400] / means[1600] == pytest.approx(4, rel=0.1)


def test_expected_floor_with_unequal_sizes_is_the_simulated_bias():
    values = [metrics.frechet(gauss(300, 8, 2 * i), gauss(3000, 8, 2 * i + 1)) for i in range(60)]
    floor = metrics.expected_floor(8, 300, 3000)
    assert np.mean(values) == pytest.approx(floor, abs=4 * np.std(values) / 60**0.5 + 0.02 * floor)


# kernel distances


@pytest.mark.filterwarnings("ignore:Metric `Kernel")  # it keeps all features: so it must
def test_kid_of_whole_sets_agrees_with_torchmetrics():
    a, b = gauss(120, 10, 1), gauss(120, 10, 2, 0.3)
    reference = KernelInceptionDistance(torch.nn.Flatten(), subsets=1, subset_size=120)
    reference.set_dtype(torch.float64)
    reference.update(torch.tensor(a), real=True)
    reference.update(torch.tensor(b), real=False)
    mean, sd = metrics.kid(a, b, subsets=3, size=120)  # each subset is the whole set
    assert mean == pytest.approx(reference.compute()[0].item(), rel=1e-9)
    assert sd == pytest.approx(0, abs=1e-12)


def test_kid_is_unbiased_and_repeatable():
    values = []
    for i in range(60):
        values.append(metrics.kid(gauss(40, 4, 2 * i), gauss(60, 4, 2 * i + 1), 1, 40)[0])
    assert abs(np.mean(values)) < 4 * np.std(values) / 60**0.5
    assert min(values) < 0 < max(values)
    a, b = gauss(300, 4, 1), gauss(300, 4, 2, 0.5)
    assert metrics.kid(a, b, 5, 50, seed=1) == metrics.kid(a, b, 5, 50, seed=1)
    assert metrics.kid(a, b, 5, 50, seed=1) != metrics.kid(a, b, 5, 50, seed=2)
    small, large = metrics.kid(a, b, 100, 50), metrics.kid(a, b, 100, 200)
    assert small[0] == pytest.approx(large[0], abs=4 * small[1] / 10)
    assert small[1] > large[1] > 0


def test_kid_expectation_for_a_shift_in_one_dimension():
    # E k(x, y) = E (x y + 1)^3 in closed form: x ~ N(0, 1) on one side, the constant c on the other
    c, n = 0.5, 20_000
    x = gauss(n, 1, 3)
    kxx = 1 + 3 * 1  # E (x x' + 1)^3 = 1 + 3 E x^2 E x'^2
    kxc, kcc = 1 + 3 * c**2, (c**2 + 1) ** 3
    mean, sd = metrics.kid(x, np.full((n, 1), c), 400, 200)
    assert mean == pytest.approx(kxx + kcc - 2 * kxc, abs=4 * sd / 20 + 0.02)


def mmd_gaussians(d, shift, v1, v2, s):
    """Science 6.7: squared MMD of N(0, v1 I) and N(m, v2 I), |m| = shift, kernel bandwidth s."""

    def mean(v, m2):
        return (s**2 / (s**2 + v)) ** (d / 2) * np.exp(-m2 / (2 * (s**2 + v)))

    return mean(2 * v1, 0) + mean(2 * v2, 0) - 2 * mean(v1 + v2, shift**2)


def test_mmd_rbf_is_the_closed_form_for_gaussians():
    d, shift, widths = 3, 1.0, (0.7, 2.0)
    pairs = [(gauss(300, d, 2 * i), gauss(200, d, 2 * i + 1, 0.0, 1.5)) for i in range(40)]
    values = [metrics.mmd_rbf(a, b + shift / d**0.5, widths) for a, b in pairs]
    expected = np.mean([mmd_gaussians(d, shift, 1.0, 2.25, s) for s in widths])
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / 40**0.5)
    assert expected > 20 * np.std(values) / 40**0.5  # the tolerance is small beside the value


def test_mmd_rbf_by_hand_and_across_blocks():
    a, b = np.array([[0.0], [1.0]]), np.array([[3.0], [5.0], [6.0]])

    def k(t):
        return np.exp(-t * t / 8)  # bandwidth 2

    cross = k(3) + k(5) + k(6) + k(2) + k(4) + k(5)
    expected = k(1) + (k(2) + k(3) + k(1)) / 3 - 2 * cross / 6
    assert metrics.mmd_rbf(a, b, 2) == pytest.approx(expected, rel=1e-12)
    assert metrics.mmd_rbf(a, b) == pytest.approx(metrics.mmd_rbf(a, b, 3.0))  # median of 10 gaps
    x, y = gauss(30, 3, 1), gauss(40, 3, 2, 1.0)
    pool = np.concatenate([x, y])
    gaps = [np.linalg.norm(p - q) for i, p in enumerate(pool) for q in pool[:i]]
    assert metrics.mmd_rbf(x, y) == pytest.approx(metrics.mmd_rbf(x, y, np.median(gaps)))
    x, y = gauss(1203, 2, 1), gauss(1001, 2, 2, 0.2)
    gram = np.exp(-((np.concatenate([x, y])[:, None] - np.concatenate([x, y])) ** 2).sum(2) / 2)
    n, m = len(x), len(y)
    expected = (gram[:n, :n].sum() - n) / (n * (n - 1)) + (gram[n:, n:].sum() - m) / (m * (m - 1))
    assert metrics.mmd_rbf(x, y, 1) == pytest.approx(expected - 2 * gram[:n, n:].mean(), abs=1e-12)


def test_mmd_rbf_is_unbiased():
    values = [metrics.mmd_rbf(gauss(30, 2, 2 * i), gauss(50, 2, 2 * i + 1), 1) for i in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    assert min(values) < 0


# precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(60, 45, 2), (300, 500, 16), (1300, 1100, 64)])
def test_prdc_equals_the_reference_package(n, m, d, k):
    real, fake = gauss(n, d, 1), gauss(m, d, 2, 0.1, 0.8)
    expected = compute_prdc(real, fake, nearest_k=k)  # counts over sizes: equal, or apart by 1e-5
    assert metrics.prdc(real, fake, k) == pytest.approx(expected, rel=0, abs=1e-12)


def test_prdc_on_the_rim_of_a_ball_is_outside():
    """Whole numbers lie exactly on the rims; the balls of the papers are open."""
    rng = np.random.default_rng(0)
    real, fake = rng.choice(100, (2, 40, 1), replace=False).astype(float)
    for k in (1, 2, 3, 5):
        expected = compute_prdc(real, fake, nearest_k=k)
        assert metrics.prdc(real, fake, k) == pytest.approx(expected, rel=0, abs=1e-12)
    line = np.arange(4.0)[:, None]
    assert metrics.prdc(line, line + 1, 1)["precision"] == 3 / 4  # 4 is 1 away from 3: outside
    assert metrics.prdc(line, line[::2] + 0.5, 1)["precision"] == 1


def test_prdc_tells_dropped_modes_from_bad_samples():
    centres = 20 * np.eye(4)
    real = gauss(400, 4, 1) + centres[np.arange(400) % 4]
    dropped = gauss(400, 4, 2) + centres[np.arange(400) % 2]
    noisy = gauss(400, 4, 3, sd=8.0) + centres[np.arange(400) % 4]
    few, bad = metrics.prdc(real, dropped), metrics.prdc(real, noisy)
    assert few["precision"] > 0.8 and few["coverage"] < 0.51 and few["recall"] < 0.51
    assert bad["precision"] < 0.3 and bad["density"] < 0.1 and bad["recall"] > few["recall"]
    far = metrics.prdc(real, real + 1000)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_density_and_coverage_have_their_expected_values_for_equal_distributions():
    n, m, k = 200, 150, 5
    sets = [metrics.prdc(gauss(n, 2, 2 * i), gauss(m, 2, 2 * i + 1), k) for i in range(60)]
    for key, expected in (("density", 1), ("coverage", metrics.expected_coverage(n, m, k))):
        values = [s[key] for s in sets]
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / 60**0.5)
    # science, section 4: .969 at N = M = 1000, k = 5
    assert metrics.expected_coverage(1000, 1000, 5) == pytest.approx(0.969, abs=5e-4)
    # two reals, one fake, k = 1: of three points the fake is the nearest to a real with chance 1/2
    assert metrics.expected_coverage(2, 1, 1) == pytest.approx(1 - 1 / 2)


# modes of a toy


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_real_points_have_every_mode(name):
    toy = data.load(name)
    found = metrics.modes(toy.test.images, toy.centres)
    assert found["modes"] == len(toy.centres)
    # a Gaussian of two dimensions has 1 - exp(-9/2) of its mass within 3 standard deviations
    assert found["good"] == pytest.approx(1 - np.exp(-4.5), abs=4 * 0.105 / 100)
    # 2 n KL of n draws from K equal shares is chi-squared with K - 1 degrees of freedom
    degrees = len(toy.centres) - 1
    assert 2 * 9889 * found["modes_kl"] == pytest.approx(degrees, abs=4 * (2 * degrees) ** 0.5)


def test_modes_by_hand():
    centres = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    points = np.array([[0.0, 0.14], [0.0, -0.14], [0.1, 0.1], [0.9, 0.0], [0.2, 0.2], [5.0, 5.0]])
    found = metrics.modes(
        points, centres
    )  # four within 0.15 of a centre: three of one, one of another
    assert found["modes"] == 2 and found["good"] == pytest.approx(4 / 6)
    assert found["modes_kl"] == pytest.approx(0.75 * np.log(3) + 0.25 * np.log(1))
    assert metrics.modes(points, centres, within=10)["good"] == pytest.approx(5 / 6)
    assert metrics.modes(torch.tensor(points), torch.tensor(centres), sd=0.5)["good"] == 5 / 6


def test_modes_of_a_collapse_and_of_nothing_good():
    centres = data.load("ring").centres
    one = metrics.modes(centres[3:4].expand(50, 2), centres)
    assert one == {"modes": 1, "good": 1.0, "modes_kl": pytest.approx(np.log(8))}
    none = metrics.modes(np.zeros((50, 2)), centres)
    assert none == {"modes": 0, "good": 0.0, "modes_kl": pytest.approx(np.log(8))}
    each = metrics.modes(centres, centres)
    assert each == {"modes": 8, "good": 1.0, "modes_kl": pytest.approx(0, abs=1e-12)}


# latents and pixels


def test_active_units_counts_the_varying_means():
    sds = np.array([1.0, 0.5, 0.101, 0.099, 0.0])
    column = gauss(500, 1, 1)
    mu = (column - column.mean()) / column.std() * sds + 3  # a constant offset is no activity
    assert metrics.active_units(mu) == 3
    assert metrics.active_units(torch.tensor(mu), threshold=0.3) == 1
    assert metrics.active_units(mu, threshold=0.001) == 4
    edge = np.array([[0.0], [0.2]])  # its variance is 0.01, with the divisor n
    assert metrics.active_units(edge, threshold=0.0099) == 1
    assert metrics.active_units(edge, threshold=0.0101) == 0


def test_sharpness_closed_forms():
    y, x = np.mgrid[:20, :20] / 100
    plain = np.stack([np.full_like(x, 0.3), x + y, x**2])[:, None]  # Laplacian constant: 0, 0, c
    assert metrics.sharpness(plain) == pytest.approx(0, abs=1e-12)
    board = (np.indices((20, 20)).sum(0) % 2)[None, None].astype(float)  # Laplacian +-4
    assert metrics.sharpness(board) == pytest.approx(16)
    assert metrics.sharpness((255 * board).astype(np.uint8)) == pytest.approx(16)
    assert metrics.sharpness(np.concatenate([board, 0 * board, 0 * board])) == pytest.approx(16 / 3)
    noise = np.random.default_rng(0).uniform(size=(1100, 1, 20, 20))  # variance 1/12; 4^2 + 4 = 20
    assert metrics.sharpness(torch.tensor(noise)) == pytest.approx(20 / 12, rel=0.02)


def test_sharpness_sees_the_blur_that_a_mean_gradient_cannot_see():
    hard = np.repeat((np.arange(24) >= 12)[None, :], 24, 0).astype(float)
    soft = np.repeat(np.clip((np.arange(24) - 8) / 8, 0, 1)[None, :], 24, 0)
    assert np.abs(np.diff(hard)).sum() == np.abs(np.diff(soft)).sum()
    assert metrics.sharpness(soft[None, None]) < metrics.sharpness(hard[None, None]) / 10


def test_psnr_of_a_constant_offset_and_beside_torchmetrics():
    x = np.random.default_rng(0).uniform(0, 0.5, (3, 1, 8, 8))
    assert metrics.psnr(x, x + 0.1) == pytest.approx(20)  # science 6.13: -20 log10 c
    assert metrics.psnr(x, x) == np.inf
    y = np.random.default_rng(1).uniform(size=x.shape)
    expected = peak_signal_noise_ratio(torch.tensor(x), torch.tensor(y), data_range=1.0)
    assert metrics.psnr(x, y) == pytest.approx(expected.item(), rel=1e-6)


def test_nearest_train_finds_the_neighbour_by_brute_force_and_copies_exactly():
    train = np.random.default_rng(0).uniform(size=(2300, 1, 6, 6)).astype(np.float32)
    images = np.random.default_rng(1).uniform(size=(40, 1, 6, 6)).astype(np.float32)
    images[:3] = train[[5, 1500, 2299]]
    distances, indices = metrics.nearest_train(torch.tensor(images), torch.tensor(train))
    gaps = images[:, None].astype(float) - train.astype(float)
    brute = (gaps**2).sum((2, 3, 4)) ** 0.5
    assert (indices == brute.argmin(1)).all() and indices[:3].tolist() == [5, 1500, 2299]
    assert distances == pytest.approx(brute.min(1), abs=1e-12)
    assert (distances[:3] == 0).all() and (distances[3:] > 0).all()


def test_nearest_train_mixes_uint8_and_float():
    train = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4)).astype(np.uint8)
    distances, indices = metrics.nearest_train(train[[7, 3]] / 255, train)
    assert indices.tolist() == [7, 3] and distances == pytest.approx([0, 0], abs=1e-12)
    near = metrics.nearest_train(np.ones((1, 1, 4, 4)), np.zeros((1, 1, 4, 4), np.uint8))
    assert near[0] == pytest.approx(4)


# copying


def shuffled(images, sizes, seed):
    """Disjoint random sets of images of these sizes, in [0, 1]."""
    order = np.random.default_rng(seed).permutation(len(images))
    return [images[part] / 255 for part in np.split(order, np.cumsum(sizes))[:-1]]


def smooth(images, sd=0.7):
    return gaussian_filter(images, (0, 0, sd, sd))


def noisy(images, sd, seed=0):
    return (images + gauss(images.size, 1, seed, sd=sd).reshape(images.shape)).clip(0, 1)


@pytest.fixture(scope="module")
def clothes():
    """All embedded images: real data that is there everywhere, (8000, 1, 28, 28)."""
    whole = data.load("fashion-mini")
    return np.concatenate([whole.train.images, whole.test.images])


@pytest.fixture(params=["embedded", "mnist"])
def pictures(request):
    """Real images, the embedded ones or MNIST's, of which sets are drawn at random."""
    if request.param == "embedded":
        return request.getfixturevalue("clothes")
    return request.getfixturevalue("real")("mnist").train.images[:8000].numpy()


SIZES = 3000, 1000, 500  # to train on, held out, fresh


def flags(images, make, tries=20):
    """How many times of 20 the samples `make(train, fresh, seed)` are said to be copies."""
    count = 0
    for seed in range(tries):
        train, held_out, fresh = shuffled(images, SIZES, seed)
        count += metrics.copying(make(train, fresh, seed), train, held_out)["flagged"]
    return count


def test_a_copier_is_always_found(pictures):
    assert flags(pictures, lambda train, fresh, seed: noisy(train[:500], 0.01, seed)) == 20
    assert flags(pictures, lambda train, fresh, seed: train[-500:]) == 20, "without any change"
    assert flags(pictures, lambda train, fresh, seed: smooth(train[:500])) == 20, "smoothed ones"


def test_one_that_copies_a_tenth_of_the_time_is_always_found(pictures):
    def make(train, fresh, seed):
        return np.concatenate([noisy(train[:50], 0.01, seed), fresh[:450]])

    assert flags(pictures, make) == 20


@pytest.mark.parametrize("change", ["none", "blur", "strong blur", "noise", "one kind"])
def test_new_images_are_no_copies_whatever_is_done_to_them(pictures, change):
    """The chance of a false alarm is 0.01 at most: 3 of 20 would come once in 1,000 times."""

    def make(train, fresh, seed):
        if change == "one kind":  # the darkest fifth alone: another distribution than the data's
            return fresh[np.argsort(fresh.mean((1, 2, 3)))[:100]]
        changes = {"none": fresh, "blur": smooth(fresh), "strong blur": smooth(fresh, 2),
                   "noise": noisy(fresh, 0.2, seed)}  # fmt: skip
        return changes[change]

    assert flags(pictures, make) <= 2


def test_what_the_test_of_copying_cannot_see(clothes):
    """Copies that are shifted by three pixels, few, few different ones, or of held-out images."""
    makes = [lambda train, fresh, seed: np.roll(train[:500], 3, 3),
             lambda train, fresh, seed: np.concatenate([train[:10], fresh[:490]]),
             lambda train, fresh, seed: np.concatenate([train[:10]] * 50)]  # fmt: skip
    assert [flags(clothes, make, 5) for make in makes] == [0, 0, 0]
    train, held_out, _ = shuffled(clothes, SIZES, 0)
    found = metrics.copying(held_out[:500], train, held_out)
    assert not found["flagged"] and found["nearest_in_training"] == 0


def test_copying_beside_a_plain_count():
    """By sklearn's neighbours and scipy's hypergeometric distribution, image by image."""
    rng = np.random.default_rng(0)
    train, held_out = rng.uniform(size=(1300, 1, 4, 4)), rng.uniform(size=(400, 1, 4, 4))
    samples = np.concatenate([noisy(train[:40], 0.02), rng.uniform(size=(270, 1, 4, 4))])
    for k in (2, 10):
        real = np.concatenate([train, held_out]).reshape(1700, -1)
        search = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(real)
        distances, index = search.kneighbors(samples.reshape(310, -1))
        alone = {}
        for image, row in zip(index[:, 0], distances, strict=True):
            alone[image] = max(alone.get(image, 0), row[-1] / row[0])
        first = sorted(alone, key=alone.get, reverse=True)
        new, shares = np.array(first) >= 1300, (0.01, 0.03, 0.1, 0.3, 1)
        counts = [int(np.ceil(share * len(first))) for share in shares]
        tails = {m: hypergeom.cdf(new[:m].sum(), 1700, 400, m) for m in counts}
        found = metrics.copying(torch.tensor(samples), train, torch.tensor(held_out), k)
        best = min(tails, key=tails.get)
        assert len(first) < 300, "some are nearest to several samples"
        assert found["p_value"] == pytest.approx(5 * tails[best], rel=1e-9)
        assert found["flagged"] == (5 * tails[best] < 0.01)
        excess = best - new[:best].sum() * 1700 / 400
        assert found["suspicious"] == pytest.approx(excess / len(first))
        assert found["nearest_in_training"] == pytest.approx((index[:, 0] < 1300).mean())
        assert found["expected"] == pytest.approx(1300 / 1700)


def test_the_p_value_of_copying_is_uniform_or_larger():
    """No more than 5 % of the p-values of new samples are below 5 %: 400 tries on small sets."""
    rng, small = np.random.default_rng(0), 0
    for _ in range(400):
        train, held_out, fresh = (rng.uniform(size=(n, 1, 2, 2)) for n in (120, 60, 50))
        small += metrics.copying(fresh, train, held_out)["p_value"] < 0.05
    assert small <= 20 + 2 * 19**0.5


def test_duplicates_and_copies_keep_all_digits():
    """Exact copies of images that are there several times, and of one far from the origin."""
    rng = np.random.default_rng(0)
    train = np.repeat(0.9 + 0.1 * rng.uniform(size=(100, 1, 8, 8)), 3, 0)
    held_out = 0.9 + 0.1 * rng.uniform(size=(100, 1, 8, 8))
    seen, _ = metrics._nearest(train[::3], train, 4)
    assert (seen[:, :3] < 1e-11).all() and (seen[:, 3] > 0.01).all()
    found = metrics.copying(train[::3], train, held_out)
    assert found["nearest_in_training"] == 1 and found["flagged"] and found["suspicious"] == 1
    tied = metrics.copying(train[::3], train, train[::3])
    assert not tied["flagged"], "what is in both sets is evidence of nothing"


def test_many_samples_at_one_image_count_as_one():
    """A hub, near to all samples, is no evidence: by chance it is an image to train on."""
    rng = np.random.default_rng(0)
    train, held_out = rng.uniform(size=(600, 1, 8, 8)), rng.uniform(size=(100, 1, 8, 8))
    found = metrics.copying(noisy(np.repeat(train[:1], 300, 0), 0.05), train, held_out)
    assert found["nearest_in_training"] == 1 and found["p_value"] == 1 and not found["flagged"]


# Parzen windows


def test_parzen_closed_forms():
    # science 6.15: one sample at x gives -D/2 log(2 pi sigma^2) at x
    d, sigma = 7, 0.3
    x = gauss(1, d, 1)
    at_peak = -d / 2 * np.log(2 * np.pi * sigma**2)
    assert metrics.parzen(x, x, sigma) == pytest.approx(at_peak)
    test = gauss(30, d, 2)
    expected = multivariate_normal(x[0], sigma**2).logpdf(test).mean()
    assert metrics.parzen(x, test, sigma) == pytest.approx(expected)
    samples = gauss(5, d, 3)
    mixture = sum(multivariate_normal(s, sigma**2).pdf(test) for s in samples) / 5
    assert metrics.parzen(samples, test, sigma) == pytest.approx(np.log(mixture).mean())
    far = metrics.parzen(x, x + 1000, 0.01)  # where every exponential underflows
    assert far == pytest.approx(-d / 2 * np.log(2 * np.pi * 1e-4) - d * 1e6 / 2e-4)


def test_parzen_approaches_the_true_density_and_takes_images():
    samples, test = gauss(1500, 1, 1), gauss(1200, 1, 2)
    assert metrics.parzen(samples, test, 0.3) == pytest.approx(
        norm(0, np.hypot(1, 0.3)).logpdf(test).mean(), abs=0.02
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 3, 3)).astype(np.uint8)
    flat = images.reshape(4, 9) / 255
    assert metrics.parzen(images, images, 2.0) == pytest.approx(metrics.parzen(flat, flat, 2.0))
    assert metrics.parzen(flat, images, 2.0) == pytest.approx(metrics.parzen(flat, flat, 2.0))


def test_parzen_sigma_maximises_the_validation_density():
    # one sample at 0: the likelihood of v under N(0, s^2) is highest at s = the root mean square
    validation = gauss(200, 1, 1, sd=0.2)
    rms = np.sqrt((validation**2).mean())
    grid = rms * np.array([0.5, 0.9, 1.0, 1.1, 2.0])
    assert metrics.parzen_sigma(np.zeros((1, 1)), validation, grid) == pytest.approx(rms)
    samples = gauss(50, 2, 2, sd=0.2)
    best = metrics.parzen_sigma(samples, gauss(60, 2, 3, sd=0.2))
    at_best = metrics.parzen(samples, gauss(60, 2, 3, sd=0.2), best)
    others = metrics.parzen(samples, gauss(60, 2, 3, sd=0.2), np.geomspace(0.01, 1, 21))
    assert at_best == others.max() and 0.01 < best < 1


def test_parzen_ranks_centroids_above_true_samples():
    # claim C16, Theis et al. (2016): a measure that k-means beats the truth on
    centres = gauss(10, 30, 9)

    def draw(n, seed):
        return centres[np.arange(n) % 10] + gauss(n, 30, seed, sd=0.5)

    train, real, validation, test = draw(3000, 1), draw(100, 2), draw(300, 3), draw(500, 4)
    means = KMeans(100, n_init=1, random_state=0).fit(train).cluster_centers_
    scores = [metrics.parzen(s, test, metrics.parzen_sigma(s, validation)) for s in (means, real)]
    assert scores[0] > scores[1] + 1


# the frozen networks


SMALL = {"channels": 1, "size": 28, "width": 4}
OF = "fashion-mnist"


@pytest.fixture(params=rulers.NETWORKS)
def network(request):
    return request.param


def describe(network, **changes):
    """What is recorded of a network, with changes."""
    config = {"paper": network, "data": OF, "model": SMALL} | changes
    return {"config": config, "profile": changes.pop("profile", "full")}


def build(network, seed=0):
    torch.manual_seed(seed)
    return rulers.NETWORKS[network].Model(**SMALL)


def stored(folder, network):
    """A small network, published in a folder."""
    net = build(network).eval()
    tensors = {k: t.half() if t.is_floating_point() else t for k, t in net.state_dict().items()}
    store.save(folder / f"{network}-{OF}", tensors, describe(network))
    net.load_state_dict(tensors)
    return net


@pytest.fixture
def toy_classifier(own_runs):
    return stored(own_runs, "classifier")


@pytest.fixture
def toy(own_runs, network):
    """A small network of each kind, published."""
    return stored(own_runs, network)


@torch.no_grad()
def test_features_are_the_stored_networks(toy, network):
    pixels = torch.randint(0, 256, (1003, 1, 28, 28), dtype=torch.uint8)
    x = data.to_unit(pixels)
    got = metrics.features(pixels, OF, network=network)
    assert got.dtype == np.float64 and got.shape == (1003, 64)
    assert np.allclose(got, toy.features(x), atol=1e-5)
    for same in (x, x.numpy(), x.double(), pixels.numpy()):
        assert np.array_equal(metrics.features(same, "fashion-mini", network=network), got)


@torch.no_grad()
def test_the_classifier_is_meant_where_none_is_named(toy_classifier):
    pixels = torch.randint(0, 256, (1003, 1, 28, 28), dtype=torch.uint8)
    x = data.to_unit(pixels)
    assert np.allclose(metrics.features(x, OF), toy_classifier.features(x), atol=1e-5)
    probabilities = metrics.classify(x, OF)
    assert np.allclose(probabilities, toy_classifier(x).softmax(1), atol=1e-5)
    assert probabilities.sum(1) == pytest.approx(np.ones(1003), abs=1e-12)


def test_features_leave_the_network_and_the_gradients_alone(toy, network):
    x = torch.rand(3, 1, 28, 28, requires_grad=True)
    first = metrics.features(x, OF, network=network)
    assert x.grad is None and np.array_equal(first, metrics.features(x, OF, network=network))
    alone = [metrics.features(x[i : i + 1], OF, network=network) for i in range(3)]
    assert np.allclose(first, np.concatenate(alone), atol=1e-5)  # no batch statistics


def test_features_are_computed_in_float32_whatever_the_accelerator_likes(monkeypatch, toy, network):
    kind = rulers.NETWORKS[network].Model
    seen, plain = [], kind.features

    def features(net, x):
        seen.append((x.dtype, torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")))
        return plain(net, x)

    before = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(kind, "features", features)
    monkeypatch.setenv("GENCORE_PRECISION", "bfloat16")
    metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)
    assert seen == [(torch.float32, False, False)]
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(4, 3, 32, 32), r"takes images \(n, \*\(1, 28, 28\)\), not \(4, 3, 32, 32\)"),
        (torch.rand(1, 28, 28), "takes images"),
        (torch.rand(0, 1, 28, 28), "takes images"),
        (torch.rand(4, 1, 28, 28) * 255, r"float in \[0, 1\], not float32 from"),
        (torch.rand(4, 1, 28, 28) - 0.5, r"float in \[0, 1\]"),
        (torch.full((4, 1, 28, 28), torch.nan), "from nan"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.int64), "not int64"),
    ],
)
def test_features_refuse_other_images(toy, network, images, message):
    with pytest.raises(ValueError, match=message):
        metrics.features(images, OF, network=network)


def test_the_ruler_of_points_is_their_coordinates():
    points = data.load("ring").test.images
    for ruler in ("points", "ring", "grid"):
        found = metrics.features(points, ruler)
        assert found.dtype == np.float64 and np.array_equal(found, points.numpy())
        assert rulers.networks(ruler) == ()
        with pytest.raises(ValueError, match="The network of points can be none, not 'contrast'."):
            metrics.features(points, ruler, network="contrast")
    with pytest.raises(ValueError, match=r"sets \(n, d\)"):
        metrics.features(torch.zeros(3, 1, 2, 2), "points")


def test_every_other_ruler_has_the_same_networks():
    for name in ("mnist", "fashion-mnist", "fashion-mini", "cifar10"):
        assert rulers.networks(name) == ("classifier", "contrast")
    with pytest.raises(ValueError, match="of mnist can be classifier or contrast, not 'inception'."):
        metrics.features(torch.rand(3, 1, 28, 28), "mnist", network="inception")


@torch.no_grad()
def test_ones_own_images_are_resized_and_those_of_the_book_are_not(toy, network):
    def measured(images, resize=True):
        return metrics.features(images, OF, resize, network)

    x = torch.rand(5, 1, 28, 28)
    plain = measured(x, False)
    assert np.array_equal(measured(x), plain)
    coloured = x.expand(-1, 3, -1, -1)  # three equal channels are grey
    assert np.allclose(measured(coloured), plain, atol=1e-5)
    flat = torch.tensor([0.1, 0.5]).view(1, 2, 1, 1).expand(5, 2, 40, 17)  # it stays flat
    expected = toy.features(torch.full((5, 1, 28, 28), 0.3))
    assert measured(flat) == pytest.approx(expected.numpy(), abs=1e-5)
    noise = torch.rand(1, 1, 112, 112)  # sd 0.29; bilinear without smoothing would leave 0.14
    smooth = rulers._resized(noise, (3, 28, 28))
    assert smooth.shape == (1, 3, 28, 28) and smooth.std() < 0.08
    assert smooth.mean() == pytest.approx(0.5, abs=0.02)
    for wrong in (coloured, flat):
        with pytest.raises(ValueError, match="takes images"):
            measured(wrong, False)
    with pytest.raises(ValueError, match="takes images"):
        measured(torch.rand(5, 28, 28))


WRONG = {
    "another's": {"data": "mnist"},
    "no such network": {"paper": "vae"},
    "a quick one": {"profile": "quick"},
    "a smoke one": {"profile": "smoke"},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_network_that_is_not_the_published_one_measures_nothing(own_runs, network, case):
    tensors = build(network).state_dict()
    store.save(own_runs / f"{network}-{OF}", tensors, describe(network, **WRONG[case]))
    calls = [lambda x: metrics.features(x, OF, network=network)]
    calls += [lambda x: metrics.classify(x, OF)] if network == "classifier" else []
    for call in calls:
        with pytest.raises(store.Corrupt, match=f"not the published {network}.*train {network}-f"):
            call(torch.rand(3, 1, 28, 28))


def test_one_network_under_the_name_of_the_other_measures_nothing(own_runs, network):
    other = next(name for name in rulers.NETWORKS if name != network)
    store.save(own_runs / f"{network}-{OF}", build(other).state_dict(), describe(other))
    with pytest.raises(store.Corrupt, match=f"not the published {network}"):
        metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)


def test_a_network_of_anything_is_not_taken(own_runs, network):
    path = own_runs / f"{network}-{OF}"
    tensors = build(network).state_dict()
    for meta in ({}, {"config": None}, {"config": []}):
        store.save(path, tensors, meta | {"profile": "full"})
        with pytest.raises(store.Corrupt, match=f"not the published {network}"):
            metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)
    store.save(own_runs / f"{network}-mnist", tensors, describe(network))
    for end in (".json", ".safetensors"):  # both files of another run
        (own_runs / f"{network}-mnist{end}").replace(path.with_name(path.name + end))
    with pytest.raises(store.Corrupt, match=f"describes another artefact, '{network}-mnist'"):
        metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)


def test_a_network_whose_numbers_have_changed_measures_nothing(toy, network, own_runs):
    metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)  # what is loaded is kept
    file = own_runs / f"{network}-{OF}.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    rulers._loaded.cache_clear()
    with pytest.raises(store.Corrupt, match=f"{network}-{OF}.safetensors is damaged"):
        metrics.features(torch.rand(3, 1, 28, 28), OF, network=network)


def test_small_profiles_measure_with_their_own_network(toy, network, own_runs, monkeypatch):
    def measured():
        return metrics.features(x, OF, network=network)

    x = torch.rand(3, 1, 28, 28)
    published = measured()
    tensors = build(network, seed=1).state_dict()
    store.save(own_runs / f"quick/{network}-{OF}", tensors, describe(network, profile="quick"))
    assert np.array_equal(measured(), published)
    monkeypatch.setenv("GENCORE_PROFILE", "quick")
    assert not np.allclose(measured(), published)
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    assert np.array_equal(measured(), published)


def test_a_network_that_was_trained_anew_is_used_at_once(toy, network, own_runs):
    x = torch.rand(3, 1, 28, 28)
    before = metrics.features(x, OF, network=network)
    tensors = build(network, seed=1).state_dict()
    store.save(own_runs / f"{network}-{OF}", tensors, describe(network))
    assert not np.allclose(metrics.features(x, OF, network=network), before)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_shipped_classifiers(name, real):
    assert (store.runs_dir() / f"classifier-{name}.json").exists()
    test = real(name).test
    probabilities = metrics.classify(test.images[:500], name)
    accuracy = (probabilities.argmax(1) == test.labels[:500].numpy()).mean()
    recorded = store.load(store.artefact(f"classifier-{name}"))[1]["metrics"]["accuracy"]
    assert accuracy == pytest.approx(recorded, abs=4 * (recorded * (1 - recorded) / 500) ** 0.5)


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.features(np.zeros((1, 1, 2, 2)), "minst"), "'minst' has no frozen"),
        (lambda: metrics.frechet(gauss(64, 64), gauss(99, 64)), "64 features needs more than 64"),
        (lambda: metrics.frechet(gauss(9, 3), gauss(9, 4)), "same d"),
        (lambda: metrics.frechet(gauss(9, 3), gauss(9, 3) * np.nan), "NaN"),
        (lambda: metrics.frechet(gauss(9, 3), gauss(9, 3) / 0.0), "infinite"),
        (lambda: metrics.frechet(np.zeros(5), np.zeros(5)), r"sets \(n, d\)"),
        (lambda: metrics.frechet_moments([0, 0], np.eye(3), [0, 0], np.eye(2)), "means"),
        (lambda: metrics.frechet_moments([0, np.nan], np.eye(2), [0, 0], np.eye(2)), "finite"),
        (
            lambda: metrics.frechet_moments([0, 0], -np.eye(2), [0, 0], np.eye(2)),
            "eigenvalue is -1",
        ),
        (lambda: metrics.frechet_moments([0, 0], [[1, 0.5], [0, 1]], [0, 0], np.eye(2)), "by 0.5,"),
        (lambda: metrics.kid(gauss(999, 3), gauss(2000, 3)), "subsets of 1000 need .* 999"),
        (lambda: metrics.mmd_rbf(gauss(9, 3), gauss(9, 3), 0), "bandwidths greater than 0"),
        (lambda: metrics.mmd_rbf(gauss(1, 3), gauss(9, 3), 1), "2 samples"),
        (lambda: metrics.prdc(gauss(9, 3), gauss(5, 3), 5), "1 <= k < 5"),
        (lambda: metrics.prdc(gauss(9, 3), gauss(9, 3), 0), "1 <= k < 9"),
        (lambda: metrics.modes(np.zeros((5, 2)), np.zeros((4, 3))), "same d"),
        (lambda: metrics.modes(np.full((5, 2), np.nan), np.zeros((4, 2))), "NaN"),
        (lambda: metrics.sharpness(np.zeros((3, 28, 28))), r"images \(n, C, H, W\)"),
        (lambda: metrics.sharpness(np.full((3, 1, 28, 28), 9.0)), r"float in \[0, 1\]"),
        (lambda: metrics.psnr(np.zeros((2, 1)), np.zeros((1, 1))), "equal shapes"),
        (lambda: metrics.nearest_train(np.zeros((2, 3)), np.zeros((2, 4))), "Unlike images"),
        (lambda: metrics.copying(*np.zeros((3, 2, 3))[:2], np.zeros((2, 4))), "sets of images of one"),
        (lambda: metrics.copying(np.zeros((0, 3)), *np.zeros((2, 2, 3))), "sets of images of one"),
        (lambda: metrics.copying(*np.full((3, 2, 3), 2.0)), r"float in \[0, 1\]"),
        (lambda: metrics.parzen(gauss(3, 2), gauss(3, 2), 0.0), "greater than 0"),
        (lambda: metrics.parzen(gauss(3, 2), gauss(3, 5), 1.0), "same d"),
    ],
)
@np.errstate(divide="ignore", invalid="ignore")
def test_bad_input_gets_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 200


@pytest.mark.parametrize("size", [2, 127, 128, 129, 257])
def test_kid_is_the_same_however_rows_fall_into_blocks(size):
    """Against all pairs at once: a last block of one row counts, and no point is paired with itself."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(size, 3)), rng.normal(0.5, 1, (size, 3))
    kernel = [[(x @ y.T / 3 + 1) ** 3 for y in (a, b)] for x in (a, b)]
    within = sum(k.sum() - np.trace(k) for k in (kernel[0][0], kernel[1][1])) / (size * (size - 1))
    found, _ = metrics.kid(a, b, subsets=1, size=size)
    assert found == pytest.approx(within - 2 * kernel[0][1].mean(), rel=1e-9)
