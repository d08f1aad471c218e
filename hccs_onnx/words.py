"""The words for what calibrate, verify and report measure, so that all three say the same."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A quantity that users meet.

    Parameters
    ----------
    heading : str
        Above a column, with the unit.
    meaning : str
        One sentence without a full stop.

    Examples
    --------
    >>> CLIP_RANGE.heading
    'clip range (nats)'
    """

    heading: str
    meaning: str


NODE = Word("Softmax", "the node in the original model")
LONGEST = Word("longest row", "most keys that a row had in calibration")
OFFSET = Word("B", "score of the row's maximum")
SLOPE = Word("S", "score lost per step of the gap")
CLIP_DISTANCE = Word("Dmax", "steps beyond which the score falls no further")
CLIP_RANGE = Word("clip range (nats)", "Dmax times the size of a step: gaps beyond it all get the floor score")
FLOOR = Word("floor", "score beyond the clip range, B - S*Dmax")
KL = Word("KL (nats)", "KL(Softmax || HCCS) of a row, mean over rows: how far a head is from its Softmax")
MEAN_KL = Word("mean KL (nats)", "KL of a head, mean over heads")
WORST_KL = Word("worst KL (nats)", "the same of the head that has most")
DEFICIT = Word("row-mass deficit", "1 - the sum of a row's probabilities, mean over rows: what the reciprocal loses")
MEAN_DEFICIT = Word("mean row-mass deficit", "row-mass deficit of a head, mean over heads")
WORST_DEFICIT = Word("worst row-mass deficit", "the same of the head that is farthest from 0")
KEYS = Word("keys", "over how many a row spreads its probability: exp(mean entropy)")
MASKED = Word("masked", "whether masked keys get probability 0; without it they would keep the floor score")
MEAN_COSINE = Word("mean cosine", "cosine of an output's vectors, original to rewritten, mean over all")
WORST_COSINE = Word("worst cosine", "the same of the vector that agrees least")
MEAN_DIFFERENCE = Word("mean difference", "absolute, in the output's units, mean over all elements")
LARGEST_DIFFERENCE = Word("largest difference", "the same of the element that differs most")
AGREEMENT = Word("argmax agreement", "share of samples whose highest class score is that of the same class")
