//! A small coherent world, written as text by the program itself: training data that needs no network.
//!
//! A seed decides a [`World`]: a map of towns on three rivers, their people, trades, animals and dishes.
//! [`Microcosm::document`] writes about it in five registers that play the parts of SmolLM2's data sources. The facts
//! are the same in all of them, so what a model learns in one register helps it in the others.

mod arithmetic;
mod code;
mod encyclopaedia;
mod entity;
mod facts;
mod interpreter;
mod lexicon;
mod program;
mod questions;
mod random;
mod relations;
mod scribe;
mod stories;
#[cfg(test)]
mod tests;
mod value;
mod world;

use std::str::FromStr;

pub use entity::{Entity, Value};
pub use facts::{Exchange, Fact};
pub use interpreter::run;
pub use lexicon::{AnimalWords, FoodWords, TradeWords};
pub use random::Random;
pub use relations::{Kind, RELATIONS, Relation};
pub use scribe::Scribe;
pub use world::{COLUMNS, HOUSEHOLD, Person, ROWS, River, Town, Trade, World};

use crate::error::{Error, Result};

/// A kind of text, in the place of one of SmolLM2's data sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Register {
    /// Articles about people, towns, rivers, trades, animals and dishes.
    Encyclopaedia,
    /// Questions and answers, from the world or from a passage.
    Questions,
    /// Small programs with the output that they really have.
    Code,
    /// Sums worked out step by step.
    Arithmetic,
    /// Short tales.
    Stories,
}

impl Register {
    /// All registers.
    pub const ALL: [Register; 5] = [
        Register::Encyclopaedia,
        Register::Questions,
        Register::Code,
        Register::Arithmetic,
        Register::Stories,
    ];

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Register::Encyclopaedia => "encyclopaedia",
            Register::Questions => "questions",
            Register::Code => "code",
            Register::Arithmetic => "arithmetic",
            Register::Stories => "stories",
        }
    }
}

impl FromStr for Register {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Register::ALL.into_iter().find(|register| register.name() == name).ok_or_else(|| {
            let names = Register::ALL.map(Register::name).join(", ");
            Error::input(format!("microcosm has no register {name:?}; it has {names}"))
        })
    }
}

/// The texts of one world.
#[derive(Debug, Clone)]
pub struct Microcosm {
    seed: u64,
    world: World,
}

impl Microcosm {
    /// The microcosm of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, world: World::new(seed) }
    }

    /// What is true in it.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The document of an index, 60 to 250 words of ASCII ending in a newline: a pure function of (seed, register,
    /// index). Held-out documents are simply other indices.
    pub fn document(&self, register: Register, index: u64) -> String {
        let mut scribe = self.scribe(register as u64, index);
        match register {
            Register::Encyclopaedia => encyclopaedia::write(&mut scribe),
            Register::Questions => questions::write(&mut scribe),
            Register::Code => code::write(&mut scribe),
            Register::Arithmetic => arithmetic::write(&mut scribe),
            Register::Stories => stories::write(&mut scribe),
        }
    }

    /// A writer about this world with the stream of choices of (seed, purpose, index). Purposes 0 to 4 are the
    /// registers'; other stages, such as instruction data, take numbers of their own.
    pub fn scribe(&self, purpose: u64, index: u64) -> Scribe<'_> {
        Scribe::new(&self.world, Random::new([self.seed, purpose, index]))
    }
}
