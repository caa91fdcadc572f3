//! The `arithmetic` register: sums worked out step by step, and word problems with the world's own numbers.

use super::entity::{Entity, Value, count, pennies};
use super::scribe::{Scribe, capitalise};

type Problem = fn(&mut Scribe) -> String;

const SUMS: [Problem; 5] = [addition, subtraction, multiplication, division, counting];
const STORIES: [Problem; 6] = [market, shopping, ages, journey, sharing, savings];

/// Two to five problems of different kinds: sums, or word problems about people of one town.
pub(super) fn write(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let town = scribe.random.below(world.towns.len());
    let kinds: &[Problem] = if scribe.random.chance(45) { &SUMS } else { &STORIES };
    let kinds = scribe.random.shuffled(kinds);
    let mut text = String::new();
    for problem in kinds.iter().cycle() {
        if text.split_whitespace().count() >= 80 {
            break;
        }
        let people: Vec<usize> = world.people_of(town).collect();
        let person = *scribe.random.pick(&people);
        scribe.set("p", Entity::Person(person));
        text += &(problem(scribe) + "\n\n");
    }
    text.trim_end().to_owned() + "\n"
}

/// A number of one to three digits, mostly two.
fn operand(scribe: &mut Scribe) -> i64 {
    match scribe.random.below(10) {
        0..2 => scribe.random.between(2, 9),
        2..7 => scribe.random.between(10, 99),
        _ => scribe.random.between(100, 499),
    }
}

const PLACES: [&str; 4] = ["ones", "tens", "hundreds", "thousands"];

fn digit(n: i64, place: usize) -> i64 {
    n / 10_i64.pow(place as u32) % 10
}

fn addition(scribe: &mut Scribe) -> String {
    let (a, b) = (operand(scribe), operand(scribe));
    let mut text = format!("{} {a} + {b}.\n", scribe.fill("[Add|Work out|Find]"));
    let places = a.max(b).to_string().len();
    let mut carry = 0;
    for (place, name) in PLACES.iter().enumerate().take(places) {
        let (x, y) = (digit(a, place), digit(b, place));
        let sum = x + y + carry;
        let carried = if carry > 0 { " + 1" } else { "" };
        text += &format!("{name}: {x} + {y}{carried} = {sum}");
        text += &match (sum >= 10, place + 1 < places) {
            (true, true) => format!(", write {} and carry 1.\n", sum % 10),
            (true, false) => ".\n".into(),
            (false, _) => format!(", write {sum}.\n"),
        };
        carry = sum / 10;
    }
    text += &format!("so {a} + {b} = {}.", a + b);
    if scribe.random.chance(50) {
        text += &format!(" check: {} - {b} = {a}.", a + b);
    }
    capitalise(&text)
}

fn subtraction(scribe: &mut Scribe) -> String {
    let (x, y) = (operand(scribe), operand(scribe));
    let (a, b) = (x.max(y), x.min(y));
    let mut text = format!("{} {b} from {a}.\n", scribe.fill("[Take|Subtract]"));
    let mut borrow = 0;
    for (place, name) in PLACES.iter().enumerate().take(a.to_string().len()) {
        let (x, y) = (digit(a, place) - borrow, digit(b, place));
        borrow = i64::from(x < y);
        let owed =
            if x < digit(a, place) { format!("{} - 1 = {x}, ", digit(a, place)) } else { String::new() };
        text += &if borrow == 1 {
            format!("{name}: {owed}{x} is less than {y}, so borrow: {} - {y} = {}.\n", x + 10, x + 10 - y)
        } else {
            format!("{name}: {owed}{x} - {y} = {}.\n", x - y)
        };
    }
    text += &format!("so {a} - {b} = {}.", a - b);
    if scribe.random.chance(50) {
        text += &format!(" check: {} + {b} = {a}.", a - b);
    }
    capitalise(&text)
}

fn multiplication(scribe: &mut Scribe) -> String {
    let (a, b) = (scribe.random.between(11, 99), scribe.random.between(2, 9));
    let (tens, ones) = (a / 10 * 10, a % 10);
    let mut text = scribe.fill("[Multiply|Work out]") + &format!(" {a} x {b}.\n");
    if ones > 0 {
        text +=
            &format!("{a} is {tens} + {ones}.\n{tens} x {b} = {}.\n{ones} x {b} = {}.\n", tens * b, ones * b);
        text += &format!("{} + {} = {}.\n", tens * b, ones * b, a * b);
    }
    text += &format!("So {a} x {b} = {}.", a * b);
    text
}

fn division(scribe: &mut Scribe) -> String {
    let (divisor, quotient) = (scribe.random.between(2, 9), scribe.random.between(3, 15));
    let rest = scribe.random.between(0, divisor - 1);
    let n = divisor * quotient + rest;
    let mut text = format!("Divide {n} by {divisor}.\n");
    text += &format!(
        "{quotient} x {divisor} = {}, and {} x {divisor} = {}, which is too much.\n",
        quotient * divisor,
        quotient + 1,
        (quotient + 1) * divisor
    );
    text += &match rest {
        0 => format!("Nothing is left over.\nSo {n} divided by {divisor} is {quotient}."),
        _ => format!(
            "{n} - {} = {rest}.\nSo {n} divided by {divisor} is {quotient}, and {rest} is left over.",
            quotient * divisor
        ),
    };
    text
}

fn counting(scribe: &mut Scribe) -> String {
    let (step, terms) = (scribe.random.between(2, 12), scribe.random.between(6, 9));
    let start = if scribe.random.chance(50) { step } else { scribe.random.between(1, 30) };
    let mut row: Vec<i64> = (0..terms).map(|i| start + i * step).collect();
    let down = scribe.random.chance(30);
    if down {
        row.reverse();
    }
    let (way, last) = (if down { "down" } else { "up" }, row[row.len() - 1]);
    let row: Vec<String> = row.iter().map(i64::to_string).collect();
    format!(
        "Count {way} by {step}: {}.\nThat is {terms} numbers, and the last one is {last}.",
        row.join(", ")
    )
}

/// The price of what `p` sells, and its words for one and many.
fn goods(scribe: &Scribe) -> (i64, &'static str, &'static str) {
    let Some(Value::Entity(Entity::Trade(trade))) = scribe.value("p.trade") else { return (1, "", "") };
    let trade = &scribe.world.trades[trade];
    (trade.price, trade.words.good, trade.words.goods)
}

fn market(scribe: &mut Scribe) -> String {
    let (price, good, goods) = goods(scribe);
    let brought = scribe.random.between(8, 15);
    scribe.set("stock", count(brought, good, goods));
    let mut text = scribe.say(
        "{p} the {p.trade} [took|brought|carried] {stock} to the market of {p.town}. \
         [{a p.trade.good} costs {p.trade.cost}|the price of {a p.trade.good} is {p.trade.cost}].",
    );
    let (mut left, mut money) = (brought, 0);
    for when in ["in the morning", "at noon", "in the evening"] {
        let sold = scribe.random.between(1, left.min(4));
        scribe.set("when", when);
        scribe.set("sold", sold);
        text += &format!(" {}.", scribe.say("[{when} {p.he} sold {w sold}|{p.he} sold {w sold} {when}]"));
        let paid = sold * price;
        text += &format!(" {sold} x {price} = {}.", pennies(paid));
        if money > 0 {
            text += &format!(" {money} + {paid} = {}.", pennies(money + paid));
        }
        text += &format!(" {left} - {sold} = {} left.", left - sold);
        left -= sold;
        money += sold * price;
        if left == 0 {
            break;
        }
    }
    scribe.set("left", count(left, good, goods));
    scribe.set("money", pennies(money));
    text += &scribe.say("\nhow much did {p} earn? {p.he} earned {money}");
    if left > 0 { text + &scribe.fill(" and went home with {left}.") } else { text + " and sold everything." }
}

fn shopping(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let all: Vec<usize> = (0..world.trades.len()).filter(|&i| world.trades[i].price < 10).collect();
    let bought = scribe.random.some(&all, 2);
    let (first, second) = (&world.trades[bought[0]], &world.trades[bought[1]]);
    let (n, m) = (scribe.random.between(2, 5), scribe.random.between(2, 4));
    let (a, b) = (n * first.price, m * second.price);
    let purse = ((a + b) / 10 + 1) * 10;
    scribe.set("first", count(n, first.words.good, first.words.goods));
    scribe.set("second", count(m, second.words.good, second.words.goods));
    scribe.set("purse", pennies(purse));
    let mut text =
        scribe.say("{p} [has|goes to the market with] {purse} and [wants|buys] {first} and {second}.");
    for (n, trade) in [(n, first), (m, second)] {
        scribe.set("t", Entity::Trade(bought[usize::from(trade == second)]));
        text += " ";
        text += &scribe.say("{a t.good} costs {t.cost}");
        text += &format!(
            ", so {} cost {n} x {} = {}.",
            count(n, trade.words.good, trade.words.goods),
            trade.price,
            pennies(n * trade.price)
        );
    }
    text += &format!(" Together that is {a} + {b} = {}.", pennies(a + b));
    text += &format!(" {purse} - {} = {}.", a + b, purse - a - b);
    scribe.set("rest", pennies(purse - a - b));
    text + &scribe.say("\n[how much is left|how much does {p} keep]? {p} keeps {rest}.")
}

fn ages(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let Some(Value::Entity(Entity::Person(p))) = scribe.value("p") else { return String::new() };
    let near: Vec<usize> = world.people_of(world.people[p].town).filter(|&i| i != p).collect();
    let q = *scribe.random.pick(&near);
    scribe.set("q", Entity::Person(q));
    let (old, young) = if world.people[p].age >= world.people[q].age { (p, q) } else { (q, p) };
    let (a, b) = (world.people[old].age, world.people[young].age);
    let (old, young) = (world.people[old].name, world.people[young].name);
    let years = scribe.random.between(2, 9);
    let mut text = scribe.say("{p} is {p.age} years old, and {q} is {q.age}.");
    text += &if a == b {
        format!(" They are both {a}.")
    } else {
        format!(" {a} - {b} = {}, so {old} is {} older than {young}.", a - b, count(a - b, "year", "years"))
    };
    text += &format!("\nHow old will they be in {years} years?");
    text + &format!(
        " {old} will be {a} + {years} = {}, and {young} will be {b} + {years} = {}. Together they will be {} + {} = {}.",
        a + years,
        b + years,
        a + years,
        b + years,
        a + b + 2 * years
    )
}

fn journey(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let Some(Value::Entity(Entity::Town(home))) = scribe.value("p.town") else { return String::new() };
    let mut text = scribe.say("{p} [walks|travels|rides] from {p.town}");
    let (mut here, mut total, mut sums, mut before) = (home, 0, String::new(), home);
    for leg in 0..2 {
        let steps: Vec<(usize, i64)> = [(-1, 0), (1, 0), (0, -1), (0, 1)]
            .into_iter()
            .filter_map(|(south, east)| world.neighbour(here, south, east))
            .filter(|(town, _)| *town != before)
            .collect();
        let (next, miles) = *scribe.random.pick(&steps);
        text += [" to ", ", and then to "][leg];
        text += world.towns[next].name;
        let (from, to) = (world.towns[here].name, world.towns[next].name);
        sums += &format!(" From {from} to {to} it is {miles} miles.");
        if leg == 1 {
            sums += &format!(" {total} + {miles} = {}.", total + miles);
        }
        total += miles;
        (before, here) = (here, next);
    }
    text += &format!(
        ".{sums}\nHow far is it there and back? It is {total} miles there, and {total} + {total} = {} miles there and back.",
        2 * total
    );
    if total % 3 == 0 {
        text += &format!(" At 3 miles an hour that takes {} / 3 = {} hours.", 2 * total, 2 * total / 3);
    }
    text
}

fn sharing(scribe: &mut Scribe) -> String {
    let (friends, each) = (scribe.random.between(2, 6), scribe.random.between(3, 9));
    let rest = scribe.random.between(0, friends - 1);
    let all = friends * each + rest;
    let fruit = scribe.fill("[plums|apples|nuts|pears]");
    scribe.set("fruit", fruit);
    scribe.set("all", all);
    scribe.set("n", friends);
    let mut text = scribe.say("{p} has {all} {fruit} and shares them among {w n} children[ of {p.town}|].");
    text += &format!(" {each} x {friends} = {}.", each * friends);
    text += &scribe.say(&format!("\nhow many {{fruit}} does each child get? each child gets {each}"));
    text + &match rest {
        0 => ", and nothing is left.".into(),
        1 => format!(", and {all} - {} = 1 is left.", each * friends),
        _ => format!(", and {all} - {} = {rest} are left.", each * friends),
    }
}

fn savings(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let saved = scribe.random.between(2, 4);
    let all: Vec<usize> = (0..world.trades.len()).filter(|&i| world.trades[i].price >= 7).collect();
    let wanted = *scribe.random.pick(&all);
    let price = world.trades[wanted].price;
    scribe.set("g", Entity::Trade(wanted));
    scribe.set("saved", pennies(saved));
    let mut text = scribe
        .say("{p} saves {saved} [each|every] day and wants to buy {a g.good}. {a g.good} costs {g.cost}.");
    let (mut money, mut day) = (0, 0);
    while money < price {
        day += 1;
        money += saved;
        text += &format!(" Day {day}: {money}.");
    }
    text += &format!(
        " Now {money} is {}.",
        if money > price { format!("more than {price}") } else { "enough".into() }
    );
    text + &scribe.say(&format!(
        "\non which day can {{p}} buy {{a g.good}}? on day {day}, and {money} - {price} = {} left.",
        pennies_left(money - price)
    ))
}

fn pennies_left(n: i64) -> String {
    format!("{n} {}", if n == 1 { "penny is" } else { "pennies are" })
}
