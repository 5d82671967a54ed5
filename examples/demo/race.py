"""The dense network and the results timed in one process: `python -m examples.demo.race ...`.

    race ARCHITECTURE WEIGHTS EXAMPLE THREADS NAME=RESULT NAME=RESULT

Prints one JSON object: for every network the spread of its latency, for every result the ratio to
the dense network, and the ratio of the second result to the first, each paired within the rounds.
"""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path

from torch import nn

from compress.architectures import from_weights
from compress.load import read_safetensors
from search.measurement import race

SECONDS = 6.0


def load(result: Path) -> nn.Module:
    """The network of an unpacked result, by the loader that came with it."""
    spec = importlib.util.spec_from_file_location("shipped_loader", result / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.load(result)
    return network


def main() -> None:
    """Race what the command line names."""
    architecture, weights, example, threads, *named = sys.argv[1:]
    results = {name: load(Path(path)) for name, _, path in (item.partition("=") for item in named)}
    inputs = read_safetensors(example)["images"]
    dense = from_weights(architecture, Path(weights))
    found = race({"dense": dense, **results}, inputs, threads=int(threads), seconds=SECONDS)
    first, second = results
    # The reference of a race is named dense; here it is the first result.
    duel = race(
        {"dense": results[first], second: results[second]},
        inputs,
        threads=int(threads),
        seconds=SECONDS,
        layouts={"dense": found.layouts[first], second: found.layouts[second]},
    )
    document = asdict(found) | {"duel": asdict(duel.ratios[second])}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
