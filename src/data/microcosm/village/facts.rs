//! What is true in a village, one fact at a time, with the words to state it, to ask for it and to answer.

use super::template::{expansions, fill};
use std::collections::HashMap;

/// The kinds of things that facts are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Person,
    Place,
    Trade,
    Animal,
    Food,
}

/// How a kind of fact is put into words. `{x}` is the subject, `{y}` the value, `{z}` what a relation has besides;
/// `{s}` is the subject as a text goes on: its name, later perhaps a pronoun; `{s's}` its possessive.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    /// The kind of its subjects.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// Sentences that state it.
    pub statement: &'static str,
    /// Questions that ask for it. Where there are few subjects there are more of these: no text asks all of a subject, and
    /// what is never asked of half of them would be learnt as a rule.
    pub questions: &'static [&'static str],
    /// The answer as a sentence.
    pub answer: &'static str,
}

/// All relations.
pub static RELATIONS: [Relation; 18] = [
    Relation {
        kind: Kind::Person,
        name: "trade",
        statement: "{s} [is the|works as the|is the village] {y}.",
        questions: &["What is {x}'s trade?", "What work does {x} do?", "What does {x} do for a living?"],
        answer: "{x} is the {y}.",
    },
    Relation {
        kind: Kind::Person,
        name: "home",
        statement: "{s} lives [by|near|close to] {y}.",
        questions: &["Where does {x} live?", "Where is {x}'s house?", "Where is {x} at home?"],
        answer: "{x} lives by {y}.",
    },
    Relation {
        kind: Kind::Person,
        name: "pet",
        statement: "{s} [has|keeps] {y}.",
        questions: &["Which animal does {x} have?", "What pet does {x} keep?", "What animal lives with {x}?"],
        answer: "{x} has {y}.",
    },
    Relation {
        kind: Kind::Person,
        name: "pet name",
        statement: "[{s's} {z} is called|the name of {s's} {z} is] {y}.",
        questions: &[
            "What is {x}'s {z} called?",
            "What is the name of {x}'s {z}?",
            "How does {x} call the {z}?",
        ],
        answer: "{x}'s {z} is called {y}.",
    },
    Relation {
        kind: Kind::Person,
        name: "food",
        statement: "[{s} likes {y} best|{s's} favourite food is {y}].",
        questions: &[
            "What does {x} like best?",
            "What is {x}'s favourite food?",
            "Which food does {x} like best?",
        ],
        answer: "{x} likes {y} best.",
    },
    Relation {
        kind: Kind::Person,
        name: "thing",
        statement: "{s} [owns|always carries] {y}.",
        questions: &["What does {x} own?", "What does {x} always carry?", "Which thing belongs to {x}?"],
        answer: "{x} owns {y}.",
    },
    Relation {
        kind: Kind::Person,
        name: "friend",
        statement: "[{s's} best friend is|the best friend of {x} is] {y}.",
        questions: &[
            "Who is {x}'s best friend?",
            "Who is the best friend of {x}?",
            "Which friend does {x} like best?",
        ],
        answer: "{x}'s best friend is {y}.",
    },
    Relation {
        kind: Kind::Place,
        name: "colour",
        statement: "{s} is [painted|all] {y}.",
        questions: &[
            "What colour is {x}?",
            "Which colour is {x} painted?",
            "What is the colour of {x}?",
            "What colour has {x}?",
        ],
        answer: "{x} is painted {y}.",
    },
    Relation {
        kind: Kind::Place,
        name: "spot",
        statement: "{s} [stands|is] {y}.",
        questions: &[
            "Where does {x} stand?",
            "Where is {x}?",
            "Where can you find {x}?",
            "Where in the village is {x}?",
        ],
        answer: "{x} stands {y}.",
    },
    Relation {
        kind: Kind::Place,
        name: "keeper",
        statement: "{y} [keeps|looks after] {x}.",
        questions: &[
            "Who keeps {x}?",
            "Who looks after {x}?",
            "Who takes care of {x}?",
            "Who is the keeper of {x}?",
        ],
        answer: "{y} keeps {x}.",
    },
    Relation {
        kind: Kind::Place,
        name: "day",
        statement: "{s} is [open|busy] on {y}.",
        questions: &[
            "When is {x} open?",
            "On which day is {x} open?",
            "What day is {x} open?",
            "When can you go to {x}?",
        ],
        answer: "{x} is open on {y}.",
    },
    Relation {
        kind: Kind::Trade,
        name: "ware",
        statement: "{s} [makes|sells] {y}.",
        questions: &["What does {x} make?", "What does {x} sell?", "What can you buy from {x}?"],
        answer: "{x} makes {y}.",
    },
    Relation {
        kind: Kind::Trade,
        name: "tool",
        statement: "{s} [works with|needs] {y}.",
        questions: &["What does {x} work with?", "Which tool does {x} need?", "What is the tool of {x}?"],
        answer: "{x} works with {y}.",
    },
    Relation {
        kind: Kind::Trade,
        name: "who",
        statement: "{x} [of the village|of our village] is {y}.",
        questions: &["Who is {x}?", "Who is {x} of the village?", "Who works as {x}?"],
        answer: "{x} of the village is {y}.",
    },
    Relation {
        kind: Kind::Animal,
        name: "diet",
        statement: "{s} [eats|likes to eat] {y}.",
        questions: &[
            "What does {x} eat?",
            "What is the food of {x}?",
            "What does {x} like to eat?",
            "What do people give {x} to eat?",
        ],
        answer: "{x} eats {y}.",
    },
    Relation {
        kind: Kind::Animal,
        name: "bed",
        statement: "{s} sleeps [at night |]{y}.",
        questions: &[
            "Where does {x} sleep?",
            "Where is {x} at night?",
            "Where is the bed of {x}?",
            "Where can you find {x} at night?",
        ],
        answer: "{x} sleeps {y}.",
    },
    Relation {
        kind: Kind::Food,
        name: "part",
        statement: "{s} is made [of|from] {y}.",
        questions: &[
            "What is {x} made of?",
            "What do you need for {x}?",
            "What is in {x}?",
            "What do people make {x} from?",
        ],
        answer: "{x} is made of {y}.",
    },
    Relation {
        kind: Kind::Food,
        name: "day",
        statement: "the village [eats|cooks] {x} on {y}.",
        questions: &[
            "On which day does the village eat {x}?",
            "When does the village cook {x}?",
            "When do people eat {x}?",
            "Which day is the day for {x}?",
        ],
        answer: "the village eats {x} on {y}.",
    },
];

/// Something that is true in a village.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its place in [`Village::facts`](super::Village::facts).
    pub index: usize,
    /// What it is about: the index in the village's list of the relation's kind.
    pub subject: usize,
    /// What is said of it.
    pub relation: &'static Relation,
    /// The subject in a sentence: "Ada", "the mill".
    pub x: String,
    /// The value: "baker", "the mill", "a red lamp".
    pub y: String,
    /// What the relation has besides: the animal whose name is told.
    pub z: String,
}

impl Fact {
    fn slots(&self) -> [(&'static str, &str); 3] {
        [("x", &self.x), ("y", &self.y), ("z", &self.z)]
    }

    /// Which of the relation's questions no text ever asks about this fact, so that an exam can. Of another subject text
    /// asks it.
    pub fn unasked(&self) -> usize {
        self.subject % self.relation.questions.len()
    }

    /// The question in one of the relation's phrasings.
    pub fn question(&self, phrasing: usize) -> String {
        fill(self.relation.questions[phrasing], &self.slots())
    }

    /// The answer as a sentence.
    pub fn answer(&self) -> String {
        fill(self.relation.answer, &self.slots())
    }

    /// The answer as it would be if the value were another one.
    pub fn answer_with(&self, y: &str) -> String {
        fill(self.relation.answer, &[("x", self.x.as_str()), ("y", y), ("z", &self.z)])
    }

    /// Every sentence that states the fact and names its subject.
    fn sentences(&self) -> Vec<String> {
        let possessive = format!("{}'s", self.x);
        let [x, y, z] = self.slots();
        let slots = [x, y, z, ("s", self.x.as_str()), ("s's", &possessive)];
        let stated = expansions(self.relation.statement).into_iter().map(|sentence| fill(&sentence, &slots));
        stated.chain([self.answer()]).collect()
    }
}

/// How often each fact is stated in `texts`, in the order of `facts`. Only sentences that name their subject count.
pub fn count_statements<'a>(facts: &[Fact], texts: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let mut of_sentence: HashMap<String, usize> = HashMap::new();
    for fact in facts {
        of_sentence.extend(fact.sentences().into_iter().map(|sentence| (sentence, fact.index)));
    }
    let mut counts = vec![0; facts.len()];
    for text in texts {
        for line in text.lines() {
            let line = line.trim_start_matches("Answer: ");
            for sentence in line.split_inclusive(". ") {
                if let Some(&fact) = of_sentence.get(sentence.trim_end()) {
                    counts[fact] += 1;
                }
            }
        }
    }
    counts
}
