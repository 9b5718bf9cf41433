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
    topic: str
    """Heading in the help text."""
    text: str
    """One line of help."""


COMMANDS: dict[str, Command] = {
    "run": Command(
        "ablations.run", "Compare arms", "run a grid's missing cells and record them in MLflow (--plan: dry run)"
    ),
    "arms": Command(
        "ablations.arms", "Compare arms", "describe each arm: equation, source, hyperparameters, off values"
    ),
    "status": Command("ablations.status", "Compare arms", "show the state, progress and log of every cell"),
    "report": Command("reports.run", "Compare arms", "write a grid's tables, figures and page, from MLflow alone"),
    "transfer": Command(
        "ablations.transfer", "Compare arms", "evaluate every arm's samples with every arm's reward model"
    ),
    "gradients": Command(
        "ablations.gradients",
        "Compare arms",
        "compare DiffRO's gradient with the policy gradient: variance, bias, gain",
    ),
    "compare": Command("reports.compare", "Compare arms", "compare two grids side by side"),
    "results": Command(
        "reports.results", "Compare arms", "insert the results into README and docs, or check that they are current"
    ),
    "train": Command("rrpo.__main__", "One cell", "train one arm on one seed, without MLflow"),
    "reproduce": Command("ablations.reproduce", "One cell", "build a recorded cell again and compare the numbers"),
    "study": Command("studies.run", "Search", "search hyperparameters with Optuna"),
    "listen": Command("reports.listen", "Listening test", "export a listening test, and import its ratings"),
    "corpus": Command("rrpo.corpus.__main__", "Your own speech", "make manifests of your own corpus"),
    "cosyvoice": Command(
        "rrpo.cosyvoice.__main__", "Your own speech", "optimize CosyVoice2's language model on tokens"
    ),
    "validate": Command("ablations.validate", "World and regime", "validate the simulated world and print its card"),
    "regime": Command("ablations.regime", "World and regime", "measure one step of choosing the training regime"),
    "pilot": Command(
        "ablations.pilot", "World and regime", "measure the spread over development seeds and the seeds it requires"
    ),
    "world": Command("ablations.world", "World and regime", "update the installed world, or check that it is current"),
}
"""Name -> command, grouped by topic."""
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
    for topic in dict.fromkeys(command.topic for command in COMMANDS.values()):
        commands = [(name, command.text) for name, command in COMMANDS.items() if command.topic == topic]
        lines += ["", f"{topic}:", *(f"  {name:<10} {text}" for name, text in commands)]
    return "\n".join([*lines, "", "Examples:", *(f"  {line}" for line in EXAMPLES)])


if __name__ == "__main__":
    main()
