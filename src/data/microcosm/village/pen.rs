//! Writes sentences from templates: `[a|b]` is one of its alternatives, `{name}` a slot. Sentences begin with a capital.

use super::super::entity::with_article;
use super::super::random::Random;
use super::super::scribe::{alternatives, bracketed, capitalise};
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

/// The text of a template without alternatives.
///
/// # Panics
/// If a slot has no value: templates are part of the program.
pub(super) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        let (slot, after) = bracketed(&rest[at..]);
        let (article, name) = slot.strip_prefix("a ").map_or((false, slot), |name| (true, name));
        let value = slots.iter().find(|(it, _)| *it == name);
        let value = value.unwrap_or_else(|| panic!("the slot {{{slot}}} of {template:?} has no value")).1;
        text += &if article { with_article(value) } else { value.to_owned() };
        rest = after;
    }
    capitalise(&(text + rest))
}

/// All texts that the alternatives of a template allow; its slots stay.
pub(super) fn expansions(template: &str) -> Vec<String> {
    let Some(at) = template.find('[') else { return vec![template.to_owned()] };
    let (inside, after) = bracketed(&template[at..]);
    let one = |choice: &&str| expansions(&format!("{}{choice}{after}", &template[..at]));
    alternatives(inside).iter().flat_map(one).collect()
}

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

    /// Any fact; those about people come as often as all others together.
    pub fn fact(&mut self) -> &'v Fact {
        self.random.pick(&self.village.facts)
    }
}
