//! Every fact of a world, with the words to state it, to ask for it, and to answer.
//!
//! A fact is an entity and a [`Relation`] that holds for it. Articles, questions and later training stages all
//! draw on this one table, so they cannot disagree.

use super::entity::Entity;
use super::relations::{Kind, RELATIONS, Relation};
use super::scribe::Scribe;
use super::world::World;

/// Something that is true in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub subject: Entity,
    /// What is said of it.
    pub relation: &'static Relation,
}

/// A question about one fact, with its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The question, a whole sentence.
    pub question: String,
    /// The true answer, a whole sentence.
    pub answer: String,
    /// The true answer in as few words as it takes: "a baker", "Tavel".
    pub short: String,
}

impl Entity {
    /// What kind of entity this is.
    pub fn kind(self) -> Kind {
        match self {
            Entity::Person(_) => Kind::Person,
            Entity::Town(_) => Kind::Town,
            Entity::River(_) => Kind::River,
            Entity::Trade(_) => Kind::Trade,
            Entity::Animal(_) => Kind::Animal,
            Entity::Food(_) => Kind::Food,
        }
    }
}

impl World {
    /// The facts about one entity, in a fixed order.
    pub fn facts_about(&self, subject: Entity) -> Vec<Fact> {
        let holds = |r: &&Relation| r.kind == subject.kind() && self.follow(subject, r.path).is_some();
        RELATIONS.iter().filter(holds).map(|relation| Fact { subject, relation }).collect()
    }

    /// The fact about an entity at a path, if it holds.
    pub fn fact(&self, subject: Entity, path: &str) -> Option<Fact> {
        self.facts_about(subject).into_iter().find(|fact| fact.relation.path == path)
    }
}

impl Scribe<'_> {
    /// A sentence that states a fact about the subject of the text.
    pub fn state(&mut self, fact: Fact) -> String {
        if self.value("x") != Some(fact.subject.into()) {
            self.set("x", fact.subject);
        }
        self.say(fact.relation.statement)
    }

    /// A question about a fact, and its answers.
    pub fn ask(&mut self, fact: Fact) -> Exchange {
        self.set("x", fact.subject);
        Exchange {
            question: self.say(fact.relation.question),
            answer: self.say(fact.relation.answer),
            short: self.fill(fact.relation.short),
        }
    }
}
