//! Mathematics with small numbers: `numbers` (what web pages about numbers say), `figures` (pictures and what they
//! count), `drills` (short sums) and `problems` (word problems, worked out step by step, with the result after `####`).

use super::lexicon::{COLOURS, GOODS};
use super::pen::Pen;

/// What is added and taken away, and what is left, lies from 2 to this.
const MOST: i64 = 9;
/// The largest factor of a product.
const FACTOR: i64 = 5;

/// A sum, a difference or a product: `3 + 4 = 7` in its parts.
struct Sum {
    a: i64,
    sign: &'static str,
    b: i64,
    c: i64,
}

impl Sum {
    fn random(pen: &mut Pen) -> Self {
        let r = &mut pen.random;
        match r.below(5) {
            0..2 => Sum::plus(r.between(2, MOST), r.between(2, MOST)),
            2..4 => {
                let b = r.between(2, MOST);
                Sum::minus(b + r.between(2, MOST), b)
            }
            _ => Sum::times(r.between(2, FACTOR), r.between(2, FACTOR)),
        }
    }

    fn plus(a: i64, b: i64) -> Self {
        Sum { a, sign: "+", b, c: a + b }
    }

    fn minus(a: i64, b: i64) -> Self {
        Sum { a, sign: "-", b, c: a - b }
    }

    fn times(a: i64, b: i64) -> Self {
        Sum { a, sign: "x", b, c: a * b }
    }

    fn asked(&self) -> String {
        format!("{} {} {}", self.a, self.sign, self.b)
    }

    fn solved(&self) -> String {
        format!("{} = {}", self.asked(), self.c)
    }
}

/// A page about numbers.
pub(super) fn numbers(pen: &mut Pen) -> String {
    let mut lines = vec![pen.say("[About numbers|Number facts|Sums to learn]", &[])];
    for _ in 0..14 {
        let sum = Sum::random(pen);
        let [a, b, c] = [sum.a, sum.b, sum.c].map(|n| n.to_string());
        let solved = sum.solved();
        let slots = [("a", a.as_str()), ("b", &b), ("c", &c), ("solved", &solved)];
        let line = match sum.sign {
            "+" => "[{solved}|{solved}|{b} and {a} make {c}|{c} is {b} more than {a}]",
            "-" => "[{solved}|{solved}|{a} take away {b} leaves {c}|{c} is {b} less than {a}]",
            _ => "[{solved}|{solved}|{a} times {b} is {c}]",
        };
        lines.push(pen.say(line, &slots) + ".");
    }
    lines.join("\n") + "\n"
}

/// Pictures described in brackets, and the text beside them that counts what they show.
pub(super) fn pictures(pen: &mut Pen) -> String {
    let mut parts = Vec::new();
    for _ in 0..4 {
        let r = &mut pen.random;
        let sum = Sum::plus(r.between(2, MOST), r.between(2, MOST));
        let [a, b, c] = [sum.a, sum.b, sum.c].map(|n| n.to_string());
        let (goods, colours) = (*r.pick(&GOODS), r.some(&COLOURS, 2));
        let solved = sum.solved();
        let slots = [
            ("a", a.as_str()),
            ("b", &b),
            ("c", &c),
            ("goods", goods),
            ("one", colours[0]),
            ("two", colours[1]),
            ("solved", &solved),
        ];
        parts.push(pen.say(
            "(Picture: {a} {one} {goods})\n(Picture: {b} {two} {goods})\n[There are|We see] {a} {one} {goods} and {b} {two} \
             {goods}. {solved}. [Together there are|That makes] {c} {goods}.",
            &slots,
        ));
    }
    parts.join("\n\n") + "\n"
}

/// Short sums with their answers.
pub(super) fn drills(pen: &mut Pen) -> String {
    let one = |pen: &mut Pen| {
        let (question, answer) = drill(pen);
        pen.exchange("", &question, &answer)
    };
    (0..3).map(|_| one(pen)).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// A bare sum: question and answer.
pub(super) fn drill(pen: &mut Pen) -> (String, String) {
    let sum = Sum::random(pen);
    let question = pen.say("[What is {sum}?|How much is {sum}?|Work out {sum}.]", &[("sum", &sum.asked())]);
    (question, format!("{}. #### {}", sum.solved(), sum.c))
}

/// A word problem with its solution, as a document.
pub(super) fn problems(pen: &mut Pen) -> String {
    let (question, answer) = problem(pen);
    pen.exchange("", &question, &answer) + "\n"
}

/// A word problem and its solution.
pub(super) fn problem(pen: &mut Pen) -> (String, String) {
    let r = &mut pen.random;
    let people = r.some(&pen.village.people, 2);
    let goods = *r.pick(&GOODS);
    let (a, b) = (r.between(2, MOST), r.between(2, MOST));
    let small = (r.between(2, FACTOR), r.between(2, FACTOR));
    // Templates with {a} and {b}, and the steps.
    let (template, steps) = match r.below(6) {
        0 => (
            "{p} has {a} {goods}. {q} gives {him} {b} more. How many {goods} does {p} have now?",
            vec![Sum::plus(a, b)],
        ),
        1 => (
            "{p} has {a} {goods} and gives {b} of them to {q}. How many {goods} does {p} have now?",
            vec![Sum::minus(a + b, b)],
        ),
        2 => (
            "{p} has {a} boxes with {b} {goods} in each box. How many {goods} does {p} have?",
            vec![Sum::times(small.0, small.1)],
        ),
        3 => (
            "{p} has {a} {goods}. {q} has {b} more than {p}. How many {goods} does {q} have?",
            vec![Sum::plus(a, b)],
        ),
        4 => (
            "{p} has {a} {goods}, and {q} has {b} {goods}. How many {goods} do they have together?",
            vec![Sum::plus(a, b)],
        ),
        _ => {
            let c = r.between((a + b - MOST).max(2), MOST.min(a + b - 2));
            (
                "{p} has {a} {goods} and finds {b} more. Then {he} gives {d} to {q}. How many {goods} does {p} have now?",
                vec![Sum::plus(a, b), Sum::minus(a + b, c)],
            )
        }
    };
    let [first, .., last] = [&steps[0], &steps[steps.len() - 1]];
    let [a, b, d, c] = [first.a, first.b, last.b, last.c].map(|n| n.to_string());
    let [he, him, _] = people[0].pronouns();
    let slots = [
        ("a", a.as_str()),
        ("b", &b),
        ("d", &d),
        ("goods", goods),
        ("p", people[0].name),
        ("q", people[1].name),
        ("he", he),
        ("him", him),
    ];
    let question = pen.say(template, &slots);
    let steps: Vec<String> = steps.iter().map(|sum| sum.solved() + ".").collect();
    (question, format!("{} #### {c}", steps.join(" ")))
}
