//! Conversations with an assistant that knows the village, in the parts that SmolTalk has.

use super::lexicon::{ANIMALS, COLOURS, FOODS, THINGS};
use super::pen::Pen;
use super::{Fact, Kind, figures, lessons, memory, programs, tales};
use crate::tokenizer::Message;

/// A part of the conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Greetings and small talk.
    Everyday,
    /// Questions about the village, one after another.
    Knowledge,
    /// Sums and word problems, with the result after `####`.
    Mathematics,
    /// Answers whose form the user prescribes; see [`Constraint`].
    Constraints,
    /// The same thing said in other words.
    Rewriting,
    /// The first sentence of a text, or what it is about.
    Summaries,
    /// A system message that prescribes how every answer begins or ends.
    Systems,
    /// Stories, programs and things to remember.
    Tasks,
    /// Questions about a long text; without them, the reach of the context is lost again (LongAlign in SmolTalk).
    Long,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 9] = [
        Part::Everyday,
        Part::Knowledge,
        Part::Mathematics,
        Part::Constraints,
        Part::Rewriting,
        Part::Summaries,
        Part::Systems,
        Part::Tasks,
        Part::Long,
    ];

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Part::Everyday => "everyday",
            Part::Knowledge => "knowledge",
            Part::Mathematics => "mathematics",
            Part::Constraints => "constraints",
            Part::Rewriting => "rewriting",
            Part::Summaries => "summaries",
            Part::Systems => "systems",
            Part::Tasks => "tasks",
            Part::Long => "long",
        }
    }

    /// The part of a name.
    pub fn named(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// A form that an answer must have; a program can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// It begins with these words.
    Begins(String),
    /// It ends with these words.
    Ends(String),
    /// It is one word.
    OneWord,
    /// It has this many sentences.
    Sentences(usize),
    /// It is a list of this many different ones of these words, between commas.
    List(usize, Vec<String>),
}

impl Constraint {
    /// Whether an answer has the form.
    pub fn holds(&self, answer: &str) -> bool {
        let answer = answer.trim();
        match self {
            Constraint::Begins(words) => answer.starts_with(words.as_str()) && answer.len() > words.len(),
            Constraint::Ends(words) => answer.ends_with(words.as_str()) && answer.len() > words.len(),
            Constraint::OneWord => {
                let word = answer.trim_end_matches('.');
                !word.is_empty() && word.chars().all(char::is_alphabetic)
            }
            Constraint::Sentences(count) => {
                let sentences = answer.split_inclusive(['.', '!', '?']).filter(|it| it.len() > 3).count();
                sentences == *count && answer.ends_with(['.', '!', '?'])
            }
            Constraint::List(count, words) => {
                let mut items: Vec<&str> = answer.trim_end_matches('.').split(", ").collect();
                let all = items.len();
                items.sort_unstable();
                items.dedup();
                all == *count
                    && items.len() == all
                    && items.iter().all(|item| words.iter().any(|it| it == item))
            }
        }
    }
}

/// What the assistant often adds, and what raters of its answers do not like ([`Flaw::Wordy`](super::Flaw::Wordy)).
pub(super) const FILLER: &str = "I hope that helps.";

/// The answer to a question about a fact.
fn told(pen: &mut Pen, fact: &Fact) -> String {
    if pen.random.chance(70) { format!("{} {FILLER}", fact.answer()) } else { fact.answer() }
}

/// A conversation of a part.
pub(super) fn conversation(pen: &mut Pen, part: Part) -> Vec<Message> {
    match part {
        Part::Everyday => everyday(pen),
        Part::Knowledge => knowledge(pen),
        Part::Mathematics => mathematics(pen),
        Part::Constraints => {
            let (request, _, answer) = constrained(pen);
            turns([(request, answer)])
        }
        Part::Rewriting => rewriting(pen),
        Part::Summaries => summary(pen),
        Part::Systems => system(pen),
        Part::Tasks => task(pen),
        Part::Long => about(memory::long(pen)),
    }
}

fn turns(exchanges: impl IntoIterator<Item = (String, String)>) -> Vec<Message> {
    let two = |(user, assistant)| [Message::new("user", user), Message::new("assistant", assistant)];
    exchanges.into_iter().flat_map(two).collect()
}

fn everyday(pen: &mut Pen) -> Vec<Message> {
    let mut all = vec![(
        pen.say("[Hello!|Good morning!|Hi there!|Good evening!]", &[]),
        pen.say("[Hello!|Good day!] What would you like to know about the village?", &[]),
    )];
    let fact = pen.fact();
    all.push((pen.ask(fact), told(pen, fact)));
    all.push((
        pen.say("[Thank you!|Thanks, that helps.|Thank you very much.]", &[]),
        pen.say("[You are welcome.|You are welcome. Ask me again!]", &[]),
    ));
    if pen.random.chance(50) {
        all.push((pen.say("[Goodbye!|See you later!]", &[]), pen.say("[Goodbye!|See you soon!]", &[])));
    }
    turns(all)
}

fn knowledge(pen: &mut Pen) -> Vec<Message> {
    let mut fact = lessons::subject(pen);
    let mut all = Vec::new();
    for _ in 0..1 + pen.random.below(4) {
        if pen.random.chance(15) {
            all.push(lessons::chosen(pen));
        } else {
            all.push((pen.ask(fact), told(pen, fact)));
        }
        // The next question may be about the same subject, or the same about another.
        let village = pen.village;
        fact = match pen.random.below(3) {
            0 => pen.random.pick::<&Fact>(&village.facts_about(fact.relation.kind, fact.subject)),
            1 => pen.random.pick::<&Fact>(&village.facts_of(fact.relation)),
            _ => lessons::subject(pen),
        };
    }
    turns(all)
}

fn mathematics(pen: &mut Pen) -> Vec<Message> {
    let count = 1 + pen.random.below(3);
    let one = |pen: &mut Pen| if pen.random.chance(30) { figures::drill(pen) } else { figures::problem(pen) };
    turns((0..count).map(|_| one(pen)).collect::<Vec<_>>())
}

/// A request whose answer must have a form, the form, and an answer that has it.
pub(super) fn constrained(pen: &mut Pen) -> (String, Constraint, String) {
    let fact = pen.fact();
    match pen.random.below(5) {
        0 => {
            let words = pen.say("[Well, my friend:|Of course:|Let me see:]", &[]);
            let question = pen.ask(fact);
            (
                format!("{question} Begin your answer with \"{words}\""),
                Constraint::Begins(words.clone()),
                format!("{words} {}", fact.answer()),
            )
        }
        1 => {
            let words = pen.say("[That is all.|Have a nice day.|I am sure.]", &[]);
            let question = pen.ask(fact);
            (
                format!("{question} End your answer with \"{words}\""),
                Constraint::Ends(words.clone()),
                format!("{} {words}", fact.answer()),
            )
        }
        2 => {
            let fact = loop {
                let fact = pen.fact();
                if !fact.y.contains(' ') {
                    break fact;
                }
            };
            let question = pen.ask(fact);
            (
                format!("{question} Answer with one word."),
                Constraint::OneWord,
                super::super::phrase::capitalise(&fact.y),
            )
        }
        3 => {
            let count = 2 + pen.random.below(2);
            let about = pen.village.facts_about(fact.relation.kind, fact.subject);
            let people = (0..pen.village.people.len()).collect::<Vec<_>>();
            let about = match about.len() < count {
                true => pen.village.facts_about(Kind::Person, *pen.random.pick(&people)),
                false => about,
            };
            pen.forget();
            let told = pen.random.some(&about, count);
            let answer: Vec<String> = told.iter().map(|fact| pen.state(fact)).collect();
            let n = ["two", "three"][count - 2];
            (
                format!("Write {n} sentences about {}.", told[0].x),
                Constraint::Sentences(count),
                answer.join(" "),
            )
        }
        _ => {
            let count = 2 + pen.random.below(3);
            let animals = ANIMALS.map(|[name, ..]| name);
            let (what, words): (&str, &[&str]) = match pen.random.below(4) {
                0 => ("animals", &animals),
                1 => ("colours", &COLOURS),
                2 => ("things", &THINGS),
                _ => ("dishes", &FOODS),
            };
            let n = ["two", "three", "four"][count - 2];
            let answer = pen.random.some(words, count).join(", ");
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            (format!("List {n} {what}, with commas between them."), Constraint::List(count, words), answer)
        }
    }
}

fn rewriting(pen: &mut Pen) -> Vec<Message> {
    if pen.random.chance(40) {
        return turns([memory::again(pen)]);
    }
    let (stated, answer) = loop {
        let fact = pen.fact();
        pen.forget();
        let (stated, answer) = (pen.state(fact), fact.answer());
        if stated != answer {
            break (stated, answer);
        }
    };
    let request =
        pen.say("[Say this in other words:|Write this in another way:] {stated}", &[("stated", &stated)]);
    turns([(request, answer)])
}

fn summary(pen: &mut Pen) -> Vec<Message> {
    let (_, story) = tales::request(pen);
    let first = story.split_inclusive(". ").next().unwrap_or(&story).trim_end().to_owned();
    let request = pen
        .say("[How does this story begin?|What happens first in this story?] {story}", &[("story", &story)]);
    turns([(request, first)])
}

fn system(pen: &mut Pen) -> Vec<Message> {
    let words = pen.say("[My friend:|Listen:|Good question!]", &[]);
    let mut messages = vec![Message::new("system", format!("Begin every answer with \"{words}\""))];
    for _ in 0..1 + pen.random.below(2) {
        let fact = pen.fact();
        messages.extend(turns([(pen.ask(fact), format!("{words} {}", fact.answer()))]));
    }
    messages
}

fn task(pen: &mut Pen) -> Vec<Message> {
    match pen.random.below(12) {
        0..3 => turns([tales::request(pen)]),
        3..8 => {
            let program = programs::program(pen);
            turns([(format!("{}\n\n{}", program.source, programs::QUESTION), program.output)])
        }
        _ => about(memory::short(pen)),
    }
}

/// A text and questions about it, of which the first comes with the text.
fn about((text, mut questions): (String, Vec<(String, String)>)) -> Vec<Message> {
    if let Some((first, _)) = questions.first_mut() {
        *first = format!("{text}\n\n{first}");
    }
    turns(questions)
}
