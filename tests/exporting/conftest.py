"""A network, and its files in several forms, each written once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from exported_files import about, images, seasoned

from tutelage.exporting import Form, make
from tutelage.models.network import Network


@pytest.fixture(scope="session")
def network() -> Network:
    return seasoned()


@pytest.fixture(scope="session")
def written(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Form], Path]:
    """The file of a form."""
    folder = tmp_path_factory.mktemp("files")

    def write(form: Form) -> Path:
        path = folder / form.name / form.file
        if not path.exists():
            path.parent.mkdir()
            path.write_bytes(make(network, form, about(form), [images(32, 1), images(32, 2)]))
        return path

    return write
