"""Random decoders (heads, groups, windows, soft caps, position biases, capacities, numbers of tokens, batch) at random
positions: logits and caches of the emulator equal the reference's, bit for bit, also where the engines overlap in a
random order; lint proves every program for all positions."""

import json
import random
from typing import Any

import numpy as np

from fuzz.harness import Fuzzer

VOCABULARY = 61


def make(rng: random.Random) -> bytes:
    family = rng.choice(("Llama", "Llama", "Mistral", "Gemma2", "Mpt"))
    groups, kv, size = rng.choice((1, 2, 3)), rng.choice((1, 2, 3)), rng.choice((8, 16, 24))
    heads = groups * kv
    capacity, batch = rng.randint(2, 40), rng.choice((1, 1, 2, 3))
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": heads * size, "intermediate_size": rng.choice((24, 64)),
        "num_hidden_layers": rng.randint(1, 3), "num_attention_heads": heads, "num_key_value_heads": kv,
        "max_position_embeddings": 64, "head_dim": size,
    }  # fmt: skip
    if family == "Mpt":
        sizes = {
            "vocab_size": VOCABULARY, "d_model": heads * size, "n_layers": sizes["num_hidden_layers"], "n_heads": heads,
            "max_seq_len": 64,
        }  # fmt: skip
    elif family != "Llama":
        sizes["sliding_window"] = rng.randint(1, capacity)
    if family == "Gemma2":
        sizes |= {"attn_logit_softcapping": rng.choice((None, 5.0)), "final_logit_softcapping": rng.choice((None, 9.0))}
    counts = sorted({1, rng.randint(1, min(capacity, 9))})
    launches = []
    for _ in range(rng.randint(2, 6)):  # the first positions are 0, later ones no further than was written
        launches.append([rng.choice(counts), rng.random(), *(rng.random() for _ in range(batch - 1))])
    case = {
        "family": family, "sizes": sizes, "capacity": capacity, "batch": batch, "counts": counts, "launches": launches,
        "seed": rng.randrange(1 << 30),
    }  # fmt: skip
    return json.dumps(case).encode()


def run(data: bytes) -> None:
    import torch
    import transformers

    from compiler.entries import compile_entries
    from compiler.frontend.decoder import capture_decoder
    from lint.analyse import check
    from runtime.device.executable import Executable

    case = json.loads(data)
    torch.manual_seed(case["seed"])
    config = getattr(transformers, f"{case['family']}Config")(**case["sizes"])
    model = getattr(transformers, f"{case['family']}ForCausalLM")(config).eval()
    batch, capacity = case["batch"], case["capacity"]
    steps = {f"t{count}": capture_decoder(model, batch, count, capacity) for count in case["counts"]}
    compiled = compile_entries(steps)
    image = compiled.image()
    findings = check(image)
    assert not findings, f"lint: {findings[0]}"
    state: dict[str, torch.Tensor] = {}
    constants = {}
    for name, program in compiled.programs.items():
        own = dict(zip((c.name for c in program.lowered.constants), program.lowered.pack_weights(), strict=True))
        for spec in image.states:
            own[spec.name] = state.setdefault(spec.name, own[spec.name])
        constants[name] = tuple(own.values())
    devices = Executable(image), Executable(image, adversarial=case["seed"] % 97)
    ends = [0] * batch  # tokens written of each sequence
    for count, *places in case["launches"]:
        positions = [round(place * min(end, capacity - count)) for place, end in zip(places, ends, strict=True)]
        ends = [max(end, position + count) for end, position in zip(ends, positions, strict=True)]
        ids = torch.randint(0, VOCABULARY, (batch, count), dtype=torch.int32)
        inputs = ids, torch.tensor(positions, dtype=torch.int32)
        (wanted,) = compiled.programs[f"t{count}"].lowered.run(inputs, constants[f"t{count}"])
        scalars = {f"positions.{number}": position for number, position in enumerate(positions)}
        for device in devices:
            (got,) = device({"input_ids": ids.numpy()}, entry=f"t{count}", scalars=scalars).values()
            differing = int((got.view(np.int32) != wanted.numpy().view(np.int32)).sum())
            assert not differing, f"{differing} logits differ at positions {positions} of {count} tokens"
    for spec in image.states:
        written = [np.asarray(device.tensor(spec)) for device in devices]
        for end, number in zip(ends, range(batch), strict=True):
            for held in written:
                same = (held[number][:, :end] == state[spec.name].numpy()[number][:, :end]).all()
                assert same, f"cache {spec.name} differs"


def show(data: bytes) -> str:
    return json.dumps(json.loads(data), indent=1) + "\n"


def prepare() -> None:
    import torch
    import transformers

    import compiler.entries
    import runtime.device.executable

    assert torch and transformers and compiler.entries and runtime.device.executable
    run(make(random.Random(0)))


DECODERS = Fuzzer(
    "decoders", make, run, smaller=lambda case, _fails, _seconds: case, show=show, prepare=prepare, case_seconds=120.0
)
