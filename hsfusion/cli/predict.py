"""``python -m hsfusion.cli.predict``: hsfusion predict, for several processes by torchrun."""

from hsfusion.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("predict"))
