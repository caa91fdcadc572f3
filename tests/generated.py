"""What a continuation must be: torch's greedy tokens and log-probabilities, alone, side by side, and without a cache.

Comparisons return a list of what is wrong, empty if nothing is. interop.py calls them.
"""

import torch
from tokenizers import Tokenizer

import parity

PROMPTS = ["The", "Once upon a time, in a town by the sea,", parity.TEXT]  # the last exceeds a prefill chunk
# torch's two best logits so close that rounding may turn them round: what follows cannot be compared.
TIE = 1e-5
LOGPROB_LIMIT = 1e-4


def comparable(want):
    """How many tokens come before torch's first tie."""
    return next((i for i, step in enumerate(want) if step["gap"] < TIE), len(want))


def compare_tokens(tokens, want):
    """What is wrong with a continuation that should be torch's."""
    if len(tokens) != len(want):
        return [f"{len(tokens)} tokens, not {len(want)}"]
    for i in range(comparable(want)):
        if tokens[i] != want[i]["token"]:
            return [f"token {i} is {tokens[i]}, not {want[i]['token']} (torch's lead {want[i]['gap']:.1e})"]
    return []


def compare_generation(got, want):
    """What is wrong with `got` = {tokens, logprobs}."""
    if len(got["logprobs"]) != len(want):
        return [f"{len(got['logprobs'])} log-probabilities, not {len(want)}"]
    errors = [abs(got["logprobs"][i] - want[i]["logprob"]) for i in range(comparable(want))]
    off = [f"log-probability {i} is off by {error:.1e}" for i, error in enumerate(errors) if not error <= LOGPROB_LIMIT]
    return compare_tokens(got["tokens"], want) or off[:1]


def compare_uncached(logits, prompt, tokens, want):
    """What is wrong with [T, V] `logits` of the prompt and its continuation, computed without a cache."""
    if logits.shape[0] != len(prompt) + len(tokens):
        return [f"logits at {logits.shape[0]} positions, not {len(prompt) + len(tokens)}"]
    likeliest = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
    wrong = [i for i in range(comparable(want)) if likeliest[i] != tokens[i]]
    return [f"without a cache, token {i} is {likeliest[i]}, not {tokens[i]}" for i in wrong[:1]]


def check_generation(continue_, forward, folder, model, count):
    """All comparisons for one model: (what is wrong, figures)."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in PROMPTS]
    want = [parity.greedy(model, prompt, count) for prompt in ids]
    together = continue_(folder, PROMPTS, count)
    wrong, figures = [], {"tokens": 0, "ties": [], "distinct": 0, "nmse": 0.0, "logprob": 0.0}
    if len(together) != len(PROMPTS):
        return [f"{len(together)} continuations of {len(PROMPTS)} prompts"], figures
    for i, prompt in enumerate(PROMPTS):
        alone = continue_(folder, [prompt], count)[0]
        for how, got in (("side by side", together[i]), ("alone", alone)):
            wrong += [f"prompt {i} {how}: {what}" for what in compare_generation(got, want[i])]
        if alone["tokens"] != together[i]["tokens"]:
            wrong.append(f"prompt {i} alone and side by side differ")
        whole = ids[i] + alone["tokens"]
        got, expected = forward(folder, whole), parity.forward(model, {"input_ids": torch.tensor([whole])})["logits"]
        error, what = parity.nmse({"logits": got}, {"logits": expected})
        if error > parity.LIMITS["logits"]:
            wrong.append(f"prompt {i}: logits NMSE {error:.1e} {what}")
        else:
            wrong += [f"prompt {i}: {it}" for it in compare_uncached(got[0], ids[i], alone["tokens"], want[i])]
        compared = comparable(want[i])
        pairs = zip(together[i]["logprobs"][:compared], want[i])
        figures["logprob"] = max([figures["logprob"], *(abs(got - step["logprob"]) for got, step in pairs)])
        figures["nmse"] = max(figures["nmse"], error)
        figures["tokens"] += compared
        figures["distinct"] += len(set(alone["tokens"]))
        if compared < len(want[i]):
            figures["ties"].append(f"prompt {i} token {compared}, lead {want[i][compared]['gap']:.1e}")
    return wrong, figures
