"""A small encoder for a trained VAE: another q(z|x) for the same p(x|z).

Its ELBO and that of the VAE's own encoder bound the same log p(x) by Gaussian posteriors, so they
differ by amortisation alone. Cremer, Li & Duvenaud (2018), "Inference suboptimality in variational
autoencoders", arXiv:1801.03558. Small enough for a page, it encodes what a reader draws.
"""

from torch import nn

from gencore import evaluate, nets, vae

TERMS = vae.TERMS


class Model(nn.Module):
    """An encoder of its own size for a trained VAE `of`, whose decoder it keeps as it is."""

    def __init__(self, of, channels=1, size=28, widths=(16,), hidden=(64, 64)):
        super().__init__()
        # In a tuple, the VAE is no submodule: its weights are neither trained nor stored.
        self._of = (of.eval().requires_grad_(False),)
        self.latent_dim = of.latent_dim
        self.encoder = nets.Encoder(of.latent_dim, channels, size, widths, hidden=hidden)

    def _apply(self, function, recurse=True):
        self._of[0]._apply(function, recurse)  # to another device or type, both go together
        return super()._apply(function, recurse)

    @property
    def of(self):
        """The trained VAE."""
        return self._of[0]

    priors = property(lambda self: self.of.priors)
    decoder = property(lambda self: self.of.decoder)
    sigma = property(lambda self: self.of.sigma)
    likelihood = property(lambda self: self.of.likelihood)

    encode, infer = vae.Model.encode, vae.Model.infer

    def decode(self, z):
        """The VAE's mean image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.of.decode(z)

    def log_likelihood(self, x, z):
        """The VAE's log p(x|z) in nats, summed over pixels: (B,)."""
        return self.of.log_likelihood(x, z)


class Step(vae.Step):
    """One update of the encoder alone: maximise the ELBO. `step(batch) -> {loss, rec, kl}`."""

    finish = None  # the densities of the codes are the VAE's, which are published with it


def measure(model, dataset, n):
    """The bound and its parts, and errors of reconstructions; samples are those of the VAE."""
    return {
        **vae.bounds(model, dataset.test.images[:n]),
        **evaluate.pixel_errors(model, dataset),
        **evaluate.health(model, dataset),
    }
