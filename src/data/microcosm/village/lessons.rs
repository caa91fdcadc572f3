//! Text about the village: `lessons` (articles), `textbook` (chapters that compare and review) and `forum` (questions
//! and answers of every kind).

use super::pen::Pen;
use super::{Fact, Kind, figures, lexicon, memory, tales};

/// An article: a title, all that is known of one subject, and something about others that it is connected to.
pub(super) fn lesson(pen: &mut Pen) -> String {
    let fact = subject(pen);
    let village = pen.village;
    let facts = village.facts_about(fact.relation.kind, fact.subject);
    let mut paragraphs = vec![title(fact), about(pen, &facts)];
    let is_other = |it: &&Fact| {
        it.x != fact.x
            && (bare(&it.y) == bare(&fact.x) || facts.iter().any(|fact| bare(&fact.y) == bare(&it.x)))
    };
    let mut linked: Vec<&Fact> = village.facts.iter().filter(is_other).collect();
    while paragraphs.len() < 4 {
        // Where nothing more is connected, anything may follow.
        let other = if linked.is_empty() { pen.fact() } else { pen.random.pick::<&Fact>(&linked) };
        linked.retain(|it| it.x != other.x);
        let facts = village.facts_about(other.relation.kind, other.subject);
        let facts = pen.random.some(&facts, 4);
        paragraphs.push(about(pen, &facts));
    }
    paragraphs.join("\n\n") + "\n"
}

/// A name without its article.
fn bare(name: &str) -> &str {
    ["the ", "a ", "an "].iter().find_map(|article| name.strip_prefix(article)).unwrap_or(name)
}

/// A fact whose subject a text is to be about: a person two times in five, from whose names copying is learned, else something
/// of any kind.
pub(super) fn subject<'v>(pen: &mut Pen<'v>) -> &'v Fact {
    let kind = match pen.random.below(20) {
        0..8 => Kind::Person,
        8..12 => Kind::Trade,
        12..15 => Kind::Food,
        15..18 => Kind::Place,
        _ => Kind::Animal,
    };
    loop {
        let fact = pen.fact();
        if fact.relation.kind == kind {
            return fact;
        }
    }
}

fn title(fact: &Fact) -> String {
    super::super::phrase::capitalise(&fact.x)
}

/// A paragraph of facts in random order.
fn about(pen: &mut Pen, facts: &[&Fact]) -> String {
    pen.forget();
    let facts = pen.random.shuffled(facts);
    facts.iter().map(|fact| pen.state(fact)).collect::<Vec<_>>().join(" ")
}

/// A chapter: what several subjects have in one respect, what two of them have in common or not, and a review.
pub(super) fn chapter(pen: &mut Pen) -> String {
    let fact = subject(pen);
    let village = pen.village;
    let told = pen.random.some(&village.facts_of(fact.relation), 5);
    let number = pen.random.between(1, 9).to_string();
    let what = match fact.relation.kind {
        Kind::Person => "the people",
        Kind::Place => "the places",
        Kind::Trade => "the trades",
        Kind::Animal => "the animals",
        Kind::Food => "the food",
    };
    let head = pen.say(
        "Chapter {n}: {what} of the village\n\n[In this chapter we learn about|This chapter is about|Let us look at] {what}.",
        &[("n", &number), ("what", what)],
    );
    let mut text = vec![head];
    pen.forget();
    text.extend(told.iter().map(|fact| pen.state(fact)));
    let mut paragraphs = vec![text.join(" ")];
    if let [a, b, ..] = told[..] {
        let pair = [("a", a.answer()), ("b", b.answer())];
        let pair = pair.each_ref().map(|(name, text)| (*name, text.as_str()));
        paragraphs.push(match a.y == b.y {
            true => pen.say("Remember: {a} {b} That is the same.", &pair),
            false => pen.say("Remember: {a} {b} That is not the same.", &pair),
        });
    }
    for fact in pen.random.some(&told, 2) {
        let question = pen.ask(fact);
        paragraphs.push(pen.exchange("", &question, &fact.answer()));
    }
    paragraphs.join("\n\n") + "\n"
}

/// Questions and answers: mostly about the village, often about what was just said, sometimes a sum, a choice or a story.
pub(super) fn thread(pen: &mut Pen) -> String {
    let mut parts = Vec::new();
    // Of about the same length.
    let mut left = 7;
    while left > 0 {
        let mut text = String::new();
        let (questions, count) = match pen.random.below(20) {
            0 => (vec![tales::request(pen)], 2),
            1 => (vec![figures::problem(pen)], 1),
            2 => (vec![chosen(pen)], 1),
            3..10 => {
                let (told, questions) = memory::short(pen);
                text = told;
                (questions, 2)
            }
            10 => (vec![memory::again(pen)], 1),
            _ => {
                let fact = subject(pen);
                (vec![(pen.ask(fact), fact.answer())], 1)
            }
        };
        for (question, answer) in questions {
            parts.push(pen.exchange(&std::mem::take(&mut text), &question, &answer));
        }
        left -= count.min(left);
    }
    parts.join("\n\n") + "\n"
}

/// The letters of choices.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// A question with four values to choose from, each with a letter behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The question, and what there is to choose from.
    pub question: String,
    /// The answers in the same order: the sentence with the value, and its letter.
    pub answers: Vec<String>,
    /// The index of the right one.
    pub right: usize,
}

/// A choice between the value of a fact and three others.
pub(super) fn choice(pen: &mut Pen, fact: &Fact, question: &str) -> Choice {
    let others = pen.village.others(fact);
    let mut values = pen.random.some(&others, 3);
    // A relation may have too few values for three others.
    while values.len() < 3 {
        let more = *pen.random.pick(&lexicon::COLOURS);
        if !values.contains(&more) && more != fact.y {
            values.push(more);
        }
    }
    values.push(&fact.y);
    let values = pen.random.shuffled(&values);
    let lettered = || LETTERS.iter().zip(&values);
    let options: Vec<String> = lettered().map(|(letter, it)| format!("{it} ({letter})")).collect();
    let answers = lettered().map(|(letter, it)| format!("{} ({letter})", fact.answer_with(it))).collect();
    let right = values.iter().position(|value| *value == fact.y).unwrap_or(0);
    Choice { question: format!("{question}\nChoose: {}.", options.join(", ")), answers, right }
}

/// A choice in a phrasing that training text may use, and the right answer.
pub(super) fn chosen(pen: &mut Pen) -> (String, String) {
    let fact = pen.fact();
    let question = pen.ask(fact);
    let Choice { question, mut answers, right } = choice(pen, fact, &question);
    (question, answers.swap_remove(right))
}
