//! A small coherent world, written as text by the program itself: training data that needs no network.
//!
//! A seed decides a [`Village`]. [`Village::document`] writes about it in registers that play the parts of SmolLM2's data
//! sources. The facts are the same in all of them, so what a model learns in one register helps it in the others.

mod interpreter;
mod phrase;
mod program;
mod random;
mod value;
pub mod village;

use crate::error::{Error, Result};
pub use interpreter::run;
pub use random::Random;
use std::str::FromStr;
pub use village::Village;

/// A kind of text, in the place of one of SmolLM2's data sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Register {
    /// FineWeb-Edu: articles about the village.
    Lessons,
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
    /// All registers.
    pub const ALL: [Register; 11] = [
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

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
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
        Register::ALL.into_iter().find(|register| register.name() == name).ok_or_else(|| {
            let names = Register::ALL.map(Register::name).join(", ");
            Error::input(format!("microcosm has no register {name:?}; it has {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_names() {
        for register in Register::ALL {
            assert_eq!(register.name().parse::<Register>().ok(), Some(register));
        }
        let error = "poetry".parse::<Register>().map_or_else(|error| error.to_string(), |_| String::new());
        assert!(error.contains("\"poetry\"") && error.contains("tales"), "{error}");
    }
}
