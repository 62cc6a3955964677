"""``python -m hsfusion``: the command ``hsfusion``, where its script is not on the path."""

import os

from hsfusion.cli.main import COMMAND, main, run_command

if __name__ == "__main__":
    # the further processes of a distributed run get the words after the command
    further = COMMAND in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    raise SystemExit(run_command(os.environ[COMMAND]) if further else main())
