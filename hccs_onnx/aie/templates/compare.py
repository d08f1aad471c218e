"""Compare what a simulator wrote with the reference: python3 compare.py NODE OUTPUT. Status 1 if they differ."""

import json
import sys
from pathlib import Path


def values(path, bits):
    """Numbers of a file, without time stamps and TLAST marks; those of 8 bits count the same written signed or not."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("T")]
    return [int(word) % (1 << bits) for line in lines for word in line.split()]


def main(node, output):
    """Compare NODE/data/golden_<tile>.txt with OUTPUT/y_<tile>.txt for every tile."""
    nodes = json.loads((Path(__file__).parent / "manifest.json").read_text())["nodes"]
    entry = next(entry for entry in nodes if entry["folder"] == Path(node).name)
    bits = {"uint8": 8, "int16": 16}[entry["output"]]
    tiles = len(entry["plan"]["tiles"])
    wrong = 0
    for tile in range(tiles):
        written = Path(output) / f"y_{tile}.txt"
        if not written.is_file():
            print(f"{written}: missing")
            wrong += 1
            continue
        expected, actual = values(Path(node) / "data" / f"golden_{tile}.txt", bits), values(written, bits)
        bad = [index for index, (want, have) in enumerate(zip(expected, actual)) if want != have]
        if bad or len(expected) != len(actual):
            where = f"first at {bad[0]}" if bad else f"{len(actual)} were written"
            print(f"{written}: {len(bad)} of {len(expected)} values differ, {where}")
            wrong += 1
    print(f"{node}: {tiles - wrong} of {tiles} tiles equal the reference")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
