//! Texts that say something once, which later text depends on: what is hidden where, and secret words. `books` are long
//! ones; short ones are part of the `forum`.

use super::lexicon::{COLOURS, THINGS};
use super::pen::Pen;
use super::tales;

/// Words in a book, about.
const BOOK: usize = 1_100;

/// Something that only this text says: the sentence, a question and the answer.
struct Secret {
    sentence: String,
    question: String,
    answer: String,
}

/// Secrets of different people; no two have the same answer.
fn secrets(pen: &mut Pen, count: usize) -> Vec<Secret> {
    let people = pen.random.some(&pen.village.people, count);
    let words = pen.random.some(&THINGS, count);
    let places = pen.random.some(&pen.village.places, count);
    let mut all = Vec::new();
    for ((person, word), place) in people.iter().zip(words).zip(places) {
        let colour = *pen.random.pick(&COLOURS);
        let thing = format!("{colour} {word}");
        let slots = [("p", person.name), ("word", word), ("thing", thing.as_str()), ("place", place)];
        let (sentence, question, answer) = match pen.random.below(3) {
            0 => (
                "The secret word of {p} is {word}.",
                "What is the secret word of {p}?",
                "The secret word of {p} is {word}.",
            ),
            1 => (
                "{p} hid something in the {place}.",
                "Where did {p} hide something?",
                "{p} hid something in the {place}.",
            ),
            _ => ("Today {p} bought a {thing}.", "What did {p} buy today?", "Today {p} bought a {thing}."),
        };
        let [sentence, question, answer] =
            [sentence, question, answer].map(|template| pen.say(template, &slots));
        all.push(Secret { sentence, question, answer });
    }
    all
}

/// A paragraph with two or three secrets among facts, a question and its answer.
pub(super) fn short(pen: &mut Pen) -> (String, String, String) {
    let count = 2 + pen.random.below(2);
    let secrets = secrets(pen, count);
    let mut sentences: Vec<String> = secrets.iter().map(|secret| secret.sentence.clone()).collect();
    for _ in 0..pen.random.below(4) {
        pen.forget();
        let fact = pen.fact();
        sentences.push(pen.state(fact));
    }
    let text = pen.random.shuffled(&sentences).join(" ");
    let asked = pen.random.pick(&secrets);
    (text, asked.question.clone(), asked.answer.clone())
}

/// A book: secrets in the first half, chapters of facts and tales, and the questions at its end.
pub(super) fn book(pen: &mut Pen) -> String {
    let secrets = secrets(pen, 4);
    let (text, _) = long(pen, &secrets, BOOK);
    let asked = pen.random.shuffled(&secrets.iter().collect::<Vec<_>>());
    let asked =
        asked.iter().map(|secret| format!("Question: {}\nAnswer: {}", secret.question, secret.answer));
    format!("{text}\n\n{}\n", asked.collect::<Vec<_>>().join("\n\n"))
}

/// A text of `words` words or a little more with one secret in it, `depth` (0 to 1) of the way: the text, the question
/// and the answer.
pub(super) fn needle(pen: &mut Pen, words: usize, depth: f64) -> (String, String, String) {
    let secret = secrets(pen, 1).remove(0);
    let mut paragraphs = haystack(pen, words);
    let at = (paragraphs.len() as f64 * depth) as usize;
    let last = paragraphs.len() - 1;
    paragraphs[at.min(last)] += &format!(" {}", secret.sentence);
    (paragraphs.join("\n\n"), secret.question, secret.answer)
}

fn long(pen: &mut Pen, secrets: &[Secret], words: usize) -> (String, usize) {
    let mut paragraphs = haystack(pen, words);
    let half = paragraphs.len() / 2;
    for secret in secrets {
        let at = pen.random.below(half.max(1));
        paragraphs[at] += &format!(" {}", secret.sentence);
    }
    (paragraphs.join("\n\n"), half)
}

/// Paragraphs of facts and tales that say nothing secret.
fn haystack(pen: &mut Pen, words: usize) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut count = 0;
    while count < words {
        let paragraph = if pen.random.chance(30) {
            tales::request(pen).1
        } else {
            let facts: Vec<_> = (0..5).map(|_| pen.fact()).collect();
            pen.forget();
            facts.into_iter().map(|fact| pen.state(fact)).collect::<Vec<_>>().join(" ")
        };
        count += paragraph.split(' ').count();
        paragraphs.push(paragraph);
    }
    paragraphs
}
