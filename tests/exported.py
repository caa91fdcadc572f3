"""What an exported model must hold: a folder by raw bytes, a GGUF file by the `gguf` package and llama.cpp.

Comparisons return a list of what is wrong, empty if nothing is. interop.py calls them.
"""

import json
import urllib.request

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

import generated
import parity

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
QUANTS = gguf.GGMLQuantizationType
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}

# What llama.cpp rounds activations to beside weights of a type, as an error of log-probabilities; f32 is exact.
LLAMA_CPP_LIMITS = {"f32": generated.LOGPROB_LIMIT, "f16": 0.02, "bf16": 0.1, "q8_0": 0.1}


# --- folders --------------------------------------------------------------------------------------------------------


def shards(folder):
    return sorted(folder.glob("model*.safetensors"))


def read_shard(file):
    """{name: (stored type, shape, bytes)}, read without any package."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    if data[start:] != data[start : start + max(it["data_offsets"][1] for it in header.values())]:
        raise ValueError(f"{file.name} has bytes behind its tensors")
    cut = lambda offsets: data[start + offsets[0] : start + offsets[1]]
    return {name: (it["dtype"], it["shape"], cut(it["data_offsets"])) for name, it in header.items()}


def read_folder(folder):
    return {name: it for file in shards(folder) for name, it in read_shard(file).items()}


def tensor(stored):
    dtype, shape, data = stored
    return torch.frombuffer(bytearray(data), dtype=STORED[dtype]).reshape(shape)


def raw(values):
    """The bytes of a tensor; numpy knows no bfloat16."""
    return (values if values.dtype != torch.bfloat16 else values.view(torch.int16)).numpy().tobytes()


def rounded(stored, dtype):
    """A stored tensor as `dtype`, rounded as torch rounds; the same bytes where it has that type."""
    if STORED[stored[0]] == DTYPES[dtype]:
        return stored
    return dtype.upper(), stored[1], raw(tensor(stored).to(DTYPES[dtype]))


def compare_tensors(got, want):
    if set(got) != set(want):
        return [f"tensors differ: {sorted(set(got) ^ set(want))[:3]}"]
    wrong = []
    for name in want:
        for what, a, b in zip(("type", "shape", "bytes"), got[name], want[name]):
            if a != b:
                wrong.append(f"{name}: other {what}" + ("" if what == "bytes" else f": {a}, not {b}"))
                break
    return wrong


def compare_folder(out, source, dtype, most=None):
    """What is wrong with the folder `out`, which should be `source` stored as `dtype` in files of `most` bytes."""
    try:
        got = read_folder(out)
    except ValueError as error:
        return [str(error)]
    wrong = compare_tensors(got, {name: rounded(it, dtype) for name, it in read_folder(source).items()})
    configs = [json.loads((folder / "config.json").read_text()) for folder in (out, source)]
    if configs[0] != configs[1] | {"torch_dtype": str(DTYPES[dtype]).removeprefix("torch.")}:
        wrong.append("config.json differs in more than torch_dtype")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (out / name).read_bytes() != (source / name).read_bytes():
            wrong.append(f"{name} differs")
    if most:
        wrong += compare_index(out, most)
    return wrong


def compare_index(out, most):
    wrong = []
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = {file.name: read_shard(file) for file in shards(out)}
    if index["weight_map"] != {name: file for file, tensors in files.items() for name in tensors}:
        wrong.append("the index does not say where the tensors are")
    sizes = {file: sum(len(data) for _, _, data in tensors.values()) for file, tensors in files.items()}
    if index["metadata"]["total_size"] != sum(sizes.values()):
        wrong.append("total_size is not the size of all tensors")
    if len(files) < 2:
        wrong.append("there is only one file")
    wrong += [f"{file} has {sizes[file]} bytes" for file in files if sizes[file] > most and len(files[file]) > 1]
    return wrong


# --- GGUF -----------------------------------------------------------------------------------------------------------


def gguf_tensors(folder, type_):
    """{llama.cpp's name: (type, shape, bytes)} of the model in `folder`."""
    config = json.loads((folder / "config.json").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    result = {}
    for name, stored in read_folder(folder).items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        quant = QUANTS.F32 if len(stored[1]) == 1 else QUANTS[type_.upper()]
        if quant == QUANTS.Q8_0 and stored[1][-1] % 32:
            quant = QUANTS.F16
        values = tensor(stored if quant == QUANTS.Q8_0 else rounded(stored, quant.name.lower()))
        if heads:
            values = side_by_side(values, config[heads])
        data = gguf.quants.quantize(values.float().numpy(), quant).tobytes() if quant == QUANTS.Q8_0 else raw(values)
        result[names.get_name(name, try_suffixes=(".weight",))] = (quant.name, stored[1], data)
    return result


def side_by_side(values, heads):
    """Rows of a head in the order 0, d/2, 1, d/2 + 1, ...: llama.cpp turns neighbours, transformers halves."""
    return values.reshape(heads, 2, -1, values.shape[1]).transpose(1, 2).reshape(values.shape).contiguous()


def gguf_metadata(folder, type_, name):
    config = json.loads((folder / "config.json").read_text())
    head_dim = config["head_dim"]
    keys = gguf.Keys
    llama = {
        keys.LLM.VOCAB_SIZE: config["vocab_size"],
        keys.LLM.CONTEXT_LENGTH: config["max_position_embeddings"],
        keys.LLM.EMBEDDING_LENGTH: config["hidden_size"],
        keys.LLM.BLOCK_COUNT: config["num_hidden_layers"],
        keys.LLM.FEED_FORWARD_LENGTH: config["intermediate_size"],
        keys.Attention.HEAD_COUNT: config["num_attention_heads"],
        keys.Attention.HEAD_COUNT_KV: config["num_key_value_heads"],
        keys.Attention.KEY_LENGTH: head_dim,
        keys.Attention.VALUE_LENGTH: head_dim,
        keys.Attention.LAYERNORM_RMS_EPS: float(np.float32(config["rms_norm_eps"])),
        keys.Rope.DIMENSION_COUNT: head_dim,
        keys.Rope.FREQ_BASE: float(np.float32(config["rope_theta"])),
    }
    return {
        keys.General.ARCHITECTURE: "llama",
        keys.General.NAME: name,
        keys.General.FILE_TYPE: int(FILE_TYPES[type_]),
        keys.General.QUANTIZATION_VERSION: gguf.GGML_QUANT_VERSION,
        **{key.format(arch="llama"): value for key, value in llama.items()},
        **gguf_vocabulary(folder, config["vocab_size"]),
    }


def gguf_vocabulary(folder, size):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    contents = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {it["id"]: gguf.TokenType.CONTROL for it in contents["added_tokens"]}
    tokens = [tokenizer.id_to_token(id_) for id_ in range(size)]
    absent = lambda id_: special.get(id_, gguf.TokenType.UNUSED if tokens[id_] is None else gguf.TokenType.NORMAL)
    merges = contents["model"]["merges"]
    keys = gguf.Keys.Tokenizer
    roles = {keys.BOS_ID: "bos_token", keys.EOS_ID: "eos_token", keys.UNK_ID: "unk_token", keys.PAD_ID: "pad_token"}
    entries = {
        keys.MODEL: "gpt2",
        keys.PRE: "smollm",
        keys.TOKEN_TYPE: [int(absent(id_)) for id_ in range(size)],
        keys.LIST: [f"[PAD{id_}]" if text is None else text for id_, text in enumerate(tokens)],
        keys.MERGES: [it if isinstance(it, str) else " ".join(it) for it in merges],
        keys.ADD_BOS: False,
        keys.ADD_EOS: False,
    }
    entries |= {key: tokenizer.token_to_id(settings[role]) for key, role in roles.items() if settings.get(role)}
    if "chat_template" in settings:
        entries[keys.CHAT_TEMPLATE] = settings["chat_template"]
    return entries


def read_gguf(path):
    """(metadata, tensors) of a file, in the form of gguf_metadata and gguf_tensors."""
    reader = gguf.GGUFReader(path)
    metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    tensors = {}
    for it in reader.tensors:
        if it.data_offset % gguf.GGUF_DEFAULT_ALIGNMENT:
            raise ValueError(f"{it.name} is not aligned")
        tensors[it.name] = (it.tensor_type.name, [int(n) for n in reversed(it.shape)], it.data.tobytes())
    return metadata, tensors


def compare_gguf(path, folder, type_, name):
    """What is wrong with the file `path`, which should be the model `folder` stored as `type_`."""
    try:
        metadata, tensors = read_gguf(path)
    except Exception as error:  # the reader's own, of many kinds
        return [f"gguf cannot read it: {error}"]
    want = gguf_metadata(folder, type_, name)
    wrong = [f"metadata: {key} is {metadata.get(key)!r:.60}" for key in want if metadata.get(key) != want[key]]
    wrong += [f"metadata: {key} is unknown" for key in metadata if key not in want]
    return wrong + compare_tensors(tensors, gguf_tensors(folder, type_))


def write_gguf(path, metadata, tensors):
    """The same by `gguf`'s own writer, to plant faults in."""
    writer = gguf.GGUFWriter(path, "llama")
    kind = lambda value: next(
        kind
        for type_, kind in (
            (bool, gguf.GGUFValueType.BOOL),
            (int, gguf.GGUFValueType.UINT32),
            (float, gguf.GGUFValueType.FLOAT32),
            (str, gguf.GGUFValueType.STRING),
            (list, gguf.GGUFValueType.ARRAY),
        )
        if isinstance(value, type_)
    )
    for key, value in metadata.items():
        if key != gguf.Keys.General.ARCHITECTURE:
            writer.add_key_value(key, value, kind(value))
    for name, (type_, shape, data) in tensors.items():
        quant = QUANTS[type_]
        block, size = gguf.GGML_QUANT_SIZES[quant]
        rows = np.frombuffer(data, np.uint8).reshape(*shape[:-1], shape[-1] // block * size)
        writer.add_tensor(name, rows, raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- llama.cpp ------------------------------------------------------------------------------------------------------


class LlamaCpp:
    """A GGUF file opened by llama.cpp, keys and values cached in f32."""

    def __init__(self, path, context):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.n_gpu_layers = context, 1, False, 0
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.verbosity = -1
        self.server = xllamacpp.Server(params)

    def post(self, path, request):
        body = json.dumps(request).encode()
        request = urllib.request.Request(self.server.listening_address + path, body)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def tokenize(self, text):
        return self.post("/tokenize", {"content": text})["tokens"]

    def complete(self, ids, count, banned):
        """The likeliest continuation without `banned` tokens, and the log-probability of its first token.

        The latter is NaN where that token's text is not whole characters: the server keeps it to itself.
        """
        request = {"prompt": ids, "n_predict": count, "temperature": 0, "logit_bias": [[id_, False] for id_ in banned]}
        flags = {"n_probs": 1, "return_tokens": True, "cache_prompt": False}
        answer = self.post("/completion", request | flags)
        tokens = answer["tokens"]
        first = next(iter(answer["completion_probabilities"]), None)
        return tokens, first["logprob"] if first and first["id"] == tokens[0] else float("nan")


def compare_llama_cpp(path, folder, model, type_, count):
    """(what is wrong with what llama.cpp makes of a GGUF file, the worst error of a first log-probability).

    From f32 it must make torch's tokens; for other types it rounds activations too, so later tokens may differ. Special
    tokens are banned on both sides, because some end a text for llama.cpp.
    """
    llama_cpp = LlamaCpp(path, 1024)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = sorted(tokenizer.get_added_tokens_decoder())
    wrong, errors = [], []
    for prompt in generated.PROMPTS:
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        if llama_cpp.tokenize(prompt) != ids:
            wrong.append(f"llama.cpp cuts {prompt!r:.30} into other tokens")
        steps = parity.greedy(model, ids, count if type_ == "f32" else 1, special)
        tokens, first = llama_cpp.complete(ids, len(steps), special)
        if type_ == "f32":
            wrong += [f"llama.cpp: {what}" for what in generated.compare_tokens(tokens, steps)]
        if tokens[:1] == [steps[0]["token"]] and first == first:
            errors.append(abs(first - steps[0]["logprob"]))
    if not errors or not max(errors) <= LLAMA_CPP_LIMITS[type_]:
        wrong.append(f"llama.cpp: the first log-probabilities are off by {errors}")
    return wrong, max(errors, default=float("inf"))
