"""The page of `softmax.py`: tables of what was measured, and the targets against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import table, verdict
from softmax_contestants import BOUND, FUSED, IDENTITIES, RUN, SOFTMAX, UNFUSED, Shape, hccs_name
from softmax_kernels import KernelRate
from softmax_peers import LITERT_FLOAT, LITERT_INT8, OPENVINO, TORCH
from softmax_timing import TURN_S, Results, Timing

WAYS = {RUN: "session.run", BOUND: "IOBinding"}
TARGET_SHAPES = {"[1,12,128,128]": 3.7, "[8,12,64,64]": 4.8, "[1,12,512,512]": 5.0}  # uint8 against float Softmax
KERNEL_TARGETS = {128: 9.0, 512: 11.0}  # 10^9 elements a second
SCALING_SHAPE = "[1,12,512,512]"
RAGGED = (49, 197, 577)
UINT8 = ("norm", "div")


@dataclass(frozen=True)
class Target:
    """A target for sessions.

    Parameters
    ----------
    claim, shape : str
        What it is about.
    wanted : float
        A ratio to reach; with `at_most`, one to stay below.
    run, bound : float
        The ratio with plain ``session.run`` and with everything bound.
    beside : float, optional
        What to hold it against, with plain ``session.run``: the ratio of Identity on the output's type, which nothing
        can be much above, or how much float Softmax gains by threads.
    """

    claim: str
    shape: str
    wanted: float
    run: float
    bound: float
    beside: float | None = None
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether a ratio is good enough."""
        return value <= self.wanted if self.at_most else value >= self.wanted

    def json(self) -> dict[str, Any]:
        """For the results file."""
        return {**asdict(self), "run_met": self.met(self.run), "bound_met": self.met(self.bound)}

    def row(self) -> tuple[str, ...]:
        """A line of the table."""
        return (
            self.claim,
            self.shape,
            f"{'<=' if self.at_most else '>='} {self.wanted:g}",
            f"{self.run:.2f}",
            f"{self.beside:.2f}" if self.beside else "",
            verdict(self.met(self.run)),
            f"{self.bound:.2f}",
            verdict(self.met(self.bound)),
        )


@dataclass(frozen=True)
class KernelTarget:
    """A target for kernels alone; `measured` and `wanted` in the unit that the claim names."""

    claim: str
    n: int
    wanted: float
    measured: float
    share_of_limit: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.measured >= self.wanted

    def json(self) -> dict[str, Any]:
        """For the results file."""
        return {**asdict(self), "met": self.met}

    def row(self) -> tuple[str, ...]:
        """A line of the table."""
        return (
            self.claim,
            str(self.n),
            f">= {self.wanted:g}",
            f"{self.measured:.2f}",
            f"{self.share_of_limit:.0%}",
            verdict(self.met),
        )


class Report:
    """Markdown and targets of a run.

    Parameters
    ----------
    results : Results
        Sessions.
    rates : list of KernelRate
        Kernels alone.
    shapes : sequence of Shape
        In the order to show.
    kernel : str
        Set of kernels that the sessions used.
    """

    def __init__(self, results: Results, rates: list[KernelRate], shapes: Sequence[Shape], kernel: str) -> None:
        self.results, self.rates, self.shapes, self.kernel = results, rates, shapes, kernel
        self.threads = sorted({timing.threads for timing in results.timings})
        self._timings = {(t.shape, t.threads, t.contestant, t.way): t for t in results.timings}
        self._scaling = {(t.threads, t.contestant, t.way): t.median_s for t in results.scaling}
        self._rates = {(rate.kernel, rate.types, rate.form, rate.n): rate for rate in rates}

    def markdown(self) -> str:
        """The page, less its title."""
        parts = [self._method()]
        for count in self.threads:
            parts += [f"## Sessions, threads: {count}", *(self._inside(count, way) for way in WAYS), self._peers(count)]
        if self.rates:
            parts += ["## Kernels alone", self._kernels()]
        return "\n\n".join([*parts, "## Targets", *self._target_tables()])

    def targets(self) -> list[dict[str, Any]]:
        """The targets for the results file."""
        every: tuple[KernelTarget | Target, ...] = (
            *self._kernel_targets(),
            *self._session_targets(),
            *self._thread_targets(),
        )
        return [target.json() for target in every]

    def _method(self) -> str:
        rounds = [timing.rounds for timing in self.results.timings]
        spreads = sorted((t.upper_s - t.lower_s) / t.median_s for t in self.results.timings)
        chain, apart = self.results.graphs[FUSED], self.results.graphs[UNFUSED]
        copies = (
            "copies each output into a NumPy array" if self.results.run_copies else "hands over its output uncopied"
        )
        lines = [
            f"One operator in one session, kernels of HCCS: {self.kernel}. Contestants take turns, {min(rounds)} to "
            f"{max(rounds)} rounds. In a turn a fresh session is made, warmed up, called back to back for "
            f"{TURN_S * 1e3:g} ms (its data is then in cache as far as it fits) and closed; the mean of a call is one "
            "measurement. Shown are medians; quartiles are in the JSON file, and half of them lie within "
            f"{spreads[len(spreads) // 2]:.0%} of their median, nine tenths within "
            f"{spreads[len(spreads) * 9 // 10]:.0%}.",
            "All runs of fewer threads come first. ONNX Runtime's threads spin, as they do by default "
            "(session.intra_op.allow_spinning=1); a turn on more than one thread waits until threads left behind by "
            "the last one have gone to sleep.",
            f"Plain `session.run` {copies}; with IOBinding input and output are bound once, to memory allocated "
            "before. So do OpenVINO, PyTorch and LiteRT here: compare them with IOBinding.",
            f"ONNX Runtime ran its int8 chain DequantizeLinear-Softmax-QuantizeLinear as {chain}, as its optimised "
            f"graph shows; with session.disable_quant_qdq=1 as {apart}.",
            f"Before it was timed, every contestant's output was checked on the data in use ({self.results.checked} "
            "outputs): HCCS bit for bit against `hccs_onnx.hccs`, float Softmax within 1e-6, int8 Softmax within 1 "
            "code.",
        ]
        return "\n\n".join([*lines, *(f"Skipped: {what}." for what in self.results.skipped)])

    def _inside(self, threads: int, way: str) -> str:
        names = [FUSED, UNFUSED, *(hccs_name("uint8", form, masked) for form in UINT8 for masked in (False, True))]
        names += [hccs_name("int16", form) for form in UINT8]
        names += [hccs_name("float32", masked=masked) for masked in (False, True)]
        names += [*IDENTITIES.values()]
        rows = []
        for shape in self.shapes:
            reference = self._timing(shape.label, threads, SOFTMAX, way)
            ratios = [reference.median_s / self._seconds(shape.label, threads, name, way) for name in names]
            rows.append((shape.title, _microseconds(reference), *(f"{ratio:.2f}" for ratio in ratios)))
        caption = f"{WAYS[way]}: float Softmax in µs (quartiles); the others by how many times faster than it they are."
        return f"{caption}\n\n{table(['shape', 'Softmax, µs', *names], rows)}"

    def _peers(self, threads: int) -> str:
        names = [TORCH, OPENVINO, LITERT_FLOAT, LITERT_INT8]
        timed = {timing.contestant for timing in self.results.timings}
        names = [SOFTMAX, *(name for name in names if name in timed), hccs_name("float32"), hccs_name("uint8", "norm")]
        rows = [
            (shape.title, *(_microseconds(self._timing(shape.label, threads, name, BOUND)) for name in names))
            for shape in self.shapes
        ]
        return f"Other runtimes, everything bound, µs (quartiles).\n\n{table(['shape', *names], rows)}"

    def _kernels(self) -> str:
        lengths = sorted({rate.n for rate in self.rates})
        parts = []
        for kernel in dict.fromkeys(rate.kernel for rate in self.rates):
            forms = dict.fromkeys((rate.types, rate.form) for rate in self.rates if rate.kernel == kernel)
            rows = [
                (f"{types} {form}", *(_share(self._rates.get((kernel, types, form, n))) for n in lengths))
                for types, form in forms
            ]
            header = [kernel, *(f"n = {n}" for n in lengths)]
            parts.append(table(header, rows))
        about = (
            "10^9 elements a second on one thread, data in the second-level cache, and in brackets the share of what "
            "loading and storing as many bytes reaches there."
        )
        return "\n\n".join([about, *parts])

    def _target_tables(self) -> list[str]:
        parts = []
        if kernels := self._kernel_targets():
            header = ["kernel alone", "n", "wanted", "measured", "of the limit", "verdict"]
            parts.append(table(header, (target.row() for target in kernels)))
        header = ["one thread", "shape", "wanted", "session.run", "Identity there", "verdict", "IOBinding", "verdict"]
        parts.append(table(header, (target.row() for target in self._session_targets())))
        parts.append(
            'Ratios of medians. "Identity there" is the ratio that Identity on the output\'s type reaches under '
            "`session.run`: entering ONNX Runtime and moving the data bound any operator."
        )
        if threads := self._thread_targets():
            header[0], header[4] = "threads", "float Softmax there"
            parts.append(table(header, (target.row() for target in threads)))
            parts.append("Here sessions on one and on two threads took turns with each other.")
        return parts

    def _kernel_targets(self) -> list[KernelTarget]:
        found = []
        for form in UINT8:
            for n, wanted in KERNEL_TARGETS.items():
                if rate := self._rates.get((self.kernel, "int8 to uint8", form, n)):
                    share = rate.gelements_per_s / rate.limit_gelements_per_s
                    found.append(
                        KernelTarget(f"int8 to uint8 {form}, G elements/s", n, wanted, rate.gelements_per_s, share)
                    )
        every = dict.fromkeys((rate.types, rate.form) for rate in self.rates)
        for types, form in every:
            for n in RAGGED:
                ragged = self._rates.get((self.kernel, types, form, n))
                even = self._rates.get((self.kernel, types, form, -(-n // 32) * 32))
                if ragged and even and form in ("norm", "div", "plain"):
                    ratio = ragged.gelements_per_s / even.gelements_per_s
                    share = ragged.gelements_per_s / ragged.limit_gelements_per_s
                    found.append(KernelTarget(f"{types} {form}, against n = {even.n}", n, 0.8, ratio, share))
        return found

    def _session_targets(self) -> list[Target]:
        if 1 not in self.threads:
            return []
        labels = [shape.label for shape in self.shapes]
        main = [label for label in TARGET_SHAPES if label in labels]
        ragged = [shape.label for shape in self.shapes if shape.keys % 32]
        int8, int16, float32 = "int8", "int16", "float32"
        found = []
        for form in UINT8:
            name = hccs_name("uint8", form)
            found += [self._faster(name, label, SOFTMAX, TARGET_SHAPES[label], int8) for label in main]
            found += [self._faster(name, label, FUSED, 20, int8) for label in main]
        for form in UINT8:
            found += [self._faster(hccs_name("int16", form), label, SOFTMAX, 3, int16) for label in main]
        found += [self._faster(hccs_name("float32"), label, SOFTMAX, 1.8, float32) for label in (*main, *ragged)]
        for output, form in (("uint8", "norm"), ("uint8", "div"), ("float32", "norm")):
            masked, plain = hccs_name(output, form, True), hccs_name(output, form)
            found += [self._ratio(f"{masked}: time against unmasked", label, masked, plain, 1.15) for label in main]
        return found

    def _thread_targets(self) -> list[Target]:
        if not {count for count, _, _ in self._scaling} >= {1, 2}:
            return []
        names = [hccs_name(output, form) for output in ("uint8", "int16") for form in UINT8]
        return [self._two_threads(name) for name in (*names, hccs_name("float32"))]

    def _faster(self, name: str, label: str, than: str, wanted: float, identity: str) -> Target:
        def ratio(contestant: str) -> Callable[[str], float]:
            return lambda way: self._seconds(label, 1, than, way) / self._seconds(label, 1, contestant, way)

        value, beside = ratio(name), ratio(IDENTITIES[identity])
        return Target(f"{name}: times faster than {than}", label, wanted, value(RUN), value(BOUND), beside(RUN))

    def _ratio(self, claim: str, label: str, name: str, other: str, at_most: float) -> Target:
        run, bound = (self._seconds(label, 1, name, way) / self._seconds(label, 1, other, way) for way in WAYS)
        return Target(claim, label, at_most, run, bound, at_most=True)

    def _two_threads(self, name: str) -> Target:
        def gain(contestant: str, way: str) -> float:
            return self._scaling[1, contestant, way] / self._scaling[2, contestant, way]

        beside = gain(SOFTMAX, RUN)
        return Target(f"{name}: 2 threads against 1", SCALING_SHAPE, 1.7, gain(name, RUN), gain(name, BOUND), beside)

    def _timing(self, label: str, threads: int, contestant: str, way: str) -> Timing:
        return self._timings[label, threads, contestant, way]

    def _seconds(self, label: str, threads: int, contestant: str, way: str) -> float:
        return self._timing(label, threads, contestant, way).median_s


def _microseconds(timing: Timing) -> str:
    lower, median, upper = (_digits(value * 1e6) for value in (timing.lower_s, timing.median_s, timing.upper_s))
    return f"{median} ({lower} to {upper})"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _share(rate: KernelRate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.gelements_per_s:.1f} ({rate.gelements_per_s / rate.limit_gelements_per_s:.0%})"
