"""``python -m hsfusion``: the command ``hsfusion``, where its script is not on the path."""

from hsfusion.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
