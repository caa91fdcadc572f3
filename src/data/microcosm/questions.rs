//! The `questions` register: questions with their answers, from the world or from a passage above them.

use super::entity::{Entity, Value};
use super::facts::Fact;
use super::lexicon::DAYS;
use super::scribe::Scribe;

/// One of four kinds of documents, each with several questions.
pub(super) fn write(scribe: &mut Scribe) -> String {
    match scribe.random.below(10) {
        0..3 => quiz(scribe),
        3..5 => claims(scribe),
        5..8 => passage(scribe),
        _ => traveller(scribe),
    }
}

/// A walk from one entity to the next that an answer named.
fn quiz(scribe: &mut Scribe) -> String {
    let mut text = String::new();
    let mut asked: Vec<Fact> = Vec::new();
    let mut subject = start(scribe);
    while asked.len() < 6 {
        let open: Vec<Fact> =
            scribe.world.facts_about(subject).into_iter().filter(|f| !asked.contains(f)).collect();
        if open.is_empty() {
            subject = start(scribe);
            continue;
        }
        let fact = *scribe.random.pick(&open);
        let exchange = scribe.ask(fact);
        text += &format!("Question: {}\nAnswer: {}\n\n", exchange.question, exchange.answer);
        asked.push(fact);
        match scribe.world.follow(subject, fact.relation.path) {
            Some(Value::Entity(next)) => subject = next,
            _ if scribe.random.chance(30) => subject = start(scribe),
            _ => {}
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn start(scribe: &mut Scribe) -> Entity {
    let world = scribe.world;
    if scribe.random.chance(60) {
        Entity::Person(scribe.random.below(world.people.len()))
    } else {
        *scribe.random.pick(&world.entities())
    }
}

/// Statements that are true or mix up two subjects, with a verdict.
fn claims(scribe: &mut Scribe) -> String {
    // A claim about `x` with the value of `y`, and the path that decides.
    const CLAIMS: [(&str, &str); 6] = [
        ("trade", "[is {x} {a y.trade}|does {x} earn a living as {a y.trade}]"),
        ("town", "[does {x} live in {y.town}|is {x} from {y.town}]"),
        ("food", "does {x} like {y.food} best"),
        ("thing", "does {x} always carry {a y.thing}"),
        ("trade.tool", "does {x} work with {a y.trade.tool}"),
        ("friend", "is {y.friend} the best friend of {x}"),
    ];
    let world = scribe.world;
    let mut text = String::new();
    let mut person = scribe.random.below(world.people.len());
    let mut asked: Vec<String> = Vec::new();
    while asked.len() < 6 {
        let (path, claim) = *scribe.random.pick(&CLAIMS);
        let x = Entity::Person(person);
        let other = scribe.random.below(world.people.len());
        let y = if scribe.random.chance(50) { x } else { Entity::Person(other) };
        scribe.set("y", y);
        scribe.set("x", x);
        let question = scribe.say(claim);
        if asked.contains(&question) {
            continue;
        }
        let verdict = if world.follow(x, path) == world.follow(y, path) { "Yes" } else { "No" };
        let Some(fact) = world.fact(x, path) else { continue };
        let answer = scribe.ask(fact).answer;
        text += &format!("Question: {question}?\nAnswer: {verdict}. {answer}\n\n");
        asked.push(question);
        // Staying with the same person makes the earlier answers useful.
        if scribe.random.chance(40) {
            person = world.people[person].friend;
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// A thing goes from hand to hand; the questions need the whole passage.
fn passage(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let owner = scribe.random.below(world.people.len());
    let town: Vec<usize> = world.people_of(world.people[owner].town).filter(|&i| i != owner).collect();
    let others = scribe.random.shuffled(&town);
    scribe.set("p", Entity::Person(owner));
    scribe.set("a", Entity::Person(others[0]));
    scribe.set("b", Entity::Person(others[1]));
    let day = *scribe.random.pick(&DAYS);
    scribe.set("day", day);
    let mut sentences = vec![
        "[{p} the {p.trade} had {a p.thing}|{p}, {a p.trade} in {p.town}, owned {a p.thing}|\
         in {p.town} lived {a p.trade} called {p}, who owned {a p.thing}].",
        "on {day} {p} [lent|gave] the {p.noun} to {a}[, who needed it|, because {a.he} had asked for it|].",
        "{a} [took it to|kept it in] the {a.trade.place}[, where {a.he} {a.trade.makes} {a.trade.ware}|].",
    ];
    let passed_on = scribe.random.chance(60);
    let returned = scribe.random.chance(50);
    if passed_on {
        sentences.push("[The next day|Later], {a} [handed it on to {b}|let {b} have it].");
        sentences.push("{b} put it in the {b.trade.place}[|, next to {a b.trade.tool}].");
    }
    scribe.set("z", Entity::Person(if passed_on { others[1] } else { others[0] }));
    sentences.push(match returned {
        true => "[In the end|before the week was over], {z} [brought|gave] the {p.noun} back to {p}.",
        false => "{p} [did not ask for it again|said that there was no hurry].",
    });
    let holder = if returned { "p" } else { "z" };
    let Some(Value::Entity(keeper)) = scribe.value(holder) else { return String::new() };
    scribe.set("h", keeper);
    let place = if passed_on { "b" } else { "a" };
    let Some(Value::Entity(keeper)) = scribe.value(place) else { return String::new() };
    scribe.set("k", keeper);
    let mut questions = vec![
        ("what did {p} [lend|give] away?", "{p} gave away {a p.thing}."),
        ("on which day did {a} get the {p.noun}?", "{a} got the {p.noun} on {day}."),
        ("whose {p.noun} was it[ at first|]?", "the {p.noun} belonged to {p}."),
        ("what is {a}'s trade?", "{a} is {a a.trade}."),
        ("where did {k} put the {p.noun}?", "{k} put the {p.noun} in the {k.trade.place}."),
        ("who was the first to get the {p.noun} from {p}?", "the first to get it was {a}."),
    ];
    if passed_on {
        questions.push(("who gave the {p.noun} to {b}?", "{b} got the {p.noun} from {a}."));
    }
    let mut questions = scribe.random.some(&questions, 4);
    questions.push(("who has the {p.noun} [now|in the end]?", "{h} has the {p.noun} now."));
    let mut text = scribe.tell(&sentences) + "\n";
    for (question, answer) in questions {
        text += &format!("\nQuestion: {}\nAnswer: {}\n", scribe.say(question), scribe.say(answer));
    }
    text
}

/// A stranger asks somebody in the street about the town.
fn traveller(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let local = scribe.random.below(world.people.len());
    let neighbours: Vec<usize> = world.people_of(world.people[local].town).filter(|&i| i != local).collect();
    let other = *scribe.random.pick(&neighbours);
    scribe.set("p", Entity::Person(local));
    scribe.set("q", Entity::Person(other));
    scribe.set("t", Entity::Town(world.people[local].town));
    let mut talk = vec![
        (
            "[I need|I am looking for] {a q.trade.good}. [Who sells {q.trade.ware} here|Where can I buy one]?",
            "[Go to {q}|Ask for {q}]. {q} is our {q.trade}[, and {a q.trade.good} costs {q.trade.cost}|].",
        ),
        (
            "[What is worth seeing|What should I see] here?",
            "[You must see|do not miss] the {t.landmark}[|. It is our pride].",
        ),
        (
            "[Which river is this|What is this river called]?",
            "[That is|This is] {t.river}[|. It is {t.river.look}].",
        ),
        (
            "[When is market day|When is your market]?",
            "[Our market is on|Come on] {t.day}[|, and come early].",
        ),
        (
            "what should I eat here?",
            "[{t.dish}, of course|Try {t.dish}]. It is made of {t.dish.first}, {t.dish.second} and {t.dish.third}.",
        ),
        ("do you have a festival?", "[Yes, {t.festival}|Yes, we hold {t.festival}]. It is in {t.month}."),
        ("what do you do for a living?", "I am {a p.trade}. I {p.trade.make} {p.trade.ware}."),
        (
            "[What are you carrying|What is that in your hand]?",
            "this is my {p.thing}. I never leave the house without it.",
        ),
    ];
    talk = scribe.random.some(&talk, 5);
    let mut text = scribe.say(
        "[A traveller came to {t}, {t.land}, and met {p}|A traveller met {p} in a street of {t}|\
         {p} was standing in a street of {t} when a traveller came by].",
    );
    text += "\n";
    for (question, answer) in talk {
        text += &format!(
            "\nTraveller: {}\n{}: {}\n",
            scribe.say(question),
            world.people[local].name,
            scribe.say(answer)
        );
    }
    text + &scribe
        .say("\ntraveller: Thank you, {p}! [I like {t}|{t} is a good town|I shall come to {t} again].\n")
}
