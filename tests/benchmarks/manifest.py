"""Benchmark of reading long manifests: ``python tests/benchmarks/manifest.py [LINES ...]``.

Writes manifests of synthetic lines (24 phones each, no audio) and prints CPU time and peak memory of reading them one line at a
time, as importing and checking do, and of keeping all records, as training does. Peaks only grow, so give sizes in ascending
order.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rrpo.corpus.manifest import Manifest, read_manifest

PHONES = ["tʃ", "iː", "ʃ", "aʊ", "ŋ", "dʒ", "ɔː", "θ"]


def write(path: Path, lines: int) -> None:
    """Write the manifest."""
    with path.open("w", encoding="utf-8") as out:
        for i in range(lines):
            row = {"audio": f"wav/{i:07d}.wav", "text": "the cat sat on the mat", "speaker": f"s{i % 200}"}
            row |= {"language": "en", "emotion": "happy", "sha256": f"{i:032x}"}
            out.write(json.dumps({**row, "phones": PHONES * 3}, ensure_ascii=False) + "\n")


def peak() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Parse the options and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--keep", action="store_true", help="also keep all records")
    options = parser.parse_args()
    for lines in options.lines:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "manifest.jsonl"
            write(path, lines)
            before, begun = peak(), time.process_time()
            found = sum(1 for _ in Manifest(path=path, emotions=None))
            took = time.process_time() - begun
            print(
                f"{found:>9,} lines: {found / took:,.0f} per CPU second, peak {before:.0f} -> {peak():.0f} MiB",
                flush=True,
            )
            if options.keep:
                kept = read_manifest(path, None)
                print(f"{len(kept):>9,} records kept: peak {peak():.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
