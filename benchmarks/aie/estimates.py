"""Print the tables of docs/aie_kernels.md and aie.md: `python benchmarks/aie/estimates.py`. All of it is modelled."""

from __future__ import annotations

from itertools import product

from hccs_onnx.aie.devices import Device, device
from hccs_onnx.aie.estimate import PUBLISHED, kernel_estimate, published_estimate
from hccs_onnx.aie.plan_estimate import port_cycles
from hccs_onnx.params import OUTPUT_TYPES, RECIPROCALS


def against_published(target: Device) -> None:
    """The two modes that the paper reports."""
    print(f"\n{target.generation}, a tile\n")
    print("| mode | n | paper, G el/s | published, modelled | its cycles a row | ours | cautious | fewer cycles |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for mode in ("uint8 clb", "int16 div"):
        output, reciprocal = mode.split()
        for n in (32, 64, 128):
            published = published_estimate(target, mode, n)
            ours = kernel_estimate(target, output, reciprocal, n)  # type: ignore[arg-type]
            paper = PUBLISHED.get((target.generation, mode), {}).get(n, "-")
            print(
                f"| {mode} | {n} | {paper} | {published.elements_per_second(target):.2f} | {published.cycles:.1f} "
                f"| {ours.cycles:.1f} | {ours.phased:.1f} "
                f"| {published.cycles / ours.cycles:.1f}x, cautious {published.cycles / ours.phased:.1f}x |"
            )


def all_modes(target: Device) -> None:
    """Cycles a row of every mode, and what limits them."""
    print(f"\n{target.generation}: cycles a row, cautious in brackets\n")
    print("| mode | n = 32 | 64 | 128 | 512 | bound at 128 | stream at 128 | memory share at 128 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for output in OUTPUT_TYPES[1:]:
        for reciprocal in RECIPROCALS:
            for masked in (False, True):
                wide = reciprocal == "norm"
                found = {
                    n: kernel_estimate(target, output, reciprocal, n, masked=masked, wide=wide)
                    for n in (32, 64, 128, 512)
                }
                cells = " | ".join(f"{item.cycles:.1f} ({item.phased:.1f})" for item in found.values())
                at = found[128]
                print(
                    f"| {output} {reciprocal}{' masked' if masked else ''} | {cells} | {at.bound} "
                    f"| {at.floors['stream']:.0f} | {at.memory_share:.0%} |"
                )


def masks(target: Device) -> None:
    """Cycles of masked kernels against those of unmasked ones."""
    lengths = (32, 64, 128, 512)
    print(f"\n{target.generation}: cycles with a mask, as a multiple of those without\n")
    print("| mode | n = " + " | ".join(map(str, lengths)) + " |\n| --- |" + " --- |" * len(lengths))
    for output in OUTPUT_TYPES[1:]:
        for reciprocal in RECIPROCALS:
            wide = reciprocal == "norm"
            plain, masked = (
                [kernel_estimate(target, output, reciprocal, n, masked=mask, wide=wide).cycles for n in lengths]
                for mask in (False, True)
            )
            cells = " | ".join(f"{more / less:.2f}" for more, less in zip(masked, plain, strict=True))
            print(f"| {output} {reciprocal} | {cells} |")


def shared_ports(target: Device) -> None:
    """Throughput of all tiles, fed by ports that several share without loss, over that of a port of its own each."""
    lengths = (32, 64, 128, 256)
    print(f"\n{target.generation}: what tiles could gain if they shared ports\n")
    print("| mode | n = " + " | ".join(map(str, lengths)) + " |\n| --- |" + " --- |" * len(lengths))
    for output, reciprocal, masked in product(OUTPUT_TYPES[1:], RECIPROCALS, (False, True)):
        cells = []
        for n in lengths:
            kernel = kernel_estimate(target, output, reciprocal, n, masked=masked, wide=reciprocal == "norm")
            port = {bits: port_cycles(target, n, output, bits) for bits in (64, 128)}
            own = max(target.ports(bits) / max(kernel.with_streams, port[bits]) for bits in port)
            shared = min(target.tiles / kernel.with_streams, max(target.ports(bits) / port[bits] for bits in port))
            cells.append(f"{shared / own:.2f}")
        print(f"| {output} {reciprocal}{' masked' if masked else ''} | " + " | ".join(cells) + " |")


def scaling(target: Device) -> None:
    """G elements/s of many tiles, each with a stream in and one out."""
    print(f"\n{target.generation}, n = 128: G elements/s of tiles, kernel alone / one stream each way\n")
    counts = sorted({1, 16, 64, 128, 184, target.tiles})  # 184: the paper's largest
    print("| mode | " + " | ".join(map(str, counts)) + " |\n| --- |" + " --- |" * len(counts))
    for mode in ("uint8 clb", "int16 div"):
        output, reciprocal = mode.split()
        item = kernel_estimate(target, output, reciprocal, 128)  # type: ignore[arg-type]
        alone = [item.elements_per_second(target, tiles) for tiles in counts]
        fed = [item.elements_per_second(target, tiles, streams=True) for tiles in counts]
        cells = (f"{kernel:.0f} / {stream:.0f}" for kernel, stream in zip(alone, fed, strict=True))
        print(f"| {mode} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    against_published(device("vek280"))
    against_published(device("vek385"))
    all_modes(device("vek280"))
    masks(device("vek280"))
    scaling(device("vek280"))
    scaling(device("vek385"))
    shared_ports(device("vek280"))
    shared_ports(device("vck190"))
