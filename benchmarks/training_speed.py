"""What HCCS costs in training: forward and backward of the operator, and whole training steps of an encoder.

CPU time of one thread, the best of interleaved rounds, so that what else runs on the machine matters little; on a GPU,
time until it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from common import log, parser, publish, table
from torch import nn

import hccs_onnx.torch
from hccs_onnx import HccsParams
from hccs_onnx.params import DATA_FREE, LogitQuantizer
from hccs_onnx.torch import HCCSSoftmax

SHAPES = ((32, 12, 64, 64), (16, 12, 128, 128), (2, 12, 512, 512), (64, 4, 16, 16))
HEADS = 12
Step = Callable[[], None]


def main() -> None:
    """Command line."""
    arguments = parser(__doc__.splitlines()[0], "training_speed")
    arguments.add_argument("--rounds", type=int, default=9, help="rounds of which the best counts")
    arguments.add_argument("--device", default="cpu", help="torch device")
    options = arguments.parse_args()
    torch.set_default_device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    operator, encoder = {}, {}
    for shape in SHAPES:
        log(f"operator {list(shape)}")
        operator["x".join(map(str, shape))] = best(operator_steps(shape), options.rounds)
    for batch, length in ((32, 64), (16, 128)):
        log(f"encoder [{batch}, {length}]")
        encoder[f"{batch}x{length}"] = best(encoder_steps(batch, length), max(3, options.rounds // 2))
    on_cpu = torch.get_default_device().type == "cpu"
    unit = "CPU milliseconds of one thread" if on_cpu else f"Milliseconds on {torch.cuda.get_device_name()}"
    body = "\n\n".join([
        f"{unit}, least of {options.rounds} rounds: the operator, forward and backward.",
        as_table("logits [batch, heads, queries, keys]", operator, "Softmax"),
        "Training steps (forward, backward, AdamW) of an encoder of MiniLM L6's shape (6 layers, 12 heads, width 384), "
        "padded texts, in the same unit, by attention function of transformers:",
        as_table("input [batch, tokens]", encoder, "eager"),
    ])  # fmt: skip
    results = {"operator_s": operator, "encoder_s": encoder}
    publish(options.out, "Cost of HCCS in training", body, results, ("torch", "transformers"))


def as_table(what: str, results: dict[str, dict[str, float]], base: str) -> str:
    """Times, each with its ratio to that of `base`."""
    names = list(next(iter(results.values())))
    rows = [
        (
            f"[{shape.replace('x', ', ')}]",
            *(f"{1e3 * times[name]:.3g} ({times[name] / times[base]:.2f})" for name in names),
        )
        for shape, times in results.items()
    ]
    return table([what, *(f"{name} (ratio)" for name in names)], rows)


def best(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Least seconds of each step, interleaved."""
    found = dict.fromkeys(steps, float("inf"))
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = now()
            step()
            if number:  # the first is for warming up
                found[name] = min(found[name], now() - start)
    return found


def now() -> float:
    """CPU seconds, or those of the clock once the GPU has done what it was given."""
    if torch.get_default_device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def operator_steps(shape: tuple[int, ...]) -> dict[str, Step]:
    """Forward and backward of Softmax and of what takes its place."""
    x = (3 * torch.randn(shape)).requires_grad_()
    weight = torch.randn(shape)
    params = HccsParams((DATA_FREE,) * shape[1], masked=True)
    quantizer = LogitQuantizer((0.1,), (60,))
    modules: dict[str, nn.Module] = {
        "Softmax": nn.Softmax(dim=-1),
        "HCCS float": HCCSSoftmax(params),
        "learning": HCCSSoftmax(params, learn=True),
        "HCCS uint8": HCCSSoftmax(params, output="uint8", quantizer=quantizer),
        "HCCS int16": HCCSSoftmax(params, output="int16", quantizer=quantizer),
    }

    def step(module: nn.Module) -> None:
        options = {} if isinstance(module, nn.Softmax) else {"overwrite": True}
        (module(x + 0, **options) * weight).sum().backward()

    return {name: lambda module=module: step(module) for name, module in modules.items()}  # type: ignore[misc]


def encoder_steps(batch: int, length: int) -> dict[str, Step]:
    """Training steps of encoders with random weights."""
    from transformers import BertConfig, BertModel

    ids = torch.randint(1000, 20000, (batch, length))
    mask = torch.ones_like(ids)
    mask[::2, length * 3 // 4 :] = 0

    def made(kind: str) -> Step:
        config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=HEADS, intermediate_size=1536)
        model = BertModel(config, add_pooling_layer=False).train()
        if kind.startswith("HCCS"):
            hccs_onnx.torch.swap(model, learn=kind == "HCCS learning")
        else:
            model.set_attn_implementation(kind)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

        def step() -> None:
            loss = model(input_ids=ids, attention_mask=mask).last_hidden_state.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return {kind: made(kind) for kind in ("eager", "sdpa", "HCCS", "HCCS learning")}


if __name__ == "__main__":
    main()
