//! Tasks about the village that smolter generates: what is asked is drawn by a seed, apart from all training text.

use super::task::{Expected, Item, Task};
use crate::data::microcosm::Random;
use crate::data::microcosm::village::{Choice, Fact, NEEDLES, Question, Village};
use std::collections::HashMap;
use std::sync::Arc;

/// Times that training text must state a fact for exams to ask it.
pub const STATED: usize = 2;

/// Words around the needle of the two needle tasks, and how far down it may lie: the far one lies in the first half, so that
/// what is asked after the text is 256 tokens away at least, more than the default recipe's context before it is extended.
const SHORT: (usize, f64) = (90, 1.0);
const LONG: (usize, f64) = (500, 0.5);

/// A task by name, with `limit` items drawn by `seed`. `stated` tells how often training text states each fact; without
/// it any fact may be asked.
///
/// # Panics
/// If the name is none of [`TASKS`](crate::recipes::evaluation::TASKS).
pub fn task(village: &Village, name: &str, stated: Option<&[usize]>, limit: usize, seed: u64) -> Task {
    let mut random = Random::new([seed, u64::MAX, 2]);
    let exam = Exam { village, indices: (0..limit).map(|_| index(&mut random)).collect() };
    let facts = || {
        let known = |fact: &&Fact| stated.is_none_or(|counts| counts[fact.index] >= STATED);
        let known: Vec<&Fact> = village.facts.iter().filter(known).collect();
        random.clone().some(&known, limit)
    };
    let (items, max_tokens) = match name {
        "facts" => (facts().into_iter().map(|fact| asked(village, fact)).collect(), 32),
        "facts-cloze" => (facts().into_iter().map(|fact| exam.cloze(fact)).collect(), 0),
        "facts-choice" => (facts().into_iter().map(|fact| exam.lettered(fact)).collect(), 0),
        "arithmetic" => (exam.arithmetic(), 64),
        "programs" => (exam.programs(), 32),
        "needle-short" => (exam.needles(SHORT), 32),
        "needle-long" => (exam.needles(LONG), 32),
        "constraints" => (exam.constraints(), 64),
        "stories" => (exam.stories(), 128),
        "preference" => (exam.preferences(), 0),
        _ => panic!("there is no task {name}"),
    };
    Task { name: name.into(), items, max_tokens }
}

fn index(random: &mut Random) -> u64 {
    (random.below(1 << 31) as u64) << 31 | random.below(1 << 31) as u64
}

/// The question about a fact that no text asks; right is an answer with its value and no other.
fn asked(village: &Village, fact: &Fact) -> Item {
    let others: Vec<String> = village.others(fact).iter().map(|it| (*it).to_owned()).collect();
    let guess = 1.0 / (others.len() + 1) as f64;
    let expected = Expected::Mentions { value: fact.y.clone(), others };
    Item { text: String::new(), question: fact.question(fact.unasked()), expected, guess }
}

struct Exam<'v> {
    village: &'v Village,
    /// Streams of the items.
    indices: Vec<u64>,
}

impl Exam<'_> {
    /// The answers with the right value and with three others.
    fn cloze(&self, fact: &Fact) -> Item {
        let others = self.village.others(fact);
        let others = Random::new([fact.index as u64, u64::MAX, 3]).some(&others, 3);
        let choices: Vec<String> =
            [fact.answer()].into_iter().chain(others.into_iter().map(|y| fact.answer_with(y))).collect();
        let guess = 1.0 / choices.len() as f64;
        let expected = Expected::Choice { choices, gold: 0 };
        Item { text: String::new(), question: fact.question(fact.unasked()), expected, guess }
    }

    /// Four lettered values in the prompt; the answers are the sentences with these, and the letter behind them.
    fn lettered(&self, fact: &Fact) -> Item {
        let Choice { question, answers, right } =
            self.village.exam_choice(fact, self.indices[0] ^ fact.index as u64);
        let guess = 1.0 / answers.len() as f64;
        let expected = Expected::Choice { choices: answers, gold: right };
        Item { text: String::new(), question, expected, guess }
    }

    fn arithmetic(&self) -> Vec<Item> {
        let number =
            |answer: &str| answer.rsplit_once("#### ").and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
        self.generated(|i| self.village.exam_problem(i), |answer| Expected::Number(number(answer)))
    }

    fn programs(&self) -> Vec<Item> {
        self.generated(|i| self.village.exam_program(i), |answer| Expected::Exact(answer.into()))
    }

    fn needles(&self, (words, deepest): (usize, f64)) -> Vec<Item> {
        let at = |i: u64| self.village.exam_needle(i, words, deepest * (i % 5) as f64 / 5.0);
        let mut items = self.generated(at, |answer| Expected::Exact(answer.into()));
        // Whoever repeats the question's words has only the number to guess.
        items.iter_mut().for_each(|item| item.guess = 1.0 / NEEDLES as f64);
        items
    }

    /// Items whose guess is the most frequent answer.
    fn generated(&self, ask: impl Fn(u64) -> Question, expect: impl Fn(&str) -> Expected) -> Vec<Item> {
        let questions: Vec<Question> = self.indices.iter().map(|&i| ask(i)).collect();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for question in &questions {
            *counts.entry(expect(&question.answer).told()).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        let guess = most as f64 / questions.len().max(1) as f64;
        let item =
            |Question { text, question, answer }| Item { text, question, expected: expect(&answer), guess };
        questions.into_iter().map(item).collect()
    }

    fn constraints(&self) -> Vec<Item> {
        let item = |&i: &u64| {
            let (question, form) = self.village.exam_constraint(i);
            let check = move |answer: &str| match form.holds(answer) {
                true => Ok(()),
                false => Err(format!("it is not {form:?}")),
            };
            Item { text: String::new(), question, expected: Expected::Checked(Arc::new(check)), guess: 0.0 }
        };
        self.indices.iter().map(item).collect()
    }

    fn stories(&self) -> Vec<Item> {
        let village = Arc::new(self.village.clone());
        let item = |&i: &u64| {
            let (question, person, thing) = self.village.exam_story(i);
            let village = village.clone();
            let check = move |answer: &str| village.check_story(person, thing, answer);
            Item { text: String::new(), question, expected: Expected::Checked(Arc::new(check)), guess: 0.0 }
        };
        self.indices.iter().map(item).collect()
    }

    fn preferences(&self) -> Vec<Item> {
        let item = |&i: &u64| {
            let pair = self.village.exam_pair(i);
            let expected = Expected::Choice { choices: vec![pair.chosen, pair.rejected], gold: 0 };
            Item { text: String::new(), question: pair.prompt, expected, guess: 0.5 }
        };
        self.indices.iter().map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipes::evaluation::TASKS;

    fn questions(task: &Task) -> Vec<&str> {
        task.items.iter().map(|item| item.question.as_str()).collect()
    }

    #[test]
    fn a_far_needle_lies_beyond_the_short_context() {
        for item in task(&Village::new(8), "needle-long", None, 50, 0).items {
            let Expected::Exact(answer) = &item.expected else { panic!("{:?}", item.expected) };
            let (_, behind) = item.text.split_once(answer.as_str()).expect("the needle");
            // A word is a token at least, and so is a full stop.
            let tokens = behind.split_whitespace().count() + behind.matches('.').count();
            assert!(tokens > 256, "{tokens}");
        }
    }

    #[test]
    fn tasks_have_items_and_the_seed_draws_them() {
        let village = Village::new(8);
        for name in TASKS {
            let [one, same, other] = [3, 3, 4].map(|seed| task(&village, name, None, 20, seed));
            assert_eq!((one.items.len(), questions(&one)), (20, questions(&same)), "{name}");
            let told = |task: &Task| -> Vec<String> {
                task.items.iter().map(|it| format!("{}{}{:?}", it.text, it.question, it.expected)).collect()
            };
            assert_ne!(told(&one), told(&other), "{name}");
            for item in &one.items {
                assert!((0.0..=0.5).contains(&item.guess), "{name}: {}", item.guess);
                if let Expected::Choice { choices, gold } = &item.expected {
                    assert!(
                        *gold < choices.len()
                            && choices.iter().filter(|it| **it == choices[*gold]).count() == 1
                    );
                }
            }
        }
    }

    #[test]
    fn only_facts_that_text_states_twice_are_asked() {
        let village = Village::new(8);
        let stated: Vec<usize> = (0..village.facts.len()).map(|i| i % 4).collect();
        let task = task(&village, "facts", Some(&stated), 1_000, 0);
        assert_eq!(task.items.len(), stated.iter().filter(|&&count| count >= 2).count());
        for item in &task.items {
            let fact = village.facts.iter().find(|it| it.question(it.unasked()) == item.question);
            let fact = fact.expect("a fact of the village");
            assert!(stated[fact.index] >= STATED);
            assert!(item.expected.accepts(&fact.answer()), "{}", fact.answer());
            assert!(village.others(fact).iter().all(|y| !item.expected.accepts(&fact.answer_with(y))));
        }
    }
}
