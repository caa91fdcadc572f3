//! A small coherent world, written as text by the program itself: training data that needs no network.
//!
//! A seed decides a [`World`]: a map of towns on three rivers, their people, trades, animals and dishes.
//! [`Microcosm::document`] writes about it in registers that play the parts of SmolLM2's data sources. The facts
//! are the same in all of them, so what a model learns in one register helps it in the others. The [`village`] is a
//! second, smaller world with registers of its own.

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
pub mod village;
mod world;

use std::str::FromStr;

pub use entity::{Entity, Value};
pub use facts::{Exchange, Fact};
pub use interpreter::run;
pub use lexicon::{AnimalWords, FoodWords, TradeWords};
pub use random::Random;
pub use relations::{Kind, RELATIONS, Relation};
pub use scribe::Scribe;
pub use village::Village;
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
    /// FineWeb-Edu: articles about a village.
    Lessons = 16,
    /// DCLM: questions and answers of every kind.
    Forum,
    /// StarCoderData: programs with their output in a comment.
    Programs,
    /// Stack-Edu: programs that are explained.
    Tutorials,
    /// OpenWebMath: what web pages say about numbers.
    Numbers,
    /// InfiMM-WebMath: pictures and what they count.
    Figures,
    /// Infi-WebMath: short sums.
    Drills,
    /// FineMath: word problems, step by step.
    Problems,
    /// Cosmopedia: chapters with a review.
    Textbook,
    /// Cosmopedia: stories of five sentences.
    Tales,
    /// Long books that ask in the end for what they said in the beginning.
    Books,
}

impl Register {
    /// The registers of the large world.
    pub const WORLD: [Register; 5] = [
        Register::Encyclopaedia,
        Register::Questions,
        Register::Code,
        Register::Arithmetic,
        Register::Stories,
    ];

    /// The registers of the village.
    pub const VILLAGE: [Register; 11] = [
        Register::Lessons,
        Register::Forum,
        Register::Programs,
        Register::Tutorials,
        Register::Numbers,
        Register::Figures,
        Register::Drills,
        Register::Problems,
        Register::Textbook,
        Register::Tales,
        Register::Books,
    ];

    /// All registers.
    pub fn all() -> impl Iterator<Item = Register> {
        Self::WORLD.into_iter().chain(Self::VILLAGE)
    }

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Register::Encyclopaedia => "encyclopaedia",
            Register::Questions => "questions",
            Register::Code => "code",
            Register::Arithmetic => "arithmetic",
            Register::Stories => "stories",
            Register::Lessons => "lessons",
            Register::Forum => "forum",
            Register::Programs => "programs",
            Register::Tutorials => "tutorials",
            Register::Numbers => "numbers",
            Register::Figures => "figures",
            Register::Drills => "drills",
            Register::Problems => "problems",
            Register::Textbook => "textbook",
            Register::Tales => "tales",
            Register::Books => "books",
        }
    }
}

impl FromStr for Register {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Register::all().find(|register| register.name() == name).ok_or_else(|| {
            let names = Register::all().map(Register::name).collect::<Vec<_>>().join(", ");
            Error::input(format!("microcosm has no register {name:?}; it has {names}"))
        })
    }
}

/// The texts of one world.
#[derive(Debug, Clone)]
pub struct Microcosm {
    seed: u64,
    world: World,
    village: Village,
}

impl Microcosm {
    /// The microcosm of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, world: World::new(seed), village: Village::new(seed) }
    }

    /// What is true in it.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The village, a smaller world of its own.
    pub fn village(&self) -> &Village {
        &self.village
    }

    /// The document of an index, ASCII ending in a newline, 30 to 330 words but for [`Register::Books`]: a pure function
    /// of (seed, register, index). Held-out documents are simply other indices.
    pub fn document(&self, register: Register, index: u64) -> String {
        if let Some(text) = self.village.document(register, index) {
            return text;
        }
        let mut scribe = self.scribe(register as u64, index);
        match register {
            Register::Encyclopaedia => encyclopaedia::write(&mut scribe),
            Register::Questions => questions::write(&mut scribe),
            Register::Code => code::write(&mut scribe),
            Register::Arithmetic => arithmetic::write(&mut scribe),
            _ => stories::write(&mut scribe),
        }
    }

    /// A writer about this world with the stream of choices of (seed, purpose, index). Purposes 0 to 4 are the
    /// registers'; other stages, such as instruction data, take numbers of their own.
    pub fn scribe(&self, purpose: u64, index: u64) -> Scribe<'_> {
        Scribe::new(&self.world, Random::new([self.seed, purpose, index]))
    }
}
