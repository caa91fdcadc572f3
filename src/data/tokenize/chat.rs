//! Conversations to token sets, beside which it stands which tokens a model is judged on.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::sides::Sides;
use super::{Counts, TokenizeOptions, fingerprint_of};
use crate::data::conversation::decontaminate::Benchmarks;
use crate::data::conversation::{Columns, Conversation, conversations};
use crate::data::source::{Record, Report, Source};
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Judged, JudgedTokens, Tokenizer};

/// Conversations that are encoded at once, and bytes of them, unless one is longer.
const BATCH: usize = 1 << 10;
const BATCH_BYTES: usize = 1 << 20;

/// How conversations become tokens.
pub struct Chat<'a> {
    /// For the text of the messages.
    pub tokenizer: &'a Tokenizer,
    /// For what stands around them.
    pub template: &'a ChatTemplate,
    /// What the columns of the source are called.
    pub columns: Columns,
    /// Conversations that contain their texts are left out.
    pub benchmarks: Benchmarks,
    /// Whether there are sets that say which tokens are the assistant's.
    pub judged: bool,
}

impl Chat<'_> {
    /// Identifies the sets of conversations that `records` identifies.
    pub(in crate::data) fn fingerprint_of(&self, records: u64, options: TokenizeOptions) -> u64 {
        let text = fingerprint_of(self.tokenizer, records, options);
        let (template, benchmarks) = (self.template.hash(), self.benchmarks.hash());
        let made = format!("chat {text} {template} {:?} {benchmarks} {}", self.columns, self.judged);
        xxh3_64(made.as_bytes())
    }

    /// Appends the conversations of `source` to sets, each followed by `<|endoftext|>`, in the given order; with
    /// [`judged_name`](super::judged_name) sets beside them if these are wanted. A conversation that the template refuses
    /// is broken. The held-out ones are chosen by what is said alone.
    ///
    /// # Errors
    /// As [`Source::objects`], and [`Error::Io`] naming a file that cannot be written.
    pub(in crate::data) fn extend(
        &self,
        sides: &mut Sides,
        source: &Source,
        mut progress: impl FnMut(&Counts),
    ) -> Result<Report> {
        let mut records = conversations(source, &self.columns)?;
        loop {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES && batch.len() < BATCH {
                let Some(record) = records.next().transpose()? else { break };
                bytes += record.value.bytes();
                batch.push(record);
            }
            if batch.is_empty() {
                return Ok(records.report().clone());
            }
            let encode = |record: &Record<Conversation>| match self.benchmarks.are_in(&record.value) {
                true => Ok(None),
                false => self.encode(&record.value).map(Some),
            };
            let encoded: Vec<_> = batch.par_iter().map(encode).collect();
            for (record, tokens) in batch.iter().zip(encoded) {
                match tokens {
                    Ok(None) => sides.counts.contaminated += 1,
                    Ok(Some(JudgedTokens { ids, judged })) => {
                        let conversation = &record.value;
                        sides.push(conversation.hash(), conversation.bytes(), &ids, &judged)?;
                    }
                    // Of this one; what concerns all would be of another kind.
                    Err(Error::Input(why)) => records.reject(record, &why)?,
                    Err(error) => return Err(error),
                }
            }
            progress(&sides.counts);
        }
    }

    /// The tokens of a conversation.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode_judged`].
    pub fn encode(&self, conversation: &Conversation) -> Result<JudgedTokens> {
        let judged = if self.judged { Judged::Assistant } else { Judged::All };
        let encode = |Conversation { messages, tools }: &Conversation| {
            self.template.encode_judged(self.tokenizer, messages, tools, judged)
        };
        if self.template.writes_tools() {
            return encode(conversation);
        }
        encode(&conversation.clone().with_tools_in_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::contents::Contents;
    use crate::data::shard::{TokenSet, Verify};
    use crate::data::source::OnBroken;
    use crate::data::tokenize::{held_out_name, judged_name};
    use serde_json::json;

    fn tokenizer() -> Tokenizer {
        let corpus = std::iter::repeat_n("system user assistant what is the sum of 2 and 2".to_string(), 20);
        Tokenizer::train(corpus, 330, |_| ()).unwrap()
    }

    #[test]
    fn flags_lie_beside_tokens_and_broken_and_contaminated_ones_are_counted() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let path = folder.path().join("chat.jsonl");
        let mut lines: Vec<String> = (0..40)
            .map(|i| {
                json!({"prompt": format!("what is {i}"), "response": format!("the sum {i}")}).to_string()
            })
            .collect();
        lines[3] = json!({"prompt": "what", "response": ""}).to_string();
        lines[5] =
            json!({"prompt": "what", "response": "How many  apples has Ann, who had three?"}).to_string();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let bench = folder.path().join("bench.jsonl");
        std::fs::write(&bench, json!({"question": "how many apples has Ann, who had three?"}).to_string())
            .unwrap();
        let template = ChatTemplate::smollm2();
        let chat = Contents::Conversations(Chat {
            tokenizer: &tokenizer,
            template: &template,
            columns: Columns::default(),
            benchmarks: Benchmarks::load(&[bench]).unwrap(),
            judged: true,
        });
        let source = Source::new([&path]).on_broken(OnBroken::Skip);
        let options = TokenizeOptions { held_out_fraction: 0.3, ..Default::default() };
        let (counts, report) = chat.tokenize(&source, folder.path(), "chat", options, |_| ()).unwrap();
        assert_eq!((counts.documents, counts.contaminated, report.broken), (38, 1, 1));
        assert!((3..25).contains(&counts.held_out_documents), "{counts:?}");
        let mut seen = Vec::new();
        for name in ["chat".to_string(), held_out_name("chat")] {
            let open = |name: &str| TokenSet::open(folder.path(), name, Verify::Full).unwrap();
            let (tokens, judged) = (open(&name), open(&judged_name(&name)));
            assert_eq!((tokens.len(), tokens.documents()), (judged.len(), judged.documents()));
            for i in 0..tokens.documents() {
                let (ids, flags) = (tokens.tokens(tokens.document(i)), judged.tokens(judged.document(i)));
                let said: Vec<u32> =
                    ids.iter().zip(&flags).filter(|(_, flag)| **flag == 1).map(|(id, _)| *id).collect();
                let said = tokenizer.decode(&said);
                assert!(
                    tokenizer.decode(&ids).contains(&format!("assistant\n{said}\n<|endoftext|>")),
                    "{said}"
                );
                seen.push(said);
            }
        }
        seen.sort();
        let mut expected: Vec<String> =
            (0..40).filter(|i| ![3, 5].contains(i)).map(|i| format!("the sum {i}<|im_end|>")).collect();
        expected.sort();
        assert_eq!(seen, expected);
    }
}
