//! Pairs of answers, one right and one wrong in a known way.

use super::figures;
use super::pen::Pen;
use super::talk::{Constraint, FILLER, constrained};

/// A request with a better and a worse answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What the user says.
    pub prompt: String,
    /// An answer that is right and has the form that was asked for.
    pub chosen: String,
    /// An answer that is wrong in the way that `flaw` says.
    pub rejected: String,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// In what way the rejected answer of a [`Pair`] is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// It says of the subject what is true of another.
    FalseFact,
    /// Its result is off by one or two.
    WrongResult,
    /// It does not have the form that was asked for.
    WrongForm,
    /// It does not answer.
    Evasive,
    /// It says more than it was asked.
    Wordy,
}

/// A pair.
pub(super) fn pair(pen: &mut Pen) -> Pair {
    match pen.random.below(12) {
        0..4 => {
            let fact = pen.fact();
            let other = *pen.random.pick(&pen.village.others(fact));
            let prompt = pen.ask(fact);
            Pair { prompt, chosen: fact.answer(), rejected: fact.answer_with(other), flaw: Flaw::FalseFact }
        }
        4..6 => {
            let (prompt, chosen) = figures::drill(pen);
            let (steps, result) = chosen.rsplit_once(" = ").unwrap_or((&chosen, "0"));
            let right: i64 = result.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let wrong = right + [1, 2, -1][pen.random.below(if right > 0 { 3 } else { 2 })];
            let rejected = format!("{steps} = {wrong}. #### {wrong}");
            Pair { prompt, chosen, rejected, flaw: Flaw::WrongResult }
        }
        6..9 => loop {
            let (prompt, form, chosen) = constrained(pen);
            let rejected = match &form {
                Constraint::Begins(words) => chosen[words.len()..].trim().to_owned(),
                Constraint::Ends(words) => chosen[..chosen.len() - words.len()].trim().to_owned(),
                Constraint::OneWord => format!("It is {chosen}, I think."),
                Constraint::Sentences(_) => {
                    chosen.split_inclusive(". ").next().unwrap_or_default().trim().to_owned()
                }
                Constraint::List(..) => chosen.split(", ").next().unwrap_or_default().to_owned(),
            };
            if !form.holds(&rejected) {
                break Pair { prompt, chosen, rejected, flaw: Flaw::WrongForm };
            }
        },
        9..11 => {
            let fact = pen.fact();
            let chosen = fact.answer();
            let rejected = format!("{chosen} {FILLER}");
            Pair { prompt: pen.ask(fact), chosen, rejected, flaw: Flaw::Wordy }
        }
        _ => {
            let fact = pen.fact();
            let rejected = pen.say("[I do not know.|Who can say?|That is a good question.]", &[]);
            Pair { prompt: pen.ask(fact), chosen: fact.answer(), rejected, flaw: Flaw::Evasive }
        }
    }
}
