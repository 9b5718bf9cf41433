"""The console script ``rrpo COMMAND ...`` for the commands of all four packages; ``rrpo run`` is ``python -m ablations.run``.

Each command's module is imported only when the command runs, so that no command pays for the imports of another.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """One sub-command."""

    module: str
    """Name of the module whose ``main()`` runs the command."""
    text: str
    """One line of help."""


TOPICS: dict[str, dict[str, Command]] = {
    "Compare arms": {
        "run": Command("ablations.run", "run a grid's missing cells and record them in MLflow (--plan: dry run)"),
        "arms": Command("ablations.arms", "describe each arm: equation, source, hyperparameters, off values"),
        "status": Command("ablations.status", "show the state, progress and log of every cell"),
        "archive": Command("ablations.archive", "save a grid's runs as small files, and restore them elsewhere"),
        "report": Command("reports.run", "write a grid's tables, figures and page, from MLflow alone"),
        "transfer": Command("ablations.transfer", "evaluate every arm's samples with every arm's reward model"),
        "gradients": Command("ablations.gradients", "compare DiffRO's gradient with the policy gradient"),
        "compare": Command("reports.compare", "compare two grids side by side"),
        "results": Command("reports.results", "insert the results into README and docs, or check them"),
    },
    "One cell": {
        "train": Command("rrpo.__main__", "train one arm on one seed, without MLflow"),
        "reproduce": Command("ablations.reproduce", "build a recorded cell again and compare the numbers"),
    },
    "Search": {"study": Command("studies.run", "search hyperparameters with Optuna")},
    "Listening test": {"listen": Command("reports.listen", "export a listening test, and import its ratings")},
    "Your own speech": {
        "corpus": Command("rrpo.corpus.__main__", "make manifests of your own corpus"),
        "cosyvoice": Command("rrpo.cosyvoice.__main__", "optimize CosyVoice2's language model on tokens"),
    },
    "World and regime": {
        "validate": Command("ablations.validate", "validate the simulated world and print its card"),
        "regime": Command("ablations.regime", "measure one step of choosing the training regime"),
        "pilot": Command("ablations.pilot", "measure the spread over development seeds and the seeds it requires"),
        "world": Command("ablations.world", "update the installed world, or check that it is current"),
    },
}
"""Heading in the help text -> its commands by name."""
COMMANDS = {name: command for commands in TOPICS.values() for name, command in commands.items()}
EXAMPLES = ("rrpo run --grid loo --seeds 3 --plan", "rrpo report --grid loo --runs-dir runs")


def main() -> None:
    """Entry point of the console script ``rrpo``."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        matches = difflib.get_close_matches(name, COMMANDS, 1)
        fix = f"did you mean {matches[0]}?" if matches else f"use one of: {', '.join(COMMANDS)}"
        print(f"error: there is no command with that name\n  got: {name}\n  fix: {fix}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"rrpo {name}", *arguments]
    importlib.import_module(COMMANDS[name].module).main()


def usage() -> str:
    """Return the help text: every command under its topic, and two examples."""
    lines = ["Usage: rrpo COMMAND [OPTIONS]    (for a command's options: rrpo COMMAND --help)"]
    for topic, commands in TOPICS.items():
        lines += ["", f"{topic}:", *(f"  {name:<10} {command.text}" for name, command in commands.items())]
    return "\n".join([*lines, "", "Examples:", *(f"  {line}" for line in EXAMPLES)])


if __name__ == "__main__":
    main()
