#!/usr/bin/env python3
"""Checks smolter's tokenizer against the `tokenizers` package of Hugging Face, string by string.

  tokens.py SMOLTER --tokenizer DIR [--strings N] [--seed S]
                             random strings of all scripts: ids (special tokens seen, and taken for ordinary text) and
                             decoded text (special tokens shown, and skipped) must be equal; so must the text of
                             random ids. Then with planted faults, each of which must be caught.
  tokens.py SMOLTER --fixtures
                             rewrites fixtures/tokenizer (trained by smolter; vectors.json is what `tokenizers` makes of
                             it) and fixtures/chat_templates/expected.json (what `transformers` makes of the templates
                             beside it); the same files byte for byte with the same versions

Needs: pip install tokenizers; for --fixtures also 'transformers==4.46.3' 'jinja2>=3.1'
Exit code: 0 all equal, 1 something is not, 2 bad arguments.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures"

# --- strings --------------------------------------------------------------------------------------------------------

WORDS = (
    "the of and token model don't we'll I'M they've she'd you're it's o'clock naïve façade Straße ŁÓDŹ İstanbul ǆ ﬁ "
    "привет Ёлка Ελληνικά ΟΔΟΣ עברית שָׁלוֹם العربية مُحَمَّد हिन्दी क्षत्रिय বাংলা தமிழ் ไทยภาษา ພາສາ ကမ္ဘာ 中文字 日本語 ひらがな カタカナ ｶﾀｶﾅ 한국어 "
    "ᄒᆞᆫ ትግርኛ ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ ქართული հայերեն 𝔘𝔫𝔦 𐍈𐌰 𓂀 𠀋 x**2 != f(x); /* é */ &amp; https://a.b/c?d=1#e \\n \\u0041 -> === ... ''' \"\"\""
).split()
EMOJI = ["😀", "👩‍🔬", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "🇫", "1️⃣", "☃", "☃️", "❤️‍🔥", "\ufe0f", "\u200d"]
SPACES = ["\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1f", " ", "  ", "   ", "\x85", "\xa0", "\u1680", "\u2003",
          "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\u2060", "\ufeff", "\u180e"]  # fmt: skip
POINTS = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
BY_CATEGORY = {}
for point in POINTS:
    BY_CATEGORY.setdefault(unicodedata.category(point), []).append(point)
NUMBERS = BY_CATEGORY["Nd"] + BY_CATEGORY["Nl"] + BY_CATEGORY["No"]
MARKS = BY_CATEGORY["Mn"] + BY_CATEGORY["Mc"] + BY_CATEGORY["Me"]


def random_piece(rng, tokenizer, vocabulary, special):
    """A few characters of one kind."""
    kind = rng.randrange(14)
    if kind < 3:
        return rng.choice(["", " ", " "]) + rng.choice(WORDS)
    if kind == 3:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 6)))
    if kind == 4:
        return "".join(rng.choice(NUMBERS) for _ in range(rng.randint(1, 3)))
    if kind == 5:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4)))
    if kind == 6:
        return rng.choice(EMOJI)
    if kind == 7:
        return rng.choice("aéк中") + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 4)))
    if kind == 8:
        return rng.choice(BY_CATEGORY["Cc"] + BY_CATEGORY["Cf"])
    if kind == 9:  # every category has its turn, however few members it has
        return rng.choice(BY_CATEGORY[rng.choice(sorted(BY_CATEGORY))])
    if kind == 10:
        return rng.choice(POINTS)
    if kind in (11, 12):  # so that every merge has its turn
        return tokenizer.decode([rng.randrange(vocabulary) for _ in range(rng.randint(1, 4))])
    token = rng.choice(special)
    cut = rng.randint(0, len(token))
    return rng.choice([token, token, token[:cut], token[cut:], token.upper(), " " + token + " "])


def random_strings(rng, tokenizer, count):
    vocabulary, special = tokenizer.get_vocab_size(), special_tokens(tokenizer)
    piece = lambda: random_piece(rng, tokenizer, vocabulary, special)
    for _ in range(count):
        if rng.random() < 0.01:  # a very long run
            yield piece() * rng.randint(500, 3000)
        else:
            yield "".join(piece() for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 13, 40])))


def special_tokens(tokenizer):
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]


# --- comparison -----------------------------------------------------------------------------------------------------


def ask(smolter, verb, folder, inputs, *flags):
    """What `smolter data encode` or `decode` answers to each input."""
    lines = "".join(json.dumps(value) + "\n" for value in inputs)
    command = [smolter, "data", verb, "--tokenizer", folder, *flags]
    answer = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    answers = [json.loads(line) for line in answer.decode().split("\n")[:-1]]
    assert len(answers) == len(inputs), f"{len(answers)} answers to {len(inputs)} lines"
    return answers


def load(folder, change=None):
    text = (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    if change:
        contents = json.loads(text)
        change(contents)
        text = json.dumps(contents)
    return Tokenizer.from_str(text)


def expected_ids(tokenizer, strings, ordinary=False):
    tokenizer.encode_special_tokens = ordinary
    return [encoding.ids for encoding in tokenizer.encode_batch(strings, add_special_tokens=False)]


def differences(what, inputs, ours, theirs, show=3):
    different = [i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]]
    for i in different[:show]:
        print(f"{what}: {inputs[i]!r:.300}\n  smolter    {ours[i]!r:.300}\n  tokenizers {theirs[i]!r:.300}")
    return len(different)


def without_digits(contents):
    contents["pre_tokenizer"] = contents["pre_tokenizer"]["pretokenizers"][1]


def without_pattern(contents):
    contents["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = False


def without_a_merge(contents):
    contents["model"]["merges"].pop(40)


def without_a_special_token(contents):
    contents["added_tokens"].pop()


FAULTS = [without_digits, without_pattern, without_a_merge, without_a_special_token]


def check(smolter, folder, count, seed):
    rng = random.Random(seed)
    reference = load(folder)
    strings = ["", " ", "\n", *special_tokens(reference), *random_strings(rng, reference, count)]
    ids = expected_ids(reference, strings)
    ordinary = expected_ids(reference, strings, ordinary=True)
    top = reference.get_vocab_size() + 10
    random_ids = [[rng.randrange(top) for _ in range(rng.randint(0, 30))] for _ in range(count // 2)]
    to_decode = ids + ordinary + random_ids
    wrong = differences("ids", strings, ask(smolter, "encode", folder, strings), ids)
    wrong += differences("ordinary ids", strings, ask(smolter, "encode", folder, strings, "--ordinary"), ordinary)
    for flags, skip in ((), False), (("--skip-special",), True):
        ours = ask(smolter, "decode", folder, to_decode, *flags)
        theirs = [reference.decode(ids, skip_special_tokens=skip) for ids in to_decode]
        wrong += differences(f"text{' without special tokens' if skip else ''}", to_decode, ours, theirs)
    tokens = sum(len(each) for each in ids)
    print(f"{len(strings)} strings of {sum(map(len, strings))} characters and {tokens} tokens: {wrong} differences")
    for fault in FAULTS:
        caught = sum(a != b for a, b in zip(expected_ids(load(folder, fault), strings), ids))
        print(f"planted fault {fault.__name__}: changes {caught} strings")
        wrong += caught == 0
    return wrong


# --- fixtures -------------------------------------------------------------------------------------------------------

CORPUS = [
    "The sun rises over the hills, and the river runs to the sea. It's 7 o'clock; they've eaten, she'd slept.",
    "def add(a, b):\n    return a + b\n\n\nfor i in range(10):\n    print(i, add(i, 2))\n",
    "Où est la bibliothèque ? À côté de l'école, près du café. Straße, naïve, coöperate, señor.",
    "Москва и Ελλάδα, 中文和日本語, हिन्दी, العربية; 😀 👩‍🔬 and 42 more.",
    "<repo_name>one/two<file_sep>main.py\nimport sys\n",
]

USER = {"role": "user", "content": " Hello <b>world</b> & 'you' — 中文 😀 \n"}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {"role": "assistant", "content": "<think>hm\n</think>\n\nHi."}, {"role": "user", "content": "Bye"}],
    [{"role": "assistant", "content": "I begin"}, USER, {"role": "assistant", "content": ""}],
    [USER, {"role": "user", "content": "twice"}],
    [{"role": "user", "content": "Sum?"},
     {"role": "assistant", "content": None, "tool_calls": [
         {"id": 7, "name": "add", "arguments": {"b": [1, 2.5, -3e20, 1e-7], "a": {"é<": None, "t": True}}}]},
     {"role": "tool", "name": "add", "content": {"result": 3.0, "empty": [], "none": {}}}],
]  # fmt: skip
TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def make_tokenizer(smolter):
    folder = FIXTURES / "tokenizer"
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS * 3))
        command = [smolter, "data", "tokenizer", corpus, "--vocab-size", "400", "--out", place]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_bytes((Path(place) / "tokenizer.json").read_bytes())
    reference = load(folder)
    strings = ["", *WORDS, *EMOJI, *SPACES, *CORPUS, " ".join(special_tokens(reference))]
    strings += [text for text in random_strings(random.Random(1), reference, 60) if len(text) < 120]
    vectors = [
        {"text": text, "ids": ids, "ordinary": ordinary, "skipped": reference.decode(ids, skip_special_tokens=True)}
        for text, ids, ordinary in zip(
            strings, expected_ids(reference, strings), expected_ids(reference, strings, ordinary=True)
        )
    ]
    rows = ",\n".join(json.dumps(vector, separators=(",", ":")) for vector in vectors)
    (folder / "vectors.json").write_text(f"[\n{rows}\n]\n")
    print(f"tokenizer of {reference.get_vocab_size()} tokens, {len(vectors)} vectors")


def make_templates():
    from transformers import PreTrainedTokenizerFast

    folder = FIXTURES / "chat_templates"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load(FIXTURES / "tokenizer"), **TOKENS)

    def render(template, conversation, prompt):
        try:
            return tokenizer.apply_chat_template(
                conversation, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as refusal:
            print(f"  refused: {refusal}")
            return None

    expected = {}
    for file in sorted(folder.glob("*.jinja")):
        print(file.name)
        template = file.read_text(encoding="utf-8")
        expected[file.name] = [[render(template, c, prompt) for prompt in (False, True)] for c in CONVERSATIONS]
    contents = {"special_tokens": TOKENS, "conversations": CONVERSATIONS, "expected": expected}
    (folder / "expected.json").write_text(json.dumps(contents, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smolter")
    parser.add_argument("--tokenizer", metavar="DIR")
    parser.add_argument("--strings", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixtures", action="store_true")
    arguments = parser.parse_args()
    if arguments.fixtures:
        make_tokenizer(arguments.smolter)
        make_templates()
    elif arguments.tokenizer:
        sys.exit(check(arguments.smolter, arguments.tokenizer, arguments.strings, arguments.seed) > 0)
    else:
        parser.error("give --tokenizer DIR, or --fixtures")


if __name__ == "__main__":
    main()
