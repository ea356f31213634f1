"""How good are generated images? Distances, coverage, sharpness, memorisation, likelihood.

All in float64, from numpy arrays or torch tensors; bad input raises ValueError with one sentence.
The first group works on the 64 features of a small frozen classifier of the same data, not on
Inception's: values compare the models of this book and mean nothing beside a published FID.
"""

import functools

import numpy as np
import torch

from gencore import nets, store

CLASSIFIERS = {name: f"classifier-{name}" for name in ("mnist", "fashion-mnist", "cifar10")}
CLASSIFIERS["fashion-mini"] = CLASSIFIERS["fashion-mnist"]


@torch.no_grad()
def features(images, dataset):
    """Penultimate features of the frozen classifier of a dataset: (n, C, H, W) -> (n, 64) float64.

    `images` are uint8, or float in [0, 1], in the shape of the data named `dataset`.
    """
    net, shape = _classifier(dataset)
    found = tuple(np.shape(images))
    if found[1:] != shape or not found[0]:
        raise ValueError(f"The {dataset} classifier takes images (n, *{shape}), not {found}.")
    batches = [torch.from_numpy(_pixels(images[rows])).float() for rows in _blocks(len(images))]
    return torch.cat([net.features(x) for x in batches]).double().numpy()


@torch.no_grad()
def classify(images, dataset):
    """Class probabilities by the same classifier: images (n, C, H, W) -> (n, 10) float64."""
    x = torch.from_numpy(features(images, dataset)).float()
    return _classifier(dataset)[0].head(x).double().softmax(1).numpy()


def frechet(a, b):
    """Fréchet distance of two feature sets, (n, d) and (m, d), each taken for a Gaussian: >= 0.

    Heusel et al. (2017). Biased upwards: two samples of one distribution give `expected_floor`,
    not 0, so compare values at equal n and m only. Refused when n or m <= d.
    """
    a, b = _sets(a, b)
    n, d = min(len(a), len(b)), a.shape[1]
    if n <= d:
        raise ValueError(f"A Fréchet distance of {d} features needs more than {d} samples: {n}.")
    s1, s2 = (np.cov(x, rowvar=False).reshape(d, d) for x in (a, b))
    return frechet_gaussians(a.mean(0), s1, b.mean(0), s2)


def frechet_gaussians(m1, s1, m2, s2):
    """Squared 2-Wasserstein distance of two Gaussians with means (d,) and covariances (d, d).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), Dowson & Landau (1982). The last trace is
    the sum of the singular values of S1^1/2 S2^1/2: real, even for singular covariances.
    """
    m1, s1, m2, s2 = arrays = [_array(x).astype(np.float64) for x in (m1, s1, m2, s2)]
    shapes, d = [x.shape for x in arrays], m1.size
    if shapes != 2 * [(d,), (d, d)] or not all(np.isfinite(x).all() for x in arrays):
        raise ValueError(f"Expected finite means (d,) and covariances (d, d), not shapes {shapes}.")
    cross = np.linalg.svd(_root(s1) @ _root(s2), compute_uv=False).sum()
    return max(0.0, float(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross))


def expected_floor(covariance, n_a, n_b=None):
    """The bias of `frechet`: its mean for two samples, of n_a and n_b, of one Gaussian.

    `covariance` is (d, d), or d for whitened features. To first order in 1/n it is
    (1/n_a + 1/n_b) [tr S + 1/2 sum_{i<=j} c_ij], with l the eigenvalues of S, c_ii = l_i and
    c_ij = 2 l_i l_j / (l_i + l_j). Whitened, with N samples on EACH side: [2d + d(d+1)/2] / N.
    Features are not Gaussian, so measure the floor as well: this says how it scales.
    """
    s = _array(covariance)
    values = np.linalg.eigvalsh(s).clip(1e-300) if s.ndim else np.ones(int(s))
    halves = 1 / (1 / values[:, None] + 1 / values)  # c_ij / 2
    pairs = halves.sum() + values.sum() / 2  # the sum of c_ij over i <= j
    return float((1 / n_a + 1 / (n_b or n_a)) * (values.sum() + pairs / 2))


def kid(a, b, subsets=100, size=1000, seed=0):
    """Kernel distance of two feature sets, (n, d) and (m, d): (mean, sd) over random subsets.

    Unbiased squared MMD with the kernel (x.y/d + 1)^3, Bińkowski et al. (2018): its mean is 0 for
    equal distributions at any `size`, so values can be negative. The sd is that of one subset.
    """
    a, b = _sets(a, b)
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"KID subsets of {size} need 2 <= size <= {min(len(a), len(b))} samples.")

    def kernel(x, y):
        k = x @ y.T / x.shape[1] + 1
        return k * k * k  # much faster than k**3

    draw = functools.partial(np.random.default_rng(seed).choice, size=size, replace=False)
    values = [_mmd(a[draw(len(a))], b[draw(len(b))], kernel) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def mmd_rbf(a, b, bandwidths=None):
    """Unbiased squared MMD of (n, d) and (m, d) with Gaussian kernels: a float, around 0 if equal.

    The kernel is the mean of exp(-|x - y|^2 / 2s^2) over the bandwidths s. By default s is the
    median distance in the pooled sets (first 1,000 of each): give s to compare models.
    """
    a, b = _sets(a, b)
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

    real, fake = _sets(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k = {k} neighbours need 1 <= k < {min(len(real), len(fake))} samples.")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute")
    real_radii, fake_radii = (search.fit(x).kneighbors()[0][:, -1] ** 2 for x in (real, fake))
    precise, recalled, count, covered = np.zeros(len(fake), bool), 0, 0, 0
    for rows in _blocks(len(real)):
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


def active_units(mu, threshold=0.01):
    """How many dimensions of posterior means (n, d) have a variance > threshold, Burda et al."""
    return int((_sets(mu)[0].var(0) > threshold).sum())


def sharpness(images):
    """Mean variance of the Laplacian of images (n, C, H, W) in [0, 1]: a float, pixels^2.

    It falls with blur and rises with noise, so give the value of real images beside it: more than
    that is not better. (The mean absolute gradient is the same for a soft edge as for a hard one.)
    """
    if np.ndim(images) != 4 or min(np.shape(images)[2:]) < 3:
        raise ValueError(f"Expected images (n, C, H, W) of 3 x 3 or more, not {np.shape(images)}.")
    values = []
    for rows in _blocks(len(images)):
        x = _pixels(images[rows])
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
        return float(-10 * np.log10(np.square(_pixels(x) - _pixels(y)).mean()))


def nearest_train(images, train_images):
    """The training image nearest to each image in pixel space: (distances (n,), indices (n,)).

    Euclidean, for pixels in [0, 1]; exactly 0 for a copy. A model that memorises has samples that
    are nearer to the training set than held-out images are: measure those beside it.
    """
    if np.shape(images)[1:] != np.shape(train_images)[1:]:
        raise ValueError(f"Unlike images: {np.shape(images)} and {np.shape(train_images)}.")
    x, train_images = _pixels(images).reshape(len(images), -1), _array(train_images)
    best, index = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
    for rows in _blocks(len(train_images)):
        distances = _squared(x, _pixels(train_images[rows]).reshape(-1, x.shape[1]))
        index = np.where(distances.min(1) < best, distances.argmin(1) + rows.start, index)
        best = np.minimum(distances.min(1), best)
    # once more without the cancellation of the fast formula, so that a copy has distance 0
    return np.linalg.norm(x - _pixels(train_images[index]).reshape(x.shape), axis=1), index


def parzen(samples, test, sigma):
    """Mean log-density, in nats, of test (m, ...) under Gaussians of sd sigma at samples (n, ...).

    Several sigmas give an array. To be avoided, Theis et al. (2016): k-means centroids beat images.
    """
    arrays = [_array(x).reshape(len(x), -1) for x in (samples, test)]
    samples, test = _sets(*(x / 255 if x.dtype == np.uint8 else x for x in arrays))
    variances, (n, d), total = np.square(np.atleast_1d(sigma)), samples.shape, 0
    if not np.min(sigma) > 0:
        raise ValueError("The sigma of a Parzen window must be greater than 0.")
    for rows in _blocks(len(test)):
        distances = torch.from_numpy(_squared(test[rows], samples))
        total += np.array([(distances / (-2 * v)).logsumexp(1).sum() for v in variances])
    values = total / len(test) - np.log(n) - d / 2 * np.log(2 * np.pi * variances)
    return values if np.ndim(sigma) else float(values[0])


def parzen_sigma(samples, validation, sigmas=None):
    """The sigma, of those given or of 21 from 0.01 to 1, with the highest validation `parzen`."""
    sigmas = np.geomspace(0.01, 1, 21) if sigmas is None else np.asarray(sigmas)
    return float(sigmas[parzen(samples, validation, sigmas).argmax()])


@functools.lru_cache
def _classifier(dataset):
    """The frozen classifier and the shape (C, H, W) of its images."""
    if dataset not in CLASSIFIERS:
        raise ValueError(f"{dataset!r} has no frozen classifier, as {', '.join(CLASSIFIERS)} have.")
    tensors, meta = store.load(store.artefact(CLASSIFIERS[dataset]))
    config = meta["config"]["model"]
    net = nets.Classifier(**config)
    net.load_state_dict(tensors)  # float16 in the file, float32 in the network
    return net.eval(), (config["channels"], config["size"], config["size"])


def _array(x):
    return x.detach().cpu().numpy() if torch.is_tensor(x) else np.asarray(x)


def _pixels(images):
    """uint8, or float in [0, 1], as float64 in [0, 1]."""
    x = _array(images)
    if x.dtype == np.uint8:
        return x / 255
    if x.dtype.kind != "f" or not (x.min() >= 0 and x.max() <= 1):  # NaN fails both comparisons
        found = f"{x.dtype} from {x.min()} to {x.max()}"
        raise ValueError(f"Expected images uint8, or float in [0, 1], not {found}.")
    return x.astype(np.float64)


def _sets(*sets):
    """Sets of vectors as float64 (n, d) with one d, all finite."""
    sets = [_array(x).astype(np.float64) for x in sets]
    shapes = [x.shape for x in sets]
    if any(x.ndim != 2 or not x.size for x in sets) or len({x.shape[1] for x in sets}) > 1:
        raise ValueError(f"Expected sets (n, d) with the same d, not shapes {shapes}.")
    if not all(np.isfinite(x).all() for x in sets):
        raise ValueError(f"NaN or infinite values in the sets of shapes {shapes}.")
    return sets


def _blocks(n, size=1000):
    return [slice(start, start + size) for start in range(0, n, size)]


def _squared(x, y):
    """Squared Euclidean distances: (n, d), (m, d) -> (n, m)."""
    distances = (x * x).sum(1)[:, None] - 2 * (x @ y.T) + (y * y).sum(1)
    return np.maximum(distances, 0, out=distances)


def _root(s):
    values, vectors = np.linalg.eigh(s)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def _mmd(a, b, kernel):
    """Unbiased squared MMD, Gretton et al. (2012), eq. 3: no point is paired with itself."""

    def mean(x, y, same):
        blocks = ((kernel(x[rows], y), rows.start) for rows in _blocks(len(x)))
        total = sum(k.sum() - same * np.trace(k, start) for k, start in blocks)
        return total / (len(x) * (len(y) - same))

    return float(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))
