"""How good are generated images? Distances, coverage, sharpness, memorisation, likelihood.

All in float64, from numpy arrays or torch tensors; bad input raises ValueError with one sentence.
The first group works on `features` of images, see `gencore.rulers`: values compare the models of
this book and mean nothing beside a published FID.
"""

import functools

import numpy as np
import torch

from gencore import rulers
from gencore.data import TOY_SD
from gencore.rulers import as_array, as_sets, blocks, to_float64

features, classify = rulers.features, rulers.classify  # of images, by a frozen classifier


def frechet(a, b):
    """Fréchet distance of two feature sets, (n, d) and (m, d), each taken for a Gaussian: >= 0.

    Heusel et al. (2017). Biased upwards: two samples of one distribution give `expected_floor`,
    not 0, so compare values at equal n and m only. Refused when n or m <= d.
    """
    a, b = as_sets(a, b)
    n, d = min(len(a), len(b)), a.shape[1]
    if n <= d:
        raise ValueError(f"A Fréchet distance of {d} features needs more than {d} samples: {n}.")
    s1, s2 = (np.cov(x, rowvar=False).reshape(d, d) for x in (a, b))
    return frechet_moments(a.mean(0), s1, b.mean(0), s2)


def sqrt_psd(s):
    """The symmetric root of a covariance matrix (d, d); it may be singular."""
    values, vectors = np.linalg.eigh(s)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def frechet_gaussians(m1, s1, m2, s2):
    """Squared 2-Wasserstein distance of two Gaussians with means (d,) and covariances (d, d).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), Dowson & Landau (1982). The last trace is
    the sum of the singular values of S1^1/2 S2^1/2: real, even for singular covariances. Nothing is
    checked here, and rounding can leave -1e-12 for equal Gaussians: see `frechet_moments`.
    """
    cross = np.linalg.svd(sqrt_psd(s1) @ sqrt_psd(s2), compute_uv=False).sum()
    apart = np.square(np.subtract(m1, m2)).sum()
    return float(apart + np.trace(s1) + np.trace(s2) - 2 * cross)


def frechet_moments(m1, s1, m2, s2):
    """`frechet_gaussians` of any arrays or tensors, in float64 and >= 0.

    Raises ValueError for what are no means (d,) and covariances (d, d).
    """
    m1, s1, m2, s2 = arrays = [as_array(x).astype(np.float64) for x in (m1, s1, m2, s2)]
    shapes, d = [x.shape for x in arrays], m1.size
    if shapes != 2 * [(d,), (d, d)] or not all(np.isfinite(x).all() for x in arrays):
        raise ValueError(f"Expected finite means (d,) and covariances (d, d), not shapes {shapes}.")
    for s in (s1, s2):
        lowest, skew = np.linalg.eigvalsh(s).min(initial=0), np.abs(s - s.T).max(initial=0)
        if max(skew, -lowest) > 1e-6 * np.abs(s).max(initial=0):
            raise ValueError(
                f"A covariance is symmetric and has no negative eigenvalue: here S and its "
                f"transpose differ by {skew:.2g}, and an eigenvalue is {lowest:.2g}."
            )
    return max(0.0, frechet_gaussians(m1, s1, m2, s2))


def expected_floor(covariance, n_a, n_b=None):
    """The bias of `frechet`: its mean for two samples, of n_a and n_b, of one Gaussian.

    `covariance` is (d, d), or d for whitened features. To first order in 1/n it is
    (1/n_a + 1/n_b) [tr S + 1/2 sum_{i<=j} c_ij], with l the eigenvalues of S, c_ii = l_i and
    c_ij = 2 l_i l_j / (l_i + l_j). Whitened, with N samples on EACH side: [2d + d(d+1)/2] / N.
    Features are not Gaussian, so measure the floor as well: this says how it scales.
    """
    s = as_array(covariance)
    values = np.linalg.eigvalsh(s).clip(1e-300) if s.ndim else np.ones(int(s))
    halves = 1 / (1 / values[:, None] + 1 / values)  # c_ij / 2
    pairs = halves.sum() + values.sum() / 2  # the sum of c_ij over i <= j
    return float((1 / n_a + 1 / (n_b or n_a)) * (values.sum() + pairs / 2))


def kid(a, b, subsets=100, size=1000, seed=0):
    """Kernel distance of two feature sets, (n, d) and (m, d): (mean, sd) over random subsets.

    Unbiased squared MMD with the kernel (x.y/d + 1)^3, Bińkowski et al. (2018): its mean is 0 for
    equal distributions at any `size`, so values can be negative. The sd is that of one subset.
    """
    a, b = as_sets(a, b)
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"KID subsets of {size} need 2 <= size <= {min(len(a), len(b))} samples.")

    def kernel(x, y):
        k = x @ y.T / x.shape[1] + 1
        cube = k * k  # much faster than k**3
        cube *= k
        return cube

    draw = functools.partial(np.random.default_rng(seed).choice, size=size, replace=False)
    values = [_mmd(a[draw(len(a))], b[draw(len(b))], kernel) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def mmd_rbf(a, b, bandwidths=None):
    """Unbiased squared MMD of (n, d) and (m, d) with Gaussian kernels: a float, around 0 if equal.

    The kernel is the mean of exp(-|x - y|^2 / 2s^2) over the bandwidths s. By default s is the
    median distance in the pooled sets (first 1,000 of each): give s to compare models.
    """
    a, b = as_sets(a, b)
    if bandwidths is None:
        pool = np.concatenate([a[:1000], b[:1000]])
        bandwidths = np.median(_squared(pool, pool)[np.triu_indices(len(pool), 1)]) ** 0.5
    bandwidths = np.atleast_1d(bandwidths)
    if min(len(a), len(b)) < 2 or not (bandwidths > 0).all():
        raise ValueError("An MMD needs 2 samples on each side and bandwidths greater than 0.")

    def kernel(x, y):
        distances = _squared(x, y)
        return sum(np.exp(distances / (-2 * s * s)) for s in bandwidths) / len(bandwidths)

    return _mmd(a, b, kernel)


def prdc(real, fake, k=5):
    """Precision, recall, density and coverage of fake (m, d) beside real (n, d) features: a dict.

    With a ball around each point up to its k-th neighbour in its own set: precision is the share
    of fakes in a real ball, recall of reals in a fake ball (Kynkäänniemi et al. 2019); density is
    the mean number of real balls around a fake, over k, and coverage the share of real balls with
    a fake inside (Naeem et al. 2020). Equal distributions give density 1 and `expected_coverage`,
    but not precision and recall 1.
    """
    from sklearn.neighbors import NearestNeighbors

    real, fake = as_sets(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k = {k} neighbours need 1 <= k < {min(len(real), len(fake))} samples.")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute")
    real_radii, fake_radii = (search.fit(x).kneighbors()[0][:, -1] ** 2 for x in (real, fake))
    precise, recalled, count, covered = np.zeros(len(fake), bool), 0, 0, 0
    for rows in blocks(len(real)):
        distances = _squared(real[rows], fake)  # (block, m)
        inside = distances < real_radii[rows, None]
        precise |= inside.any(0)
        recalled += (distances < fake_radii).any(1).sum()
        count += inside.sum()
        covered += inside.any(1).sum()
    shares = precise.mean(), recalled / len(real), count / (k * len(fake)), covered / len(real)
    names = "precision", "recall", "density", "coverage"
    return dict(zip(names, map(float, shares), strict=True))


def expected_coverage(n, m, k=5):
    """Mean coverage, n real and m fake of one distribution: 1 - prod_{i=1..k} (n-i) / (n+m-i)."""
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def modes(points, centres, sd=TOY_SD, within=3):
    """How points (n, d) fall on the modes at centres (K, d) of a toy: a dict of three numbers.

    A point is good if its nearest centre is at most `within` standard deviations away, as in
    VEEGAN (Srivastava et al. 2017) and PacGAN. `modes` is the number of centres with a good point,
    `good` the share of good points, `modes_kl` the divergence in nats of the good points' shares
    of the centres from equal shares: 0 at best, log K when one has all (or there are none).
    """
    points, centres = as_sets(points, centres)
    distances = np.sqrt(_squared(points, centres))
    good = distances.min(1) <= within * sd
    counts = np.bincount(distances.argmin(1)[good], minlength=len(centres))
    shares = counts[counts > 0] / max(1, counts.sum())
    entropy = float(-(shares * np.log(shares)).sum())
    found = {"modes": int((counts > 0).sum()), "good": float(good.mean())}
    return found | {"modes_kl": max(0.0, float(np.log(len(centres))) - entropy)}


def active_units(mu, threshold=0.01):
    """How many dimensions of posterior means (n, d) have a variance > threshold, Burda et al."""
    variances = np.asarray(mu, np.float64).var(0)
    return int((variances > threshold).sum())


def sharpness(images):
    """Mean variance of the Laplacian of images (n, C, H, W) in [0, 1]: a float, pixels^2.

    It falls with blur and rises with noise, so give the value of real images beside it: more than
    that is not better. (The mean absolute gradient is the same for a soft edge as for a hard one.)
    """
    if np.ndim(images) != 4 or min(np.shape(images)[2:]) < 3:
        raise ValueError(f"Expected images (n, C, H, W) of 3 x 3 or more, not {np.shape(images)}.")
    values = []
    for rows in blocks(len(images)):
        x = to_float64(images[rows])
        around = x[..., 2:, 1:-1] + x[..., :-2, 1:-1] + x[..., 1:-1, 2:] + x[..., 1:-1, :-2]
        values.append((around - 4 * x[..., 1:-1, 1:-1]).var((2, 3)))  # interior pixels only
    return float(np.concatenate(values).mean())


def psnr(x, y):
    """Peak signal-to-noise ratio of images y against x, both in [0, 1], in dB: a float.

    -10 log10 of the mean squared error over all pixels; infinite if equal. It rewards blur.
    """
    if np.shape(x) != np.shape(y):
        raise ValueError(f"Expected two equal shapes, not {np.shape(x)} and {np.shape(y)}.")
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(np.square(to_float64(x) - to_float64(y)).mean()))


def nearest_train(images, train_images):
    """The training image nearest to each image in pixel space: (distances (n,), indices (n,)).

    Euclidean, for pixels in [0, 1]; exactly 0 for a copy. A model that memorises has samples that
    are nearer to the training set than held-out images are: measure those beside it.
    """
    if np.shape(images)[1:] != np.shape(train_images)[1:]:
        raise ValueError(f"Unlike images: {np.shape(images)} and {np.shape(train_images)}.")
    x, train_images = to_float64(images).reshape(len(images), -1), as_array(train_images)
    best, index = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
    for rows in blocks(len(train_images)):
        distances = _squared(x, to_float64(train_images[rows]).reshape(-1, x.shape[1]))
        index = np.where(distances.min(1) < best, distances.argmin(1) + rows.start, index)
        best = np.minimum(distances.min(1), best)
    # once more without the cancellation of the fast formula, so that a copy has distance 0
    return np.linalg.norm(x - to_float64(train_images[index]).reshape(x.shape), axis=1), index


def copying(samples, train_images, held_out, k=10):
    """Are samples (n, ...) nearer to training images than to held-out ones? A dict of five numbers.

    For images that were made without both, training and held-out images are exchangeable: the real
    image nearest to a sample is one to train on with the chance `expected`, their share, however
    far it is and whatever the samples look like: blurred, noisy, of one class. Each real image
    that is nearest to a sample counts once, and those come first that lie alone with it, the k-th
    nearest being far. Of the first 1, 3, 10, 30 and 100 % of them, the number that was held out
    is hypergeometric; `p_value` is the least of the five lower tails times five, and `flagged` says
    that it is below 0.01. `suspicious` is the share of them that are training images beyond chance,
    where that is clearest, and `nearest_in_training` the share of samples nearest to one of those.

    Distances are those of pixels in [0, 1]. Give all training images: with six of them for each
    held-out one, copies of some 60 different ones must be clear among the samples. It cannot see
    fewer, a few images copied again and again, or copies so shifted or changed that many images are
    as near. If the real sets differ, as MNIST's do by who wrote them, that counts for or against.
    Compare Meehan, Chaudhuri & Dasgupta (2020), arXiv:2004.05675, who compare distances themselves.
    """
    sets = samples, train_images, held_out
    shapes = [np.shape(x)[1:] for x in sets]
    if len(set(shapes)) > 1 or not min(map(len, sets)):
        raise ValueError(f"Expected three sets of images of one shape, not of {shapes}.")
    (seen, first), (unseen, other) = (_nearest(samples, x, k) for x in sets[1:])
    chance = len(held_out) / (len(held_out) + len(train_images))
    new = unseen[:, 0] <= seen[:, 0]
    both = np.sort(np.concatenate([seen, unseen], 1))[:, :k]
    order = np.argsort(-both[:, -1] / both[:, 0].clip(1e-12), kind="stable")
    which = np.where(new, len(train_images) + other, first)[order]  # the real image of a sample
    images = which[np.sort(np.unique(which, return_index=True)[1])]  # once, by the one most alone
    tails = {}
    for m in {int(np.ceil(share * len(images))) for share in (0.01, 0.03, 0.1, 0.3, 1)}:
        count = int((images[:m] >= len(train_images)).sum())
        tail = _log_fewer(count, m, len(held_out), len(train_images))
        tails[tail] = (m - count / chance) / len(images)
    p = min(1.0, 5 * float(np.exp(min(tails))))
    return {
        "nearest_in_training": float(1 - new.mean()), "expected": 1 - chance,
        "suspicious": max(0.0, tails[min(tails)]), "p_value": p, "flagged": p < 0.01,
    }  # fmt: skip


def _log_fewer(count, drawn, new, old):
    """log P(at most `count` new among `drawn` of `new` and `old` ones, without replacement)."""

    def choose(n, i):
        n = torch.tensor(float(n), dtype=torch.float64)
        return torch.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)

    i = torch.arange(count + 1, dtype=torch.float64)
    all_ways = choose(new + old, torch.tensor(float(drawn), dtype=torch.float64))
    return (choose(new, i) + choose(old, drawn - i)).logsumexp(0).sub(all_ways).item()


def _nearest(images, others, k):
    """The k nearest others of images, (n, ...) and (m, ...): squared distances (n, k), first index.

    In float64, in which the fast formula leaves 1e-13 for a copy.
    """
    x, others = to_float64(images).reshape(len(images), -1), as_array(others)
    best, index = np.full((len(x), 1), np.inf), np.zeros(len(x), np.int64)
    for rows in blocks(len(others)):
        found = _squared(x, to_float64(others[rows]).reshape(-1, x.shape[1]))
        index = np.where(found.min(1) < best.min(1), found.argmin(1) + rows.start, index)
        found = np.concatenate([best, found], 1)
        best = np.partition(found, min(k, found.shape[1]) - 1)[:, :k]
    return np.sort(best), index


def parzen(samples, test, sigma):
    """Mean log-density, in nats, of test (m, ...) under Gaussians of sd sigma at samples (n, ...).

    Several sigmas give an array. To be avoided, Theis et al. (2016): k-means centroids beat images.
    """
    arrays = [as_array(x).reshape(len(x), -1) for x in (samples, test)]
    samples, test = as_sets(*(x / 255 if x.dtype == np.uint8 else x for x in arrays))
    variances, (n, d), total = np.square(np.atleast_1d(sigma)), samples.shape, 0
    if not np.min(sigma) > 0:
        raise ValueError("The sigma of a Parzen window must be greater than 0.")
    for rows in blocks(len(test)):
        distances = torch.from_numpy(_squared(test[rows], samples))
        total += np.array([(distances / (-2 * v)).logsumexp(1).sum() for v in variances])
    values = total / len(test) - np.log(n) - d / 2 * np.log(2 * np.pi * variances)
    return values if np.ndim(sigma) else float(values[0])


def parzen_sigma(samples, validation, sigmas=None):
    """The sigma, of those given or of 21 from 0.01 to 1, with the highest validation `parzen`."""
    sigmas = np.geomspace(0.01, 1, 21) if sigmas is None else np.asarray(sigmas)
    return float(sigmas[parzen(samples, validation, sigmas).argmax()])


def _squared(x, y):
    """Squared Euclidean distances: (n, d), (m, d) -> (n, m)."""
    distances = (x * x).sum(1)[:, None] - 2 * (x @ y.T) + (y * y).sum(1)
    return np.maximum(distances, 0, out=distances)


def _mmd(a, b, kernel):
    """Unbiased squared MMD, Gretton et al. (2012), eq. 3: no point is paired with itself."""

    def mean(x, y, same):
        parts = ((kernel(x[rows], y), rows.start) for rows in blocks(len(x), 128))  # fit a cache
        total = sum(k.sum() - same * np.trace(k, start) for k, start in parts)
        return total / (len(x) * (len(y) - same))

    return float(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))
