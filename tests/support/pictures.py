"""Tiny models of images and of sound, with random weights: one for each family of transformers that is tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_PATCHES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_WORDS = {**_TOWER, "vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 97, "eos_token_id": 98}
_BOTH = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "use_cache": False,
    "vocab_size": 99,
    "max_target_positions": 12,
    "pad_token_id": 0,
}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
_RESIDUAL = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
_SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


@dataclass(frozen=True)
class Family:
    """A class of transformers with its configuration, and the shape of its input."""

    model: str
    config: str
    sizes: Mapping[str, Any]
    shape: tuple[int, ...] = (1, 3, 32, 32)
    input: str = "pixel_values"
    quick: bool = field(default=False)  # in the fast tests
    words: tuple[tuple[int, ...], ...] = ()  # token numbers, of a model that takes them, too
    words_input: str = "input_ids"


FAMILIES: dict[str, Family] = {
    "vit": Family("ViTForImageClassification", "ViTConfig", _PATCHES, quick=True),
    "vit-msn": Family("ViTMSNModel", "ViTMSNConfig", _PATCHES),
    "deit": Family("DeiTModel", "DeiTConfig", _PATCHES),
    "beit": Family("BeitModel", "BeitConfig", _PATCHES),
    "data2vec": Family("Data2VecVisionModel", "Data2VecVisionConfig", _PATCHES),
    "dinov2": Family("Dinov2Model", "Dinov2Config", _PATCHES),
    "clip": Family("CLIPVisionModel", "CLIPVisionConfig", _PATCHES),
    "clip-whole": Family(
        "CLIPModel",
        "CLIPConfig",
        {"text_config": _WORDS, "vision_config": _PATCHES, "projection_dim": 24},
        (3, 3, 32, 32),
        quick=True,
        words=((97, 5, 3, 98, 98, 98), (97, 8, 14, 7, 21, 98)),  # a text ends at its first 98
    ),
    "groupvit": Family(
        "GroupViTVisionModel",
        "GroupViTVisionConfig",
        {
            **_PATCHES,
            "image_size": 224,
            "patch_size": 56,
            "depths": [1, 1, 1],
            "num_output_groups": [8, 4, 0],
            "num_group_tokens": [8, 4, 0],
        },
        (1, 3, 224, 224),
    ),
    "patchtst": Family(
        "PatchTSTModel",
        "PatchTSTConfig",
        {
            "context_length": 16,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 16,
            "num_input_channels": 2,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "num_hidden_layers": 2,
        },
        (1, 16, 2),
        "past_values",
    ),
    "siglip-whole": Family(
        "SiglipModel",
        "SiglipConfig",
        {"text_config": {**_WORDS, "projection_size": 32}, "vision_config": _PATCHES},
        words=((5, 3, 98, 1), (8, 14, 7, 98)),
    ),
    "siglip": Family("SiglipVisionModel", "SiglipVisionConfig", _PATCHES, quick=True),
    "swin": Family(
        "SwinModel",
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        quick=True,
    ),
    "convnext": Family("ConvNextModel", "ConvNextConfig", _STAGES),
    "convnext-v2": Family("ConvNextV2Model", "ConvNextV2Config", _STAGES),
    "resnet": Family("ResNetForImageClassification", "ResNetConfig", _RESIDUAL, quick=True),
    "regnet": Family("RegNetModel", "RegNetConfig", {**_RESIDUAL, "groups_width": 8}),
    "mobilenet-v1": Family("MobileNetV1Model", "MobileNetV1Config", {"image_size": 32, "depth_multiplier": 0.25}),
    "mobilenet-v2": Family("MobileNetV2Model", "MobileNetV2Config", {"image_size": 32, "depth_multiplier": 0.35}),
    "efficientnet": Family(
        "EfficientNetModel",
        "EfficientNetConfig",
        {"image_size": 64, "width_coefficient": 1.0, "depth_coefficient": 0.2, "hidden_dim": 1280},
        (1, 3, 64, 64),
    ),
    "segformer": Family(
        "SegformerModel",
        "SegformerConfig",
        {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
        (1, 3, 64, 64),
    ),
    "segformer-head": Family(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 32,
        },
        (1, 3, 64, 64),
    ),
    "detr": Family(
        "DetrForObjectDetection",
        "DetrConfig",
        {
            **_BOTH,
            "num_queries": 5,
            "backbone_config": {"model_type": "resnet", **_RESIDUAL, "out_features": ["stage4"]},
        },
        (1, 3, 64, 64),
    ),
    "glpn": Family(
        "GLPNForDepthEstimation",
        "GLPNConfig",
        {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
        (1, 3, 64, 64),
    ),
    "mobilevit": Family(
        "MobileViTModel",
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
            "num_attention_heads": 2,
        },
        (1, 3, 64, 64),
    ),
    "poolformer": Family("PoolFormerModel", "PoolFormerConfig", _STAGES, (1, 3, 64, 64)),
    "pvt": Family(
        "PvtModel",
        "PvtConfig",
        {
            "image_size": 64,
            "hidden_sizes": [8, 16, 16, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
        },
        (1, 3, 64, 64),
    ),
    "levit": Family(
        "LevitModel",
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [1, 2, 3],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        (1, 3, 64, 64),
    ),
    "focalnet": Family("FocalNetModel", "FocalNetConfig", {"image_size": 32, "embed_dim": 16, "depths": [1, 1]}),
    "sam": Family(
        "SamVisionModel",
        "SamVisionConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
            "output_channels": 16,
            "mlp_dim": 64,
        },
        (1, 3, 64, 64),
    ),
    "wav2vec2": Family("Wav2Vec2Model", "Wav2Vec2Config", _SPEECH, (1, 4000), "input_values", quick=True),
    "hubert": Family("HubertModel", "HubertConfig", _SPEECH, (1, 4000), "input_values"),
    "wavlm": Family("WavLMModel", "WavLMConfig", _SPEECH, (1, 4000), "input_values"),
    "whisper": Family(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**_BOTH, "num_mel_bins": 8, "max_source_positions": 20, "bos_token_id": 1, "eos_token_id": 2},
        (1, 8, 40),
        "input_features",
        words=((1, 5, 7),),
        words_input="decoder_input_ids",
    ),
    "moonshine": Family(
        "MoonshineModel",
        "MoonshineConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "encoder_num_hidden_layers": 1,
            "decoder_num_hidden_layers": 1,
            "encoder_num_attention_heads": 2,
            "decoder_num_attention_heads": 2,
            "vocab_size": 99,
            "use_cache": False,
        },
        (1, 4000),
        "input_values",
        words=((1, 5, 7),),
        words_input="decoder_input_ids",
    ),
    "rwkv": Family(
        "RwkvModel",
        "RwkvConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99, "context_length": 16, "use_cache": False},
        (),
        words=((3, 14, 15, 92),),
    ),
    "mamba": Family(
        "MambaModel",
        "MambaConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "state_size": 8,
            "vocab_size": 99,
            "time_step_rank": 4,
            "use_cache": False,
        },
        (),
        words=((3, 14, 15, 92),),
    ),
    "mamba2": Family(
        "Mamba2Model",
        "Mamba2Config",
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "state_size": 8,
            "vocab_size": 99,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 1,
            "chunk_size": 4,
            "use_cache": False,
        },
        (),
        words=((3, 14, 15, 92),),
    ),
    "ast": Family(
        "ASTModel",
        "ASTConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_length": 64,
            "num_mel_bins": 32,
        },
        (1, 64, 32),
        "input_values",
    ),
}


def tiny(family: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model, and something to give it."""
    import transformers

    chosen = FAMILIES[family]
    torch.manual_seed(0)
    model = getattr(transformers, chosen.model)(getattr(transformers, chosen.config)(**chosen.sizes)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # what starts at zero hides what is behind it
            nn.init.normal_(parameter, std=0.1)
    inputs = {chosen.input: torch.randn(chosen.shape)} if chosen.shape else {}
    inputs |= {chosen.words_input: torch.tensor(chosen.words)} if chosen.words else {}
    with torch.no_grad():
        model(**inputs)  # RWKV rescales its weights at the first call
    return model, inputs
