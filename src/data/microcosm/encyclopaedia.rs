//! The `encyclopaedia` register: an article about one entity, with a paragraph on what it is connected to.

use super::entity::{Entity, Value, list};
use super::facts::Fact;
use super::scribe::{Scribe, paragraph};

/// An article: a title, what its subject is, and what else the reader may want to know.
pub(super) fn write(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let subject = match scribe.random.below(100) {
        0..44 => Entity::Person(scribe.random.below(world.people.len())),
        44..70 => Entity::Town(scribe.random.below(world.towns.len())),
        70..77 => Entity::River(scribe.random.below(world.rivers.len())),
        77..88 => Entity::Trade(scribe.random.below(world.trades.len())),
        88..94 => Entity::Animal(scribe.random.below(world.animals.len())),
        _ => Entity::Food(scribe.random.below(world.foods.len())),
    };
    scribe.set("x", subject);
    scribe.set("land", world.land);
    let paragraphs = match subject {
        Entity::Person(_) => person(scribe, subject),
        Entity::Town(town) => self::town(scribe, subject, town),
        Entity::River(river) => self::river(scribe, subject, river),
        Entity::Trade(trade) => self::trade(scribe, subject, trade),
        Entity::Animal(_) => animal(scribe, subject),
        Entity::Food(_) => food(scribe, subject),
    };
    let title =
        scribe.say(if matches!(subject, Entity::Trade(_) | Entity::Animal(_)) { "the {x}" } else { "{x}" });
    format!("{title}\n\n{}\n", paragraphs.join("\n\n"))
}

fn person(scribe: &mut Scribe, x: Entity) -> Vec<String> {
    let mut first = vec![scribe.say(
        "[{x} is {a x.trade} in {x.town}|{x} is {a x.trade} from {x.town}|{x} is {a x.trade} who lives in {x.town}]\
         [|, a town {x.town.land}|, on {x.town.river}].",
    )];
    scribe.introduce(true);
    first.extend(facts(scribe, x, &["age", "mother", "spouse", "child", "friend"], 3));
    let work = ["trade.ware", "trade.tool", "teacher", "town.day"];
    let mut second = facts(scribe, x, &work, 3);
    let insert = scribe.say(
        "[{a x.trade.good} from {x.his} hands costs {x.trade.cost}|{x} asks {x.trade.cost} for {a x.trade.good}|\
         {a x.trade.good} costs {x.trade.cost} there, as everywhere in {land}].",
    );
    second.push(insert);
    let mut third = facts(scribe, x, &["pet", "thing", "food", "town.river", "friend.town"], 3);
    third.push(linked(scribe, x, &["friend", "spouse", "teacher", "child"]));
    vec![paragraph(&first), paragraph(&second), paragraph(&third)]
}

fn town(scribe: &mut Scribe, x: Entity, town: usize) -> Vec<String> {
    let mut first = vec![scribe.say("{x} is a town of [about |]{x.population} people {x.land}.")];
    scribe.introduce(true);
    first.extend(facts(scribe, x, &["river", "founded", "landmark", "river.fish"], 3));
    let mut second = facts(scribe, x, &["day", "craft.ware", "dish", "festival"], 3);
    let people = people_of(scribe, town);
    second.push(people);
    let third = facts(scribe, x, &["north", "south", "east", "west"], 4);
    vec![paragraph(&first), paragraph(&second), paragraph(&third)]
}

/// "Orlin the baker and Mirra the weaver live in Tavel."
fn people_of(scribe: &mut Scribe, town: usize) -> String {
    let world = scribe.world;
    let neighbours: Vec<usize> = world.people_of(town).collect();
    let count = 2 + scribe.random.below(3);
    let names: Vec<String> = scribe
        .random
        .some(&neighbours, count)
        .into_iter()
        .map(|i| format!("{} the {}", world.people[i].name, world.trades[world.people[i].trade].words.name))
        .collect();
    scribe.set("names", list(&names));
    scribe.say("[In {x} live|Among its people are|Its people include] {names}.")
}

fn river(scribe: &mut Scribe, x: Entity, river: usize) -> Vec<String> {
    let mut first = vec![scribe.say("[{x}|the River {x.bare}] is one of the three rivers of {land}.")];
    scribe.introduce(true);
    first.extend(facts(scribe, x, &["look", "fish"], 2));
    let course: Vec<String> = ["first", "second", "third", "last"]
        .into_iter()
        .filter_map(|path| scribe.world.fact(x, path))
        .map(|fact| scribe.state(fact))
        .collect();
    let town = *scribe.random.pick(&scribe.world.towns_on(river));
    let mut third = vec![about_town(scribe, town)];
    scribe.set("x", x);
    third.extend(facts(scribe, x, &["third.landmark"], 1));
    vec![paragraph(&first), paragraph(&course), paragraph(&third)]
}

fn trade(scribe: &mut Scribe, x: Entity, trade: usize) -> Vec<String> {
    let first = facts(scribe, x, &["ware", "place", "tool", "stuff", "cost"], 5);
    let world = scribe.world;
    let masters: Vec<usize> = (0..world.people.len()).filter(|&i| world.people[i].trade == trade).collect();
    let masters = scribe.random.some(&masters, 3);
    let names: Vec<String> = masters
        .iter()
        .map(|&i| format!("{} in {}", world.people[i].name, world.towns[world.people[i].town].name))
        .collect();
    scribe.set("names", list(&names));
    let mut second = vec![match names.len() {
        0 => String::new(),
        1 => scribe.say("[In {land}, {names} is {a x}|A well-known {x} is {names}]."),
        _ => scribe.say("[In {land}, the {x}s are|Well-known {x}s are] {names}."),
    }];
    for master in masters.into_iter().take(2) {
        second.push(about_person(scribe, master));
    }
    vec![paragraph(&first), paragraph(&second)]
}

fn animal(scribe: &mut Scribe, x: Entity) -> Vec<String> {
    let first = facts(scribe, x, &["home", "diet", "habit", "young"], 4);
    let world = scribe.world;
    let keepers: Vec<usize> = (0..world.people.len())
        .filter(|&i| world.follow(Entity::Person(i), "pet") == Some(Value::Entity(x)))
        .collect();
    let second = if let Some(&keeper) = keepers.get(scribe.random.below(keepers.len().max(1))) {
        scribe.set("k", Entity::Person(keeper));
        scribe.say(
            "[{k} of {k.town} keeps {a x} called {k.petname}|In {k.town} there is {a x} called {k.petname}, which belongs to {k}]. \
             {k} is {a k.trade}, and {k.petname} [sleeps {x.home}|{x.habit}|gets {x.diet}].",
        ) + " " + &about_person(scribe, keeper)
    } else {
        let town = scribe.random.below(world.towns.len());
        scribe.set("t", Entity::Town(town));
        scribe.say(
            "[Nobody keeps {x.plural}|{x.plural} are wild]. [Near|Outside] {t}, {t.land}, you may see one \
             [by {t.river}|near the {t.landmark}].",
        ) + " "
            + &about_town(scribe, town)
    };
    vec![paragraph(&first), second]
}

fn food(scribe: &mut Scribe, x: Entity) -> Vec<String> {
    let first = facts(scribe, x, &["first", "cooked", "town", "town.day"], 4);
    let world = scribe.world;
    let lovers: Vec<usize> = (0..world.people.len())
        .filter(|&i| world.follow(Entity::Person(i), "food") == Some(Value::Entity(x)))
        .collect();
    let mut second = Vec::new();
    if let Some(&lover) = lovers.get(scribe.random.below(lovers.len().max(1))) {
        scribe.set("k", Entity::Person(lover));
        second
            .push(scribe.say("[{k} of {k.town} likes {x} best|Nobody likes {x} more than {k} of {k.town}]."));
        second.push(about_person(scribe, lover));
    }
    let Some(Value::Entity(Entity::Town(town))) = world.follow(x, "town") else {
        return vec![paragraph(&first)];
    };
    vec![paragraph(&first), paragraph(&second), about_town(scribe, town)]
}

/// Statements of up to `count` of the facts that hold, in random order.
fn facts(scribe: &mut Scribe, x: Entity, paths: &[&str], count: usize) -> Vec<String> {
    let holding: Vec<Fact> = paths.iter().filter_map(|path| scribe.world.fact(x, path)).collect();
    scribe.random.some(&holding, count).into_iter().map(|fact| scribe.state(fact)).collect()
}

/// A sentence or two about somebody near to `x`.
fn linked(scribe: &mut Scribe, x: Entity, paths: &[&str]) -> String {
    let near: Vec<usize> = paths
        .iter()
        .filter_map(|path| match scribe.world.follow(x, path) {
            Some(Value::Entity(Entity::Person(i))) => Some(i),
            _ => None,
        })
        .collect();
    let near = *scribe.random.pick(&near);
    about_person(scribe, near)
}

fn about_person(scribe: &mut Scribe, person: usize) -> String {
    let x = Entity::Person(person);
    let before = scribe.value("x");
    scribe.set("x", x);
    let told = facts(scribe, x, &["town", "trade.ware", "thing", "food"], 2);
    if let Some(before) = before {
        scribe.set("x", before);
    }
    paragraph(&told)
}

fn about_town(scribe: &mut Scribe, town: usize) -> String {
    let x = Entity::Town(town);
    let before = scribe.value("x");
    scribe.set("x", x);
    let told = facts(scribe, x, &["landmark", "day", "craft.ware", "festival"], 3);
    if let Some(before) = before {
        scribe.set("x", before);
    }
    paragraph(&told)
}
