#!/usr/bin/env python3
"""Checks smolter's LoRA against PEFT, computed in float64.

  lora_parity.py SMOLTER [--device NAME]           random adapters on the models of fixtures/: logits, loss, gradients,
                                                   and the merged export
  lora_parity.py SMOLTER --run DIR [--device NAME] what a run of smolter's has trained: PEFT loads it, from the checkpoint
                                                   and from the export, and must give the logits of smolter
  lora_parity.py SMOLTER --self-check              as the first, with planted faults, each of which must be caught
  lora_parity.py --make-fixtures                   writes fixtures/lora/ anew

A folder of fixtures/lora/ is an adapter as PEFT saves it, for the model of the same name, with golden.safetensors:
logits [B, T, V], loss [] and grad.NAME for each of its tensors, of the model's input.safetensors.

Needs: torch, and pip install transformers peft safetensors (made with torch 2.15, transformers 5.24, peft 0.21).
Exit code: 0 all within limits, 1 something is not, 2 bad arguments.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import parity

FIXTURES = HERE / "fixtures"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The adapters of fixtures/lora/, and more of them for the check; newer versions of transformers refuse other models.
MADE = {
    "llama_grouped": dict(r=4, lora_alpha=8, target_modules=ALL),
    "llama_empty_row": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], use_rslora=True),
}
CASES = [
    *MADE.items(),
    ("llama_grouped", dict(r=1, lora_alpha=1, target_modules=["k_proj", "down_proj"])),
    ("llama_empty_row", dict(r=16, lora_alpha=5, target_modules=["gate_proj"])),
    ("llama_grouped", dict(r=65, lora_alpha=16, target_modules=["up_proj", "o_proj", "v_proj"])),
]
# On the normalised mean squared error, as in parity.py; and on the largest difference of logits.
NMSE, LARGEST = 1e-9, 1e-5


def base(folder, dtype=torch.float64):
    return parity.load_model(folder, dtype)


def make_adapter(model, options, seed, out):
    """An adapter whose B is not zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    adapted = get_peft_model(base(model, torch.float32), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    adapted.peft_config["default"].base_model_name_or_path = model.name
    adapted.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)


def load_adapted(model, adapter, trainable=False):
    return PeftModel.from_pretrained(base(model), adapter, is_trainable=trainable).double()


def golden(model, adapter, batch):
    """What PEFT makes of a batch, with the names of its files."""
    adapted = load_adapted(model, adapter, trainable=True)
    result = {"logits": parity.forward(adapted, batch)["logits"]}
    loss = parity.next_token_loss(adapted(batch["input_ids"]).logits, batch["labels"])
    loss.backward()
    result["loss"] = loss.detach()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            result["grad." + name.replace(".default.", ".")] = parameter.grad
    return result


def ask(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{arguments[0]} exited {done.returncode}: {done.stderr.strip()}")


def debug(binary, job, model, adapter, given, device, scratch):
    out = scratch / f"{job}.safetensors"
    where = ["--device", device] if device else []
    adapter = ["--adapter", adapter] if adapter else []
    ask(binary, "debug", job, "--model", model, *adapter, "--input", given, "--out", out, *where)
    return load_file(out)


def judge(what, got, want):
    """Prints a line; returns whether it is beyond the limits."""
    error, name = parity.nmse(got, want)
    largest = max((got[n].double() - want[n].double()).abs().max().item() for n in want) if error < 9e9 else error
    bad = error > NMSE or "logits" in want and largest > LARGEST
    print(f"{what:<62} NMSE {error:.1e}  largest difference {largest:.1e}  {'FAILED ' + name if bad else ''}")
    return bad


def check(binary, device, spoil=None):
    """The number of failures; `spoil` changes an adapter that smolter gets, not PEFT."""
    failed = 0
    for seed, (name, options) in enumerate(CASES):
        model, batch = FIXTURES / name, load_file(FIXTURES / name / "input.safetensors")
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            make_adapter(model, options, seed, scratch / "adapter")
            want = golden(model, scratch / "adapter", batch)
            if spoil:
                spoil(scratch / "adapter")
            what = f"{name} rank {options['r']} on {len(options['target_modules'])} layers"
            given = model / "input.safetensors"
            got = debug(binary, "forward", model, scratch / "adapter", given, device, scratch)
            failed += judge(f"{what}: logits", got, {"logits": want["logits"]})
            got = debug(binary, "backward", model, scratch / "adapter", given, device, scratch)
            failed += judge(f"{what}: loss", {"loss": got.pop("loss").reshape(())}, {"loss": want["loss"]})
            gradients = {n.removeprefix("grad."): g for n, g in want.items() if n.startswith("grad.")}
            failed += judge(f"{what}: gradients", got, gradients)
            merged = scratch / "merged"
            ask(binary, "export", model, "--adapter", scratch / "adapter", "--merge", "--out", merged)
            logits = parity.forward(base(merged), batch)
            failed += judge(f"{what}: merged", logits, {"logits": want["logits"]})
    return failed


def change(**tensors):
    def spoil(adapter):
        path = adapter / "adapter_model.safetensors"
        loaded = load_file(path)
        name = next(name for name in loaded if tensors["of"] in name)
        save_file(loaded | {name: tensors["to"](loaded[name])}, path)

    return spoil


def alpha(adapter):
    path = adapter / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))


FAULTS = {
    "another alpha": alpha,
    "a part of A negated": change(of="lora_A", to=lambda a: torch.cat([-a[:1], a[1:]])),
    "B off by a thousandth": change(of="lora_B", to=lambda b: b * 1.001),
}


def self_check(binary, device):
    failed = check(binary, device)
    for name, fault in FAULTS.items():
        caught = check(binary, device, fault)
        print(f"planted: {name:<30} {'caught' if caught else 'MISSED'}")
        failed += not caught
    return failed


def check_run(binary, run, device):
    """The newest checkpoint of a run whose last stage has LoRA."""
    checkpoint = sorted((run / "checkpoints").glob("step-*"))[-1]
    vocab = base(checkpoint).config.vocab_size
    ids = torch.randint(vocab, (2, 17), generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        save_file({"input_ids": ids}, scratch / "input.safetensors")
        got = debug(binary, "forward", checkpoint, None, scratch / "input.safetensors", device, scratch)
        failed = 0
        want = parity.forward(load_adapted(checkpoint, checkpoint / "adapter"), {"input_ids": ids})
        failed += judge(f"{checkpoint.name}: PEFT on the checkpoint", got, want)
        ask(binary, "export", run, "--out", scratch / "adapter")
        want = parity.forward(load_adapted(checkpoint, scratch / "adapter"), {"input_ids": ids})
        failed += judge(f"{checkpoint.name}: PEFT on the exported adapter", got, want)
        ask(binary, "export", run, "--merge", "--out", scratch / "merged")
        failed += judge(f"{checkpoint.name}: the merged model", got, parity.forward(base(scratch / "merged"), {"input_ids": ids}))
        apart = parity.nmse(parity.forward(base(checkpoint), {"input_ids": ids}), want)[0]
        print(f"without the adapter the logits differ by NMSE {apart:.1e}")
        failed += not apart > 100 * NMSE
    return failed


def make_fixtures():
    for seed, (name, options) in enumerate(MADE.items()):
        model, out = FIXTURES / name, FIXTURES / "lora" / name
        batch = load_file(model / "input.safetensors")
        plain = load_file(model / "golden.safetensors")["logits"]
        assert parity.nmse(parity.forward(base(model), batch), {"logits": plain})[0] < NMSE, "another transformers?"
        make_adapter(model, options, seed, out)
        tensors = golden(model, out, batch)
        save_file({name: t.float().contiguous() for name, t in tensors.items()}, out / "golden.safetensors")
        print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e3:.0f} kB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smolter", nargs="?")
    parser.add_argument("--device")
    parser.add_argument("--run", metavar="DIR", type=Path)
    parser.add_argument("--self-check", action="store_true")
    parser.add_argument("--make-fixtures", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parity.stay_float64()
    if args.make_fixtures:
        return make_fixtures()
    if not args.smolter:
        parser.error("name the smolter binary")
    if args.run:
        failed = check_run(args.smolter, args.run, args.device)
    elif args.self_check:
        failed = self_check(args.smolter, args.device)
    else:
        failed = check(args.smolter, args.device)
    print(f"{failed} failed" if failed else "all within limits")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
