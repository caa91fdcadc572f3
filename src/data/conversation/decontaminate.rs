//! Removal of samples that contain a benchmark's text, as SmolLM2's fine-tuning data were cleaned: lower-cased, with
//! white space normalised, a substring of what the sample says.

use std::collections::HashMap;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::Conversation;
use crate::data::source::Source;
use crate::error::{Error, Result};

/// Bytes of the windows by which texts are looked up.
const WINDOW: usize = 16;

/// Shorter texts, in bytes, are not looked for: "return x + y" is in any text about programs.
pub const SHORTEST: usize = 24;

/// Fields that hold a benchmark's question.
const QUESTIONS: [&str; 7] = ["question", "problem", "query", "prompt", "goal", "ctx", "text"];

/// Texts of benchmarks.
#[derive(Debug, Default)]
pub struct Benchmarks {
    /// Normalised texts, by their first [`WINDOW`] bytes.
    texts: HashMap<[u8; WINDOW], Vec<String>>,
    count: usize,
}

impl Benchmarks {
    /// Reads benchmark files, one record per problem. Of one with a `canonical_solution`, as HumanEval has, the texts are
    /// that and the docstrings of its `prompt`; of any other its question.
    ///
    /// # Errors
    /// As [`Source::objects`], and [`Error::Input`] naming a file without such a record.
    pub fn load(paths: &[std::path::PathBuf]) -> Result<Self> {
        let mut benchmarks = Benchmarks::default();
        for path in paths {
            let before = benchmarks.count;
            for texts in Source::new([path]).parsed(|_| true, |record| texts_of(&record))? {
                texts?.value.iter().for_each(|text| benchmarks.add(text));
            }
            if benchmarks.count == before {
                let why =
                    format!("no text of {SHORTEST} bytes or more to look for: take it out of decontaminate");
                return Err(Error::input(format!("{}: {why}", path.display())));
            }
        }
        Ok(benchmarks)
    }

    /// Looks for `text` too, unless it is too short.
    fn add(&mut self, text: &str) {
        let text = normalised(text);
        if text.len() < SHORTEST {
            return;
        }
        let key = *text.as_bytes().first_chunk().expect("it is longer than a window");
        self.texts.entry(key).or_default().push(text);
        self.count += 1;
    }

    /// Whether what is said contains one of the texts.
    pub fn are_in(&self, conversation: &Conversation) -> bool {
        let said = conversation.messages.iter().map(|message| message.content.as_str());
        self.are_in_text(&said.collect::<Vec<_>>().join("\n"))
    }

    fn are_in_text(&self, text: &str) -> bool {
        let text = normalised(text);
        let bytes = text.as_bytes();
        let found = |(at, window): (usize, &[u8])| {
            let texts = window.first_chunk().and_then(|key| self.texts.get(key));
            texts.is_some_and(|texts| texts.iter().any(|it| bytes[at..].starts_with(it.as_bytes())))
        };
        !self.texts.is_empty() && bytes.windows(WINDOW).enumerate().any(found)
    }

    /// Identifies the texts.
    pub fn hash(&self) -> u64 {
        let mut texts: Vec<&String> = self.texts.values().flatten().collect();
        texts.sort();
        xxh3_64(format!("{texts:?}").as_bytes())
    }
}

fn normalised(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What of a benchmark's record is looked for.
fn texts_of(record: &Map<String, Value>) -> std::result::Result<Vec<String>, String> {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    if let Some(solution) = text("canonical_solution") {
        let docstrings = docstrings(text("prompt").unwrap_or("")).map(String::from);
        return Ok(docstrings.chain([solution.to_string()]).collect());
    }
    let question = QUESTIONS.into_iter().find_map(text);
    let wanted = || format!("none of {} and canonical_solution is a text in it", QUESTIONS.join(", "));
    question.map(|question| vec![question.to_string()]).ok_or_else(wanted)
}

/// What stands in triple quotes.
fn docstrings(code: &str) -> impl Iterator<Item = &str> {
    let quotes = if code.contains("\"\"\"") { "\"\"\"" } else { "'''" };
    code.split(quotes).skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Message;
    use serde_json::json;

    fn benchmarks(records: &[Value]) -> Result<Benchmarks> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.jsonl");
        std::fs::write(&path, records.iter().map(|record| format!("{record}\n")).collect::<String>())
            .unwrap();
        Benchmarks::load(&[path])
    }

    #[test]
    fn docstrings_solutions_and_questions_are_found_however_they_are_written() {
        let records = [
            json!({"prompt": "def f(x):\n    '''Doubles a  number,\n    whatever it is.'''\n", "canonical_solution": "    return x * 2 if x is not None else 0\n"}),
            json!({"prompt": "def g(x, y):\n    \"\"\"Adds it all up, one by one.\"\"\"\n", "canonical_solution": "  return x + y"}),
            json!({"question": "How many apples has Ann, who had three?"}),
        ];
        let found = benchmarks(&records).unwrap();
        let contains = |text: &str| {
            let messages = vec![Message::new("user", "Write it."), Message::new("assistant", text)];
            found.are_in(&Conversation { messages, tools: Vec::new() })
        };
        for text in [
            "doubles a number, whatever\tit is.",
            "def h(x):\n\treturn x * 2  if x is NOT none else 0",
            "... ADDS IT ALL UP, ONE BY ONE. ...",
            "how many apples\n\nhas Ann, who had three?",
        ] {
            assert!(contains(text), "{text}");
        }
        // What is too short, or not the whole, is not.
        for text in ["return x + y", "How many apples has Ann, who had four?", "Doubles a number", ""] {
            assert!(!contains(text), "{text}");
        }
    }

    #[test]
    fn files_without_anything_to_look_for_are_refused() {
        for (record, word) in [
            (json!({"answer": "forty-two and nothing else at all"}), "line 1"),
            (json!({"question": "Why?"}), "decontaminate"),
        ] {
            let error = benchmarks(&[record]).unwrap_err().to_string();
            assert!(error.contains("bench.jsonl") && error.contains(word), "{error}");
        }
    }
}
