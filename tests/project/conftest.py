"""The chapters, for every test about notebooks."""

import pytest
from notebook_files import ROOT, chapters, notebooks, read


@pytest.fixture(params=sorted({*chapters(), *(path.stem for path in notebooks())}))
def chapter_path(request):
    """The file of one chapter of _toc.yml; one that should be there and is not is a failure."""
    path = ROOT / "notebooks" / f"{request.param}.ipynb"
    assert path.exists(), f"{path.name} is missing"
    return path


@pytest.fixture
def chapter(chapter_path):
    """One chapter as plain dicts."""
    return read(chapter_path)
