//! Records for stages that learn from answers: conversations and preference pairs.

use super::{Pair, Part, Village};
use serde_json::{Map, Value, json};

/// What a dataset of records consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Conversations.
    Conversations(Part),
    /// Prompts with two answers.
    Pairs,
}

impl Answers {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Answers> {
        Part::ALL.into_iter().map(Answers::Conversations).chain([Answers::Pairs])
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Answers::Conversations(part) => part.name(),
            Answers::Pairs => "pairs",
        }
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Answers> {
        Answers::all().find(|answers| answers.name() == name)
    }

    /// The record of an index: `{"messages": [{"role": ..., "content": ...}, ...]}`, or
    /// `{"prompt": ..., "chosen": ..., "rejected": ...}`.
    pub fn record(self, village: &Village, index: u64) -> Map<String, Value> {
        let columns = match self {
            Answers::Conversations(part) => vec![("messages", json!(village.conversation(part, index)))],
            Answers::Pairs => {
                let Pair { prompt, chosen, rejected, .. } = village.pair(index);
                vec![("prompt", json!(prompt)), ("chosen", json!(chosen)), ("rejected", json!(rejected))]
            }
        };
        columns.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}
