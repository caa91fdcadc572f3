//! Texts that say something once, which later text asks for: what somebody found, picked, saw or counted today. `books`
//! are long ones, short ones are part of the `forum`; and lists that are said again.

use super::lexicon::THINGS;
use super::pen::Pen;
use super::tales;

/// Words in a book, about, besides the questions.
const BOOK: usize = 480;

/// Something that only this text says, and the question that it answers.
#[derive(Clone)]
struct Secret {
    sentence: String,
    question: String,
}

/// How many answers a question about a secret may have: the numbers from 2 on.
pub const NEEDLES: usize = 8;

/// What somebody may have done today so often: the sentence, which is the answer too, and the question. Tales and facts have
/// no numbers, so a model that has learned to take one out of a sum finds these.
const TOLD: [[&str; 2]; 4] = [
    ["Today {p} found {n} coins.", "How many coins did {p} find today?"],
    ["Today {p} picked {n} roses.", "How many roses did {p} pick today?"],
    ["Today {p} saw {n} gulls.", "How many gulls did {p} see today?"],
    ["Today {p} counted {n} sheep.", "How many sheep did {p} count today?"],
];

/// Secrets of different people, and up to `TOLD.len()` of them of different kinds.
fn secrets(pen: &mut Pen, count: usize) -> Vec<Secret> {
    let people: Vec<&str> = pen.village.people.iter().map(|person| person.name).collect();
    let people = pen.random.some(&people, count);
    let told = pen.random.shuffled(&TOLD).into_iter().cycle();
    let one = |(person, templates): (&str, [&str; 2])| {
        let number = (2 + pen.random.below(NEEDLES)).to_string();
        let slots = [("p", person), ("n", number.as_str())];
        let [sentence, question] = templates.map(|template| pen.say(template, &slots));
        Secret { sentence, question }
    };
    people.into_iter().zip(told).map(one).collect()
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
    let asked = pen.random.shuffled(&secrets);
    (text, asked.into_iter().map(|it| (it.question, it.sentence)).collect())
}

/// Words that are to be said again, and the answer that does it.
pub(super) fn again(pen: &mut Pen) -> (String, String) {
    let names: Vec<&str> = pen.village.people.iter().map(|person| person.name).collect();
    let pool: &[&str] = if pen.random.chance(50) { &names } else { &THINGS };
    let count = 4 + pen.random.below(5);
    // Without commas, which would come between each word and the next.
    let words = pen.random.some(pool, count).join(" ");
    let request =
        pen.say("[Say these words again|Repeat these words|Say after me]: {words}.", &[("words", &words)]);
    (request, words + ".")
}

/// A book: chapters of facts and tales with secrets of everybody in them, all asked at the end, and every other one, which is
/// told in the first half, on the way as well.
pub(super) fn book(pen: &mut Pen) -> String {
    let mut paragraphs = haystack(pen, BOOK);
    let mut asked: Vec<Vec<Secret>> = paragraphs.iter().map(|_| Vec::new()).collect();
    let end = paragraphs.len() - 1;
    let everybody = pen.village.people.len();
    for (i, secret) in secrets(pen, everybody).into_iter().enumerate() {
        let is_early = i % 2 == 0;
        let told = pen.random.below(if is_early { paragraphs.len() / 2 } else { end });
        paragraphs[told] += &format!(" {}", secret.sentence);
        let later = pen.random.between(told as i64 + 1, end as i64) as usize;
        if is_early && later < end {
            asked[later].push(secret.clone());
        }
        asked[end].push(secret);
    }
    let mut text = Vec::new();
    for (paragraph, asked) in paragraphs.into_iter().zip(asked) {
        text.push(paragraph);
        let asked = pen.random.shuffled(&asked);
        text.extend(asked.iter().map(|it| pen.exchange("", &it.question, &it.sentence)));
    }
    text.join("\n\n") + "\n"
}

/// A long text with secrets, and questions about them.
pub(super) fn long(pen: &mut Pen) -> (String, Vec<(String, String)>) {
    let words = pen.random.between(60, BOOK as i64 / 2) as usize;
    let mut paragraphs = haystack(pen, words);
    let secrets = secrets(pen, TOLD.len());
    for secret in &secrets {
        let told = pen.random.below(paragraphs.len());
        paragraphs[told] += &format!(" {}", secret.sentence);
    }
    let asked = pen.random.shuffled(&secrets);
    (paragraphs.join("\n\n"), asked.into_iter().map(|it| (it.question, it.sentence)).collect())
}

/// A text of `words` words or a little more with one secret in it, `depth` (0 to 1) of the way: the text, the question
/// and the answer.
pub(super) fn needle(pen: &mut Pen, words: usize, depth: f64) -> (String, String, String) {
    let secret = secrets(pen, 1).remove(0);
    let mut paragraphs = haystack(pen, words);
    let at = (paragraphs.len() as f64 * depth) as usize;
    let last = paragraphs.len() - 1;
    paragraphs[at.min(last)] += &format!(" {}", secret.sentence);
    (paragraphs.join("\n\n"), secret.question, secret.sentence)
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
