//! The `code` register: small programs about the world, each followed by the output that it has when it is run.

use super::entity::{Entity, in_words};
use super::interpreter::run;
use super::scribe::Scribe;

/// No program of this register comes near this many steps.
const MAX_STEPS: usize = 10_000;

type Program = fn(&mut Scribe) -> String;

const PROGRAMS: [Program; 18] = [
    earnings,
    stock,
    oldest,
    older_than,
    basket,
    stairs,
    even_and_odd,
    river_trip,
    greetings,
    times_table,
    letters,
    find,
    count_down,
    divisor,
    trades,
    share,
    backwards,
    discount,
];

/// Two or three programs with their outputs; the second is often the first one again about somebody else.
pub(super) fn write(scribe: &mut Scribe) -> String {
    let mut text = String::new();
    let mut program = *scribe.random.pick(&PROGRAMS);
    let mut programs = 0;
    while programs < 2 || text.split_whitespace().count() < 80 {
        let person = scribe.random.below(scribe.world.people.len());
        scribe.set("p", Entity::Person(person));
        let source = program(scribe);
        // Every program here is tested to run; were one not to, its error would stand in the text.
        let output = run(&source, MAX_STEPS).unwrap_or_else(|error| format!("{error}\n"));
        text += &format!("{source}\nOutput:\n{output}");
        if scribe.random.chance(50) {
            text += &remark(scribe, &output);
        }
        text.push('\n');
        programs += 1;
        if scribe.random.chance(40) {
            program = *scribe.random.pick(&PROGRAMS);
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// A sentence about the output, which a reader can check.
fn remark(scribe: &mut Scribe, output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let Some(last) = lines.last() else { return String::new() };
    match lines.len() {
        1 => format!("\nThe program prints one line: {last}\n"),
        n if scribe.random.chance(50) => format!("\nThe program prints {} lines.\n", in_words(n as i64)),
        _ => format!("\nThe last line is: {last}\n"),
    }
}

/// A comment line from a template.
fn comment(scribe: &mut Scribe, template: &str) -> String {
    format!("# {}\n", scribe.say(template))
}

fn price(scribe: &Scribe) -> (i64, String) {
    let Some(super::Value::Entity(Entity::Person(person))) = scribe.value("p") else {
        return (1, String::new());
    };
    let trade = &scribe.world.trades[scribe.world.people[person].trade];
    (trade.price, trade.words.goods.into())
}

/// A Python list of strings.
fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

fn numbers(items: &[i64]) -> String {
    let items: Vec<String> = items.iter().map(i64::to_string).collect();
    format!("[{}]", items.join(", "))
}

/// A few small numbers.
fn few(scribe: &mut Scribe, low: i64, high: i64) -> Vec<i64> {
    (0..scribe.random.between(3, 5)).map(|_| scribe.random.between(low, high)).collect()
}

/// Three or four people of the town of `p`, and the town's name.
fn townspeople(scribe: &mut Scribe) -> (Vec<usize>, &'static str) {
    let world = scribe.world;
    let Some(super::Value::Entity(Entity::Town(town))) = scribe.value("p.town") else {
        return (Vec::new(), "");
    };
    let people: Vec<usize> = world.people_of(town).collect();
    let count = scribe.random.between(3, 4) as usize;
    (scribe.random.some(&people, count), world.towns[town].name)
}

fn names(scribe: &Scribe, people: &[usize]) -> String {
    quoted(people.iter().map(|&i| scribe.world.people[i].name))
}

fn earnings(scribe: &mut Scribe) -> String {
    let head = comment(
        scribe,
        "[{p} the {p.trade} sells {p.trade.goods} at the market|what {p} the {p.trade} earns with {p.trade.goods}].",
    );
    let (price, _) = price(scribe);
    let sold = numbers(&few(scribe, 1, 6));
    let total = scribe.fill("[total|money|earned]");
    let name = scribe.fill("{p}");
    format!(
        "{head}price = {price}\nsold = {sold}\n{total} = 0\nfor count in sold:\n    {total} = {total} + count * price\n    \
         print(count, \"times\", price, \"makes\", {total}, \"so far\")\nprint(\"{name} has\", {total}, \"pennies\")\n"
    )
}

fn stock(scribe: &mut Scribe) -> String {
    let each = scribe.random.between(2, 4);
    scribe.set("n", each);
    let head =
        comment(scribe, "{p} {p.trade.makes} {p.trade.goods} and sells {w n} of them [each|every] hour.");
    let stock = scribe.random.between(9, 16);
    let goods = price(scribe).1;
    format!(
        "{head}stock = {stock}\nhour = 0\nwhile stock >= {each}:\n    stock = stock - {each}\n    hour = hour + 1\n    \
         print(\"hour\", hour, \"stock\", stock)\nprint(stock, \"{goods} are left\")\n"
    )
}

fn ages(scribe: &Scribe, people: &[usize]) -> String {
    let ages: Vec<i64> = people.iter().map(|&i| scribe.world.people[i].age).collect();
    numbers(&ages)
}

fn oldest(scribe: &mut Scribe) -> String {
    let (people, town) = townspeople(scribe);
    let (names, ages) = (names(scribe, &people), ages(scribe, &people));
    let (word, sign) = if scribe.random.chance(50) { ("oldest", ">") } else { ("youngest", "<") };
    format!(
        "# Who is the {word} of these people of {town}?\nnames = {names}\nages = {ages}\nbest = 0\n\
         for i in range(len(names)):\n    if ages[i] {sign} ages[best]:\n        best = i\n    \
         print(names[i], ages[i], \"{word} so far:\", names[best])\nprint(\"The {word} is\", names[best])\n"
    )
}

fn older_than(scribe: &mut Scribe) -> String {
    let (people, town) = townspeople(scribe);
    let (names, ages) = (names(scribe, &people), ages(scribe, &people));
    let limit = scribe.random.between(3, 5) * 10;
    format!(
        "# Who in {town} is older than {limit}?\nnames = {names}\nages = {ages}\nfound = []\n\
         for i in range(len(names)):\n    if ages[i] > {limit}:\n        found.append(names[i])\n\
         print(found)\nprint(len(found), \"of\", len(names))\n"
    )
}

fn basket(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let head = comment(scribe, "{p} buys [three things|something] at the market of {p.town}.");
    let all: Vec<usize> = (0..world.trades.len()).collect();
    let goods = scribe.random.some(&all, 4);
    let prices: Vec<String> = goods
        .iter()
        .map(|&i| format!("\"{}\": {}", world.trades[i].words.good, world.trades[i].price))
        .collect();
    let bought = scribe.random.some(&goods, 3);
    let bought = quoted(bought.iter().map(|&i| world.trades[i].words.good));
    let prices = prices.join(", ");
    format!(
        "{head}prices = {{{prices}}}\nbasket = {bought}\ntotal = 0\nfor thing in basket:\n    \
         total = total + prices[thing]\n    print(thing, prices[thing], total)\nprint(\"Total:\", total)\n"
    )
}

fn stairs(scribe: &mut Scribe) -> String {
    let head = comment(scribe, "[{p} draws stairs in the sand|stairs for {p}|stairs that grow by one].");
    let (mark, height) = (scribe.fill("[*|o|#]"), scribe.random.between(3, 6));
    format!(
        "{head}height = {height}\nstep = 1\nwhile step <= height:\n    print(step, \"{mark}\" * step)\n    step = step + 1\n"
    )
}

fn even_and_odd(scribe: &mut Scribe) -> String {
    let start = scribe.random.between(1, 20);
    let end = start + scribe.random.between(4, 6);
    format!(
        "# Even and odd numbers from {start} to {}.\neven = 0\nfor n in range({start}, {end}):\n    if n % 2 == 0:\n        \
         print(n, \"is even\")\n        even = even + n\n    else:\n        print(n, \"is odd\")\n\
         print(\"The even numbers make\", even)\n",
        end - 1
    )
}

fn river_trip(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let river = scribe.random.below(world.rivers.len());
    let course = world.towns_on(river);
    let (first, towns) =
        (world.towns[course[0]].name, quoted(course[1..].iter().map(|&i| world.towns[i].name)));
    let miles: Vec<i64> = course.iter().filter_map(|&i| world.towns[i].miles_south).collect();
    let name = world.rivers[river].name;
    let miles = numbers(&miles);
    let sum = scribe.fill("[way|distance|walked]");
    format!(
        "# From {first} down the {name} to the sea.\ntowns = {towns}\nmiles = {miles}\n{sum} = 0\nfor i in range(3):\n    \
         {sum} = {sum} + miles[i]\n    print(towns[i], \"after\", {sum}, \"miles\")\n"
    )
}

fn greetings(scribe: &mut Scribe) -> String {
    let (people, town) = townspeople(scribe);
    let names = names(scribe, &people);
    let word = scribe.fill("[Hello|Good morning|Welcome]");
    format!(
        "# Greet everybody in {town}.\ndef greet(name):\n    return \"{word}, \" + name + \"!\"\n\n\
         for name in {names}:\n    print(greet(name))\n"
    )
}

fn times_table(scribe: &mut Scribe) -> String {
    let (n, rows) = (scribe.random.between(2, 12), scribe.random.between(4, 7));
    format!(
        "# The times table of {n}.\ndef times(a, b):\n    return a * b\n\nfor i in range(1, {}):\n    \
         print(i, \"x\", {n}, \"=\", times(i, {n}))\n",
        rows + 1
    )
}

/// A lower-case word of the world.
fn word(scribe: &mut Scribe) -> String {
    let path = *scribe.random.pick(&["p", "p.town", "p.trade.stuff", "p.town.river.bare"]);
    let value = scribe.value(path).map(|value| scribe.world.text(&value)).unwrap_or_default();
    value.to_lowercase()
}

fn letters(scribe: &mut Scribe) -> String {
    let word = word(scribe);
    let letters: Vec<char> = word.chars().filter(|c| c.is_alphabetic()).collect();
    let letter = *scribe.random.pick(&letters);
    format!(
        "# How often is the letter {letter} in {word}?\ncount = 0\nfor letter in \"{word}\":\n    \
         if letter == \"{letter}\":\n        count = count + 1\n    print(letter, count)\n"
    )
}

fn find(scribe: &mut Scribe) -> String {
    let (people, _) = townspeople(scribe);
    let names = names(scribe, &people);
    let wanted = scribe.world.people[*scribe.random.pick(&people)].name;
    format!(
        "# Find {wanted} in a list.\nnames = {names}\nplace = 0\nwhile names[place] != \"{wanted}\":\n    \
         print(names[place], \"is not {wanted}\")\n    place = place + 1\nprint(\"{wanted} is at place\", place)\n"
    )
}

fn count_down(scribe: &mut Scribe) -> String {
    let (n, name) = (scribe.random.between(4, 7), scribe.fill("{p}"));
    let (word, sign) = if scribe.random.chance(50) { ("sum", "+") } else { ("product", "*") };
    let start = i64::from(sign == "*");
    format!(
        "# {name} wants the {word} of all numbers from 1 to {n}.\ndef {word}(n):\n    if n == {start}:\n        return {start}\n    \
         return n {sign} {word}(n - 1)\n\nfor n in range(1, {}):\n    print(n, {word}(n))\n",
        n + 1
    )
}

fn divisor(scribe: &mut Scribe) -> String {
    let common = scribe.random.between(2, 6);
    let (a, b) = (common * scribe.random.between(2, 9), common * scribe.random.between(2, 9));
    format!(
        "# The greatest number that divides both {a} and {b}.\na = {a}\nb = {b}\nwhile b > 0:\n    print(a, b, a % b)\n    \
         rest = a % b\n    a = b\n    b = rest\nprint(\"It is\", a)\n"
    )
}

fn trades(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let (people, town) = townspeople(scribe);
    let entries: Vec<String> = people
        .iter()
        .map(|&i| {
            format!("\"{}\": \"{}\"", world.people[i].name, world.trades[world.people[i].trade].words.name)
        })
        .collect();
    let entries = entries.join(", ");
    let wanted = world.people[*scribe.random.pick(&people)].name;
    format!(
        "# Trades in {town}.\ntrade = {{{entries}}}\nfor name in trade:\n    print(name, \"is a\", trade[name])\n\
         print(\"Ask\", \"{wanted}\", \"the\", trade[\"{wanted}\"])\n"
    )
}

fn share(scribe: &mut Scribe) -> String {
    let head = comment(scribe, "{p} shares [plums|nuts|apples] [fairly|with friends].");
    let friends = scribe.random.between(2, 5);
    let counts = numbers(&few(scribe, 6, 24));
    format!(
        "{head}def share(things, friends):\n    return things // friends\n\nfriends = {friends}\nfor things in {counts}:\n    \
         each = share(things, friends)\n    print(things, \"things, each gets\", each, \"and\", things - each * friends, \"are left\")\n"
    )
}

fn backwards(scribe: &mut Scribe) -> String {
    let word = word(scribe);
    format!(
        "# The word {word} backwards.\nresult = \"\"\nfor letter in \"{word}\":\n    result = letter + result\n    \
         print(result)\n"
    )
}

fn discount(scribe: &mut Scribe) -> String {
    let head = comment(
        scribe,
        "[{p} makes {p.trade.goods} cheaper for those who buy many|who buys many {p.trade.goods} from {p} saves two pennies].",
    );
    let (price, goods) = price(scribe);
    let many = scribe.random.between(3, 5);
    let counts = numbers(&few(scribe, 1, 7));
    format!(
        "{head}def cost(count):\n    if count >= {many}:\n        return count * {price} - 2\n    return count * {price}\n\n\
         for count in {counts}:\n    print(count, \"{goods} cost\", cost(count))\n"
    )
}
