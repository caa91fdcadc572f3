#!/usr/bin/env python3
"""Checks what `smolter debug batch` shows of conversations against `transformers`, conversation by conversation.

  conversations.py SMOLTER --data DIR [--count N]
               DIR has sft/ and tokenizer/ with the files named below. N conversations of each form, one a sequence, judged on
               the assistant's tokens: the ids must be those of `apply_chat_template`, with SmolLM2's template and with one
               that has {% generation %}, and the judged tokens those of its assistant mask, or else of the text between
               <|im_start|>assistant and <|im_end|>. Then with planted faults, each of which must be caught.
  conversations.py --fixtures
               rewrites fixtures/conversations: chat.jsonl, and what `transformers` makes of it with fixtures/tokenizer

Needs: pip install transformers jinja2
Exit code: 0 all equal, 1 something is not, 2 bad arguments.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

FILES = {
    "prompt and response": "dolly_hhrlhf_train_small.jsonl",
    "prompt and completion": "octopack_oasst_commitpackft.jsonl",
    "messages": "llamafactory_v1_sft_demo.jsonl",
    "ShareGPT, without tools": "llamafactory_glaive_toolcall_en_demo.json",
}
GENERATION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + "
    "'<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)
FIXTURES = Path(__file__).parent / "fixtures"
LENGTH = 4096

RECIPE = """
name = "conversations"
model = {{ preset = "smollm2-135m", max_position_embeddings = {length} }}
tokenizer = {{ path = "{tokenizer}", chat_template = "own" }}
schedule = {{ kind = "constant", peak_lr = 1e-3 }}
batch = {{ sequences = {count} }}
datasets = [{{ name = "chat", paths = ["{file}"] }}]
stages = [{{ name = "chat", kind = "sft", steps = 1, sequence_length = {length}, packing = false, loss_on = "assistant", mixture = {{ chat = 1.0 }} }}]
held_out = {{ fraction = 0 }}
"""


def text_of(content):
    if isinstance(content, list):
        return "".join(part.get("text", part.get("value")) for part in content)
    return content


def messages_of(record):
    """The conversation of a record, by its form; None for one that is not read here."""
    if "messages" in record:
        return [{"role": m["role"], "content": text_of(m["content"])} for m in record["messages"]]
    if "conversations" in record:
        roles = {"human": "user", "gpt": "assistant", "system": "system"}
        if any(turn["from"] not in roles for turn in record["conversations"]):
            return None
        return [{"role": roles[turn["from"]], "content": turn["value"]} for turn in record["conversations"]]
    answer = record.get("completion", record.get("response"))
    return [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": answer}]


def spells_special(messages, tokenizer):
    """Special tokens in a message are text for smolter, and special for transformers."""
    return any(token in m["content"] for m in messages for token in tokenizer.all_special_tokens + ["<file_sep>"])


def conversations(path, count, tokenizer):
    text = path.read_text(encoding="utf-8")
    records = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
    found = []
    for record in records:
        messages = messages_of(record)
        if messages and all(m["content"].strip() for m in messages if m["role"] == "assistant"):
            record = {key: value for key, value in record.items() if key != "tools"}
            if not spells_special(messages, tokenizer) and len(ids_of(tokenizer, messages)) <= LENGTH:
                found.append((record, messages))
        if len(found) == count:
            break
    return found


def ids_of(tokenizer, messages):
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
    return list(encoded["input_ids"])


def said_by(tokenizer, messages, mask):
    """Ids, and which are the assistant's: by the template's own mask, or between the tokens that frame a message."""
    ids = ids_of(tokenizer, messages)
    if mask:
        encoded = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return ids, [bool(flag) for flag in encoded["assistant_masks"]]
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    head = tokenizer.encode("assistant\n", add_special_tokens=False)
    judged, inside = [], 0
    for at, token in enumerate(ids):
        opened = ids[at - len(head) - 1 : at] == [start, *head] if at > len(head) else False
        inside = opened or inside
        judged.append(bool(inside))
        if token == end:
            inside = False
    return ids, judged


def shown(smolter, folder, tokenizer, records):
    """(ids, judged) of each sequence that smolter makes."""
    file = folder / "chat.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(tokenizer=tokenizer, count=len(records), file=file, length=LENGTH))
    out = folder / "batch.json"
    command = [smolter, "debug", "batch", "--recipe", recipe, "--stage", "chat", "--step", "0", "--out", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads(out.read_text())["rows"]
    for row in rows:
        length = row["length"]
        judged = [False] + [label >= 0 for label in row["labels"][: length - 1]]
        expected = [id if flag else -100 for id, flag in zip(row["input_ids"][1:length], judged[1:])]
        assert row["labels"][: length - 1] == expected, "a label is not the next token"
        assert set(row["labels"][length - 1 :]) <= {-100}, "padding is judged"
        yield tuple(row["input_ids"][:length]), tuple(judged)


# --- fixtures -------------------------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "Be brief, naïve 中文."}
RECORDS = [
    {"messages": [SYSTEM, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It's 4.\n"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": " a"}]}, {"role": "assistant", "content": "b"},
                  {"role": "user", "content": ""}, {"role": "assistant", "content": " é 😀 "}]},
    {"conversations": [{"from": "human", "value": "where?"}, {"from": "gpt", "value": "assistant\nuser"},
                       {"from": "human", "value": "and?"}]},
    {"prompt": "Go on:", "completion": "\n\n  done"},
    {"prompt": "Who?", "response": "42"},
]  # fmt: skip


def make_fixtures():
    folder = FIXTURES / "conversations"
    folder.mkdir(exist_ok=True)
    (folder / "chat.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(FIXTURES / "tokenizer" / "tokenizer.json"))
    rows = []
    tokenizer.chat_template = SMOLLM2
    for record in RECORDS:
        ids, judged = said_by(tokenizer, messages_of(record), False)
        rows.append({"ids": ids, "judged": [int(flag) for flag in judged]})
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (folder / "expected.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(rows)} conversations")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smolter", nargs="?")
    parser.add_argument("--data", metavar="DIR", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--fixtures", action="store_true")
    arguments = parser.parse_args()
    if arguments.fixtures:
        return make_fixtures()
    if not (arguments.smolter and arguments.data):
        parser.error("give SMOLTER --data DIR, or --fixtures")
    given = arguments.data / "tokenizer"
    config = json.loads((given / "tokenizer_config.instruct.json").read_text(encoding="utf-8"))
    wrong = total = 0
    for kind in "SmolLM2's template", "a template with generation":
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            shutil.copyfile(given / "tokenizer.json", folder / "tokenizer.json")
            mask = kind != "SmolLM2's template"
            template = GENERATION if mask else config["chat_template"]
            (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
            names = {role: config[role] for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names)
            tokenizer.chat_template = template
            for form, name in FILES.items():
                found = conversations(arguments.data / "sft" / name, arguments.count, tokenizer)
                theirs = [said_by(tokenizer, messages, mask) for _, messages in found]
                theirs = sorted((tuple(ids), tuple(judged)) for ids, judged in theirs)
                ours = sorted(shown(arguments.smolter, folder, folder / "tokenizer.json", [r for r, _ in found]))
                different = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
                judged = sum(sum(flags) for _, flags in ours)
                print(f"{kind}, {form}: {len(theirs)} conversations, {judged} judged tokens, {different} differ")
                wrong, total = wrong + different, total + len(theirs)
                # Faults: the end token not judged; another role's name; a message lost.
                moved = [(ids, flags[1:] + (False,)) for ids, flags in theirs]
                changed = [(ids[:2] + (ids[2] + 1,) + ids[3:], flags) for ids, flags in theirs]
                for fault in moved, changed, theirs[:-1]:
                    if fault == ours:
                        print("a planted fault was not caught")
                        wrong += 1
    print(f"{total} conversations: {wrong} differences")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
