#!/bin/sh
# Trains a small model on real text, from noise to preferences (examples/real-data.toml), and tells how each stage went.
#
#   sh examples/real-data.sh DATA [SMOLTER] [FLAG...]
#
# DATA     folder with the data; what it has to hold is listed below
# SMOLTER  the program; target/release/smolter if not given
# FLAG     of smolter train, such as --device llvmpipe, -o runs/mine, --set stages.stable.tokens=1M
#
# Nothing is fetched and nothing of DATA is changed. The run folder is runs/real-data; a run that is stopped goes on with
# smolter train --resume runs/real-data. What DATA holds, and where it comes from:
#
#   tokenizer/tokenizer.json                       SmolLM2's (HuggingFaceTB/SmolLM2-135M on the Hub)
#   pretrain/openstax_ccby.jsonl                   textbooks, a section a record: text (github.com/openstax/osbooks-*)
#   pretrain/openstax_math_ccby.jsonl              the same of mathematics
#   pretrain/gsm8k_train.jsonl                     question, answer (github.com/openai/grade-school-math)
#   pretrain/permissive_code.jsonl                 source files: text (github.com/TheAlgorithms and others)
#   pretrain/public_domain_books.jsonl             whole books: text (github.com/mlschmitt/classic-books-markdown)
#   sft/octopack_oasst_commitpackft.jsonl          prompt, completion (github.com/bigcode-project/octopack)
#   sft/dolly_hhrlhf_train_small.jsonl             prompt, response (github.com/mosaicml/llm-foundry)
#   sft/llamafactory_v1_sft_demo.jsonl             messages (github.com/hiyouga/LLaMA-Factory)
#   sft/llamafactory_glaive_toolcall_en_demo.json  conversations, tools (the same)
#   preference/ultrafeedback_train_1000.jsonl      prompt, chosen, rejected (UltraFeedback)
#   preference/rasbt_preference_1100.json          instruction, input, chosen, rejected (github.com/rasbt/LLMs-from-scratch)
#   preference/llamafactory_dpo_en_demo.json       conversations, chosen, rejected (github.com/hiyouga/LLaMA-Factory)
#   eval/gsm8k_test.jsonl, eval/HumanEval.jsonl.gz never trained on: conversations that contain them are left out
set -eu

[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
[ -d "$1" ] || { echo "real-data.sh: $1 is no folder; give the one with the data" >&2; exit 2; }
data=$(cd "$1" && pwd)
shift
smolter=target/release/smolter
case ${1:--} in
-*) ;;
*) smolter=$1; shift ;;
esac
command -v "$smolter" > /dev/null || {
    echo "real-data.sh: $smolter is no program; build it (cargo build --release) or name it behind the folder" >&2
    exit 2
}

# The recipe says data/ for the folder.
mkdir -p runs
recipe=runs/real-data.toml
sed "s|\"data/|\"$data/|g" "$(dirname "$0")/real-data.toml" > "$recipe"

"$smolter" train "$recipe" "$@"
