"""The chapters, for every test about notebooks."""

import pytest
from notebook_files import ROOT, notebooks, read

EXPECTED = [
    "01-images-and-latents",
    "02-measuring-generated-images",
    "03-variational-autoencoder",
    "04-latent-dimension",
    "05-vae-on-cifar10",
]


@pytest.fixture(params=sorted({*EXPECTED, *(path.stem for path in notebooks())}))
def chapter_path(request):
    """The file of one chapter; a chapter that should be there and is not is a failure."""
    path = ROOT / "notebooks" / f"{request.param}.ipynb"
    assert path.exists(), f"{path.name} is missing"
    return path


@pytest.fixture
def chapter(chapter_path):
    """One chapter as plain dicts."""
    return read(chapter_path)
