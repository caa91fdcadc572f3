//! A village: a world small enough to be known by heart, with a text for every role that SmolLM2's datasets have, from
//! web pages to preference pairs, and exams about it.
//!
//! Every phrasing but one of a question may occur in text; the one that is left is for exams ([`Fact::unasked`]).

mod answers;
mod facts;
mod figures;
mod lessons;
mod lexicon;
mod memory;
mod pen;
mod preference;
mod programs;
mod tales;
mod talk;
mod template;
#[cfg(test)]
mod tests;
mod world;

pub use answers::Answers;
pub use facts::{Fact, Kind, RELATIONS, Relation, count_statements};
pub use lessons::Choice;
pub use memory::NEEDLES;
pub use preference::{Flaw, Pair};
pub use talk::{Constraint, Part};
pub use world::{Village, Villager};

use super::Register;
use super::random::Random;
use crate::tokenizer::Message;
use pen::Pen;

/// Streams of choices: those of the registers, of conversations and of pairs begin here.
const REGISTERS: u64 = 16;
const CONVERSATIONS: u64 = 64;
const PAIRS: u64 = 128;
/// Exams have streams of their own, so that what they ask is drawn apart from what is trained on.
const EXAMS: u64 = 256;

/// What an exam asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is to be read first; may be empty.
    pub text: String,
    /// The question.
    pub question: String,
    /// The right answer as training text would have it.
    pub answer: String,
}

impl Village {
    fn pen(&self, purpose: u64, index: u64) -> Pen<'_> {
        Pen::new(self, Random::new([self.seed, purpose, index]))
    }

    /// The document of an index, ASCII ending in a newline, 20 to 330 words but for [`Register::Books`]: a pure function of
    /// (seed, register, index). Held-out documents are simply other indices.
    pub fn document(&self, register: Register, index: u64) -> String {
        let pen = &mut self.pen(REGISTERS + register as u64, index);
        match register {
            Register::Lessons => lessons::lesson(pen),
            Register::Forum => lessons::thread(pen),
            Register::Programs => programs::repository(pen),
            Register::Tutorials => programs::tutorial(pen),
            Register::Numbers => figures::numbers(pen),
            Register::Figures => figures::pictures(pen),
            Register::Drills => figures::drills(pen),
            Register::Problems => figures::problems(pen),
            Register::Textbook => lessons::chapter(pen),
            Register::Tales => tales::tale(pen),
            Register::Books => memory::book(pen),
        }
    }

    /// The conversation of an index.
    pub fn conversation(&self, part: Part, index: u64) -> Vec<Message> {
        talk::conversation(&mut self.pen(CONVERSATIONS + part as u64, index), part)
    }

    /// The preference pair of an index.
    pub fn pair(&self, index: u64) -> Pair {
        preference::pair(&mut self.pen(PAIRS, index))
    }

    /// A preference pair that is in no training data's stream.
    pub fn exam_pair(&self, index: u64) -> Pair {
        preference::pair(&mut self.pen(EXAMS, index))
    }

    /// A word problem for an exam.
    pub fn exam_problem(&self, index: u64) -> Question {
        let (question, answer) = figures::problem(&mut self.pen(EXAMS + 1, index));
        Question { text: String::new(), question, answer }
    }

    /// A program for an exam, and the line that it prints.
    pub fn exam_program(&self, index: u64) -> Question {
        let program = programs::program(&mut self.pen(EXAMS + 2, index));
        Question { text: program.source, question: programs::QUESTION.to_owned(), answer: program.output }
    }

    /// A text of about `words` words with a needle at `depth` (0 to 1) for an exam.
    pub fn exam_needle(&self, index: u64, words: usize, depth: f64) -> Question {
        let (text, question, answer) = memory::needle(&mut self.pen(EXAMS + 3, index), words, depth);
        Question { text, question, answer }
    }

    /// A request with a form for an exam.
    pub fn exam_constraint(&self, index: u64) -> (String, Constraint) {
        let (request, form, _) = talk::constrained(&mut self.pen(EXAMS + 4, index));
        (request, form)
    }

    /// A request for a story for an exam; with the person and the thing, which [`Village::check_story`] takes.
    pub fn exam_story(&self, index: u64) -> (String, &'static str, &'static str) {
        tales::wish(&mut self.pen(EXAMS + 5, index))
    }

    /// A question with four lettered answers for an exam.
    pub fn exam_choice(&self, fact: &Fact, index: u64) -> Choice {
        lessons::choice(&mut self.pen(EXAMS + 6, index), fact, &fact.question(fact.unasked()))
    }
}
