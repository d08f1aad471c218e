"""The fit from sketches against exhaustive grid search over (B, S, Dmax, scale), head by head on both MiniLM models."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from common import MINILM_L3, MINILM_L6, Array, log, package_file, parser, publish, reuters, table, token_feeds, verdict

from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.fit import fit_heads, mean_kl
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.params import MAX_CLIP_DISTANCE, MAX_OFFSET, MAX_SLOPE, HeadParams
from hccs_onnx.reference import hccs

_MODELS = {"MiniLM L6": MINILM_L6, "MiniLM L3": MINILM_L3}
_ROW = 128  # the row length that the paper's bounds are taken at
_SPEED, _SKETCH_ERROR = 100.0, 0.01


@dataclass(frozen=True)
class Rows:
    """All rows of one head, laid end to end.

    Parameters
    ----------
    logits : list of ndarray
        Logits of each text, shape (query, key), float32.
    gap, mass : ndarray
        Row maximum minus logit in nats, and softmax, of every element.
    starts, length : ndarray
        Where each row begins, and its number of keys.
    negentropy : float
        Mean over rows of sum(p * log(p)).
    """

    logits: list[Array]
    gap: Array
    mass: Array
    starts: Array
    length: Array
    negentropy: float

    @classmethod
    def of(cls, logits: list[Array]) -> Rows:
        """Rows of one head."""
        gaps = [(one.max(axis=-1, keepdims=True) - one).astype(np.float64) for one in logits]
        mass = [np.exp(-gap) / np.exp(-gap).sum(axis=-1, keepdims=True) for gap in gaps]
        length = np.concatenate([np.full(gap.shape[0], gap.shape[1]) for gap in gaps])
        p = np.concatenate([one.ravel() for one in mass])
        negentropy = float((p * np.log(np.maximum(p, 1e-300))).sum() / length.size)
        starts = np.append(0, length.cumsum()[:-1])
        return cls(logits, np.concatenate([gap.ravel() for gap in gaps]), p, starts, length, negentropy)


@dataclass(frozen=True)
class HeadResult:
    """Fit and grid on one head.

    Parameters
    ----------
    node : str
        The Softmax.
    head : int
        Its head.
    rows : int
        Rows of logits.
    fit : HeadParams
        The fit's choice.
    fit_kl : float
        Its mean KL over all rows by the float operator itself, nats.
    sketch_kl : float
        What the sketch takes that for.
    grids : mapping of str to (HeadParams, float)
        The same for each grid.
    """

    node: str
    head: int
    rows: int
    fit: HeadParams
    fit_kl: float
    sketch_kl: float
    grids: Mapping[str, tuple[HeadParams, float]]

    def excess(self, grid: str) -> float:
        """By how much the fit's KL is above a grid's, as a share of it; negative where the fit is better."""
        return self.fit_kl / self.grids[grid][1] - 1

    @property
    def sketch_error(self) -> float:
        """Relative error of the sketch's KL."""
        return abs(self.sketch_kl / self.fit_kl - 1)


@dataclass(frozen=True)
class Timing:
    """CPU seconds, of one thread.

    Parameters
    ----------
    fit : float
        Sketching the logits and fitting, a head; averaged over all heads.
    candidate : float
        One candidate of the grid, from all rows; median over the heads that were searched plainly.
    """

    fit: float
    candidate: float


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "grid_search")
    arguments.add_argument("--texts", type=int, default=16, help="Reuters R8 training texts that give the logits")
    arguments.add_argument("--plain-heads", type=int, default=4, help="heads of each model to search plainly, for time")
    arguments.add_argument("--plain-candidates", type=int, default=1000, help="candidates of a plain search")
    options = arguments.parse_args()
    texts, _ = reuters("train", options.texts)
    grids = [paper_grid(), extended_grid()]
    compared = {name: _compare(name, grids, texts, options.plain_heads, options.plain_candidates) for name in _MODELS}
    heads = {name: results for name, (results, _) in compared.items()}
    timings = {name: timing for name, (_, timing) in compared.items()}
    candidates = {grid.title: grid.candidates for grid in grids}
    body = _report(heads, timings, candidates, options)
    data = {
        "candidates": candidates,
        "seconds": {name: asdict(timing) for name, timing in timings.items()},
        "heads": {name: [asdict(result) for result in results] for name, results in heads.items()},
    }
    publish(options.out, "Fit against grid search", body, data)


def _compare(
    name: str, grids: Sequence[Grid], texts: Sequence[str], plain_heads: int, plain_candidates: int
) -> tuple[list[HeadResult], Timing]:
    path = package_file(*_MODELS[name])
    results: list[HeadResult] = []
    fit_seconds = 0.0
    candidate_seconds: list[float] = []
    for item, logits in _logits(path, texts):
        start = time.process_time()
        sketch = Sketch.empty(item.heads or 1)
        for one in logits:
            sketch.add(one, masked=item.masked, self_attention=item.self_attention)
        fits = fit_heads(sketch)
        fit_seconds += time.process_time() - start
        own = mean_kl(sketch, fits)
        for head, fit in enumerate(fits):
            rows = Rows.of([one[0, head] for one in logits])
            if len(candidate_seconds) < plain_heads:
                candidate_seconds.append(plain_seconds(grids[-1], rows, plain_candidates))
            winners = {grid.title: search(grid, rows) for grid in grids}
            searched = {title: (winner, operator_kl(rows, winner)) for title, winner in winners.items()}
            results.append(
                HeadResult(item.node, head, rows.length.size, fit, operator_kl(rows, fit), own[head], searched)
            )
            log(f"{name}: {len(results)} heads, excess {[f'{results[-1].excess(grid.title):.5f}' for grid in grids]}")
    return results, Timing(fit_seconds / len(results), statistics.median(candidate_seconds))


def _logits(path: Path, texts: Sequence[str]) -> Iterator[tuple[AttentionSoftmax, list[Array]]]:
    """Each attention Softmax with its logits, one array (1, head, query, key) a text; no padding."""
    model = read_model(path)
    found = [item for item in find_attention(model, path.parent) if item.reason is None]
    session = load_session(with_outputs(model, [item.logits for item in found]), path)
    feeds = list(token_feeds(path, texts, batch=1))
    for item in found:
        yield item, [run(session, [item.logits], feed)[0] for feed in feeds]


def operator_kl(rows: Rows, params: HeadParams) -> float:
    """Mean KL(softmax || HCCS) over rows in nats, by the float operator's definition."""
    total = 0.0
    position = 0
    for one in rows.logits:
        y = hccs(one, np.float32, B=[params.B], S=[params.S], Dmax=[params.Dmax], scale=[params.scale], masked=True)
        y = y.astype(np.float64).ravel()
        p = rows.mass[position : position + y.size]
        position += y.size
        total -= float((p * np.log(np.maximum(y, 1e-300))).sum())
    return rows.negentropy + total / rows.length.size


@dataclass(frozen=True)
class Grid:
    """Candidates of a search.

    Parameters
    ----------
    title : str
        For the report.
    scales : tuple of float
        Sizes of a code in nats.
    quantiser : bool
        Whether to try the size that the head's int8 quantiser would have, too.
    pairs : mapping of int to ndarray
        For each clip distance the (B, S) to try, shape (pair, 2).
    """

    title: str
    scales: tuple[float, ...]
    quantiser: bool
    pairs: Mapping[int, Array]

    @property
    def candidates(self) -> int:
        """Number of (B, S, Dmax, scale)."""
        return (len(self.scales) + self.quantiser) * sum(len(pairs) for pairs in self.pairs.values())

    def scales_of(self, rows: Rows) -> tuple[float, ...]:
        """Sizes of a code for one head."""
        widest = max(float(np.abs(one).max()) for one in rows.logits)
        return (widest / 127, *self.scales) if self.quantiser else self.scales

    def sample(self, rows: Rows, count: int) -> list[HeadParams]:
        """Candidates drawn at random."""
        random = np.random.default_rng(0)
        chosen = []
        for _ in range(count):
            clip = int(random.choice(list(self.pairs)))
            B, S = random.choice(self.pairs[clip])
            chosen.append(HeadParams(int(B), int(S), clip, float(random.choice(self.scales_of(rows)))))
        return chosen


def paper_grid() -> Grid:
    """Every (B, S, Dmax) that the paper's bounds allow at row length 128: n*B <= 32767, n*(B - S*Dmax) >= 256.

    One of each S/B, on which alone probabilities depend.
    """
    B, S = np.meshgrid(np.arange(1, 32767 // _ROW + 1), np.arange(1, MAX_SLOPE + 1), indexing="ij")
    pairs = np.stack([B.ravel(), S.ravel()], axis=1)
    legal = {}
    for clip in range(1, MAX_CLIP_DISTANCE + 1):
        allowed = pairs[_ROW * (pairs[:, 0] - pairs[:, 1] * clip) >= 256]
        _, first = np.unique(allowed[:, 1] / allowed[:, 0], return_index=True)
        legal[clip] = allowed[first]
    return Grid("paper's bounds, complete", (), True, legal)


def extended_grid() -> Grid:
    """The extended profile's region: fine steps in scale (5 %) and score floor, some slopes and clip distances."""
    floors = np.unique(np.rint(np.geomspace(1, 16000, 64)).astype(int))
    pairs = {
        clip: np.array([(S * clip + floor, S) for S in (7, 31, MAX_SLOPE) for floor in floors])
        for clip in (31, 63, MAX_CLIP_DISTANCE)
    }
    legal = {clip: values[values[:, 0] <= MAX_OFFSET] for clip, values in pairs.items()}
    return Grid("extended bounds, fine steps", tuple(np.geomspace(0.01, 0.25, 64).tolist()), False, legal)


def plain_kl(rows: Rows, params: HeadParams) -> float:
    """KL of one candidate, straight from all rows: what a grid search does for each."""
    score = params.B - params.S * np.minimum(np.rint(rows.gap * (1 / params.scale)), params.Dmax)
    total = np.add.reduceat(score, rows.starts)
    cross = np.log(total).sum() - (rows.mass * np.log(score)).sum()
    return rows.negentropy + float(cross) / rows.length.size


def plain_seconds(grid: Grid, rows: Rows, count: int) -> float:
    """Seconds a candidate takes plainly, over `count` of the grid; a hundred are checked against the grouped sums."""
    chosen = grid.sample(rows, count)
    start = time.process_time()
    plain = [plain_kl(rows, params) for params in chosen]
    seconds = (time.process_time() - start) / count
    for params, kl in zip(chosen[:100], plain, strict=False):
        grouped = _grouped_kl(rows, params.scale, params.Dmax, np.array([[params.B, params.S]]))[0]
        if abs(grouped - kl) > 1e-9 * max(kl, 1.0):
            raise SystemExit(f"the two ways to compute KL disagree for {params}: {kl} and {grouped}")
    return seconds


def search(grid: Grid, rows: Rows) -> HeadParams:
    """The best of all candidates."""
    best, lowest = HeadParams(1, 0, 1), np.inf
    for scale in grid.scales_of(rows):
        for clip, pairs in grid.pairs.items():
            values = _grouped_kl(rows, scale, clip, pairs)
            winner = int(values.argmin())
            if values[winner] < lowest:
                lowest = float(values[winner])
                best = HeadParams(int(pairs[winner, 0]), int(pairs[winner, 1]), clip, scale)
    return best


def _grouped_kl(rows: Rows, scale: float, clip: int, pairs: Array) -> Array:
    """`plain_kl` for many (B, S) at once: the same sums over all rows, with equal terms taken together."""
    code = np.minimum(np.rint(rows.gap * (1 / scale)), clip)
    mass = np.bincount(code.astype(np.int64), rows.mass, clip + 1)
    steps = np.add.reduceat(code, rows.starts)
    B, S = pairs[:, :1].astype(np.float64), pairs[:, 1:].astype(np.float64)
    cross = -np.log(B - S * np.arange(clip + 1)) @ mass
    for start in range(0, len(pairs), 32):  # blocks that stay in cache
        part = slice(start, start + 32)
        cross[part] += np.log(B[part] * rows.length - S[part] * steps).sum(axis=1)
    result: Array = rows.negentropy + cross / rows.length.size
    return result


def _report(
    heads: Mapping[str, Sequence[HeadResult]],
    timings: Mapping[str, Timing],
    grids: Mapping[str, int],
    options: argparse.Namespace,
) -> str:
    """Markdown; `grids` are their titles and numbers of candidates."""
    smallest = max(_SPEED * timing.fit / timing.candidate for timing in timings.values())
    introduction = (
        "Calibration minimises mean KL(softmax || HCCS) over logit rows. Here the same logits, those of "
        f"{options.texts} Reuters R8 training texts cut at 128 tokens, go to the fit (sketches, then a search in their "
        "few numbers) and to grids whose every candidate is judged by all rows. KL is then taken from all rows by the "
        "float operator's definition, for both. *Paper's bounds* holds every legal (B, S, Dmax) at row length 128, in "
        "codes as large as the head's int8 quantiser makes them (largest logit / 127). *Extended bounds* holds B up "
        "to 32767 and a free code size, as the fit does, in steps of 5 % in code size and about 15 % in score floor: a "
        "harder opponent than the paper's."
    )
    timing = (
        "CPU time of one thread. Fit: sketching all rows and fitting. Grid: measured plainly, each candidate from all "
        f"rows, on {options.plain_candidates:,} random candidates on each of {options.plain_heads} heads of each "
        "model, and extrapolated to the whole grid. (For the table above the sums over rows were grouped, which gives "
        f"the same numbers sooner; checked.) The fit is {_SPEED:.0f} times faster than any grid of at least "
        f"{smallest:,.0f} candidates."
    )
    rows = _quality_rows(heads, grids)
    speed = ["model", "grid", "fit, s", "one candidate, ms", "grid, s", "ratio", f"needs >= {_SPEED:.0f}"]
    sections = [
        introduction,
        "## KL of the fit above the grid's",
        "Relative; negative means that the fit is better.",
        table(["model", "grid", "candidates", "mean", "worst head", "equal or better", ""], rows),
        "## Time per head",
        timing,
        table(speed, _speed_rows(timings, grids)),
        "## KL by the sketch against KL from all rows",
        "Relative error at the fit's parameters.",
        table(["model", "mean", "worst head", f"needs <= {100 * _SKETCH_ERROR:.0f} %"], _sketch_rows(heads)),
    ]
    return "\n\n".join(sections)


def _quality_rows(heads: Mapping[str, Sequence[HeadResult]], grids: Mapping[str, int]) -> Iterator[Sequence[str]]:
    for name, results in heads.items():
        for grid, candidates in grids.items():
            excess = [result.excess(grid) for result in results]
            better = sum(value <= 0 for value in excess)
            mean, worst = f"{100 * statistics.mean(excess):.2f} %", f"{100 * max(excess):+.3f} %"
            count = f"{better} of {len(excess)}"
            yield name, grid, f"{candidates:,}", mean, worst, count, verdict(better == len(excess))


def _speed_rows(timings: Mapping[str, Timing], grids: Mapping[str, int]) -> Iterator[Sequence[str]]:
    for name, timing in timings.items():
        for grid, candidates in grids.items():
            seconds = timing.candidate * candidates
            ratio = seconds / timing.fit
            numbers = (f"{timing.fit:.3f}", f"{1e3 * timing.candidate:.2f}", f"{seconds:,.0f}", f"{ratio:,.0f}")
            yield name, grid, *numbers, verdict(ratio >= _SPEED)


def _sketch_rows(heads: Mapping[str, Sequence[HeadResult]]) -> Iterator[Sequence[str]]:
    for name, results in heads.items():
        errors = [result.sketch_error for result in results]
        worst = max(errors)
        yield name, f"{100 * statistics.mean(errors):.3f} %", f"{100 * worst:.3f} %", verdict(worst <= _SKETCH_ERROR)


if __name__ == "__main__":
    main()
