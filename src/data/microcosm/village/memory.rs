//! Texts that say something once, which later text depends on: what is hidden where, and secret words. `books` are long
//! ones, short ones are part of the `forum`; and lists that are said again.

use super::lexicon::{COLOURS, GOODS, THINGS};
use super::pen::Pen;
use super::tales;

/// Words in a book, about.
const BOOK: usize = 780;
/// Secrets in a book, and how many of them are asked at its end.
const SECRETS: usize = 14;
const LAST: usize = 4;

/// Something that only this text says: the sentence, a question and the answer.
struct Secret {
    sentence: String,
    question: String,
    answer: String,
}

/// What may be told: the sentence, the question and the answer. The name comes right before what is asked.
const TOLD: [[&str; 3]; 3] = [
    [
        "The secret word of {p} is {word}.",
        "What is the secret word of {p}?",
        "The secret word of {p} is {word}.",
    ],
    ["Today {p} slept by the {place}.", "Where did {p} sleep today?", "Today {p} slept by the {place}."],
    ["Today {p} bought a {thing}.", "What did {p} buy today?", "Today {p} bought a {thing}."],
];

/// Secrets, of which no two have the same question; no more than there are people have three different ones each.
fn secrets(pen: &mut Pen, count: usize) -> Vec<Secret> {
    let people = pen.village.people.len();
    let all: Vec<(usize, usize)> =
        (0..people).flat_map(|p| (0..TOLD.len()).map(move |told| (p, told))).collect();
    let mut chosen = pen.random.some(&all, count);
    if count <= people {
        // Of as many people, while these last.
        let people = pen.random.shuffled(&(0..people).collect::<Vec<_>>());
        chosen.iter_mut().zip(people).for_each(|((person, _), it)| *person = it);
    }
    let one = |(person, told): (usize, usize)| {
        let (word, thing) = (*pen.random.pick(&THINGS), *pen.random.pick(&THINGS));
        let place = *pen.random.pick(&pen.village.places);
        let slots =
            [("p", pen.village.people[person].name), ("word", word), ("thing", thing), ("place", place)];
        let [sentence, question, answer] = TOLD[told].map(|template| pen.say(template, &slots));
        Secret { sentence, question, answer }
    };
    chosen.into_iter().map(one).collect()
}

/// A paragraph with secrets among facts, and questions about them with their answers.
pub(super) fn short(pen: &mut Pen) -> (String, Vec<(String, String)>) {
    let count = 2 + pen.random.below(3);
    let secrets = secrets(pen, count);
    let mut sentences: Vec<String> = secrets.iter().map(|secret| secret.sentence.clone()).collect();
    for _ in 0..pen.random.below(4) {
        pen.forget();
        let fact = pen.fact();
        sentences.push(pen.state(fact));
    }
    let text = pen.random.shuffled(&sentences).join(" ");
    let asked = pen.random.some(&secrets.iter().collect::<Vec<_>>(), 3);
    (text, asked.into_iter().map(|it| (it.question.clone(), it.answer.clone())).collect())
}

/// Words that are to be said again, and the answer that does it.
pub(super) fn again(pen: &mut Pen) -> (String, String) {
    let names: Vec<&str> = pen.village.people.iter().map(|person| person.name).collect();
    let lists: [&[&str]; 5] = [&names, &pen.village.places, &THINGS, &COLOURS, &GOODS];
    let all = lists.concat();
    let count = 4 + pen.random.below(5);
    let words = pen.random.some(&all, count).join(", ");
    let request =
        pen.say("[Say these words again|Repeat these words|Say after me]: {words}.", &[("words", &words)]);
    (request, words + ".")
}

/// A book: chapters of facts and tales with secrets in them, which are asked on the way, each at most once, and at the end
/// questions about what the first half has told.
pub(super) fn book(pen: &mut Pen) -> String {
    let secrets = secrets(pen, SECRETS);
    let mut paragraphs = haystack(pen, BOOK);
    let mut asked: Vec<Vec<&Secret>> = vec![Vec::new(); paragraphs.len()];
    let (early, end) = (paragraphs.len() / 2, paragraphs.len() - 1);
    for (i, secret) in secrets.iter().enumerate() {
        let told = pen.random.below(if i < LAST { early } else { end });
        paragraphs[told] += &format!(" {}", secret.sentence);
        let later = pen.random.between(told as i64 + 1, end as i64) as usize;
        asked[if i < LAST { end } else { later }].push(secret);
    }
    let mut text = Vec::new();
    for (paragraph, asked) in paragraphs.into_iter().zip(asked) {
        text.push(paragraph);
        let asked = pen.random.shuffled(&asked);
        text.extend(asked.iter().map(|it| format!("Question: {}\nAnswer: {}", it.question, it.answer)));
    }
    text.join("\n\n") + "\n"
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
