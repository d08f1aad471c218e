"""Small models with random weights, as exporters of torch, Keras and scikit-learn write them, and so users' files.

    python tests/exporters/export_models.py FOLDER [--only REGEX]

writes `NAME.onnx` and `NAME.npz` (inputs by name, torch's outputs as `out_0`, `out_1`, ...) for all of `EXPORTS`.
Needs torch and onnxscript; transformers, keras and skl2onnx for their models.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

os.environ["KERAS_BACKEND"] = "torch"  # read when keras is imported
SEED = 7
VOCABULARY, WIDTH, LAYERS, HEADS = 100, 32, 2, 4
BATCH, LENGTH, MEMORY = 2, 7, 9
TORCHSCRIPT_OPSET, DYNAMO_OPSET, FUSED_OPSET = 17, 18, 23
Axes = Mapping[int, str]


@dataclass(frozen=True)
class Case:
    """What an exporter gets.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; takes the inputs in order, gives a tensor or a tuple of tensors.
    inputs : dict of str to Tensor
        Example inputs, by the names that they get in the graph.
    axes : dict of str to dict of int to str
        Names of dynamic axes, by input.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Axes]


@dataclass(frozen=True)
class Export:
    """One model, exported in one way.

    Parameters
    ----------
    family : str
        Model.
    exporter : {'torchscript', 'dynamo', 'fused', 'keras', 'skl2onnx'}
        ``fused``: dynamo at an opset that has ONNX Attention, which it makes of every torch SDPA. ``keras``: Keras's
        own ``export``, on torch. ``skl2onnx``: scikit-learn's converter.
    attention : str
        What computes attention in torch: ``eager`` (matmul, softmax, matmul) or ``sdpa``, or a form of the model's own.
    build : callable
        Makes the case, for the attention.
    attentions : int
        How many attention the model has.
    heads : tuple of int
        Head counts that occur.
    masked : int
        How many of them mask positions, for the inputs of the case.
    others : int
        Softmax nodes that are not attention.
    """

    family: str
    exporter: str
    attention: str
    build: Callable[[str], Case] = field(repr=False)
    attentions: int
    heads: tuple[int, ...]
    masked: int
    others: int = 0

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.family}-{self.attention}-{self.exporter}"


class Call(nn.Module):
    """A module that passes its positional inputs on by name, and gives plain tensors."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], outputs: tuple[str, ...], **fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.outputs, self.fixed = model, names, outputs, fixed

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        found = tuple(result[name] for name in self.outputs)
        return found[0] if len(found) == 1 else found


# inputs


def tokens(length: int = LENGTH, prefix: str = "") -> dict[str, Tensor]:
    """Token ids and their mask; the second row is padded."""
    mask = torch.ones(BATCH, length, dtype=torch.int64)
    mask[1, -3:] = 0
    return {f"{prefix}input_ids": torch.randint(3, VOCABULARY, (BATCH, length)), f"{prefix}attention_mask": mask}


def axes(inputs: Mapping[str, Tensor], sequences: Mapping[str, str]) -> dict[str, Axes]:
    """Batch dynamic everywhere, the second axis where it has a name."""
    return {name: {0: "batch", **({1: sequences[name]} if name in sequences else {})} for name in inputs}


def hugging_face(
    model: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], sequences: Mapping[str, str], **fixed: Any
) -> Case:
    """A case of a transformers model."""
    return Case(Call(model, tuple(inputs), outputs, **fixed).eval(), inputs, axes(inputs, sequences))


def text(model: nn.Module, outputs: tuple[str, ...] = ("last_hidden_state",), **fixed: Any) -> Case:
    """A case of a transformers model of token ids and mask."""
    inputs = tokens()
    return hugging_face(model, inputs, outputs, dict.fromkeys(inputs, "sequence"), **fixed)


def image(model: nn.Module, size: int, outputs: tuple[str, ...] = ("last_hidden_state",)) -> Case:
    """A case of a transformers model of images."""
    return hugging_face(model, {"pixel_values": torch.randn(BATCH, 3, size, size)}, outputs, {})


def encoder_sizes(attention: str) -> dict[str, Any]:
    """Configuration that most transformers encoders share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 32,
        "attn_implementation": attention,
        "pad_token_id": 0,
    }


# encoders of text


def bert(attention: str) -> Case:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**encoder_sizes(attention)), add_pooling_layer=False)
    inputs = tokens()
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return hugging_face(model, inputs, ("last_hidden_state",), dict.fromkeys(inputs, "sequence"))


def distilbert(attention: str) -> Case:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=2 * WIDTH,
        max_position_embeddings=32, attn_implementation=attention,
    )  # fmt: skip
    return text(DistilBertModel(config))


def roberta(attention: str) -> Case:
    from transformers import RobertaConfig, RobertaModel

    return text(RobertaModel(RobertaConfig(**encoder_sizes(attention)), add_pooling_layer=False))


def albert(attention: str) -> Case:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(**encoder_sizes(attention), embedding_size=16)
    return text(AlbertModel(config, add_pooling_layer=False))


def mpnet(attention: str) -> Case:
    from transformers import MPNetConfig, MPNetModel

    return text(MPNetModel(MPNetConfig(**encoder_sizes(attention)), add_pooling_layer=False))


def deberta(attention: str) -> Case:
    from transformers import DebertaV2Config, DebertaV2Model

    config = DebertaV2Config(
        **encoder_sizes(attention), relative_attention=True, position_buckets=8, pos_att_type=["c2p", "p2c"],
        norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, type_vocab_size=0,
    )  # fmt: skip
    return text(DebertaV2Model(config))


def modernbert(attention: str) -> Case:
    from transformers import ModernBertConfig, ModernBertModel

    sizes = encoder_sizes(attention)
    config = ModernBertConfig(**sizes, local_attention=8, global_attn_every_n_layers=2)
    return text(ModernBertModel(config))


# images


def vit(attention: str) -> Case:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(**encoder_sizes(attention), image_size=16, patch_size=8)
    return image(ViTModel(config, add_pooling_layer=False), 16)


def deit(attention: str) -> Case:
    from transformers import DeiTConfig, DeiTModel

    config = DeiTConfig(**encoder_sizes(attention), image_size=16, patch_size=8)
    return image(DeiTModel(config, add_pooling_layer=False), 16)


def swin(attention: str) -> Case:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4,
        attn_implementation=attention,
    )  # fmt: skip
    return image(SwinModel(config, add_pooling_layer=False), 32)


def clip(attention: str) -> Case:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    sizes = encoder_sizes(attention)
    words = CLIPTextConfig(**sizes, bos_token_id=1, eos_token_id=2)
    pixels = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    config = CLIPConfig(text_config=words.to_dict(), vision_config=pixels.to_dict(), projection_dim=16)
    config._attn_implementation = attention
    model = CLIPModel(config)
    inputs = {**tokens(), "pixel_values": torch.randn(BATCH, 3, 16, 16)}
    sequences = {"input_ids": "sequence", "attention_mask": "sequence"}
    return hugging_face(model, inputs, ("text_embeds", "image_embeds"), sequences)


def detr(attention: str) -> Case:
    from transformers import DetrConfig, DetrModel, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        num_queries=5, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=WIDTH, decoder_ffn_dim=WIDTH,
    )  # fmt: skip
    model = DetrModel(config)
    for part in (model.encoder, model.decoder):  # the backbone knows no attention
        part.config._attn_implementation = attention
    mask = torch.ones(BATCH, 32, 32, dtype=torch.int64)
    mask[1, :, 16:] = 0
    inputs = {"pixel_values": torch.randn(BATCH, 3, 32, 32), "pixel_mask": mask}
    return hugging_face(model, inputs, ("last_hidden_state",), {})


def sam_vision(attention: str) -> Case:
    from transformers import SamVisionConfig, SamVisionModel

    config = SamVisionConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=64, patch_size=8,
        output_channels=16, mlp_dim=WIDTH, window_size=4, global_attn_indexes=[1], num_pos_feats=8,
        attn_implementation=attention,
    )  # fmt: skip
    return image(SamVisionModel(config), 64)


class TwoWay(nn.Module):
    """Queries and an image that attend to each other."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, queries: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        result = self.model(queries, image, positions, attention_similarity=None)
        return result[0], result[1]


def sam_decoder(attention: str) -> Case:
    from transformers import SamMaskDecoderConfig
    from transformers.models.sam.modeling_sam import SamTwoWayTransformer

    config = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        attn_implementation=attention,
    )  # fmt: skip
    inputs = {
        "queries": torch.randn(BATCH, 1, 5, WIDTH),
        "image": torch.randn(BATCH, WIDTH, 4, 4),
        "positions": torch.randn(BATCH, WIDTH, 4, 4),
    }
    return Case(TwoWay(SamTwoWayTransformer(config)).eval(), inputs, axes(inputs, {}))


# decoders


def gpt2(attention: str) -> Case:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=32, n_inner=2 * WIDTH,
        attn_implementation=attention, use_cache=False,
    )  # fmt: skip
    return text(GPT2Model(config), use_cache=False)


def llama(attention: str) -> Case:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(**encoder_sizes(attention), num_key_value_heads=2, use_cache=False)
    return text(LlamaModel(config), use_cache=False)


def qwen2(attention: str) -> Case:
    from transformers import Qwen2Config, Qwen2Model

    config = Qwen2Config(**encoder_sizes(attention), num_key_value_heads=2, use_cache=False)
    return text(Qwen2Model(config), use_cache=False)


def gemma2(attention: str) -> Case:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        **encoder_sizes(attention), num_key_value_heads=2, head_dim=8, sliding_window=4, use_cache=False
    )
    return text(Gemma2Model(config), use_cache=False)


def bloom(attention: str) -> Case:
    from transformers import BloomConfig, BloomModel

    config = BloomConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, attn_implementation=attention,
        use_cache=False,
    )  # fmt: skip
    return text(BloomModel(config), use_cache=False)


# encoder and decoder


def t5_config(attention: str) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, num_layers=LAYERS, num_heads=HEADS, d_ff=2 * WIDTH,
        relative_attention_num_buckets=8, attn_implementation=attention, use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip


def t5_encoder(attention: str) -> Case:
    from transformers import T5EncoderModel

    return text(T5EncoderModel(t5_config(attention)))


class Decoder(nn.Module):
    """A decoder that takes the encoder's states as an input."""

    def __init__(self, model: nn.Module, mask: str) -> None:
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, ids: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        result = self.model(input_ids=ids, encoder_hidden_states=states, use_cache=False, **{self.mask: mask})
        output: Tensor = result.last_hidden_state
        return output


def t5_decoder(attention: str) -> Case:
    from transformers import T5Model

    source = tokens(MEMORY)
    inputs = {
        "decoder_input_ids": tokens()["input_ids"],
        "encoder_hidden_states": torch.randn(BATCH, MEMORY, WIDTH),
        "encoder_attention_mask": source["attention_mask"],
    }
    sequences = {
        "decoder_input_ids": "sequence",
        "encoder_hidden_states": "memory",
        "encoder_attention_mask": "memory",
    }
    model = Decoder(T5Model(t5_config(attention)).decoder, "encoder_attention_mask")
    return Case(model.eval(), inputs, axes(inputs, sequences))


def bart(attention: str) -> Case:
    from transformers import BartConfig, BartModel

    config = BartConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH, max_position_embeddings=32, attn_implementation=attention, use_cache=False,
    )  # fmt: skip
    inputs = {**tokens(MEMORY), "decoder_input_ids": tokens()["input_ids"]}
    sequences = {"input_ids": "memory", "attention_mask": "memory", "decoder_input_ids": "sequence"}
    return hugging_face(BartModel(config), inputs, ("last_hidden_state",), sequences, use_cache=False)


def whisper_model(attention: str) -> Any:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH, num_mel_bins=8, max_source_positions=12, max_target_positions=16,
        attn_implementation=attention, use_cache=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3,
    )  # fmt: skip
    return WhisperModel(config)


def whisper_encoder(attention: str) -> Case:
    inputs = {"input_features": torch.randn(BATCH, 8, 24)}
    return hugging_face(whisper_model(attention).encoder, inputs, ("last_hidden_state",), {})


def whisper_decoder(attention: str) -> Case:
    target = tokens()
    inputs = {
        "decoder_input_ids": target["input_ids"],
        "encoder_hidden_states": torch.randn(BATCH, 12, WIDTH),
        "decoder_attention_mask": target["attention_mask"],
    }
    sequences = {"decoder_input_ids": "sequence", "decoder_attention_mask": "sequence"}
    model = Decoder(whisper_model(attention).decoder, "attention_mask")
    return Case(model.eval(), inputs, axes(inputs, sequences))


# torch's own modules


class SelfAttention(nn.Module):
    """nn.MultiheadAttention on one tensor."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        result: Tensor = self.attention(x, x, x, key_padding_mask=padding, need_weights=self.need_weights)[0]
        return result


class Encoder(nn.Module):
    """nn.TransformerEncoder."""

    def __init__(self, fast: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.fast = fast

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(self.fast)
        result: Tensor = self.encoder(x, src_key_padding_mask=padding)
        torch.backends.mha.set_fastpath_enabled(before)
        return result


class EinsumAttention(nn.Module):
    """Attention as many write it by hand: einsum, a stacked projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stacked, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        q, k, v = (
            item.reshape(*item.shape[:2], HEADS, -1).transpose(1, 2) for item in self.stacked(x).chunk(3, dim=-1)
        )
        logits = torch.einsum("b h i d, b h j d -> b h i j", q, k) * (WIDTH // HEADS) ** -0.5
        logits = logits.masked_fill(padding[:, None, None, :], -torch.finfo(logits.dtype).max)
        values = torch.einsum("b h i j, b h j d -> b h i d", logits.softmax(dim=-1), v)
        result: Tensor = self.out(values.transpose(1, 2).reshape(x.shape))
        return result


class CausalAttention(nn.Module):
    """torch's SDPA, causal, with fewer heads of keys and values than of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k, v = (item.unflatten(-1, (HEADS // 2, -1)).transpose(1, 2) for item in self.kv(x).chunk(2, dim=-1))
        values = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        result: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return result


def padded(model: nn.Module) -> Case:
    """A case of a module of embeddings and a mask that is true where padded."""
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[1, -3:] = True
    inputs = {"x": torch.randn(BATCH, LENGTH, WIDTH), "padding": mask}
    return Case(model.eval(), inputs, axes(inputs, dict.fromkeys(inputs, "sequence")))


def multihead(attention: str) -> Case:
    return padded(SelfAttention(need_weights=attention == "weights"))


def transformer_encoder(attention: str) -> Case:
    return padded(Encoder(fast=attention == "fastpath"))


def einsum(attention: str) -> Case:
    return padded(EinsumAttention())


def causal(attention: str) -> Case:
    inputs = {"x": torch.randn(BATCH, LENGTH, WIDTH)}
    return Case(CausalAttention().eval(), inputs, axes(inputs, {"x": "sequence"}))


class KerasCall(nn.Module):
    """A Keras model that takes its inputs one by one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.model(list(inputs) if len(inputs) > 1 else inputs[0])
        return result


def keras_encoder(attention: str) -> Case:
    """Two layers of Keras's MultiHeadAttention; LayerNormalization is what Keras 3.15 cannot export on torch 2.13."""
    import keras

    if keras.config.backend() != "torch":
        raise RuntimeError("keras runs on another backend than torch")
    given = tokens()
    ids = keras.Input((LENGTH,), dtype="int64", name="input_ids")
    keep = keras.Input((LENGTH,), dtype="int64", name="attention_mask")
    x = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=attention == "zeros")(ids)
    x = keras.layers.Rescaling(WIDTH**0.5)(x)  # there is nothing that normalises
    mask = keras.ops.expand_dims(keep, 1) if attention == "masked" else None
    for _ in range(LAYERS):
        layer = keras.layers.MultiHeadAttention(num_heads=HEADS, key_dim=WIDTH // HEADS)
        x = x + layer(x, x, attention_mask=mask, use_causal_mask=attention == "causal")  # the mask of zeros ends here
        x = x + keras.layers.Dense(WIDTH)(keras.layers.Dense(2 * WIDTH, activation="gelu")(x))
    inputs = {"input_ids": given["input_ids"] * given["attention_mask"]}  # 0 where padded
    if attention == "masked":
        inputs["attention_mask"] = given["attention_mask"]
    model = keras.Model([ids, keep] if attention == "masked" else ids, x)
    return Case(KerasCall(model).eval(), inputs, axes(inputs, {}))


class SklearnCall(nn.Module):
    """A scikit-learn transformer."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.pipeline.transform(x.numpy()))


def sklearn_attention(attention: str) -> Case:
    """Self-attention of the rows of a table, after a StandardScaler."""
    from skl2onnx import update_registered_converter
    from skl2onnx.algebra.onnx_ops import OnnxArrayFeatureExtractor, OnnxMatMul, OnnxMul, OnnxSoftmax, OnnxTranspose
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    factor = np.array([WIDTH**-0.5], np.float32)

    class SelfAttention(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any = None) -> SelfAttention:
            weights = np.random.default_rng(SEED).normal(0, WIDTH**-0.5, (WIDTH, 3 * WIDTH))
            self.weights_ = weights.astype(np.float32)
            return self

        def transform(self, x: Any) -> Any:
            q, k, v = np.split(x.astype(np.float32) @ self.weights_, 3, axis=1)
            p = np.exp(q @ k.T * factor)
            return p / p.sum(axis=1, keepdims=True) @ v

    def shape(operator: Any) -> None:
        operator.outputs[0].type = FloatTensorType([None, WIDTH])

    def convert(scope: Any, operator: Any, container: Any) -> None:
        opset = container.target_opset
        stacked = OnnxMatMul(operator.inputs[0], operator.raw_operator.weights_, op_version=opset)
        parts = np.split(np.arange(3 * WIDTH), 3)
        q, k, v = (OnnxArrayFeatureExtractor(stacked, columns, op_version=opset) for columns in parts)
        raw = OnnxMatMul(q, OnnxTranspose(k, perm=[1, 0], op_version=opset), op_version=opset)
        p = OnnxSoftmax(OnnxMul(raw, factor, op_version=opset), axis=1, op_version=opset)
        y = OnnxMatMul(p, v, op_version=opset, output_names=[operator.outputs[0].full_name])
        y.add_to(scope, container)

    update_registered_converter(SelfAttention, "SelfAttention", shape, convert, overwrite=True)
    x = torch.randn(4 * LENGTH, WIDTH)
    pipeline = make_pipeline(StandardScaler(), SelfAttention()).fit(x.numpy())
    return Case(SklearnCall(pipeline).eval(), {"x": x}, {"x": {0: "rows"}})


# Exports that need not be made for every model, since they would only repeat what others show, or that fail:
# - nn.MultiheadAttention by TorchScript under no_grad: aten::_native_multi_head_attention has no ONNX form.
SCRIPTED = ("eager-torchscript", "sdpa-torchscript")
SOME = (*SCRIPTED, "sdpa-dynamo")
MOST = (*SOME, "sdpa-fused")
ALL = (*MOST, "eager-dynamo")
EAGER = ("eager-torchscript", "eager-dynamo")
TABLE: tuple[tuple[str, Callable[[str], Case], tuple[str, ...], int, tuple[int, ...], int], ...] = (
    # family, build, exports, attentions, heads, masked
    ("bert", bert, ALL, 2, (4,), 2),
    ("distilbert", distilbert, SOME, 2, (4,), 2),
    ("roberta", roberta, SCRIPTED, 2, (4,), 2),
    ("albert", albert, SOME, 2, (4,), 2),
    ("mpnet", mpnet, EAGER, 2, (4,), 2),
    ("deberta_v2", deberta, EAGER, 2, (4,), 2),
    ("modernbert", modernbert, SOME, 2, (4,), 2),
    ("vit", vit, (*EAGER, "sdpa-torchscript", "sdpa-dynamo"), 2, (4,), 0),
    ("deit", deit, SCRIPTED, 2, (4,), 0),
    ("swin", swin, ALL, 3, (2, 4), 1),
    ("clip", clip, SOME, 4, (4,), 2),
    ("detr", detr, SOME, 6, (4,), 4),
    ("sam_vision", sam_vision, (*SCRIPTED, "eager-dynamo"), 2, (4,), 0),
    ("sam_decoder", sam_decoder, SOME, 7, (4,), 0),
    ("gpt2", gpt2, ALL, 2, (4,), 2),
    ("llama", llama, ALL, 2, (4,), 2),
    ("qwen2", qwen2, SCRIPTED, 2, (4,), 2),
    ("gemma2", gemma2, EAGER, 2, (4,), 2),
    ("bloom", bloom, EAGER, 2, (4,), 2),
    ("t5_encoder", t5_encoder, ALL, 2, (4,), 2),
    ("t5_decoder", t5_decoder, MOST, 4, (4,), 4),
    ("bart", bart, MOST, 6, (4,), 6),
    ("whisper_encoder", whisper_encoder, SOME, 2, (4,), 0),
    ("whisper_decoder", whisper_decoder, SOME, 4, (4,), 2),
    (
        "multihead",
        multihead,
        ("sdpa-torchscript", "sdpa-dynamo", "sdpa-fused", "weights-torchscript", "weights-dynamo"),
        1,
        (4,),
        1,
    ),
    (
        "transformer_encoder",
        transformer_encoder,
        ("sdpa-torchscript", "fastpath-torchscript", "fastpath-dynamo"),
        2,
        (4,),
        2,
    ),
    ("einsum", einsum, EAGER, 1, (4,), 1),
    ("causal", causal, ("sdpa-dynamo", "sdpa-fused"), 1, (4,), 1),
    ("sklearn", sklearn_attention, ("algebra-skl2onnx",), 1, (1,), 0),
    ("keras", keras_encoder, ("plain-keras",), 2, (4,), 0),
    ("keras", keras_encoder, ("zeros-keras",), 2, (4,), 1),
    ("keras", keras_encoder, ("masked-keras", "causal-keras"), 2, (4,), 2),
)


def _exports() -> Iterator[Export]:
    for family, build, ways, count, heads, masked in TABLE:
        for way in ways:
            attention, exporter = way.split("-")
            yield Export(family, exporter, attention, build, count, heads, masked)


EXPORTS = tuple(_exports())


def export(item: Export, folder: Path) -> Path:
    """Write the model and its samples.

    Parameters
    ----------
    item : Export
        What to export.
    folder : pathlib.Path
        Where to.

    Returns
    -------
    pathlib.Path
        The model; samples lie beside it, with the suffix ``.npz``.
    """
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    with _quiet():
        case = item.build(item.attention)
    _spread(case.model)
    path = folder / f"{item.name}.onnx"
    args = tuple(case.inputs.values())
    with torch.no_grad(), _quiet():
        outputs = case.model(*args)
    # Under no_grad torch's modules take a fast path that TorchScript cannot export; without it torch cannot decompose
    # some views behind SDPA.
    with torch.set_grad_enabled(item.exporter == "torchscript"), _quiet():
        _write(item, case, path)
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = {name: value.numpy() for name, value in case.inputs.items()}
    np.savez(path.with_suffix(".npz"), **arrays, **{f"out_{i}": value.numpy() for i, value in enumerate(expected)})
    return path


def _spread(model: nn.Module) -> None:
    """Random weights that keep values of size 1, so that attention is not flat."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, (parameter.shape[0] / parameter.numel()) ** 0.5)


def _write(item: Export, case: Case, path: Path) -> None:
    args, names = tuple(case.inputs.values()), list(case.inputs)
    if item.exporter == "skl2onnx":
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        given = [(name, FloatTensorType([None, *value.shape[1:]])) for name, value in case.inputs.items()]
        made = to_onnx(case.model.pipeline, initial_types=given, target_opset=TORCHSCRIPT_OPSET)
        path.write_bytes(made.SerializeToString())
        return
    if item.exporter == "keras":
        case.model.model.export(path, format="onnx", opset_version=TORCHSCRIPT_OPSET, verbose=False)
        return
    if item.exporter == "torchscript":
        dynamic = {name: dict(value) for name, value in case.axes.items()}
        torch.onnx.export(
            case.model, args, path, dynamo=False, opset_version=TORCHSCRIPT_OPSET, input_names=names,
            dynamic_axes=dynamic,
        )  # fmt: skip
        return
    shapes: Any = tuple(dict(case.axes[name]) for name in names)
    torch.onnx.export(
        case.model, args, path, dynamo=True, opset_version=FUSED_OPSET if item.exporter == "fused" else DYNAMO_OPSET,
        input_names=names, dynamic_shapes=(shapes,) if isinstance(case.model, Call) else shapes, external_data=False,
        verbose=False,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and progress."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def main() -> None:
    """Export everything, or what matches."""
    parser = argparse.ArgumentParser(description="Export small models by torch's ONNX exporters.")
    parser.add_argument("folder", type=Path, help="where to write NAME.onnx and NAME.npz")
    parser.add_argument("--only", default="", metavar="REGEX", help="names to export, such as 'bert-.*-dynamo'")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for item in EXPORTS:
        if not re.search(arguments.only, item.name):
            continue
        start = time.perf_counter()
        try:
            outcome = f"{export(item, arguments.folder).stat().st_size / 1024:.0f} KiB"
        except Exception as error:  # exporters raise anything
            failed += 1
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            outcome = f"FAILED {type(error).__name__}: {lines[0][:200]}"
        print(f"{item.name:40} {time.perf_counter() - start:6.1f} s  {outcome}", flush=True)
    if failed:
        raise SystemExit(f"{failed} exports failed")


if __name__ == "__main__":
    main()
