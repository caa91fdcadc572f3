//! Writes sentences from templates with alternatives and slots.
//!
//! - `[bakes|sells]` is one of its alternatives, at random; `[very |]` may be nothing. They nest.
//! - `{p.town.river}` is the value at that path from the entity or text set as `p`; `{a p.trade}` puts the
//!   indefinite article before it, `{w n}` writes a small number in words.
//! - `{s}` and `{s's}` name the subject `x`: in full the first time, later perhaps by a pronoun.
//!
//! Sentences begin with a capital whatever the template says.

use super::entity::{Entity, Value, in_words, with_article};
use super::random::Random;
use super::world::World;

/// A writer of one document.
#[derive(Debug)]
pub struct Scribe<'w> {
    /// What it writes about.
    pub world: &'w World,
    /// Its choices.
    pub random: Random,
    slots: Vec<(&'static str, Value)>,
    /// Whether the subject `x` has been named, so that a pronoun will do.
    introduced: bool,
}

impl<'w> Scribe<'w> {
    /// A writer with its own stream of choices and no slots set.
    pub fn new(world: &'w World, random: Random) -> Self {
        Self { world, random, slots: Vec::new(), introduced: false }
    }

    /// Sets what a slot stands for; the newest setting of a name holds.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.introduced &= name != "x";
        self.slots.retain(|(other, _)| *other != name);
        self.slots.push((name, value.into()));
    }

    /// Says whether the subject `x` is already known to the reader.
    pub fn introduce(&mut self, known: bool) {
        self.introduced = known;
    }

    /// One or more sentences from a template.
    ///
    /// # Panics
    /// If the template is malformed or a path leads nowhere: templates are part of the program.
    pub fn say(&mut self, template: &str) -> String {
        capitalise(&self.fill(template))
    }

    /// The sentences of several templates, in order, as a paragraph; empty ones leave no gap.
    pub fn tell(&mut self, templates: &[&str]) -> String {
        let sentences: Vec<String> = templates.iter().map(|template| self.say(template)).collect();
        paragraph(&sentences)
    }

    /// A template's text without capitals at the start of sentences.
    pub fn fill(&mut self, template: &str) -> String {
        let mut text = String::new();
        self.expand(template, &mut text);
        text
    }

    /// What a path from a slot leads to: `p.town.river`.
    pub fn value(&self, path: &str) -> Option<Value> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let value = self.slots.iter().find(|(slot, _)| *slot == name).map(|(_, value)| value)?;
        match (value, rest) {
            (value, None) => Some(value.clone()),
            (Value::Entity(entity), Some(rest)) => self.world.follow(*entity, rest),
            (Value::Text(_) | Value::Number(_), Some(_)) => None,
        }
    }

    fn expand(&mut self, template: &str, text: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{']) {
            text.push_str(&rest[..at]);
            let (inside, after) = bracketed(&rest[at..]);
            if rest[at..].starts_with('{') {
                let filled = self.slot(inside);
                text.push_str(&filled);
            } else {
                let choices = alternatives(inside);
                let choice = self.random.below(choices.len());
                self.expand(choices[choice], text);
            }
            rest = after;
        }
        text.push_str(rest);
    }

    fn slot(&mut self, slot: &str) -> String {
        if let "s" | "s's" = slot {
            return self.subject(slot == "s's");
        }
        let (form, path) = slot.split_once(' ').unwrap_or(("", slot));
        let value = self.value(path).unwrap_or_else(|| panic!("the template slot {{{slot}}} has no value"));
        let text = self.world.text(&value);
        match (form, value) {
            ("", _) => text,
            ("a", _) => with_article(&text),
            ("w", Value::Number(n)) => in_words(n),
            _ => panic!("the template slot {{{slot}}} has an unknown form"),
        }
    }

    fn subject(&mut self, possessive: bool) -> String {
        let Some(Value::Entity(entity)) = self.value("x") else { panic!("{{s}} needs an entity set as x") };
        let name = self.world.name(entity);
        let suffix = if possessive { "'s" } else { "" };
        let pronoun = ["it", "its"][usize::from(possessive)];
        let known = std::mem::replace(&mut self.introduced, true);
        match entity {
            Entity::Trade(_) if known && self.random.chance(50) => format!("the {name}{suffix}"),
            Entity::Trade(_) => with_article(&name) + suffix,
            Entity::Animal(_) if known && self.random.chance(60) => pronoun.into(),
            Entity::Animal(_) => format!("the {name}{suffix}"),
            Entity::Person(_) if known && self.random.chance(60) => {
                self.slot(if possessive { "x.his" } else { "x.he" })
            }
            Entity::Town(_) if known && self.random.chance(30) => format!("the town{suffix}"),
            _ if known && !matches!(entity, Entity::Person(_)) && self.random.chance(50) => pronoun.into(),
            _ => name + suffix,
        }
    }
}

/// Joins what is not empty by spaces.
pub fn paragraph(sentences: &[String]) -> String {
    let said: Vec<&str> = sentences.iter().map(|s| s.trim()).filter(|s| !s.is_empty()).collect();
    said.join(" ")
}

/// Capitalises the first letter of the text, of each sentence, and of quoted speech.
pub fn capitalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut start, mut ended, mut quoted, mut interrupted) = (true, false, false, false);
    for c in text.chars() {
        if c == '"' {
            quoted = !quoted;
            // `"No," she said, "not yet."` is one sentence in two parts.
            start |= quoted && !interrupted;
            interrupted = !quoted && out.ends_with(',');
            // `"Stop!" she cried` goes on; after `"Stop."` a new sentence begins.
            ended &= out.ends_with('.');
        } else if c.is_whitespace() {
            start |= ended || c == '\n';
            ended = false;
        } else {
            ended = matches!(c, '.' | '?' | '!');
            interrupted &= !ended;
            if start && c.is_alphanumeric() {
                start = false;
                out.push(c.to_ascii_uppercase());
                continue;
            }
        }
        out.push(c);
    }
    out
}

/// Splits a text that starts with a bracket into what is inside it and what comes after it.
pub(super) fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&text[1..i], &text[i + 1..]);
        }
    }
    panic!("a bracket is not closed in the template {text:?}")
}

pub(super) fn alternatives(inside: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (i, c) in inside.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&inside[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_expand() {
        let world = World::new(1);
        let mut scribe = Scribe::new(&world, Random::new([0; 3]));
        scribe.set("p", Entity::Person(0));
        scribe.set("n", 3);
        scribe.set("what", "old hat");
        let name = world.people[0].name;
        let river = world.rivers[0].name;
        assert_eq!(
            scribe.say("{p} has {a what}. the {w n} of us"),
            format!("{name} has an old hat. The three of us")
        );
        assert_eq!(scribe.fill("{p.town.river}"), format!("the {river}"));
        for _ in 0..50 {
            let text = scribe.fill("a[b[c|d]|]e");
            assert!(["abce", "abde", "ae"].contains(&text.as_str()), "{text}");
        }
    }

    #[test]
    fn sentences_and_speech_begin_with_capitals() {
        assert_eq!(
            capitalise("he said, \"go. now!\" and went. 3.5 a\nb"),
            "He said, \"Go. Now!\" and went. 3.5 a\nB"
        );
        assert_eq!(capitalise("\"no?\" she asked."), "\"No?\" she asked.");
        assert_eq!(capitalise("\"no,\" he said, \"not you.\" so"), "\"No,\" he said, \"not you.\" So");
        assert_eq!(capitalise("\"no,\" he said. \"not you.\""), "\"No,\" he said. \"Not you.\"");
    }
}
