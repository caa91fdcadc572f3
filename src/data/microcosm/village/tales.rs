//! Stories of five sentences whose people, place and thing stay the same, and the check that they do.

use super::lexicon::{COLOURS, THINGS};
use super::pen::Pen;
use super::{Kind, Village};

/// Per cent of stories that are about best friends, and of those that happen where the first of them lives. Where everybody is
/// as likely to be the second person, no one is likely, and a greedy reader's story is about the first person twice.
const USUAL: usize = 85;

/// Sentences of a story.
const SENTENCES: usize = 5;

/// A plot: five sentences about `{p}`, who is the first person, `{q}`, the second, the `{place}` and the `{noun}`.
type Plot = [&'static str; SENTENCES];

const PLOTS: [Plot; 6] = [
    [
        "One [day|morning|evening] {p} [found|saw] {a noun} [by|near] the {place}.",
        "{he} [asked|wanted to know] who had lost the {noun}.",
        "{q} came [along|to the {place}] and said that it was {qhis} {noun}.",
        "{p} gave the {noun} back to {q}.",
        "[Then|At last] they [both laughed|were happy] and sat by the {place}.",
    ],
    [
        "One [day|morning|evening] {p} lost {a noun} [by|near] the {place}.",
        "{he} looked for the {noun} for [a long time|an hour].",
        "{q} [helped|came to help] {him} to look.",
        "[At last|Then] {q} found the {noun} behind the {place}.",
        "{p} [thanked {q}|was happy] and took the {noun} home.",
    ],
    [
        "{p} had {a noun} and [took|carried] it to the {place}.",
        "There {he} met {q}, who [liked|admired] the {noun}.",
        "{p} [lent|gave] the {noun} to {q} for a day.",
        "[The next day|In the evening] {q} brought the {noun} back to the {place}.",
        "{p} was [happy|glad] to have {his} {noun} again.",
    ],
    [
        "One [day|morning|evening] {p} broke {a noun} [by|near] the {place}.",
        "{he} was [sad|sorry] and showed the {noun} to {q}.",
        "{q} [mended|repaired] the {noun} with [care|a little glue].",
        "[Then|Soon] the {noun} was as good as new.",
        "{p} [thanked|hugged] {q}, and they went back to the {place}.",
    ],
    [
        "It rained, and {p} [waited|stood] in the {place} with {a noun}.",
        "{q} [came in|ran in] and [was wet|was cold].",
        "{p} [let {q} hold|showed {q}] the {noun}.",
        "[They|Both] talked about the {noun} until the rain was over.",
        "[Then|At last] {p} left the {place} and took the {noun} home.",
    ],
    [
        "{p} made {a noun} for {q}.",
        "{he} took the {noun} to the {place}.",
        "{q} was [surprised|happy] to [see|get] the {noun}.",
        "[Now {q}|{q} now] keeps the {noun} near the {place}.",
        "{p} and {q} are [good friends|friends for ever].",
    ],
];

/// Words that a sentence may begin with and that are no names.
const OPENERS: [&str; 17] = [
    "A", "An", "At", "Both", "He", "His", "Her", "In", "It", "Now", "One", "She", "Soon", "The", "Then",
    "There", "They",
];

/// A story with what was asked for.
pub(super) fn tale(pen: &mut Pen) -> String {
    let (request, story) = request(pen);
    pen.exchange("", &request, &story) + "\n"
}

/// A request for a story, and a story that it gets.
pub(super) fn request(pen: &mut Pen) -> (String, String) {
    let (p, q, noun) = cast(pen);
    let request = ask(pen, p, noun);
    let r = &mut pen.random;
    let people = &pen.village.people;
    let home = &pen.village.fact(Kind::Person, p, "home").y;
    let home = home.strip_prefix("the ").expect("a home is by a place");
    let place = if r.chance(USUAL) { home } else { *r.pick(&pen.village.places) };
    let plot = r.pick(&PLOTS);
    let [he, him, his] = people[p].pronouns();
    let slots = [
        ("p", people[p].name),
        ("q", people[q].name),
        ("he", he),
        ("him", him),
        ("his", his),
        ("qhis", people[q].pronouns()[2]),
        ("noun", noun),
        ("place", place),
    ];
    let sentences: Vec<String> = plot.iter().map(|sentence| pen.say(sentence, &slots)).collect();
    (request, sentences.join(" "))
}

/// Two people, mostly best friends, and a thing.
fn cast(pen: &mut Pen) -> (usize, usize, &'static str) {
    let (r, village) = (&mut pen.random, pen.village);
    let people: Vec<usize> = (0..village.people.len()).collect();
    let two = r.some(&people, 2);
    let friend = &village.fact(Kind::Person, two[0], "friend").y;
    let friend = village.people.iter().position(|person| person.name == friend).expect("a friend lives here");
    let second = if r.chance(USUAL) { friend } else { two[1] };
    (two[0], second, *r.pick(&THINGS))
}

fn ask(pen: &mut Pen, p: usize, noun: &str) -> String {
    let name = pen.village.people[p].name;
    pen.say("[Tell|Tell me|Write] a story about {p} and {a noun}.", &[("p", name), ("noun", noun)])
}

/// A request for a story: the words, the person and the thing.
pub(super) fn wish(pen: &mut Pen) -> (String, &'static str, &'static str) {
    let (p, _, noun) = cast(pen);
    (ask(pen, p, noun), pen.village.people[p].name, noun)
}

impl Village {
    /// Whether a text is a story of five sentences about `person` and `thing` ("kite") in which everything stays the same:
    /// one more person, one place, this thing and no other, in one colour at most, and pronouns of people who have
    /// been named. The thing is named in three sentences or more, the place in two, the person in two; nobody does anything
    /// to himself.
    ///
    /// # Errors
    /// What is wrong with the story.
    pub fn check_story(&self, person: &str, thing: &str, text: &str) -> std::result::Result<(), String> {
        let sentences: Vec<Vec<&str>> = text
            .split_inclusive(['.', '!', '?'])
            .map(|sentence| {
                sentence.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).collect()
            })
            .filter(|words: &Vec<&str>| !words.is_empty())
            .collect();
        if sentences.len() != SENTENCES || !text.trim_end().ends_with(['.', '!', '?']) {
            return Err(format!("{} sentences", sentences.len()));
        }
        let in_sentences = |word: &str| sentences.iter().filter(|words| words.contains(&word)).count();
        let said: Vec<&str> = sentences.concat();
        if !sentences[0].contains(&person) || in_sentences(person) < 2 {
            return Err(format!("{person} is not in the first sentence and one more"));
        }
        let is_name = |word: &&&str| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.len() > 1;
        let known = |word: &str| self.people.iter().any(|it| it.name == word) || OPENERS.contains(&word);
        if let Some(stranger) = said.iter().filter(is_name).find(|word| !known(word)) {
            return Err(format!("nobody is called {stranger}"));
        }
        let people: Vec<&str> =
            self.people.iter().map(|it| it.name).filter(|name| said.contains(name)).collect();
        if people.len() != 2 {
            return Err(format!("not two people: {}", people.join(", ")));
        }
        let places: Vec<&&str> = self.places.iter().filter(|place| said.contains(*place)).collect();
        match places[..] {
            [place] if in_sentences(place) >= 2 => {}
            [place] => return Err(format!("the {place} is named once")),
            _ => return Err(format!("{} places", places.len())),
        }
        if let Some(other) = THINGS.iter().find(|other| **other != thing && said.contains(*other)) {
            return Err(format!("a {other} instead of a {thing}"));
        }
        if in_sentences(thing) < 3 {
            return Err(format!("too little about the {thing}"));
        }
        let colours: Vec<&&str> = COLOURS.iter().filter(|colour| said.contains(*colour)).collect();
        if let [one, other, ..] = colours[..] {
            return Err(format!("first {one}, then {other}, or the other way round"));
        }
        // Who does something in a sentence: somebody it names, or "he" or "she" of the sentence before.
        let mut subject = None;
        for words in &sentences {
            let mut others: Vec<&str> = words.iter().copied().filter(|word| people.contains(word)).collect();
            if !words.iter().any(|word| matches!(*word, "He" | "She" | "he" | "she")) && !others.is_empty() {
                subject = Some(others.remove(0));
            }
            if let Some(same) = subject.filter(|subject| others.contains(subject)) {
                return Err(format!("{same} and {same}: \"{}\"", words.join(" ")));
            }
        }
        let mut named = [false; 2];
        for word in said {
            if let Some(person) = self.people.iter().find(|it| it.name == word) {
                named[usize::from(person.is_woman)] = true;
            }
            let pronoun = match word.to_ascii_lowercase().as_str() {
                "she" | "her" | "hers" => Some(1),
                "he" | "him" | "his" => Some(0),
                _ => None,
            };
            if pronoun.is_some_and(|woman: usize| !named[woman]) {
                return Err(format!("\"{word}\" is nobody who has been named"));
            }
        }
        Ok(())
    }
}
