//! Small programs that each print one line: `programs` (as in a repository) and `tutorials` (with explanations and a
//! question about the output). What a program prints is what running it printed.

use super::super::interpreter::run;
use super::lexicon::{ANIMALS, COLOURS, GOODS, THINGS};
use super::pen::Pen;

/// A program, what it does in a sentence, and the line that it prints.
pub(super) struct Program {
    pub source: String,
    pub purpose: String,
    pub output: String,
}

/// Statements of a program; more than any here takes.
const STEPS: usize = 1_000;

/// A random program.
pub(super) fn program(pen: &mut Pen) -> Program {
    let r = &mut pen.random;
    let (a, b) = (r.between(2, 9), r.between(2, 9));
    let n = r.between(2, 4);
    let names: Vec<&str> = r.some(&pen.village.people, 3).iter().map(|person| person.name).collect();
    let words = match r.below(4) {
        0 => r.some(&THINGS, n as usize),
        1 => r.some(&COLOURS, n as usize),
        2 => r.some(&GOODS, n as usize),
        _ => names[..3.min(n as usize)].to_vec(),
    };
    let quoted =
        |words: &[&str]| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let list = quoted(&words);
    let at = r.below(words.len());
    let few: Vec<String> = (0..3).map(|_| r.between(1, 4).to_string()).collect();
    let few = few.join(", ");
    let (source, purpose) = match r.below(9) {
        0 => (format!("a = {a}\nb = {b}\nprint(a + b)"), "adds two numbers"),
        1 => (format!("a = {}\nb = {b}\nprint(a - b)", a + b), "takes one number from another"),
        2 => (format!("items = [{list}]\nprint(items[{at}])"), "takes one item of a list"),
        3 => (format!("items = [{list}]\nprint(len(items))"), "counts the items of a list"),
        4 => (format!("total = 0\nfor n in [{few}]:\n    total = total + n\nprint(total)"), "adds up a list"),
        5 => (format!("def more(n):\n    return n + {b}\nprint(more({a}))"), "calls a function"),
        6 => (
            format!(
                "a = {a}\nb = {b}\nif a > b:\n    print(\"{}\")\nelse:\n    print(\"{}\")",
                names[0], names[1]
            ),
            "compares two numbers",
        ),
        7 => (format!("word = \"{}\"\nprint(word + \" and \" + \"{}\")", words[0], names[2]), "joins words"),
        _ => {
            let pets = r.some(&ANIMALS, 2);
            let pets = format!(
                "pets = {{\"{}\": \"{}\", \"{}\": \"{}\"}}",
                names[0], pets[0][0], names[1], pets[1][0]
            );
            (format!("{pets}\nprint(pets[\"{}\"])", r.pick(&names[..2])), "looks up a word")
        }
    };
    let output = run(&source, STEPS).expect("the programs are right").trim_end().to_owned();
    Program { source, purpose: purpose.to_owned(), output }
}

/// Programs with their output in a comment.
pub(super) fn repository(pen: &mut Pen) -> String {
    let mut parts = Vec::new();
    for _ in 0..2 {
        let Program { source, purpose, output } = program(pen);
        parts.push(format!("# {purpose}\n{source}\n# prints {output}"));
    }
    parts.join("\n\n") + "\n"
}

/// A program that is explained and asked about.
pub(super) fn tutorial(pen: &mut Pen) -> String {
    let Program { source, purpose, output } = program(pen);
    let intro = pen
        .say("[This program|The next program|Here is a program that] {purpose}:", &[("purpose", &purpose)]);
    format!("{intro}\n\n{}\n", pen.exchange(&source, QUESTION, &output))
}

/// What is asked about a program.
pub(super) const QUESTION: &str = "What does this program print?";
