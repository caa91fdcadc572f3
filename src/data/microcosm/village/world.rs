//! A village as plain data, made from a seed.

use super::super::phrase::with_article;
use super::super::random::Random;
use super::facts::{Fact, Kind, RELATIONS, Relation};
use super::lexicon::{ANIMALS, COLOURS, DAYS, FOODS, MEN, PARTS, PETS, PLACES, SPOTS, THINGS, TRADES, WOMEN};

/// Somebody who lives in the village.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Villager {
    /// A name that nobody else has.
    pub name: &'static str,
    /// Whether "she" or "he".
    pub is_woman: bool,
}

impl Villager {
    /// "she", "her", "her" or "he", "him", "his".
    pub fn pronouns(&self) -> [&'static str; 3] {
        if self.is_woman { ["she", "her", "her"] } else { ["he", "him", "his"] }
    }
}

/// A small village: what is true in it, and the lists that facts point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Village {
    pub(super) seed: u64,
    /// Its people: as many women as men.
    pub people: Vec<Villager>,
    /// Its places, without "the".
    pub places: Vec<&'static str>,
    /// Its animals.
    pub animals: Vec<&'static str>,
    /// Everything that is true, in a fixed order.
    pub facts: Vec<Fact>,
}

/// People of a village, as many as a model of the default recipe gets to know in minutes.
const PEOPLE: usize = 8;
/// Places and animals, each met twice among the people.
const PLACES_HERE: usize = PEOPLE / 2;

impl Village {
    /// The village of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new([seed, u64::MAX, 1]);
        let r = &mut random;
        let half = PEOPLE / 2;
        let women = r.some(&WOMEN, half).into_iter().map(|name| Villager { name, is_woman: true });
        let men = r.some(&MEN, half).into_iter().map(|name| Villager { name, is_woman: false });
        let people: Vec<Villager> = women.chain(men).collect();
        let people = r.shuffled(&people);
        let places = r.some(&PLACES, PLACES_HERE);
        let kinds = r.some(&ANIMALS, PLACES_HERE);
        let animals: Vec<&str> = kinds.iter().map(|[name, ..]| *name).collect();
        let mut facts = Facts(Vec::new());

        let twice = |r: &mut Random| r.shuffled(&(0..PEOPLE).map(|i| i / 2).collect::<Vec<_>>());
        let (trades, homes, pets) = (r.some(&TRADES, PEOPLE), twice(r), twice(r));
        let (names, things) = (r.shuffled(&PETS), r.shuffled(&THINGS));
        let foods = r.shuffled(&(0..PEOPLE).map(|i| FOODS[i % FOODS.len()]).collect::<Vec<_>>());
        let order = r.shuffled(&(0..PEOPLE).collect::<Vec<_>>());
        for (i, person) in people.iter().enumerate() {
            let pair = order.iter().position(|&it| it == i).expect("everybody has a place in the order");
            let mut say =
                |relation, y: String, z| facts.add(Kind::Person, relation, i, person.name.into(), y, z);
            say("trade", trades[i][0].into(), "");
            say("home", format!("the {}", places[homes[i]]), "");
            say("pet", with_article(animals[pets[i]]), "");
            say("pet name", names[i].into(), animals[pets[i]]);
            say("food", foods[i].into(), "");
            say("thing", with_article(&format!("{} {}", r.pick(&COLOURS), things[i])), "");
            say("friend", people[order[pair ^ 1]].name.into(), "");
        }
        let (colours, spots) = (r.shuffled(&COLOURS), r.shuffled(&SPOTS));
        let (keepers, days) = (r.some(&people, PLACES_HERE), r.shuffled(&DAYS));
        for (i, place) in places.iter().enumerate() {
            let mut say =
                |relation, y: &str| facts.add(Kind::Place, relation, i, format!("the {place}"), y.into(), "");
            say("colour", colours[i]);
            say("spot", spots[i]);
            say("keeper", keepers[i].name);
            say("day", days[i]);
        }
        for (i, [trade, ware, tool]) in trades.iter().enumerate() {
            let mut say =
                |relation, y: &str| facts.add(Kind::Trade, relation, i, format!("the {trade}"), y.into(), "");
            say("ware", ware);
            say("tool", tool);
            say("who", people[i].name);
        }
        for (i, [animal, diet, bed]) in kinds.iter().enumerate() {
            let mut say = |relation, y: &str| {
                facts.add(Kind::Animal, relation, i, format!("the {animal}"), y.into(), "")
            };
            say("diet", diet);
            say("bed", bed);
        }
        let (parts, days) = (r.shuffled(&PARTS), r.shuffled(&DAYS));
        for (i, food) in FOODS.iter().enumerate() {
            let mut say =
                |relation, y: &str| facts.add(Kind::Food, relation, i, (*food).into(), y.into(), "");
            say("part", parts[i]);
            say("day", days[i]);
        }
        Village { seed, people, places, animals, facts: facts.0 }
    }

    /// The facts about one subject.
    pub fn facts_about(&self, kind: Kind, subject: usize) -> Vec<&Fact> {
        self.facts.iter().filter(|fact| fact.relation.kind == kind && fact.subject == subject).collect()
    }

    /// The facts of one relation.
    pub fn facts_of(&self, relation: &Relation) -> Vec<&Fact> {
        self.facts.iter().filter(|fact| fact.relation == relation).collect()
    }

    /// The fact of a relation about one subject.
    ///
    /// # Panics
    /// If there is none.
    pub fn fact(&self, kind: Kind, subject: usize, relation: &str) -> &Fact {
        let mut all = self.facts_about(kind, subject).into_iter();
        all.find(|fact| fact.relation.name == relation).expect("a relation of this kind")
    }

    /// Values that a fact might have had: those of its relation, each once, without its own.
    pub fn others(&self, fact: &Fact) -> Vec<&str> {
        let all = self.facts_of(fact.relation).into_iter();
        let mut values: Vec<&str> =
            all.filter(|it| it.y != fact.y && it.y != fact.x).map(|it| it.y.as_str()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, kind: Kind, relation: &str, subject: usize, x: String, y: String, z: &str) {
        let relation = RELATIONS.iter().find(|it| it.kind == kind && it.name == relation);
        let relation = relation.expect("the relations are part of the program");
        self.0.push(Fact { index: self.0.len(), subject, relation, x, y, z: z.into() });
    }
}
