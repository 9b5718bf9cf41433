"""``rrpo COMMAND ...``: every command of the four packages by one name. ``rrpo run`` is ``python -m ablations.run``, and so on.

Commands are named by their modules as text and imported when they are asked for, so that none pays for another.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """One sub-command."""

    module: str
    """Module whose ``main()`` is run."""
    topic: str
    """Heading in the help."""
    text: str
    """One line of help."""


COMMANDS: dict[str, Command] = {
    "run": Command(
        "ablations.run", "Compare arms", "run a grid's missing cells, tracked in MLflow (--plan: only say what)"
    ),
    "arms": Command("ablations.arms", "Compare arms", "what each arm is: equation, source, knobs, off values"),
    "status": Command("ablations.status", "Compare arms", "every cell, how far it is, where its log lies"),
    "report": Command("reports.run", "Compare arms", "write tables, figures and the page of a grid, from MLflow alone"),
    "transfer": Command(
        "ablations.transfer", "Compare arms", "what each arm's reward model says of every arm's samples"
    ),
    "guidance": Command(
        "ablations.guidance", "Compare arms", "how guided decoding answers to its knobs, of grid guidance"
    ),
    "gradients": Command(
        "ablations.gradients", "Compare arms", "DiffRO's gradient against the policy gradient's: variance, bias, gain"
    ),
    "compare": Command("reports.compare", "Compare arms", "two grids side by side"),
    "results": Command(
        "reports.results", "Compare arms", "paste the answer into README and docs, or check that it is current"
    ),
    "train": Command("rrpo.__main__", "One cell", "train one arm on one seed, without MLflow"),
    "reproduce": Command("ablations.reproduce", "One cell", "build a recorded cell once more and compare the numbers"),
    "study": Command("studies.run", "Search", "search the components' strengths with Optuna"),
    "listen": Command("reports.listen", "Listening test", "export a listening test, and import what listeners say"),
    "corpus": Command("rrpo.corpus.__main__", "Your own speech", "make manifests of a corpus of your own"),
    "cosyvoice": Command(
        "rrpo.cosyvoice.__main__", "Your own speech", "optimise CosyVoice2's language model on tokens"
    ),
    "validate": Command("ablations.validate", "World and regime", "is the simulated world worth measuring in?"),
    "regime": Command("ablations.regime", "World and regime", "measure one step of the choice of the regime"),
    "pilot": Command(
        "ablations.pilot", "World and regime", "the spread over development seeds, and the seeds that it asks for"
    ),
    "world": Command("ablations.world", "World and regime", "bring the installed world up to date, or check it"),
}
"""By name, topic by topic."""
EXAMPLES = ("rrpo run --grid loo --seeds 3 --plan", "rrpo report --grid loo --runs-dir runs")


def main() -> None:
    """Entry point of the console script ``rrpo``."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        fix = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(COMMANDS)}"
        print(f"error: there is no command of that name\n  got: {name}\n  fix: {fix}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"rrpo {name}", *arguments]
    importlib.import_module(COMMANDS[name].module).main()


def usage() -> str:
    """The help: every command under its topic, and two examples."""
    lines = ["Usage: rrpo COMMAND [OPTIONS]    (rrpo COMMAND --help says more)"]
    for topic in dict.fromkeys(command.topic for command in COMMANDS.values()):
        own = [(name, command.text) for name, command in COMMANDS.items() if command.topic == topic]
        lines += ["", f"{topic}:", *(f"  {name:<10} {text}" for name, text in own)]
    return "\n".join([*lines, "", "Examples:", *(f"  {line}" for line in EXAMPLES)])
