"""``hsfusion evidence`` from a checkout."""

from hsfusion.cli.main import run_command

raise SystemExit(run_command("evidence"))
