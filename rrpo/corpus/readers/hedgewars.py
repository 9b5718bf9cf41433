"""Debian's ``hedgewars-data``: 839 barks of 15 voices in ``Sounds/voices/<voice>/<Bark>.ogg``; real, acted human speech.

    apt-get download hedgewars-data && dpkg -x hedgewars-data_*.deb hedgewars
    python -m rrpo.corpus import hedgewars hedgewars/usr/share/games/hedgewars/Data/Sounds/voices --out barks.jsonl

The sounds are under the GNU Free Documentation License 1.3 and are not part of this package. A file is named after the event in
the game that plays it (*Traitor*, *Ouch*, *Victory*). Nobody annotated emotions, so labels derived from these names are weak.
The voice *Robot* is electronically distorted; *Singer* sings. A voice is named ``Name_LANGUAGE``, or ``Name`` for
English.
"""

from __future__ import annotations

from rrpo.corpus.readers.base import READERS
from rrpo.corpus.readers.named import NamedFiles

CLASSES = {
    "angry": (
        *("Comeonthen", "Coward", "Cutitout", "Gonnagetyou", "Illgetyou", "Justyouwait", "Leavemealone", "Nutter"),
        *("Revenge", "Stupid", "Traitor", "Watchit", "Youllregretthat"),
    ),
    "happy": ("Amazing", "Brilliant", "Enemydown", "Excellent", "Firstblood", "Flawless", "Laugh", "Victory"),
    "fearful": ("Incoming", "Nooo", "Runaway", "Takecover"),
    "dismayed": ("Bugger", "Drat", "Missed", "Ohdear", "Oops", "Uh-oh", "Whatthe"),
    "pained": ("Ooff", "Ouch", "Ow", "PoisonMoan"),
}
"""Class -> the barks assigned to it by their names, before anything was trained. The renderer does not support *dismayed* and
*pained*; greetings, orders and grunts of effort have no class."""
READERS.register(
    "hedgewars",
    NamedFiles(
        r"(?P<speaker>[^/_]*(?:_(?P<language>[^/]*))?)/(?P<emotion>[A-Z][A-Za-z-]*)\d*",
        "its name is not that of a bark, such as Ow1",
        labels={bark: name for name, barks in CLASSES.items() for bark in barks},
        language="en",
    ),
)
