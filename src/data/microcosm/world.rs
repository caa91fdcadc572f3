//! The world as plain data: who and what there is, made once from a seed.

use super::lexicon::{
    ANIMALS, AnimalWords, DAYS, FESTIVALS, FOODS, FoodWords, LANDMARKS, LANDS, LANDSCAPES, LOOKS, MEN, PETS,
    RIVER_FISH, RIVER_LOOKS, RIVERS, THINGS, TOWNS, TRADES, TradeWords, WOMEN,
};
use super::random::Random;

/// Rivers flow from north to south through one column of towns each.
pub const COLUMNS: usize = 3;
/// Rows of towns: hills, forest, plain, sea.
pub const ROWS: usize = LANDSCAPES.len();
/// Each town has a couple, their grown child, and one person on their own.
pub const HOUSEHOLD: usize = 4;

/// Everything that is true in one microcosm. References between entries are indices into these lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// The name of the whole land: "the Green Marches".
    pub land: &'static str,
    /// The towns, row by row from north to south, each row from west to east.
    pub towns: Vec<Town>,
    /// The rivers from west to east.
    pub rivers: Vec<River>,
    /// The people, [`HOUSEHOLD`] in each town, in the order of the towns.
    pub people: Vec<Person>,
    /// The trades.
    pub trades: Vec<Trade>,
    /// The animals, the same in all worlds.
    pub animals: Vec<&'static AnimalWords>,
    /// The dishes, one for each town, in the order of the towns.
    pub foods: Vec<&'static FoodWords>,
}

/// A town on the map of [`ROWS`] x [`COLUMNS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Town {
    /// Its name.
    pub name: &'static str,
    /// The year of its founding.
    pub founded: i64,
    /// How many people live there.
    pub population: i64,
    /// The landmark, without an article.
    pub landmark: &'static str,
    /// The weekday of the market.
    pub market_day: &'static str,
    /// The trade that it is known for; somebody in the town has it.
    pub craft: usize,
    /// The festival and its month.
    pub festival: (&'static str, &'static str),
    /// Miles to the next town in the east, if there is one.
    pub miles_east: Option<i64>,
    /// Miles to the next town in the south, if there is one.
    pub miles_south: Option<i64>,
}

/// A river through one column of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct River {
    /// Its name, without "the".
    pub name: &'static str,
    /// Two adjectives: "slow and green".
    pub look: &'static str,
    /// The fish that it is known for.
    pub fish: &'static str,
}

/// Somebody who lives in a town.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// A name that nobody else has.
    pub name: &'static str,
    /// Whether "she" or "he".
    pub is_woman: bool,
    /// The town where the person lives.
    pub town: usize,
    /// The trade.
    pub trade: usize,
    /// Years of age, 18 or more.
    pub age: i64,
    /// The husband or wife.
    pub spouse: Option<usize>,
    /// The grown child.
    pub child: Option<usize>,
    /// Mother and father.
    pub parents: Option<[usize; 2]>,
    /// Who taught the person the trade; always somebody of the same trade.
    pub teacher: Option<usize>,
    /// The best friend, who has this person as best friend too.
    pub friend: usize,
    /// The animal (index) that the person keeps, and its name.
    pub pet: Option<(usize, &'static str)>,
    /// A dear possession: adjective and noun.
    pub thing: (&'static str, &'static str),
    /// The favourite dish.
    pub food: usize,
}

/// A trade as this world knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    /// The words for it.
    pub words: &'static TradeWords,
    /// The price of one good in pennies, the same in all towns.
    pub price: i64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new([seed, u64::MAX, 0]);
        let r = &mut random;
        let trades: Vec<Trade> =
            TRADES.iter().map(|words| Trade { words, price: words.price + r.between(0, 1) }).collect();
        let looks = r.shuffled(&RIVER_LOOKS);
        let fish = r.shuffled(&RIVER_FISH);
        let rivers = r.shuffled(&RIVERS)[..COLUMNS]
            .iter()
            .zip(looks.into_iter().zip(fish))
            .map(|(name, (look, fish))| River { name, look, fish })
            .collect();
        let people = people(r);
        let towns = towns(r, &people);
        let foods = r.shuffled(&FOODS.each_ref());
        World {
            land: r.pick::<&str>(&LANDS),
            towns,
            rivers,
            people,
            trades,
            animals: ANIMALS.iter().collect(),
            foods,
        }
    }

    /// The river (index) through a town.
    pub fn river_of(&self, town: usize) -> usize {
        town % COLUMNS
    }

    /// The towns on a river, from the hills to the sea.
    pub fn towns_on(&self, river: usize) -> [usize; ROWS] {
        std::array::from_fn(|row| row * COLUMNS + river)
    }

    /// The neighbour of a town one step on the map (rows to the south, columns to the east), and the miles.
    pub fn neighbour(&self, town: usize, south: isize, east: isize) -> Option<(usize, i64)> {
        let row = (town / COLUMNS).checked_add_signed(south).filter(|&row| row < ROWS)?;
        let column = (town % COLUMNS).checked_add_signed(east).filter(|&column| column < COLUMNS)?;
        let other = row * COLUMNS + column;
        let first = &self.towns[town.min(other)];
        let miles = if south != 0 { first.miles_south } else { first.miles_east };
        Some((other, miles?))
    }

    /// The people of a town.
    pub fn people_of(&self, town: usize) -> std::ops::Range<usize> {
        town * HOUSEHOLD..(town + 1) * HOUSEHOLD
    }
}

fn towns(r: &mut Random, people: &[Person]) -> Vec<Town> {
    let landmarks: Vec<_> = LANDMARKS.iter().flat_map(|row| r.shuffled(row)[..COLUMNS].to_vec()).collect();
    let festivals = r.shuffled(&FESTIVALS);
    let names = r.shuffled(&TOWNS);
    (0..ROWS * COLUMNS)
        .map(|i| Town {
            name: names[i],
            founded: r.between(12, 48) * 10,
            population: r.between(2, 12) * 100,
            landmark: landmarks[i],
            market_day: r.pick::<&str>(&DAYS),
            craft: people[i * HOUSEHOLD + r.below(HOUSEHOLD)].trade,
            festival: festivals[i],
            miles_east: (i % COLUMNS + 1 < COLUMNS).then(|| r.between(3, 9)),
            miles_south: (i / COLUMNS + 1 < ROWS).then(|| r.between(3, 9)),
        })
        .collect()
}

/// Couples and single people get their trades dealt out evenly; a child learns from one of them.
fn people(r: &mut Random) -> Vec<Person> {
    let towns = ROWS * COLUMNS;
    let (women, men) = (r.shuffled(&WOMEN), r.shuffled(&MEN));
    let (mut women, mut men) = (women.into_iter(), men.into_iter());
    let trades: Vec<usize> = (0..TRADES.len()).collect();
    let mut dealt = Vec::new();
    while dealt.len() < towns * HOUSEHOLD {
        dealt.extend(r.shuffled(&trades));
    }
    let friends = friends(r);
    let pets = r.shuffled(&PETS);
    let tame: Vec<usize> = (0..ANIMALS.len()).filter(|&i| ANIMALS[i].tame).collect();
    let things: Vec<_> =
        THINGS.iter().flat_map(|noun| LOOKS.iter().map(move |look| (*look, *noun))).collect();
    let things = r.shuffled(&things);
    let mut people: Vec<Person> = Vec::new();
    for i in 0..towns * HOUSEHOLD {
        let (town, role) = (i / HOUSEHOLD, i % HOUSEHOLD);
        let first = town * HOUSEHOLD;
        let is_woman = role == 0 || role > 1 && r.chance(50);
        let age = match role {
            0 | 1 => r.between(42, 56),
            2 => people[first].age.min(people[first + 1].age) - r.between(20, 24),
            _ => r.between(24, 75),
        };
        people.push(Person {
            name: if is_woman { women.next() } else { men.next() }.unwrap_or_default(),
            is_woman,
            town,
            trade: dealt[i],
            age,
            spouse: (role < 2).then(|| first + 1 - role),
            child: (role < 2).then_some(first + 2),
            parents: (role == 2).then_some([first, first + 1]),
            teacher: None,
            friend: friends[i],
            pet: (i % 2 == town % 2).then(|| (*r.pick(&tame), pets[i / 2 % pets.len()])),
            thing: things[i],
            food: r.below(towns),
        });
    }
    for child in (2..people.len()).step_by(HOUSEHOLD) {
        let masters: Vec<usize> = (0..people.len()).filter(|i| i % HOUSEHOLD != 2).collect();
        let teacher = loop {
            let teacher = *r.pick(&masters);
            // Nobody learns from a neighbour, and no town has two of one trade.
            let town = people[child].town * HOUSEHOLD..(people[child].town + 1) * HOUSEHOLD;
            let new =
                town.clone().all(|i| i == child || i != teacher && people[i].trade != people[teacher].trade);
            if new && people[teacher].age > people[child].age + 5 {
                break teacher;
            }
        };
        people[child].teacher = Some(teacher);
        people[child].trade = people[teacher].trade;
    }
    people
}

/// Pairs of best friends; a shuffled list taken two by two may pair a household, so swap until none is left.
fn friends(r: &mut Random) -> Vec<usize> {
    let n = ROWS * COLUMNS * HOUSEHOLD;
    let all: Vec<usize> = (0..n).collect();
    let mut order = r.shuffled(&all);
    while let Some(pair) = (0..n).step_by(2).find(|&i| order[i] / HOUSEHOLD == order[i + 1] / HOUSEHOLD) {
        order.swap(pair, r.below(n));
    }
    let mut friends = vec![0; n];
    for pair in order.chunks_exact(2) {
        (friends[pair[0]], friends[pair[1]]) = (pair[1], pair[0]);
    }
    friends
}
