#!/usr/bin/env python3
"""Checks what smolter generates and exports against transformers, the `gguf` package and llama.cpp.

  interop.py SMOLTER [generate] [export] [--tokenizer DIR] [--device NAME] [--shapes 135m,360m,1.7b] [--layers N]
                     [--tokens N] [--seed S]
      generate   random models of SmolLM2's shapes, stored in f32 and bf16: greedy tokens and log-probabilities of
                 several prompts, side by side and alone, with smolter's cache; then the logits of all of it without
      export     random models, as Hugging Face folders and GGUF files of every element type; loaded again by
                 transformers and, where `pip install xllamacpp` has been done, by llama.cpp
      Without either, both. --tokenizer names a folder with SmolLM2's tokenizer.json, and tokenizer_config.json if it has one; without
      it a small byte-level tokenizer takes their place.
  interop.py --self-check
      torch and `gguf` take smolter's place and must pass; then with planted faults, each of which must be caught

Needs: what parity.py needs, and pip install gguf. Exit code: 0 all agree, 1 something does not, 2 bad arguments.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import exported
import generated
import parity

#          hidden, ffn, heads, key/value heads
SHAPES = {"135m": (576, 1536, 9, 3), "360m": (960, 2560, 15, 5), "1.7b": (2048, 8192, 32, 32)}
VOCABULARY = 49152
LLAMA_CPP = importlib.util.find_spec("xllamacpp") is not None


def small_tokenizer(folder):
    """SmolLM2's kind of tokenizer, learnt from one text."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([parity.TEXT] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def copy_tokenizer(tokenizer, folder):
    """Puts the tokenizer of a folder, or the small one, into another."""
    if tokenizer:
        shutil.copy(tokenizer / "tokenizer.json", folder)
    else:
        small_tokenizer(folder)
    if tokenizer and (tokenizer / "tokenizer_config.json").exists():
        shutil.copy(tokenizer / "tokenizer_config.json", folder)
    else:
        roles = {role: "<|endoftext|>" for role in ("bos_token", "eos_token", "unk_token")}
        (folder / "tokenizer_config.json").write_text(json.dumps(roles | {"tokenizer_class": "GPT2Tokenizer"}))


def ask(smolter, *arguments):
    """What `smolter ARGUMENTS` prints."""
    done = subprocess.run([smolter, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise parity.RunFailed(f"{arguments[0]} exited {done.returncode}, saying: {said[-1]}")
    return done.stdout


# --- generation -----------------------------------------------------------------------------------------------------


def random_llama(folder, config, seed, dtype):
    """Saves a random model and returns it in f32, as it is on disk."""
    model = parity.random_model(config, torch.Generator().manual_seed(seed))
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return parity.load_model(folder, torch.float32)


def smolter_generates(smolter, device):
    """Functions that continue prompts (a list of texts) and give the logits of ids, for a model folder."""
    flags = ["--device", device] if device else []

    def continue_(folder, prompts, count):
        flags_here = [flag for prompt in prompts for flag in ("--prompt", prompt)]
        lines = ask(smolter, "generate", folder, *flags_here, "--max-tokens", count, "--logprobs", *flags)
        return [json.loads(line) for line in lines.splitlines()]

    def forward(folder, ids):
        given, out = folder / "input.safetensors", folder / "out.safetensors"
        parity.save_file({"input_ids": torch.tensor([ids])}, given)
        ask(smolter, "debug", *parity.command_line("forward", folder, given, out, device))
        return parity.load_file(out)["logits"]

    return continue_, forward


def generation(smolter, device, tokenizer, shapes, layers, count, seed):
    failed = 0
    for shape in shapes:
        hidden, ffn, heads, kv_heads = SHAPES[shape]
        config = {
            "vocab_size": VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-5,
            "bos_token_id": None,
            "eos_token_id": None,  # nothing ends the text early
        }
        for dtype in (torch.float32, torch.bfloat16):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                copy_tokenizer(tokenizer, folder)
                model = random_llama(folder, config, seed, dtype)
                try:
                    wrong, it = generated.check_generation(*smolter_generates(smolter, device), folder, model, count)
                except parity.RunFailed as error:
                    wrong, it = [str(error)], None
            name = f"{shape}, {layers} layers, {str(dtype).removeprefix('torch.')}"
            if it:
                ties = "; ties: " + ", ".join(it["ties"]) if it["ties"] else ""
                print(
                    f"{name}: {it['tokens']} tokens of {len(generated.PROMPTS)} prompts ({it['distinct']} distinct), "
                    f"logits NMSE {it['nmse']:.1e}, log-probabilities within {it['logprob']:.1e}{ties}"
                )
            for what in wrong:
                print(f"{name} FAILED: {what}")
            failed += bool(wrong)
            sys.stdout.flush()
    return failed


# --- export ---------------------------------------------------------------------------------------------------------

#            D,   F, L, H, KV, E, tied.   The second has rows that q8_0's blocks of 32 do not divide.
EXPORTED = [(96, 160, 2, 3, 1, 32, True), (68, 96, 2, 4, 2, 24, False)]


def export_model(folder, tokenizer, case, dtype, seed):
    hidden, ffn, layers, heads, kv_heads, head_dim, tied = case
    copy_tokenizer(tokenizer, folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    config = {
        "vocab_size": ids if ids == VOCABULARY else ids + 5,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
        "rope_theta": 30000.0,
        "rms_norm_eps": 1e-4,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return random_llama(folder, config, seed, exported.DTYPES[dtype])


def compare_loaded(out, source, dtype):
    """transformers loads the folder, and it computes what `source` with rounded weights computes."""
    ids = {"input_ids": torch.tensor([list(range(3, 40))])}
    model = parity.load_model(source, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(exported.DTYPES[dtype]))
    got, want = (parity.forward(it, ids)["logits"] for it in (parity.load_model(out, torch.float32), model))
    return [] if torch.equal(got, want) else ["transformers computes other logits"]


def smolter_exports(smolter):
    def export(folder, out, *flags):
        ask(smolter, "export", folder, "--out", out, *flags)

    return export


def check_export(export, place, tokenizer, case, stored, count, seed):
    """All exports of one model stored as `stored`: {what was exported: what is wrong with it}."""
    source = place / "source"
    source.mkdir()
    model = export_model(source, tokenizer, case, stored, seed)  # in f32
    results = {}
    for dtype in exported.DTYPES:
        out = place / dtype
        export(source, out, "--dtype", dtype)
        results[f"hf {dtype}"] = exported.compare_folder(out, source, dtype) or compare_loaded(out, source, dtype)
    export(source, place / "same")
    export(place / "same", place / "again")
    results["hf twice"] = exported.compare_folder(place / "again", source, stored)
    most = sum(len(data) for _, _, data in exported.read_folder(source).values()) // 3
    export(source, place / "shards", "--max-shard-size", most)
    export(place / "shards", place / "joined")
    results["hf in shards"] = exported.compare_folder(place / "shards", source, stored, most)
    results["hf joined"] = exported.compare_folder(place / "joined", source, stored)
    for type_ in exported.FILE_TYPES:
        out = place / f"{type_}.gguf"
        export(source, out, "--dtype", type_)
        results[f"gguf {type_}"] = exported.compare_gguf(out, source, type_, source.name)
        if LLAMA_CPP and not results[f"gguf {type_}"]:
            wrong, error = exported.compare_llama_cpp(out, source, model, type_, count)
            results[f"llama.cpp {type_} ({error:.0e})"] = wrong
    return results


def exports(smolter, tokenizer, count, seed):
    failed = 0
    for case in EXPORTED:
        for stored in exported.DTYPES:
            name = f"D{case[0]} {'tied' if case[-1] else 'untied'}, stored in {stored}"
            with tempfile.TemporaryDirectory() as place:
                try:
                    results = check_export(smolter_exports(smolter), Path(place), tokenizer, case, stored, count, seed)
                except parity.RunFailed as error:
                    results = {"export": [str(error)]}
            for what, wrong in results.items():
                for it in wrong[:3]:
                    print(f"{name}, {what} FAILED: {it}")
            good = [what for what, wrong in results.items() if not wrong]
            print(f"{name}: {len(good)} of {len(results)} right: {', '.join(good)}")
            sys.stdout.flush()
            failed += len(results) - len(good)
    return failed


# --- torch and gguf in smolter's place ------------------------------------------------------------------------------


def torch_generates(fault=lambda lines: None, spoil=lambda logits: None):
    def continue_(folder, prompts, count):
        model, tokenizer = parity.load_model(folder, torch.float32), Tokenizer.from_file(str(folder / "tokenizer.json"))
        lines = []
        for prompt in prompts:
            steps = parity.greedy(model, tokenizer.encode(prompt, add_special_tokens=False).ids, count)
            lines.append({name + "s": [step[name] for step in steps] for name in ("token", "logprob")})
        if len(prompts) > 1:
            fault(lines)
        return lines

    def forward(folder, ids):
        logits = parity.forward(parity.load_model(folder, torch.float32), {"input_ids": torch.tensor([ids])})["logits"]
        spoil(logits)
        return logits

    return continue_, forward


def nudge(values):
    values[3] += 1e-3


GENERATION_FAULTS = {
    "one token different": {"fault": lambda lines: lines[1]["tokens"].__setitem__(7, lines[1]["tokens"][7] ^ 1)},
    "the last token missing": {"fault": lambda lines: [lines[0][name].pop() for name in lines[0]]},
    "a log-probability off by 0.001": {"fault": lambda lines: nudge(lines[2]["logprobs"])},
    "a log-probability NaN": {"fault": lambda lines: lines[2]["logprobs"].__setitem__(3, float("nan"))},
    "two continuations exchanged": {"fault": lambda lines: lines.reverse()},
    "a continuation missing": {"fault": lambda lines: lines.pop()},
    "one logit off by 1": {"spoil": lambda logits: logits[0, -1, :1].add_(1.0)},
    "logits of one position too few": {"spoil": lambda logits: logits.resize_(1, logits.shape[1] - 1, logits.shape[2])},
}


def swap_rows(data, row):
    return data[row : 2 * row] + data[:row] + data[2 * row :]


def flip_a_bit(data):
    """In the last byte but eight, where a safetensors file has weights as well."""
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def change(tensors, name, edit):
    type_, shape, data = tensors[name]
    tensors[name] = (type_, shape, edit(data))


Q = "blk.0.attn_q.weight"
ROW = 96 * 4
MERGES = "tokenizer.ggml.merges"
#   what -> (type of the file, function of its metadata and tensors)
GGUF_FAULTS = {
    "two rows of q exchanged": ("f32", lambda m, t: change(t, Q, lambda data: swap_rows(data, ROW))),
    "k not interleaved": ("f32", lambda m, t: change(t, "blk.0.attn_k.weight", lambda data: halves(data, ROW))),
    "a bit of q8_0 flipped": ("q8_0", lambda m, t: change(t, Q, flip_a_bit)),
    "a bit of bf16 flipped": ("bf16", lambda m, t: change(t, Q, flip_a_bit)),
    "a tensor missing": ("f32", lambda m, t: t.pop("output_norm.weight")),
    "a tensor named otherwise": ("f32", lambda m, t: t.update({"norm.weight": t.pop("output_norm.weight")})),
    "a norm in f16": ("f16", lambda m, t: t.update({"output_norm.weight": ("F16", [96], bytes(192))})),
    "another rotary base": ("f32", lambda m, t: m.update({"llama.rope.freq_base": 10000.0})),
    "no epsilon": ("f32", lambda m, t: m.pop("llama.attention.layer_norm_rms_epsilon")),
    "another end-of-text token": ("f32", lambda m, t: m.update({"tokenizer.ggml.eos_token_id": 2})),
    "two merges exchanged": ("f32", lambda m, t: m.update({MERGES: m[MERGES][1::-1] + m[MERGES][2:]})),
    "a token's kind": ("f32", lambda m, t: m["tokenizer.ggml.token_type"].__setitem__(0, 1)),
    "an unknown key": ("f32", lambda m, t: m.update({"llama.expert_count": 2})),
}
FOLDER_FAULTS = {
    "a bit of a weight flipped": lambda out: edit_file(out / "model.safetensors", flip_a_bit),
    "the file cut short": lambda out: edit_file(out / "model.safetensors", lambda data: data[:-4]),
    "another rotary base": lambda out: edit_file(out / "config.json", lambda data: data.replace(b"30000.", b"10000.")),
    "another tokenizer": lambda out: edit_file(out / "tokenizer.json", lambda data: data + b" "),
}


def halves(data, row):
    """Rows 0, d/2, 1, d/2 + 1, ... of a head of 32 back in their order."""
    return b"".join(data[i * row : (i + 1) * row] for i in [*range(0, 32, 2), *range(1, 32, 2)])


def edit_file(path, edit):
    path.write_bytes(edit(path.read_bytes()))


def self_check(seed):
    """Counts the faults that are not caught, and what is wrong without one."""
    failed = 0

    def expect(what, wrong, caught=True):
        nonlocal failed
        failed += bool(wrong) != caught
        result = ("caught" if wrong else "MISSED") if caught else ("; ".join(wrong) or "all agree")
        print(f"{'planted: ' if caught else ''}{what}: {result}")

    with tempfile.TemporaryDirectory() as place:
        source, out, file = (Path(place) / name for name in ("source", "out", "a.gguf"))
        source.mkdir()
        model = export_model(source, None, EXPORTED[0], "f32", seed)
        after = lambda **fault: generated.check_generation(*torch_generates(**fault), source, model, 12)[0]
        expect("generation by torch", after(), caught=False)
        for what, fault in GENERATION_FAULTS.items():
            expect(what, after(**fault))

        def compare_folder(fault=lambda out: None):
            shutil.copytree(source, out)
            fault(out)
            wrong = exported.compare_folder(out, source, "f32")
            shutil.rmtree(out)
            return wrong

        expect("a copied folder", compare_folder(), caught=False)
        for what, fault in FOLDER_FAULTS.items():
            expect(what, compare_folder(fault))

        def compare_gguf(type_, fault=lambda metadata, tensors: None):
            metadata, tensors = exported.gguf_metadata(source, type_, "x"), exported.gguf_tensors(source, type_)
            fault(metadata, tensors)
            exported.write_gguf(file, metadata, tensors)
            return exported.compare_gguf(file, source, type_, "x")

        for type_ in exported.FILE_TYPES:
            expect(f"a {type_} file of gguf's own writer", compare_gguf(type_), caught=False)
        for what, (type_, fault) in GGUF_FAULTS.items():
            expect(what, compare_gguf(type_, fault))
        compare_gguf("f32")
        edit_file(file, lambda data: data[:-64])
        expect("the file cut short", exported.compare_gguf(file, source, "f32", "x"))
        if LLAMA_CPP:
            metadata, tensors = exported.gguf_metadata(source, "f32", "x"), exported.gguf_tensors(source, "f32")
            for what, caught in (("that file in llama.cpp", False), ("rows of q exchanged, in llama.cpp", True)):
                exported.write_gguf(file, metadata, tensors)
                expect(what, exported.compare_llama_cpp(file, source, model, "f32", 20)[0], caught)
                change(tensors, Q, lambda data: swap_rows(data, 16 * ROW))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smolter", nargs="?")
    parser.add_argument("parts", nargs="*", metavar="generate|export")
    parser.add_argument("--tokenizer", metavar="DIR", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--self-check", action="store_true")
    args = parser.parse_args()
    shapes = args.shapes.split(",")
    if set(args.parts) - {"generate", "export"} or set(shapes) - set(SHAPES):
        parser.error(f"parts are generate and export, shapes are {', '.join(SHAPES)}")
    if args.tokenizer and not (args.tokenizer / "tokenizer.json").is_file():
        parser.error(f"{args.tokenizer} holds no tokenizer.json")
    failed = 0
    if not LLAMA_CPP:
        print("llama.cpp is not asked: pip install xllamacpp")
    if args.self_check:
        failed = self_check(args.seed)
    elif not (args.smolter and os.access(args.smolter, os.X_OK)):
        parser.error("name the smolter binary, or use --self-check")
    if args.smolter:
        parts = args.parts or ["generate", "export"]
        if "generate" in parts:
            failed += generation(
                args.smolter, args.device, args.tokenizer, shapes, args.layers, args.tokens, args.seed
            )
        if "export" in parts:
            failed += exports(args.smolter, args.tokenizer, args.tokens, args.seed)
    print(f"{failed} failed" if failed else "all agree")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
