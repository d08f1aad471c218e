"""What a node of a project would cost: the kernel's model and the ports that feed it, for the plan's tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hccs_onnx.aie.devices import Device
from hccs_onnx.aie.estimate import KernelEstimate, node_kernel_estimate
from hccs_onnx.aie.kernels import padded_columns
from hccs_onnx.aie.plan import Plan
from hccs_onnx.aie.vectors import OUT_BYTES
from hccs_onnx.params import HccsParams, OutputType


@dataclass(frozen=True)
class PlanEstimate:
    """Modelled cost of a node with ``hccs::softmax`` on its tiles.

    Nothing of it was measured. A slot's rows are taken to come in full batches of 32.

    Parameters
    ----------
    kernel : KernelEstimate
        Cycles a row of a tile whose data lies in its memory.
    port : float
        Cycles a row that the port from or to logic takes, whichever has more bytes to move.
    rows : int
        Rows that each tile computes, padding included.
    clock_mhz : float
        Clock of the array.
    """

    kernel: KernelEstimate
    port: float
    rows: int
    clock_mhz: float

    @property
    def cycles(self) -> float:
        """Cycles a row, with stream and port."""
        return max(self.kernel.with_streams, self.port)

    @property
    def bound(self) -> str:
        """What decides `cycles`: an issue slot, ``stream`` or ``port``."""
        if self.cycles == self.kernel.cycles:
            return self.kernel.bound
        return "stream" if self.cycles == self.kernel.with_streams else "port"

    @property
    def microseconds(self) -> float:
        """Time of the whole node: tiles work at the same time, each on its rows."""
        return self.rows * self.cycles / self.clock_mhz

    def to_dict(self) -> dict[str, Any]:
        """The estimate in a manifest."""
        return {
            "kind": "modelled",
            "cycles_a_row": round(self.kernel.cycles, 3),
            "cycles_a_row_cautious": round(self.kernel.phased, 3),
            "cycles_a_row_with_ports": round(self.cycles, 3),
            "bound": self.bound,
            "microseconds": round(self.microseconds, 3),
        }


def plan_estimate(device: Device, plan: Plan, params: HccsParams, output: OutputType) -> PlanEstimate:
    """Modelled cost of a node.

    Parameters
    ----------
    device : Device
        The array.
    plan : Plan
        How the node's rows are spread over it.
    params : HccsParams
        The node's attributes.
    output : {'uint8', 'int16'}
        Type of its output.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> from hccs_onnx.aie.plan import Work, make_plan
    >>> from hccs_onnx.params import HeadParams
    >>> vek280, params = device("vek280"), HccsParams((HeadParams(16259, 127, 127),), masked=True)
    >>> plan = make_plan(vek280, Work(1, 128, 128, 1, masked=True), "node 'sm'")
    >>> estimate = plan_estimate(vek280, plan, params, "uint8")
    >>> len(plan.tiles), estimate.rows, estimate.bound, estimate.cycles, round(estimate.microseconds, 2)
    (4, 32, 'stream', 32.0, 0.82)
    """
    kernel = node_kernel_estimate(device, output, params, plan.work.n)
    port = port_cycles(device, plan.work.n, output, plan.port_bits)
    return PlanEstimate(kernel, port, plan.slots * plan.rows * plan.iterations, device.clock_mhz)


def port_cycles(device: Device, n: int, output: OutputType, port_bits: int) -> float:
    """Cycles of the array that a row of `n` takes at its output port, whose rows have at least the bytes of codes.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> port_cycles(device("vek280"), 128, "uint8", 128), port_cycles(device("vek280"), 128, "int16", 64)
    (32.0, 128.0)
    """
    return padded_columns(n) * OUT_BYTES[output] / (port_bits / 8 * device.logic_mhz / device.clock_mhz)
