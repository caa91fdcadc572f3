//! Queries by path, such as `spouse.town.river`: what templates, facts and questions read the world through.

use super::world::World;

/// Something that a document can be about: a kind and an index into the list of that kind in [`World`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// Of [`World::people`].
    Person(usize),
    /// Of [`World::towns`].
    Town(usize),
    /// Of [`World::rivers`].
    River(usize),
    /// Of [`World::trades`].
    Trade(usize),
    /// Of [`World::animals`].
    Animal(usize),
    /// Of [`World::foods`].
    Food(usize),
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Another entity, which paths may follow further.
    Entity(Entity),
    /// A word or a phrase.
    Text(String),
    /// A count, a year, an age, miles or pennies.
    Number(i64),
}

impl From<Entity> for Value {
    fn from(entity: Entity) -> Self {
        Value::Entity(entity)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl World {
    /// All entities, kind by kind.
    pub fn entities(&self) -> Vec<Entity> {
        let mut all = Vec::new();
        all.extend((0..self.people.len()).map(Entity::Person));
        all.extend((0..self.towns.len()).map(Entity::Town));
        all.extend((0..self.rivers.len()).map(Entity::River));
        all.extend((0..self.trades.len()).map(Entity::Trade));
        all.extend((0..self.animals.len()).map(Entity::Animal));
        all.extend((0..self.foods.len()).map(Entity::Food));
        all
    }

    /// What an entity is called inside a sentence: "Orlin", "the Sarn", "baker", "onion soup".
    pub fn name(&self, entity: Entity) -> String {
        match entity {
            Entity::Person(i) => self.people[i].name.into(),
            Entity::Town(i) => self.towns[i].name.into(),
            Entity::River(i) => format!("the {}", self.rivers[i].name),
            Entity::Trade(i) => self.trades[i].words.name.into(),
            Entity::Animal(i) => self.animals[i].name.into(),
            Entity::Food(i) => self.foods[i].name.into(),
        }
    }

    /// How a value reads in a sentence.
    pub fn text(&self, value: &Value) -> String {
        match value {
            Value::Entity(entity) => self.name(*entity),
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
        }
    }

    /// Follows a path of fields from an entity; `None` where a field does not exist or does not apply.
    pub fn follow(&self, entity: Entity, path: &str) -> Option<Value> {
        path.split('.').try_fold(Value::Entity(entity), |value, field| match value {
            Value::Entity(entity) => self.field(entity, field),
            Value::Text(_) | Value::Number(_) => None,
        })
    }

    fn field(&self, entity: Entity, field: &str) -> Option<Value> {
        match entity {
            Entity::Person(i) => self.person_field(i, field),
            Entity::Town(i) => self.town_field(i, field),
            Entity::River(i) => self.river_field(i, field),
            Entity::Trade(i) => self.trade_field(i, field),
            Entity::Animal(i) => {
                let animal = self.animals[i];
                let text = match field {
                    "plural" => animal.plural,
                    "home" => animal.home,
                    "diet" => animal.diet,
                    "habit" => animal.habit,
                    "young" => animal.young,
                    _ => return None,
                };
                Some(text.into())
            }
            Entity::Food(i) => {
                let food = self.foods[i];
                let text = match field {
                    "first" => food.parts[0],
                    "second" => food.parts[1],
                    "third" => food.parts[2],
                    "cooked" => food.cooked,
                    "town" => return Some(Entity::Town(i).into()),
                    _ => return None,
                };
                Some(text.into())
            }
        }
    }

    fn person_field(&self, i: usize, field: &str) -> Option<Value> {
        let person = &self.people[i];
        let gendered = |woman: &str, man: &str| Some(Value::from(if person.is_woman { woman } else { man }));
        let somebody = |i| Value::Entity(Entity::Person(i));
        match field {
            "he" => gendered("she", "he"),
            "him" => gendered("her", "him"),
            "his" => gendered("her", "his"),
            "himself" => gendered("herself", "himself"),
            "man" => gendered("woman", "man"),
            "wife" => gendered("wife", "husband"),
            "son" => gendered("daughter", "son"),
            "town" => Some(Entity::Town(person.town).into()),
            "trade" => Some(Entity::Trade(person.trade).into()),
            "food" => Some(Entity::Food(person.food).into()),
            "friend" => Some(somebody(person.friend)),
            "age" => Some(person.age.into()),
            "thing" => Some(format!("{} {}", person.thing.0, person.thing.1).into()),
            "noun" => Some(person.thing.1.into()),
            "spouse" => person.spouse.map(somebody),
            "child" => person.child.map(somebody),
            "mother" => person.parents.map(|parents| somebody(parents[0])),
            "father" => person.parents.map(|parents| somebody(parents[1])),
            "teacher" => person.teacher.map(somebody),
            "pet" => person.pet.map(|(animal, _)| Entity::Animal(animal).into()),
            "petname" => person.pet.map(|(_, name)| name.into()),
            _ => None,
        }
    }

    fn town_field(&self, i: usize, field: &str) -> Option<Value> {
        let town = &self.towns[i];
        let towards = |south, east| self.neighbour(i, south, east);
        let next = |step: Option<(usize, i64)>| step.map(|(town, _)| Entity::Town(town).into());
        let miles = |step: Option<(usize, i64)>| step.map(|(_, miles)| miles.into());
        match field {
            "river" => Some(Entity::River(self.river_of(i)).into()),
            "craft" => Some(Entity::Trade(town.craft).into()),
            "dish" => Some(Entity::Food(i).into()),
            "land" => Some(super::lexicon::LANDSCAPES[i / super::world::COLUMNS].into()),
            "founded" => Some(town.founded.into()),
            "population" => Some(town.population.into()),
            "landmark" => Some(town.landmark.into()),
            "day" => Some(town.market_day.into()),
            "month" => Some(town.festival.0.into()),
            "festival" => Some(town.festival.1.into()),
            "north" => next(towards(-1, 0)),
            "south" => next(towards(1, 0)),
            "west" => next(towards(0, -1)),
            "east" => next(towards(0, 1)),
            "north_miles" => miles(towards(-1, 0)),
            "south_miles" => miles(towards(1, 0)),
            "west_miles" => miles(towards(0, -1)),
            "east_miles" => miles(towards(0, 1)),
            _ => None,
        }
    }

    fn river_field(&self, i: usize, field: &str) -> Option<Value> {
        let river = &self.rivers[i];
        match field {
            "bare" => Some(river.name.into()),
            "look" => Some(river.look.into()),
            "fish" => Some(river.fish.into()),
            _ => {
                let row = ["first", "second", "third", "last"].iter().position(|name| *name == field)?;
                Some(Entity::Town(self.towns_on(i)[row]).into())
            }
        }
    }

    fn trade_field(&self, i: usize, field: &str) -> Option<Value> {
        let Self { trades, people, .. } = self;
        let words = trades[i].words;
        match field {
            "good" => Some(words.good.into()),
            "goods" => Some(words.goods.into()),
            "ware" => Some(words.ware.into()),
            "make" => Some(words.verb[0].into()),
            "makes" => Some(words.verb[1].into()),
            "made" => Some(words.verb[2].into()),
            "place" => Some(words.place.into()),
            "tool" => Some(words.tool.into()),
            "stuff" => Some(words.stuff.into()),
            "price" => Some(trades[i].price.into()),
            "cost" => Some(pennies(trades[i].price).into()),
            "somebody" => people.iter().position(|p| p.trade == i).map(|p| Entity::Person(p).into()),
            _ => None,
        }
    }
}

/// "1 penny", "5 pennies".
pub fn pennies(n: i64) -> String {
    count(n, "penny", "pennies")
}

/// "1 bowl", "5 bowls".
pub fn count(n: i64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A phrase with its indefinite article: "a bowl", "an old hat".
pub fn with_article(phrase: &str) -> String {
    let vowel = phrase.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    format!("{} {phrase}", if vowel { "an" } else { "a" })
}

/// A number in words up to twelve, in digits above.
pub fn in_words(n: i64) -> String {
    const WORDS: [&str; 13] = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve",
    ];
    usize::try_from(n).ok().and_then(|n| WORDS.get(n)).map_or_else(|| n.to_string(), |word| (*word).into())
}

/// "a, b and c".
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
