"""The swap: attention around HCCS is the original's, masks included; what is found, matched and refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from hccs_onnx import Calibration, HccsError, HeadParams
from hccs_onnx.calibration.file import SoftmaxCalibration
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.errors import CalibrationError, ModelError
from hccs_onnx.torch import HCCSSoftmax, swap

WIDTH, HEADS, LENGTH = 16, 4, 6


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


class Softmax(nn.Module):
    """Softmax in HCCS's place: what is around it has to be as it was."""

    def forward(self, logits: torch.Tensor, *, overwrite: bool = False) -> torch.Tensor:
        return torch.softmax(logits, dim=-1).nan_to_num()  # a row that is masked throughout


def with_softmax(model: nn.Module) -> nn.Module:
    swap(model)
    for module in model.modules():
        if hasattr(module, "hccs"):
            module.hccs = Softmax()
    return model


def calibration(heads: tuple[int, ...], output: Any = "float", reciprocal: Any = "norm") -> Calibration:
    def fit(index: int) -> HeadFit:
        return HeadFit(HeadParams(2000 + index, 10, 100, 0.03 + index / 1000), 0.1, 0.0, index)

    softmaxes = tuple(
        SoftmaxCalibration(f"node{i}", f"logits{i}", -3, 8, True, tuple(fit(10 * i + j) for j in range(count)))
        for i, count in enumerate(heads)
    )
    return Calibration("0" * 64, "0", "extended", "head", output, reciprocal, "0" * 64, 1, softmaxes)


# torch.nn.MultiheadAttention

FLOAT_MASK = torch.zeros(LENGTH, LENGTH).masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -float("inf"))
PADDING = torch.zeros(3, LENGTH).bool()
PADDING[1, 4:] = True
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "bool": {"attn_mask": FLOAT_MASK < 0},
    "float": {"attn_mask": FLOAT_MASK},
    "causal": {"attn_mask": FLOAT_MASK, "is_causal": True},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": FLOAT_MASK < 0, "key_padding_mask": PADDING},
    "per head": {"attn_mask": torch.randn(3 * HEADS, LENGTH, LENGTH)},
    "weights of heads": {"average_attn_weights": False},
    "no weights": {"need_weights": False},
}


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
def test_multihead_attention_around_hccs_is_unchanged(masks: dict[str, Any], batch_first: bool) -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    x = torch.randn((3, LENGTH, WIDTH) if batch_first else (LENGTH, 3, WIDTH))
    expected = module(x, x, x, **masks)
    found = with_softmax(module)(x, x, x, **masks)
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        torch.testing.assert_close(found[1], expected[1])


def test_cross_attention_with_other_widths_and_without_batch_is_unchanged() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, kdim=5, vdim=7, bias=False)
    inputs = torch.randn(LENGTH, WIDTH), torch.randn(9, 5), torch.randn(9, 7)
    expected = module(*inputs)
    for a, b in zip(with_softmax(module)(*inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_drops_probabilities_in_training_only() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5, batch_first=True)
    swap(module)
    x = torch.randn(3, LENGTH, WIDTH)
    assert not torch.equal(module(x, x, x)[0], module(x, x, x)[0])
    module.eval()
    assert torch.equal(module(x, x, x)[0], module(x, x, x)[0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("training", [False, True])
def test_encoder_runs_hccs_in_every_layer_and_no_fused_path(training: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    x = torch.randn(3, LENGTH, WIDTH)
    with torch.no_grad():
        before = model(x, src_key_padding_mask=PADDING)
    weights = list(model.parameters())
    swapped = swap(model)
    assert [item.name for item in swapped] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True))
    calls: list[nn.Module] = []
    for item in swapped:
        item.softmax.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad():
        after = model(x, src_key_padding_mask=PADDING)
    assert calls == [item.softmax for item in swapped]
    live = ~PADDING
    assert 1e-4 < (after - before)[live].abs().max() < 0.5
    with torch.no_grad():
        exact = with_softmax(copy.deepcopy(model))(x, src_key_padding_mask=PADDING)
    torch.testing.assert_close(exact[live], before[live], rtol=1e-4, atol=1e-5)


def test_decoder_has_two_attentions_a_layer() -> None:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=True)
    inputs = torch.randn(3, LENGTH, WIDTH), torch.randn(3, 9, WIDTH)
    before = layer(*inputs, tgt_mask=FLOAT_MASK, tgt_is_causal=True)
    assert [item.name for item in swap(layer)] == ["self_attn", "multihead_attn"]
    assert not torch.allclose(layer(*inputs, tgt_mask=FLOAT_MASK, tgt_is_causal=True), before)
    torch.testing.assert_close(with_softmax(layer)(*inputs, tgt_mask=FLOAT_MASK, tgt_is_causal=True), before)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_with_keys_of_its_own_is_refused_and_left_alone(options: dict[str, bool]) -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, **options)
    with pytest.raises(ModelError, match="add_bias_kv and add_zero_attn are not supported"):
        swap(module)
    assert type(module) is nn.MultiheadAttention


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize(("name", "shape"), [("attn_mask", (LENGTH, LENGTH)), ("key_padding_mask", (3, LENGTH))])
def test_masks_of_integers_are_refused_as_torch_does(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    x, mask = torch.randn(3, LENGTH, WIDTH), {name: torch.ones(shape, dtype=dtype)}
    with pytest.raises(AssertionError, match=f"only bool and floating types of {name} are supported"):
        module(x, x, x, **mask)
    swap(module)
    with pytest.raises(ModelError, match=rf"{name} is neither bool nor float \({dtype}\)"):
        module(x, x, x, **mask)


def test_causal_hint_without_mask_is_refused() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS)
    swap(module)
    x = torch.randn(LENGTH, WIDTH)
    with pytest.raises(ModelError, match="is_causal needs attn_mask"):
        module(x, x, x, is_causal=True)


# what is found, and with which parameters


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_softmax, self.classes = nn.Softmax(dim=-1), nn.Softmax(dim=-1)


def test_softmax_modules_are_swapped_where_named() -> None:
    model = ByHand()
    (item,) = swap(model, softmax="attention")
    assert model.attention_softmax is item.softmax
    assert isinstance(model.classes, nn.Softmax)
    (again,) = swap(model, calibration((3,)), softmax="attention")  # a second time, from a calibration
    assert model.attention_softmax is again.softmax
    assert [head.B for head in again.softmax.params.heads] == [2000, 2001, 2002]


@pytest.mark.parametrize("dim", [1, 3, -2, None])
def test_softmax_that_may_run_along_another_axis_is_refused_and_nothing_swapped(dim: int | None) -> None:
    model = ByHand()
    model.classes.dim = dim
    with pytest.raises(ModelError, match=rf"module 'classes': may not run along the last axis \(dim={dim}\)"):
        swap(model, softmax=".")
    assert isinstance(model.attention_softmax, nn.Softmax)


def test_softmax_in_several_places_is_refused_and_nothing_swapped() -> None:
    model = nn.ModuleDict({"first": ByHand(), "second": ByHand()})
    model["second"].classes = model["first"].attention_softmax
    with pytest.raises(ModelError, match=r"module 'first\.attention_softmax': is shared \(2 places\)\. Give each"):
        swap(model, softmax="attention")
    assert not any(isinstance(module, HCCSSoftmax) for module in model.modules())


def test_second_swap_finds_the_same_modules() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS), "by_hand": ByHand()})
    names = ["attention", "by_hand.attention_softmax", "by_hand.classes"]
    assert [item.name for item in swap(model, softmax=".")] == names
    assert [item.name for item in swap(model, softmax=".")] == names


@pytest.mark.parametrize("model", [nn.Linear(2, 2), ByHand()])
def test_model_without_attention_is_refused(model: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"holds no attention module that is known\. Name its torch\.nn\.Softmax"):
        swap(model)


def encoder(layers: int = 2) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@pytest.mark.parametrize(("output", "reciprocal"), [("float", "norm"), ("uint8", "clb"), ("int16", "norm")])
def test_calibration_goes_to_modules_in_order(output: Any, reciprocal: Any) -> None:
    given = calibration((HEADS, HEADS), output, reciprocal)
    swapped = swap(encoder(), given)
    assert [item.node for item in swapped] == ["node0", "node1"]
    for item, entry in zip(swapped, given.softmaxes, strict=True):
        params = item.softmax.params
        assert [head.B for head in params.heads] == [fit.params.B for fit in entry.heads]
        assert [head.scale for head in params.heads] == pytest.approx([fit.params.scale for fit in entry.heads])
        assert params.masked
        assert params.reciprocal == reciprocal
        assert item.softmax.profile.output == output
        zero_points = None if item.softmax.quantizer is None else item.softmax.quantizer.zero_point
        assert zero_points == (None if output == "float" else tuple(fit.zero_point for fit in entry.heads))


def test_calibration_is_taken_by_its_path(tmp_path: Path) -> None:
    calibration((HEADS, HEADS)).save(tmp_path / "calibration.json")
    by_value, by_path = swap(encoder(), calibration((HEADS, HEADS))), swap(encoder(), tmp_path / "calibration.json")
    assert [item.softmax.params for item in by_path] == [item.softmax.params for item in by_value]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((HEADS,), r"does not fit the attention modules \(1 Softmax nodes, needs 2, one a module\)"),
        ((HEADS, 2), r"module 'layers\.1\.self_attn': calibration of node 'node1' has a wrong number of heads \(2, "),
    ],
)
def test_calibration_of_another_model_is_refused_and_nothing_swapped(heads: tuple[int, ...], message: str) -> None:
    model = encoder()
    with pytest.raises(CalibrationError, match=message):
        swap(model, calibration(heads))
    assert not any(isinstance(module, HCCSSoftmax) for module in model.modules())


def test_learning_has_parameters_for_every_head() -> None:
    for item in swap(encoder(), learn=True):
        assert item.softmax.line is not None
        assert item.softmax.line.log_clip_range.shape == (HEADS,)


# Hugging Face transformers


def text_config(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": 0,
    }  # fmt: skip
    makes: dict[str, Callable[[], Any]] = {
        "Bert": lambda: transformers.BertConfig(**sizes),
        "Roberta": lambda: transformers.RobertaConfig(**sizes),
        "DistilBert": lambda: transformers.DistilBertConfig(
            vocab_size=50, dim=WIDTH, n_layers=2, n_heads=HEADS, hidden_dim=32, max_position_embeddings=32
        ),
        "MPNet": lambda: transformers.MPNetConfig(**sizes),
        "Llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=2),
        "Gemma2": lambda: transformers.Gemma2Config(**sizes, num_key_value_heads=2, head_dim=4),
    }
    return makes[name]()


def text_model(name: str) -> Any:
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(text_config(name)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5)  # away from uniform attention
    return model


def text_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, -2:] = 0
    ids = torch.randint(3, 50, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Llama"])
def test_transformers_attention_around_hccs_is_unchanged(name: str) -> None:
    text_config(name)
    model, inputs = text_model(name), text_inputs()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        before = model(**inputs, output_attentions=True)
        swapped = swap(model)
        after = model(**inputs, output_attentions=True)
        exact = with_softmax(model)(**inputs)
    assert len(swapped) == 2
    assert [item.kind for item in swapped] == ["transformers"] * 2
    live = inputs["attention_mask"].bool()
    torch.testing.assert_close(exact.last_hidden_state[live], before.last_hidden_state[live], rtol=1e-3, atol=1e-4)
    assert (after.last_hidden_state - before.last_hidden_state)[live].abs().max() > 1e-3
    hidden = before.attentions[0][1][:, :4] < 1e-30  # of live queries
    assert hidden.any()
    assert torch.equal(after.attentions[0][1][:, :4] == 0, hidden)


def test_transformers_attention_to_images_is_unchanged_around_hccs() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = model(pixels).last_hidden_state
        assert len(swap(model)) == 2
        after = with_softmax(model)(pixels).last_hidden_state
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_transformers_model_inside_another_module_is_swapped() -> None:
    text_config("Bert")
    model = nn.ModuleDict({"encoder": text_model("Bert"), "head": nn.Linear(WIDTH, 3)})
    assert [item.name for item in swap(model)] == [f"encoder.encoder.layer.{i}.attention.self" for i in (0, 1)]
    calls: list[object] = []
    for module in model.modules():
        if isinstance(module, HCCSSoftmax):
            module.register_forward_hook(lambda *_: calls.append(1))
    model["encoder"](**text_inputs())
    assert len(calls) == 2


def test_float_model_of_the_same_configuration_keeps_softmax() -> None:
    text_config("Bert")
    model, inputs = text_model("Bert"), text_inputs()
    teacher = type(model)(model.config).eval()
    teacher.load_state_dict(model.state_dict())
    with torch.no_grad():
        before = teacher(**inputs).last_hidden_state
        swap(model)
        after = teacher(**inputs).last_hidden_state
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "message"), [("MPNet", "holds no attention module"), ("Gemma2", "softcap")])
def test_transformers_attention_that_is_more_than_softmax_is_refused(name: str, message: str) -> None:
    text_config(name)
    model = text_model(name)
    with pytest.raises(HccsError, match=message):  # no interface; found when it runs
        swap(model)
        model(**text_inputs())


def test_refused_swap_leaves_every_module_as_it_was() -> None:
    text_config("Bert")
    from transformers.models.bert.modeling_bert import BertSelfAttention

    bert = text_model("Bert")
    before = bert.config._attn_implementation
    alone = BertSelfAttention(text_config("Bert"))  # nothing around it that could choose
    with_keys = nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True)
    for refused in (alone, with_keys):
        model = nn.ModuleDict({"torch": nn.MultiheadAttention(WIDTH, HEADS), "bert": bert, "refused": refused})
        with pytest.raises(ModelError, match=r"cannot choose its attention function|add_zero_attn"):
            swap(model)
        assert not any(isinstance(module, HCCSSoftmax) for module in model.modules())
        assert type(model["torch"]) is nn.MultiheadAttention
        assert bert.config._attn_implementation == before


def test_swap_keeps_parameters_when_model_has_no_values_yet() -> None:
    model = nn.TransformerEncoderLayer(d_model=WIDTH, nhead=HEADS, device="meta")
    (swapped,) = swap(model, calibration((HEADS,)))
    assert [head.B for head in swapped.softmax.params.heads] == [2000 + index for index in range(HEADS)]
