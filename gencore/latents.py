"""Densities over codes: where a model's codes come from when it draws.

Each is a module with buffers, so that an artefact carries it: `sample(n, generator)` gives codes
(n, d), `log_prob(z)` their log-density in nats (n,). `fit(z)` makes one from codes (N, d).
"""

import math
import warnings

import torch
from torch import nn


def generator(seed, device="cpu"):
    """A torch.Generator on a device, with a checked seed: a whole number from 0 to 2^63 - 1."""
    if not whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"The seed is {seed!r}; it should be a whole number from 0 to 2^63 - 1.")
    return torch.Generator(device).manual_seed(int(seed))


def whole(value):
    """Whether a value is a whole number, numpy's and torch's included; True and False are none."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


class Normal(nn.Module):
    """N(0, I) in d dimensions: the prior of most models."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows the device

    def sample(self, n, generator=None):
        """n codes (n, d), drawn on the generator's device: the same codes wherever the model is."""
        return _randn((n, self.dim), generator, self.zero)

    def log_prob(self, z):
        """log N(z; 0, I) in nats: (n, d) -> (n,)."""
        return -0.5 * (z.square().sum(1) + self.dim * math.log(2 * math.pi))


class Gaussian(nn.Module):
    """One Gaussian with a full covariance, N(mean, L L^T)."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("tril", _packed(torch.eye(dim)))

    @property
    def chol(self):
        """L, the lower Cholesky factor of the covariance: (d, d)."""
        return _unpacked(self.tril, self.dim)

    @classmethod
    def fit(cls, z):
        """The maximum-likelihood Gaussian of codes z (N, d), N > d: their mean and covariance."""
        z = _checked(z)
        n, dim = z.shape
        if n <= dim:
            raise ValueError(f"A Gaussian in {dim} dimensions needs more codes than {n}.")
        fitted = cls(dim)
        fitted.mean.copy_(z.mean(0))
        cov = torch.atleast_2d(z.T.cov(correction=0))
        least = 1e-9 * cov.diagonal().max().clamp_min(1)  # where codes do not vary, it is singular
        fitted.tril.copy_(_packed(torch.linalg.cholesky(cov + least * torch.eye(len(cov)))))
        return fitted

    def sample(self, n, generator=None):
        """n codes (n, d)."""
        return self.mean + _randn((n, self.dim), generator, self.mean) @ self.chol.T

    def log_prob(self, z):
        """log N(z; mean, L L^T) in nats: (n, d) -> (n,)."""
        return _log_gaussian(z, self.mean, self.chol)


class Mixture(nn.Module):
    """A mixture of k Gaussians with full covariances, sum_k w_k N(m_k, L_k L_k^T)."""

    def __init__(self, dim, components=10):
        super().__init__()
        self.dim = dim
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("tril", _packed(torch.eye(dim)).repeat(components, 1))

    @classmethod
    def fit(cls, z, components=10, seed=0):
        """The mixture that scikit-learn's EM finds in codes z (N, d), or in at most 20,000 of them.

        The time of an iteration grows with d^2: up to d = 64 it takes at most 100, then 6,400 / d.
        Ghosh et al. (2020), arXiv:1903.12436, sample autoencoders in this way.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        z = _checked(z)
        most = min(100, max(10, 6400 // z.shape[1]))
        z = z[:: math.ceil(len(z) / 20_000)]  # of all parts: they may be sorted by class
        if len(z) < components:
            raise ValueError(
                f"A mixture of {components} needs at least as many codes, not {len(z)}."
            )
        em = GaussianMixture(components, random_state=seed, reg_covar=1e-5, max_iter=most)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            found = em.fit(z.numpy())  # the density after its last iteration is what is measured
        fitted = cls(z.shape[1], components)
        fitted.log_weights.copy_(torch.from_numpy(found.weights_).log())
        fitted.means.copy_(torch.from_numpy(found.means_))
        chols = torch.linalg.cholesky(torch.from_numpy(found.covariances_))
        fitted.tril.copy_(_packed(chols))
        return fitted

    def sample(self, n, generator=None):
        """n codes (n, d), in random order: any first part of them is a fair sample, too."""
        weights = self.log_weights.exp()
        if generator is not None:
            weights = weights.to(generator.device)
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        k = k.to(self.means.device)
        noise = _randn((n, self.dim), generator, self.means)
        codes = torch.empty_like(noise)
        for i in k.unique():  # one at a time: a factor for each code would not fit in memory
            rows = k == i
            codes[rows] = self.means[i] + noise[rows] @ _unpacked(self.tril[i], self.dim).T
        return codes

    def log_prob(self, z):
        """The log-density of the mixture in nats: (n, d) -> (n,)."""
        chols = _unpacked(self.tril, self.dim)
        parts = [_log_gaussian(z, m, L) for m, L in zip(self.means, chols, strict=True)]
        return (self.log_weights.log_softmax(0)[:, None] + torch.stack(parts)).logsumexp(0)


def prior_and_fits(dim):
    """N(0, I), and one Gaussian and a mixture of ten that `fit_all` fits to codes: a ModuleDict."""
    kinds = {"prior": Normal, "gaussian": Gaussian, "gmm": Mixture}
    return nn.ModuleDict({name: kind(dim) for name, kind in kinds.items()})


def fit_all(densities, z):
    """Fit each density of a ModuleDict that can be fitted to codes z (N, d), in place."""
    for density in densities.values():
        if hasattr(density, "fit"):
            density.load_state_dict(density.fit(z).state_dict())


def _checked(z):
    """Codes (N, d) as finite float64 on the CPU."""
    z = torch.as_tensor(z).detach().cpu().double()
    if z.ndim != 2 or not len(z) or not torch.isfinite(z).all():
        shape = tuple(z.shape)
        raise ValueError(f"A density is fitted to finite codes (N, d), not to shape {shape}.")
    return z


def _randn(shape, generator, like):
    """Standard normals from a generator, on the device and in the type of another tensor."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(like)


def _log_gaussian(z, mean, chol):
    standard = torch.linalg.solve_triangular(chol, (z - mean).T, upper=False)  # (d, n)
    log_det = chol.diagonal().log().sum()
    return -0.5 * (standard.square().sum(0) + len(mean) * math.log(2 * math.pi)) - log_det


# A triangle is kept without its zeros: ten factors of 200 x 200 are 0.4 MB in half precision.


def _packed(chol):
    """The lower triangle of (..., d, d) as (..., d (d + 1) / 2)."""
    rows, columns = torch.tril_indices(*chol.shape[-2:])
    return chol[..., rows, columns]


def _unpacked(tril, dim):
    """The matrix (..., d, d) of a packed lower triangle."""
    rows, columns = torch.tril_indices(dim, dim, device=tril.device)
    chol = tril.new_zeros(*tril.shape[:-1], dim, dim)
    chol[..., rows, columns] = tril
    return chol
