"""A tiny model of any model type of transformers: its default configuration with every size shrunk, made from the names
of its fields, and what these cannot say in `SPECIAL`.

    tiny_config("bert").hidden_size == 64
"""

import copy
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

WIDTH, HEADS, GROUPS, HEAD, WIDE, VOCABULARY, LONGEST, EDGE = 64, 4, 2, 16, 96, 128, 64, 32
FIRST_TEXT_ID = 40  # ids from here on are words, below are the special ones
SPECIAL_IDS = {"pad": 0, "bos": 1, "eos": 2, "decoder_start": 1}

# By name: a field of one of these names, or for ~name one that ends so, has this size. The first that fits counts.
_SIZES: Sequence[tuple[int, str]] = (
    (2 * HEAD, "qk_head_dim"),
    (HEAD, ("head_dim d_kv qk_nope_head_dim qk_rope_head_dim v_head_dim dim_head attention_head_dim swa_head_dim d_head"
           " global_head_dim index_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim kv_channels"
           " attention_head_size mamba_d_head mamba_head_dim swa_v_head_dim")),
    (GROUPS, ("num_key_value_heads num_kv_heads n_kv_heads linear_num_key_heads swa_num_key_value_heads"
             " num_global_key_value_heads multi_query_group_num")),
    (8, "mamba_n_heads mamba_num_heads"),
    (HEADS, "~attention_heads ~num_heads ~n_head ~n_heads ~heads linear_num_value_heads"),
    (WIDE, ("~intermediate_size ~ffn_dim ~d_ff ~mlp_dim ~d_inner ~n_inner ~ffn_hidden_size ~feedforward_dim"
           " ~dim_feedforward ~inner_dim ~intermediate_dim ~mlp_hidden_size")),
    (WIDTH, ("~encoder_hidden_dim ~hidden_size ~d_model ~n_embd ~embed_dim ~hidden_dim ~projection_dim ~embedding_size"
            " ~emb_dim ~embedding_dim ~dim ~output_dim ~hidden_channels ~proj_size ~lru_width ~width")),
    (32, "q_lora_rank kv_lora_rank o_lora_rank lora_rank time_step_rank mamba_dt_rank"),
    (2, "~hidden_layers ~num_layers ~n_layer ~n_layers ~layers ~depth ~num_blocks num_hidden_groups num_nextn_predict_layers"),
    (4, "~num_experts ~n_routed_experts ~num_local_experts ~moe_num_experts ~num_routed_experts ~n_experts"),
    (2, "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k num_selected_experts topk"),
    (1, "n_group topk_group num_expert_group topk_groups"),
    (VOCABULARY, "~vocab_size codebook_size num_embeddings vocab_size_per_layer_input"),
    (LONGEST, ("max_position_embeddings n_positions max_source_positions max_target_positions max_seq_len context_length"
              " model_max_length max_sequence_length max_length max_text_len max_audio_length")),
    (5, "sliding_window local_attention window_size_left attention_chunk_size local_attention_window"),
    (4, "attention_window"),
    (8, "~num_queries ~num_query_tokens ~num_latents resampler_n_latents ~num_query"),
    (4, "num_groups upsample_groups num_conv_pos_embedding_groups norm_num_groups"),
    (16, "num_conv_pos_embeddings"),
    (2, "codebooks num_codebooks num_quantizers encoder_n_points decoder_n_points"),
    (8, "index_topk train_num_points num_denoising mamba_d_state state_size ssm_state_size"),
    (1, "first_k_dense_replace num_dense_layers moe_layer_start_index num_kv_shared_layers"),
    (EDGE, "~image_size pretrain_image_size img_size input_size"),
)  # fmt: skip
_PER_LAYER = (
    "~layer_types layers_block_type indexer_types block_types layer_rope_theta no_rope_layers hybrid_override_pattern"
)
_TOKENS = "~token_id ~token_index ~start_id ~end_id ~pad_id mask_index"
_DEPTHS = (
    "depths num_blocks num_block_repeats encoder_depths decoder_depths layers depth stage_num_blocks num_layers"
    " encoder_blocks decoder_blocks blocks_per_stage encoder_layers"
)
_HEAD_LISTS = "~num_attention_heads ~num_heads ~num_head"
_WIDTHS = "~hidden_sizes ~hidden_size ~embed_dims ~embed_dim ~conv_dim widths embedding_size dims tdnn_dim neck_hidden_sizes ~num_filters"
_INDEXES = (
    "~global_attn_indexes ~deepstack_visual_indexes ~fullatt_block_indexes ~full_attn_idxs ~cross_attention_layers"
    " ~intermediate_layers_indices"
)
_LAYER_COUNTS = "num_hidden_layers num_layers n_layer n_layers"
_EDGES = "~image_size ~img_size ~input_size"


def _in(key: str, names: str) -> bool:
    return any(key == name.lstrip("~") or (name[0] == "~" and key.endswith(f"_{name[1:]}")) for name in names.split())


_RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
_LAST = {**_RESNET, "out_features": ["stage4"]}
_OWN_BACKBONE = {"use_timm_backbone": False, "backbone": None, "backbone_config": _LAST}
_PAIRED = {"num_key_value_heads": HEADS}

# What the names do not say: fields of one type's configuration, nested ones by a path with dots.
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "conditional_detr": _OWN_BACKBONE,
    "dab-detr": _OWN_BACKBONE,
    "deformable_detr": {**_OWN_BACKBONE, "backbone_config": _RESNET},
    "detr": _OWN_BACKBONE,
    "table-transformer": _OWN_BACKBONE,
    "dots3_note": {f"text_config.{key}": value for key, value in _PAIRED.items()},
    "dots3_note_text": _PAIRED,
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "esmc": _PAIRED,
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm5_next": {f"text_config.{key}": value for key, value in _PAIRED.items()},
    "glm5_next_text": _PAIRED,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 5},
    "granite_speech5_ctc": {"context_size": 16},
    "granite_speech5_encoder": {"context_size": 16},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": HEAD},
    "nemotron": {"num_key_value_heads": GROUPS},
    "reformer": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [8, 8]},
    "swin2sr": {"embed_dim": 24},
}  # fmt: skip


def tiny_config(name: str) -> Any:
    """The configuration of a model type. Raises what transformers raises for sizes that do not go together."""
    from transformers import CONFIG_MAPPING

    return shrunk(CONFIG_MAPPING[name], {}, SPECIAL.get(name, {}))


def shrunk(cls: Any, known_ids: dict[int, int], special: Mapping[str, Any]) -> Any:
    """An instance of a configuration class with small sizes. `known_ids`: by a special token's id in the whole
    configuration what it becomes, for nested ones name the same tokens."""
    default = cls()
    nested = {key: value for key in cls.sub_configs if _is_config(value := getattr(default, key, None))}
    changes: dict[str, Any] = {}
    layers = _layers(default)
    own = set(_names(cls))
    for key, value in default.to_dict().items():
        if key in nested or key.startswith("_") or (own and key not in own) or isinstance(value, bool):
            continue
        new = _small(key, value, layers, known_ids)
        if new is not None and new != value:
            changes[key] = new
    for key, value in nested.items():
        if key in special:
            continue
        inner = {k.partition(".")[2]: v for k, v in special.items() if k.startswith(key + ".")}
        changes[key] = shrunk(type(value), known_ids, inner)
    changes.update({k: v for k, v in special.items() if "." not in k})
    return cls(**copy.deepcopy(changes))


def _is_config(value: Any) -> bool:
    from transformers import PreTrainedConfig

    return isinstance(value, PreTrainedConfig)


def _names(cls: Any) -> list[str]:
    """The arguments of its constructor; empty where it takes any."""
    fields = getattr(cls, "__dataclass_fields__", None)
    if fields:
        return list(fields)
    parameters = inspect.signature(cls.__init__).parameters
    return [name for name in parameters if name not in ("self", "kwargs")]


def _layers(config: Any) -> list[int]:
    """Which of its layers a tiny model has: the first of each kind, two at least."""
    lists = [v for k, v in config.__dict__.items() if _in(k, _PER_LAYER) and isinstance(v, (list, tuple, str)) and v]
    if not lists:
        return [0, 1]
    kinds = list(zip(*lists, strict=False))
    chosen = sorted({kinds.index(kind) for kind in kinds})[:4]
    return chosen if len(chosen) > 1 else [*chosen, *(n for n in range(len(kinds)) if n not in chosen)][:2]


def _small(key: str, value: Any, layers: Sequence[int], known_ids: dict[int, int]) -> Any:
    """The value of a field; None: as it is."""
    if _in(key, _TOKENS) and isinstance(value, int) and not isinstance(value, bool):
        return _id(key, value, known_ids)
    if key == "eos_token_id" and isinstance(value, (list, tuple)):
        return 2
    if _in(key, _PER_LAYER) and isinstance(value, (list, tuple, str)):
        picked = [value[n] for n in layers if n < len(value)]
        return "".join(picked) if isinstance(value, str) else type(value)(picked)
    if isinstance(value, (list, tuple)):
        return _small_list(key, value)
    if key in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
        return _small_rope(value)
    if not isinstance(value, int):
        return None
    if _in(key, _LAYER_COUNTS) and len(layers) > 2:
        return len(layers)
    size = next((size for size, names in _SIZES if _in(key, names)), 0)
    return size if size and value > size else None


def _small_list(key: str, value: Any) -> Any:
    """A list of sizes, one for each stage or layer."""
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in value) and value
    if not whole:
        return None
    kind = type(value)
    if _in(key, _INDEXES):
        return kind(sorted({min(n, 1) for n in range(len(value))})) if min(value) >= 0 else None
    if _in(key, _DEPTHS):
        return kind([1] * len(value))
    if _in(key, _EDGES) and len(value) == 2:
        return kind([EDGE, EDGE]) if max(value) > EDGE else None
    if _in(key, _HEAD_LISTS):
        return kind([2 ** min(n, 2) for n in range(len(value))]) if max(value) > 8 else None
    if _in(key, _WIDTHS):
        factor = max(value) // 128
        return kind([max(v // factor // 8 * 8, 8) for v in value]) if factor > 1 else None
    if key == "mrope_section":
        return kind(_section(value))
    return None


def _small_rope(value: Mapping[str, Any]) -> Any:
    new = dict(value)
    for key in new:
        if isinstance(new[key], dict):
            new[key] = _small_rope(new[key])
    if new.get("mrope_section"):
        new["mrope_section"] = _section(new["mrope_section"])
    for key in ("short_factor", "long_factor"):
        if new.get(key):
            new[key] = list(new[key])[: HEAD // 2]
    return new


def _section(value: Sequence[int]) -> list[int]:
    """Parts of half a head."""
    parts = [max(1, v * (HEAD // 2) // sum(value)) for v in value]
    return [*parts[:-1], HEAD // 2 - sum(parts[:-1])]


def _id(key: str, value: int, known: dict[int, int]) -> int | None:
    """A special token's id below those of words; each token another."""
    if value < 0:
        return None
    name = re.sub(r"_token_(id|index)$", "", key)
    if name in SPECIAL_IDS:
        return SPECIAL_IDS[name]
    return known.setdefault(value, 3 + len(known))


# ---- the model


def tiny_model(name: str, config: Any) -> torch.nn.Module:
    """A model with random weights, in eval mode."""
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    torch.manual_seed(0)
    _without_cache(config)
    own = MODEL_MAPPING_NAMES.get(name)
    make = AutoModel.from_config if isinstance(own, str) else _class(type(config))._from_config
    model: torch.nn.Module = make(config)
    return model.float().eval()


def _without_cache(config: Any) -> None:
    """A model that returns its cache is another program (docs/llm.md); each configuration in it has a say."""
    for part in (config, *(getattr(config, key, None) for key in config.sub_configs)):
        if part is not None and hasattr(part, "use_cache"):
            part.use_cache = False
        if part is not None and part is not config and _is_config(part):
            _without_cache(part)


def _class(config: Any) -> Any:
    """The class of transformers that takes a configuration which AutoModel does not know."""
    from transformers import PreTrainedModel

    folder = config.__module__.rpartition(".")[0]
    stem = config.__module__.rpartition(".")[2].replace("configuration_", "modeling_")
    module = importlib.import_module(f"{folder}.{stem}")
    found = [
        cls for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, PreTrainedModel) and getattr(cls, "config_class", None) is config
        and cls.__module__ == module.__name__ and "forward" in vars(cls) and not cls.__name__.endswith("PreTrainedModel")
    ]  # fmt: skip
    if not found:
        raise LookupError(f"{module.__name__} has no model of {config.__name__}")
    return min(found, key=_rank)


def _rank(cls: Any) -> tuple[bool, int]:
    return not cls.__name__.endswith("Model"), len(cls.__name__)
