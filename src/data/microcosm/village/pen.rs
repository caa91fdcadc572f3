//! Writes documents about a village: sentences from templates, statements of facts, questions.

use super::super::phrase::{alternatives, bracketed};
use super::super::random::Random;
use super::template::fill;
use super::{Fact, Kind, Village};

/// A writer of one document.
#[derive(Debug)]
pub(super) struct Pen<'v> {
    /// What it writes about.
    pub village: &'v Village,
    /// Its choices.
    pub random: Random,
    /// Whom the text is about at the moment, so that a pronoun will do: the subject as facts name it.
    known: String,
}

/// Per cent of questions and answers that are copied from a talk with an assistant. Without them what is learnt of answering
/// from text, to copy a name or a number of the question, does not work in a conversation.
const COPIED: usize = 50;

impl<'v> Pen<'v> {
    pub fn new(village: &'v Village, random: Random) -> Self {
        Pen { village, random, known: String::new() }
    }

    /// A text from a template.
    pub fn say(&mut self, template: &str, slots: &[(&str, &str)]) -> String {
        let mut template = template.to_owned();
        while let Some(at) = template.find('[') {
            let (inside, after) = bracketed(&template[at..]);
            let choice = *self.random.pick(&alternatives(inside));
            template = format!("{}{choice}{after}", &template[..at]);
        }
        fill(&template, slots)
    }

    /// Begins a text that does not know its subject yet.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// A sentence that states a fact.
    pub fn state(&mut self, fact: &Fact) -> String {
        let pronoun = self.known == fact.x && self.random.chance(45);
        self.known.clone_from(&fact.x);
        let (s, possessive) = match fact.relation.kind {
            Kind::Person if pronoun => {
                let [he, _, his] = self.village.people[fact.subject].pronouns();
                (he.to_owned(), his.to_owned())
            }
            _ if pronoun => ("it".to_owned(), "its".to_owned()),
            _ => (fact.x.clone(), format!("{}'s", fact.x)),
        };
        let slots = [("x", fact.x.as_str()), ("y", &fact.y), ("z", &fact.z), ("s", &s), ("s's", &possessive)];
        self.say(fact.relation.statement, &slots)
    }

    /// A question about a fact in one of the phrasings that training text may use.
    pub fn ask(&mut self, fact: &Fact) -> String {
        let n = fact.relation.questions.len();
        let phrasing = (fact.unasked() + 1 + self.random.below(n - 1)) % n;
        fact.question(phrasing)
    }

    /// A question with its answer, about a text or, if that is empty, about nothing that has been said: as schoolbooks print
    /// it, or as people copy what they have asked an assistant.
    pub fn exchange(&mut self, text: &str, question: &str, answer: &str) -> String {
        let gap = if text.is_empty() { "" } else { "\n\n" };
        match self.random.chance(COPIED) {
            true => format!("user\n{text}{gap}{question}\nassistant\n{answer}"),
            false => format!("{text}{gap}Question: {question}\nAnswer: {answer}"),
        }
    }

    /// Any fact; those about people come as often as all others together.
    pub fn fact(&mut self) -> &'v Fact {
        self.random.pick(&self.village.facts)
    }
}
