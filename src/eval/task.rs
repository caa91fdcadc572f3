//! Tasks as data: a task is a name and items; an item is a prompt and what a right answer to it is.

use std::fmt;
use std::sync::Arc;

/// Questions of one kind.
#[derive(Clone, Debug)]
pub struct Task {
    /// What tables call it.
    pub name: String,
    /// Its questions.
    pub items: Vec<Item>,
    /// Most tokens of an answer that is generated.
    pub max_tokens: usize,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Item {
    /// What is to be read first; may be empty.
    pub text: String,
    /// The question.
    pub question: String,
    /// What is right.
    pub expected: Expected,
    /// How likely a guess is right, 0 to 1.
    pub guess: f64,
}

/// What judges an answer: says what is wrong with it.
pub type Check = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What a right answer is.
#[derive(Clone)]
pub enum Expected {
    /// One of several answers, the one of the highest log-probability per character.
    Choice {
        /// The answers.
        choices: Vec<String>,
        /// The index of the right one.
        gold: usize,
    },
    /// An answer that is this text, but for white space around it and a full stop at its end.
    Exact(String),
    /// An answer whose first number after `####` is this one.
    Number(i64),
    /// An answer with this phrase in it and none of the others, as whole words.
    Mentions {
        /// The phrase.
        value: String,
        /// What would be wrong.
        others: Vec<String>,
    },
    /// An answer that a program accepts; the program says what is wrong.
    Checked(Arc<Check>),
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())
    }
}

impl Expected {
    /// Whether a generated answer is right; `false` for choices, which are not generated.
    pub fn accepts(&self, answer: &str) -> bool {
        match self {
            Expected::Choice { .. } => false,
            Expected::Exact(text) => bare(answer) == bare(text),
            Expected::Number(number) => number_after_mark(answer) == Some(*number),
            Expected::Mentions { value, others } => {
                mentions(answer, value)
                    && !others.iter().any(|other| !mentions(value, other) && mentions(answer, other))
            }
            Expected::Checked(check) => check(answer).is_ok(),
        }
    }

    /// What is right, for people.
    pub fn told(&self) -> String {
        match self {
            Expected::Choice { choices, gold } => choices[*gold].clone(),
            Expected::Exact(text) => text.clone(),
            Expected::Number(number) => format!("#### {number}"),
            Expected::Mentions { value, .. } => value.clone(),
            Expected::Checked(_) => "(checked by a program)".into(),
        }
    }
}

fn bare(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

/// The number behind the first `####`, without commas.
fn number_after_mark(answer: &str) -> Option<i64> {
    let rest = answer.split_once("####")?.1.trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ',' || c == '-')).unwrap_or(rest.len());
    rest[..end].replace(',', "").parse().ok()
}

/// Whether a phrase stands in a text with no letter or digit right before or behind it.
fn mentions(text: &str, phrase: &str) -> bool {
    let (text, phrase) = (text.to_lowercase(), phrase.to_lowercase());
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(&phrase).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + phrase.len()..]);
        !word(before.chars().next_back()) && !word(behind.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let mentions = |value: &str, others: &[&str]| Expected::Mentions {
            value: value.into(),
            others: others.iter().map(|it| (*it).into()).collect(),
        };
        for (expected, answer, right) in [
            (Expected::Exact("red and Ida".into()), " red and Ida\n", true),
            (Expected::Exact("7".into()), "7.", true),
            (Expected::Exact("7".into()), "17", false),
            (Expected::Number(12), "3 + 9 = 12. #### 12", true),
            (Expected::Number(1200), "#### 1,200 cups", true),
            (Expected::Number(12), "3 + 9 = 12", false),
            (Expected::Number(12), "#### 1", false),
            (Expected::Number(12), "#### 13 or #### 12", false),
            (mentions("a red lamp", &["a red cap"]), "Ada owns a red lamp.", true),
            (mentions("a red lamp", &["a red cap"]), "Ada owns a red lampshade.", false),
            (mentions("Ida", &["Ada", "Ivan"]), "Ida keeps the mill.", true),
            (mentions("Ida", &["Ada", "Ivan"]), "Ida and Ivan keep the mill.", false),
            (mentions("Ida", &["Ada", "Ivan"]), "Idaho", false),
            (mentions("in a hollow tree", &["in a tree", "in a"]), "It sleeps in a hollow tree.", true),
        ] {
            assert_eq!(expected.accepts(answer), right, "{expected:?}: {answer}");
        }
    }
}
