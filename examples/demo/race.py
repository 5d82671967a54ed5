"""The dense network and the results timed in one process, without the service:

    python -m examples.demo.race ARCHITECTURE WEIGHTS ARRAYS BATCH THREADS NAME=RESULT NAME=RESULT

Prints one JSON object: the Race against the dense network, `duel`, the ratio of the second result
to the first, paired within the rounds, `as_it_comes`, the ratios before freed memory was kept, and
how many images of ARRAYS the dense network gets right.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from compress.architectures import from_weights
from compress.load import load, read_safetensors
from search.measurement import race
from search.runtimes.eager import Eager

SECONDS = 6.0


def main() -> None:
    """Race what the command line names."""
    architecture, weights, arrays_path, batch, threads, *named = sys.argv[1:]
    results = {name: load(path) for name, _, path in (item.partition("=") for item in named)}
    arrays = read_safetensors(arrays_path)
    example = arrays["images"][: int(batch)]
    dense = from_weights(architecture, Path(weights))
    networks, runtime = {"dense": dense, **results}, Eager(int(threads))
    as_it_comes = race(networks, example, runtime=runtime, seconds=SECONDS / 2, keep_freed=False)
    found = race(networks, example, runtime=runtime, seconds=SECONDS)
    first, second = results
    # The reference of a race is named dense; here it is the first result.
    duel = race(
        {"dense": results[first], second: results[second]},
        example,
        runtime=runtime,
        seconds=SECONDS,
    )
    with torch.inference_mode():
        right = int((dense(arrays["images"]).argmax(1) == arrays["labels"]).sum())
    document = asdict(found) | {
        "duel": asdict(duel.ratios[second]),
        "as_it_comes": asdict(as_it_comes)["ratios"],
        "dense_right": right,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
