#!/usr/bin/env python3
"""Checks smolter against transformers' LlamaForCausalLM, computed in float64.

  parity.py SMOLTER [--device NAME] [--cases N] [--seed S]   random models: logits, loss, gradients, AdamW
                                                             steps, losses of pairs and their gradients
  parity.py SMOLTER --checkpoint DIR [--device NAME]         one text through the model and tokenizer in DIR
  parity.py --self-check [--cases N]                         torch in float32 takes smolter's place and must pass;
                                                             then with planted faults, each of which must be caught
  parity.py --sgemm                                          this CPU's f32 matmul rate (torch on its BLAS)

Needs: Debian's python3-torch and libopenblas0-pthread (or any torch), in a venv with --system-site-packages, and
  pip install 'transformers==4.46.3' 'numpy<2' safetensors
Exit code: 0 all within limits, 1 something is not, 2 bad arguments.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

# Limits on the normalised mean squared error, sum (a - b)^2 / sum b^2, of the worst tensor. `update` is the change of
# all weights taken as one: it shows what vanishes beside the weights themselves, such as a forgotten weight decay.
# `pairs` are log-probabilities, rewards and losses of pairs, on the reference executor.
LIMITS = {"logits": 1e-9, "loss": 1e-9, "gradient": 1e-9, "weights": 1e-7, "update": 1e-6}
LIMITS |= {"pairs": 1e-12, "pair grad": 1e-9}
# On a device a log-probability is a sum of terms rounded to float32, off by one or two units in its last place: 4e-6 for
# a sum of 30. Rewards and losses are small differences of such sums, so the error is as large beside a loss of 0.1 as
# beside one of 10, whatever the kernels do: a hinge near its kink was seen at 4e-9.
LIMITS_OF_A_DEVICE = {"pairs": 1e-7}
ADAMW = {"steps": 10, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.01, "clip": 1.0}
VARIANTS = {"sigmoid": True, "hinge": True, "ipo": True, "orpo": False, "simpo": False}  # True: has a reference
PREFERENCE = {"beta": 0.5, "label_smoothing": 0.1, "gamma": 0.7, "lambda": 3.0}
TEXT = (
    "A model learns one step at a time: it reads a sequence, guesses every next token, and moves each weight a little "
    "towards the guess it should have made. After 1,000 steps, def f(x): return x**2 + 3*x is no longer a surprise."
)


# --- the reference: models, batches, and what torch makes of them ---------------------------------------------------


def stay_float64():
    """Lifts the roundings to float32 that Llama does in norms and softmax even in float64. Rotary angles stay f32."""
    softmax = F.softmax
    F.softmax = lambda x, dim, dtype=None: softmax(x, dim=dim)
    modeling_llama.LlamaRMSNorm.forward = lambda norm, x: (
        norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    )


def random_model(config, generator):
    """Attention scores of standard deviation 1.4, so neither uniform nor saturated; norm weights spread around 1."""
    # Some versions refuse a hidden size that is no multiple of the heads, though heads have a size of their own.
    LlamaConfig.__class_validators__ = []
    model = LlamaForCausalLM._from_config(LlamaConfig(**config), attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.2, generator=generator)
            else:
                parameter.normal_(0.0, 1.2 / config["hidden_size"] ** 0.5, generator=generator)
    return model


def random_batch(vocab, batch, length, generator, empty_row=False):
    """Token ids, and labels equal to them but for a quarter set to -100 (and one whole row, where asked for)."""
    input_ids = torch.randint(vocab, (batch, length), generator=generator)
    masked = torch.rand(batch, length, generator=generator) < 0.25
    masked[0, -1] = False
    if empty_row:
        masked[-1] = True
    return {"input_ids": input_ids, "labels": input_ids.masked_fill(masked, -100)}


def random_pairs(vocab, pairs, length, generator):
    """Two batches of rows that each have something to judge."""
    result = {}
    for side in ("chosen", "rejected"):
        batch = random_batch(vocab, pairs, length, generator)
        batch["labels"][:, -1] = batch["input_ids"][:, -1]
        result |= {f"{side}_{name}": tensor for name, tensor in batch.items()}
    return result


def next_token_loss(logits, labels):
    """transformers' own loss, which rounds logits to float32 first, without that rounding."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def forward(model, batch):
    with torch.no_grad():
        return {"logits": model(batch["input_ids"]).logits}


def backward(model, batch):
    model.zero_grad()
    loss = next_token_loss(model(batch["input_ids"]).logits, batch["labels"])
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters()}


def step(model, batch, steps, lr, beta1, beta2, eps, weight_decay, clip):
    optimizer = torch.optim.AdamW(model.parameters(), lr, (beta1, beta2), eps, weight_decay)
    for _ in range(steps):
        backward(model, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return weights(model)


def log_probs(model, ids, labels):
    """Per row the summed log-probability of the judged tokens, and their number."""
    logits, labels = model(ids).logits[:, :-1], labels[:, 1:]
    judged = labels != -100
    of_labels = logits.log_softmax(-1).gather(-1, labels.masked_fill(~judged, 0)[..., None])[..., 0]
    return of_labels.masked_fill(~judged, 0).sum(-1), judged.sum(-1)


def preference(model, reference, pairs, loss, **options):
    """The loss of pairs under its name in TRL, what it is made of, and all gradients. Gradients are of the mean loss."""
    beta, smoothing, gamma, weight = (options[name] for name in ("beta", "label_smoothing", "gamma", "lambda"))
    sides = ("chosen", "rejected")
    rows = lambda model: [log_probs(model, pairs[f"{side}_input_ids"], pairs[f"{side}_labels"]) for side in sides]
    model.zero_grad()
    (chosen, chosen_count), (rejected, rejected_count) = rows(model)
    result = {"chosen_logps": chosen, "rejected_logps": rejected}
    if reference:
        with torch.no_grad():
            frozen = [sums for sums, _ in rows(reference)]
        result |= {"reference_chosen_logps": frozen[0], "reference_rejected_logps": frozen[1]}
        chosen, rejected = chosen - frozen[0], rejected - frozen[1]
    sums = chosen, rejected
    if loss in ("ipo", "orpo", "simpo"):
        chosen, rejected = chosen / chosen_count, rejected / rejected_count
    # As TRL logs them: DPOTrainer has sums for all its losses, ORPOTrainer and CPOTrainer (simpo) means; ORPO's beta is
    # the weight of the odds.
    scale = weight if loss == "orpo" else beta
    earned = (chosen, rejected) if loss in ("orpo", "simpo") else sums
    result |= {"chosen_rewards": scale * earned[0], "rejected_rewards": scale * earned[1]}
    margin = chosen - rejected
    smoothed = lambda x: -F.logsigmoid(x) * (1 - smoothing) - F.logsigmoid(-x) * smoothing
    if loss == "sigmoid":
        losses = smoothed(beta * margin)
    elif loss == "hinge":
        losses = torch.relu(1 - beta * margin)
    elif loss == "ipo":
        losses = (margin - 1 / (2 * beta)) ** 2
    elif loss == "orpo":
        odds = margin - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
        losses = -chosen - weight * F.logsigmoid(odds)
    elif loss == "simpo":
        losses = smoothed(beta * (margin - gamma / beta))
    losses.mean().backward()
    result = {"loss": losses.mean()} | result
    return {name: x.detach() for name, x in result.items()} | {name: p.grad for name, p in model.named_parameters()}


def greedy(model, ids, count, banned=()):
    """torch's likeliest continuation: per token {token, logprob, gap}, the gap being the lead over the second."""
    result, cache, new = [], DynamicCache(), torch.tensor([ids])
    with torch.no_grad():
        for _ in range(count):
            logits = model(new, past_key_values=cache, use_cache=True).logits[0, -1]
            whole = logits.double().logsumexp(0)
            logits[list(banned)] = float("-inf")
            (first, second), (token, _) = logits.topk(2)
            step = {"token": token, "logprob": first - whole, "gap": first - second}
            result.append({name: value.item() for name, value in step.items()})
            new = token.reshape(1, 1)
    return result


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def load_model(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    return model.to(dtype)


# --- random cases ---------------------------------------------------------------------------------------------------


def random_case(index, seed, folder):
    """Writes a model folder and input.safetensors; returns a line that describes the case and the AdamW options.

    Case 0, on which faults are planted, is long enough to have masked labels and has the default options.
    """
    rng = random.Random(f"{seed}/{index}")
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    kv_heads = rng.choice([1, 1, 2, 3])
    config = {
        "vocab_size": rng.choice([61, 257, 311, 1009]),
        "hidden_size": rng.choice([24, 36, 50, 65, 96, 130]),
        "intermediate_size": rng.choice([32, 51, 100, 160]),
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "num_attention_heads": kv_heads * rng.choice([1, 2, 3]),
        "num_key_value_heads": kv_heads,
        "head_dim": rng.choice([8, 16, 20, 24, 32, 40, 64, 80, 96, 128]),
        "tie_word_embeddings": rng.choice([True, False]),
        "rope_theta": rng.choice([10000.0, 100000.0]),
        "rms_norm_eps": rng.choice([1e-5, 1e-6, 1e-2]),
    }
    rows, length = rng.choice([1, 2, 3]), rng.choice([2, 7, 16, 33, 65] if index else [65])
    options = ADAMW | {
        "lr": rng.choice([1e-3, 3e-4]),
        "beta1": rng.choice([0.9, 0.8]),
        "beta2": rng.choice([0.95, 0.99]),
        "weight_decay": rng.choice([0.01, 0.1]),
        "clip": rng.choice([1.0, 0.3]),
    }
    random_model(config, generator).save_pretrained(folder)
    save_file(random_batch(config["vocab_size"], rows, length, generator), folder / "input.safetensors")
    random_model(config, generator).save_pretrained(folder / "reference")
    save_file(random_pairs(config["vocab_size"], rows, length, generator), folder / "pairs.safetensors")
    c = list(config.values())
    line = f"B{rows} T{length} V{c[0]} D{c[1]} F{c[2]} L{c[3]} H{c[4]}/{c[5]} E{c[6]} {'tied' if c[7] else 'untied'}"
    return line, options if index else ADAMW


def command_line(command, model, given, out, device, options=None):
    """What follows `smolter debug`."""
    arguments = [command, "--model", model, "--input", given, "--out", out]
    arguments += ["--device", device] if device else []
    for name, value in (options or {}).items():
        arguments += [f"--{name.replace('_', '-')}", value]
    return [str(a) for a in arguments]


def nmse(got, want, scales={}):
    """The worst mean squared error over tensors, normalised by `want` or what `scales` has for it, and the name of the worst
    (or what is wrong)."""
    if set(got) != set(want):
        return float("inf"), f"names differ: {sorted(set(got) ^ set(want))[:3]}"
    worst = (0.0, "")
    for name in sorted(want):
        a, b = got[name].double(), want[name].double()
        if a.shape != b.shape:
            return float("inf"), f"{name} is {list(a.shape)}, not {list(b.shape)}"
        error, scale = (a - b).square().sum().item(), scales.get(name, b).double().square().sum().item()
        ratio = error / scale if scale else float("inf") if error else 0.0
        if not ratio <= worst[0]:  # also true of NaN
            worst = (ratio if ratio == ratio else float("inf"), name)
    return worst


def check_case(run, folder, device, options):
    """{quantity: (nmse, tensor name)} for one case; `run` takes smolter's arguments and writes OUT."""

    def ask(command, given="input", **more):
        out = folder / f"{command}.safetensors"
        run(command_line(command, folder, folder / f"{given}.safetensors", out, device, **more))
        return load_file(out)

    batch = load_file(folder / "input.safetensors")
    model = load_model(folder, torch.float64)
    start = weights(model)
    results = {"logits": nmse(ask("forward"), forward(model, batch))}
    got, want = ask("backward"), backward(model, batch)
    loss = {"loss": got.pop("loss", torch.tensor(float("nan"))).reshape(())}
    results["loss"] = nmse(loss, {"loss": want.pop("loss")})
    results["gradient"] = nmse(got, want)
    got, want = ask("step", options=options), step(model, batch, **options)
    results["weights"] = nmse(got, want)
    if results["weights"][0] < float("inf"):
        change = [torch.cat([(after[name] - start[name]).flatten() for name in start]) for after in (got, want)]
        results["update"] = nmse({"all weights": change[0]}, {"all weights": change[1]})
    else:
        results["update"] = results["weights"]
    model, frozen = (load_model(it, torch.float64) for it in (folder, folder / "reference"))  # the steps changed it
    pairs = load_file(folder / "pairs.safetensors")
    worst = {"pairs": (0.0, ""), "pair grad": (0.0, "")}
    for variant, has_reference in VARIANTS.items():
        given = {"reference": folder / "reference"} if has_reference else {}
        got = ask("preference", "pairs", options=given | {"loss": variant} | PREFERENCE)
        want = preference(model, frozen if has_reference else None, pairs, variant, **PREFERENCE)
        got["loss"] = got.get("loss", torch.tensor(float("nan"))).reshape(())
        for quantity, is_gradient in (("pairs", False), ("pair grad", True)):
            some = [{k: v for k, v in side.items() if ("." in k) == is_gradient} for side in (got, want)]
            # A reward is the small difference of two log-probabilities, which are what is computed.
            logs = {f"{side}_rewards": PREFERENCE["beta"] * want[f"{side}_logps"] for side in ("chosen", "rejected")}
            error, name = nmse(*some, logs if has_reference else {})
            worst[quantity] = max(worst[quantity], (error, f"{variant} {name}"))
    return results | worst


def check_cases(run, cases, seed, device=None, show=True):
    """Runs the cases, prints a row for each, and returns how many failed."""
    failed = 0
    limits = LIMITS | ({} if device == "reference" else LIMITS_OF_A_DEVICE)
    if show:
        print(f"{'case':<50}" + "".join(f"{name:>10}" for name in limits) + "  worst gradient")
        print(f"{'limit':<50}" + "".join(f"{limit:>10.0e}" for limit in limits.values()))
    for index in range(cases):
        with tempfile.TemporaryDirectory() as folder:
            line, options = random_case(index, seed, Path(folder))
            try:
                results = check_case(run, Path(folder), device, options)
            except RunFailed as error:
                failed += 1
                print(f"{index:>3} {line:<46}  FAILED: {error}")
                continue
        bad = [f"{name}: {results[name][1]}" for name in limits if results[name][0] > limits[name]]
        failed += bool(bad)
        if show:
            note = "FAILED " + "; ".join(bad) if bad else results["gradient"][1]
            print(f"{index:>3} {line:<46}" + "".join(f"{results[n][0]:>10.1e}" for n in limits) + f"  {note}")
    return failed


# --- smolter, and torch in its place --------------------------------------------------------------------------------


class RunFailed(Exception):
    """smolter did not answer: its exit code and the last line it printed."""


def smolter(binary):
    def run(arguments):
        done = subprocess.run([binary, "debug", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            raise RunFailed(f"debug {arguments[0]} exited {done.returncode}, saying: {said[-1]}")
        if not Path(arguments[arguments.index("--out") + 1]).is_file():
            raise RunFailed(f"debug {arguments[0]} wrote no OUT file")

    return run


def stand_in(fault):
    """torch answering smolter's command line in float32 (pairs in float64, as the reference executor computes them),
    with a fault planted: {where: function that spoils it}."""

    def run(arguments):
        command, *rest = arguments
        given = {flag[2:].replace("-", "_"): value for flag, value in zip(rest[::2], rest[1::2])}
        dtype = torch.float64 if command == "preference" else torch.float32
        model, batch = load_model(given.pop("model"), dtype), load_file(given.pop("input"))
        out, frozen, variant = given.pop("out"), given.pop("reference", None), given.pop("loss", None)
        given.pop("device", None)
        options = {name: type((ADAMW | PREFERENCE)[name])(value) for name, value in given.items()}
        for where, value in (("model", model), ("batch", batch), ("options", options)):
            fault.get(where, lambda value: None)(value)
        if command == "preference":
            frozen = frozen and load_model(frozen, dtype)
            result = preference(model, frozen, batch, variant, **options)
        else:
            result = {"forward": forward, "backward": backward, "step": step}[command](model, batch, **options)
        fault.get(command, lambda value: None)(result)
        save_file({name: tensor.float().contiguous() for name, tensor in result.items()}, out)

    return run


def epsilon_ignored(model):
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0


UP_PROJ = "model.layers.0.mlp.up_proj.weight"
FAULTS = {
    "one logit off by 0.1": {"forward": lambda out: out["logits"][-1, -1, :1].add_(0.1)},
    "a logit is NaN": {"forward": lambda out: out["logits"][0, 0, :1].fill_(float("nan"))},
    "rotary frequencies 1% high": {"model": lambda model: model.model.rotary_emb.inv_freq.mul_(1.01)},
    "norm epsilon ignored": {"model": epsilon_ignored},
    "loss off by 0.01%": {"backward": lambda out: out["loss"].mul_(1.0001)},
    "one gradient 0.01% small": {"backward": lambda out: out[UP_PROJ].mul_(0.9999)},
    "one gradient missing": {"backward": lambda out: out.pop(UP_PROJ)},
    "one gradient transposed": {"backward": lambda out: out.update({UP_PROJ: out[UP_PROJ].T})},
    "-100 labels counted": {"batch": lambda b: "labels" in b and b.update(labels=b["input_ids"])},
    "one step too few": {"options": lambda o: "steps" in o and o.update(steps=9)},
    "no clipping": {"options": lambda o: "clip" in o and o.update(clip=1e9)},
    "no weight decay": {"options": lambda o: "weight_decay" in o and o.update(weight_decay=0.0)},
    "beta2 ignored": {"options": lambda o: "beta2" in o and o.update(beta2=0.999)},
    "no label smoothing": {"options": lambda o: "lambda" in o and o.update(label_smoothing=0.0)},
    "beta 0.01% large": {"options": lambda o: "lambda" in o and o.update(beta=0.50005)},
    "weight of the odds 0.01% small": {"options": lambda o: "lambda" in o and o.update({"lambda": 2.9997})},
    "chosen and rejected exchanged": {"preference": lambda out: out.update(chosen_logps=out["rejected_logps"].clone())},
}


def self_check(cases, seed):
    failed = check_cases(stand_in({}), cases, seed, "reference")
    for name, fault in FAULTS.items():
        caught = check_cases(stand_in(fault), 1, seed, "reference", show=False)
        print(f"planted: {name:<30} {'caught' if caught else 'MISSED'}")
        failed += not caught
    return failed


# --- a checkpoint, and the speed of this CPU ------------------------------------------------------------------------


def check_checkpoint(binary, folder, device):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    want = forward(load_model(folder, torch.float32), {"input_ids": ids})
    with tempfile.TemporaryDirectory() as scratch:
        given, out = Path(scratch) / "input.safetensors", Path(scratch) / "out.safetensors"
        save_file({"input_ids": ids}, given)
        smolter(binary)(command_line("forward", folder, given, out, device))
        got = load_file(out)
    error, name = nmse(got, want)
    if error < float("inf"):
        losses = [next_token_loss(r["logits"].double(), ids).item() for r in (want, got)]
        same = (want["logits"].argmax(-1) == got["logits"].argmax(-1)).sum().item()
        print(f"{folder}: {ids.numel()} tokens; loss torch {losses[0]:.7f}, smolter {losses[1]:.7f}")
        print(f"likeliest next token the same at {same} of {ids.numel()} positions")
    failed = error > LIMITS["logits"]
    print(f"logits NMSE {error:.1e} (limit {LIMITS['logits']:.0e})" + (f" FAILED {name}" if failed else ""))
    return failed


def measure_sgemm():
    torch.set_num_threads(os.cpu_count())
    for m, k, n in ((1024, 1024, 1024), (128, 576, 1536)):
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        repeats = max(1, 2**30 // (m * k * n))
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(repeats):
                torch.mm(a, b, out=out)
            times.append((time.perf_counter() - start) / repeats)
        rate = 2e-9 * m * k * n / min(times)
        print(f"sgemm f32 {m}x{k}x{n}: {rate:.1f} GFLOP/s (best of 30 x {repeats}, {os.cpu_count()} cores)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smolter", nargs="?", default=argparse.SUPPRESS)
    parser.add_argument("--binary", dest="smolter", help="the same")
    parser.add_argument("--device")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", metavar="DIR", type=Path)
    parser.add_argument("--self-check", action="store_true")
    parser.add_argument("--sgemm", action="store_true")
    args = parser.parse_args()
    if args.sgemm:
        return measure_sgemm()
    torch.set_num_threads(1)  # the order of sums, so the last bit, must not depend on the machine
    if not args.self_check and not (args.smolter and os.access(args.smolter, os.X_OK)):
        parser.error("name the smolter binary, or use --self-check")
    if args.checkpoint:
        if not (args.checkpoint / "config.json").is_file():
            parser.error(f"{args.checkpoint} holds no config.json")
        try:
            return check_checkpoint(args.smolter, args.checkpoint, args.device)
        except RunFailed as error:
            print(f"{args.checkpoint} FAILED: {error}")
            return 1
    stay_float64()
    if args.self_check:
        failed = self_check(args.cases, args.seed)
    else:
        failed = check_cases(smolter(args.smolter), args.cases, args.seed, args.device)
    print(f"{failed} failed" if failed else "all within limits")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
