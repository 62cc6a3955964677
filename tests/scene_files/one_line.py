"""The error contract, as the tests of the readers ask for it."""

import pytest

from hsfusion.errors import InputError
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import Window


def error_of(path, **options):
    """What opening and reading a file of 4 x 5 pixels says: one line that names file, expectation and fix."""
    with pytest.raises(InputError) as caught:
        open_cube_file(path, **options).read(Window(0, 0, 4, 5))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert "expected" in text
    assert "Fix:" in text
    return text
