"""Placeholders of figures, for tests that are not on figures: to draw them takes most of the time of a small run."""

from pathlib import Path

from matplotlib.figure import Figure

_CONTENT = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"/>\n',
    "png": bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
        "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
    ),
}


def saving(kind=None):
    """What saves figures of a kind (png, svg), and placeholders for all others, in place of ``Figure.savefig``."""
    whole = Figure.savefig

    def save(self, file, *, format=None, **options):
        if (format or Path(file).suffix[1:]) == kind:
            whole(self, file, format=format, **options)
            return
        content = _CONTENT[format or Path(file).suffix[1:]]
        file.write(content) if hasattr(file, "write") else Path(file).write_bytes(content)

    return save
