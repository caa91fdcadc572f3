use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use super::*;

const SEEDS: [u64; 3] = [0, 7, u64::MAX];

fn documents(seed: u64, register: Register, count: u64) -> Vec<String> {
    let microcosm = Microcosm::new(seed);
    (0..count).map(|index| microcosm.document(register, index)).collect()
}

#[test]
fn documents_are_the_same_for_ever() {
    let hashes = Register::WORLD.map(|register| xxh3_64(Microcosm::new(7).document(register, 3).as_bytes()));
    assert_eq!(
        hashes,
        [
            11336444790020436142,
            714975873516396781,
            11360898076993843622,
            7705473811864212008,
            851779102680091273
        ],
        "the text of the microcosm has changed"
    );
}

#[test]
fn documents_depend_on_seed_register_and_index_only() {
    let microcosm = Microcosm::new(5);
    for register in Register::WORLD {
        let late = microcosm.document(register, 1 << 40);
        assert_eq!(late, Microcosm::new(5).document(register, 1 << 40));
        assert_ne!(late, Microcosm::new(6).document(register, 1 << 40));
        let distinct: HashSet<String> = documents(5, register, 300).into_iter().collect();
        assert!(distinct.len() > 295, "{}: only {} of 300 differ", register.name(), distinct.len());
    }
}

#[test]
fn text_is_clean() {
    for (seed, register) in
        SEEDS.into_iter().flat_map(|seed| Register::WORLD.map(|register| (seed, register)))
    {
        for text in documents(seed, register, 150) {
            let words = text.split_whitespace().count();
            assert!((50..=260).contains(&words), "{words} words:\n{text}");
            assert!(text.is_ascii() && text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
            assert!(!text.contains("program line"), "{text}");
            if register != Register::Code {
                check_prose(&text);
            }
        }
    }
}

/// Slips that templates are prone to: spaces, articles, capitals, quotation marks.
fn check_prose(text: &str) {
    for slip in ["  ", " .", " ,", "..", ",.", ".,", "[", "]", "{", "}", "|", " 1 pennies", "the the", "s's"]
    {
        assert!(!text.contains(slip), "{slip:?} in:\n{text}");
    }
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    for pair in words.windows(2) {
        let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']) || pair[1].starts_with("hour");
        assert!(!vowel || !pair[0].eq_ignore_ascii_case("a"), "{pair:?} in:\n{text}");
        assert!(vowel || !pair[0].eq_ignore_ascii_case("an"), "{pair:?} in:\n{text}");
        let capital = !pair[1].starts_with(|c: char| c.is_ascii_lowercase());
        assert!(capital || !pair[0].ends_with('.'), "{pair:?} in:\n{text}");
    }
    assert!(text.matches('"').count().is_multiple_of(2), "{text}");
}

#[test]
fn worlds_hold_together() {
    for world in SEEDS.map(World::new) {
        let names: HashSet<&str> = world.people.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), world.people.len());
        for (i, person) in world.people.iter().enumerate() {
            let is_their_child =
                |child: usize| world.people[child].parents.is_some_and(|both| both.contains(&i));
            assert!(!person.name.is_empty() && person.age >= 18);
            assert_eq!(world.people[person.friend].friend, i);
            assert_ne!(world.people[person.friend].town, person.town);
            assert!(person.spouse.is_none_or(|spouse| world.people[spouse].spouse == Some(i)));
            assert!(person.child.is_none_or(is_their_child));
            assert!(person.teacher.is_none_or(|teacher| world.people[teacher].trade == person.trade));
        }
        for town in 0..world.towns.len() {
            let trades: HashSet<usize> = world.people_of(town).map(|i| world.people[i].trade).collect();
            assert!(trades.len() == HOUSEHOLD && trades.contains(&world.towns[town].craft));
            for (south, east) in [(1, 0), (0, 1)] {
                let Some((other, miles)) = world.neighbour(town, south, east) else { continue };
                assert_eq!(world.neighbour(other, -south, -east), Some((town, miles)));
            }
        }
    }
}

/// Every "Orlin is a baker", "Orlin the baker" and "Orlin lives in Tavel", wherever it stands, is true.
#[test]
fn facts_agree_between_registers() {
    for seed in SEEDS {
        let world = World::new(seed);
        for register in [Register::Encyclopaedia, Register::Questions, Register::Code, Register::Stories] {
            let text = documents(seed, register, 200).concat();
            let mut found = 0;
            for person in &world.people {
                let trade = world.trades[person.trade].words.name;
                let town = world.towns[person.town].name;
                for (link, truth) in [(" is a ", trade), (" the ", trade), (" lives in ", town)] {
                    let claim = format!("{}{link}", person.name);
                    for (at, _) in text.match_indices(&claim) {
                        let said = &text[at + claim.len()..];
                        let is_fact = world.trades.iter().any(|t| said.starts_with(t.words.name))
                            || world.towns.iter().any(|t| said.starts_with(t.name));
                        assert!(!is_fact || said.starts_with(truth), "{claim}{said:.40} but {truth}");
                        found += usize::from(is_fact);
                    }
                }
            }
            assert!(found > 20, "only {found} facts found in {}", register.name());
        }
    }
}

#[test]
fn every_fact_can_be_asked_and_answered() {
    let microcosm = Microcosm::new(7);
    let mut scribe = microcosm.scribe(99, 0);
    let world = microcosm.world();
    let facts: Vec<Fact> =
        world.entities().into_iter().flat_map(|entity| world.facts_about(entity)).collect();
    assert!(facts.len() > 800, "{}", facts.len());
    for fact in facts {
        let exchange = scribe.ask(fact);
        assert!(exchange.question.ends_with('?') && exchange.answer.ends_with('.'), "{exchange:?}");
        assert!(exchange.answer.to_lowercase().contains(&exchange.short.to_lowercase()), "{exchange:?}");
        assert!(!scribe.state(fact).is_empty());
    }
}

fn number(word: &str) -> i64 {
    word.trim_matches(['.', ',', ';', '?', ':']).parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

/// Checks every `a + b + ... = c` in a text; gives how many there were.
fn check_equations(text: &str) -> usize {
    let words: Vec<&str> = text.split_whitespace().collect();
    let equations = words.iter().enumerate().filter(|(_, word)| **word == "=");
    equations
        .map(|(equals, _)| {
            let mut start = equals - 1;
            while start >= 2 && matches!(words[start - 1], "+" | "-" | "x" | "/") {
                start -= 2;
            }
            let value = words[start + 1..equals].chunks(2).fold(number(words[start]), |value, step| {
                match (step[0], number(step[1])) {
                    ("+", n) => value + n,
                    ("-", n) => value - n,
                    ("x", n) => value * n,
                    (_, n) if value % n == 0 => value / n,
                    _ => panic!("a division with a rest in:\n{text}"),
                }
            });
            assert_eq!(
                number(words[equals + 1]),
                value,
                "{} in:\n{text}",
                words[start..equals + 2].join(" ")
            );
        })
        .count()
}

#[test]
fn arithmetic_is_true() {
    for text in SEEDS.into_iter().flat_map(|seed| documents(seed, Register::Arithmetic, 300)) {
        assert!(check_equations(&text) > 0 || text.contains("Count"), "{text}");
        // The steps lead to the answer of the sum that was asked.
        for line in text.lines().filter(|line| line.starts_with("Take ") || line.starts_with("Subtract ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let (b, a) = (number(words[1]), number(words[3]));
            assert!(text.contains(&format!("So {a} - {b} = {}.", a - b)), "{text}");
        }
    }
}

#[test]
fn answers_of_word_problems_follow_from_their_story() {
    let mut checked = 0;
    let documents = documents(7, Register::Arithmetic, 300);
    for problem in documents.iter().flat_map(|text| text.split("\n\n")) {
        let Some((story, earned)) = problem.split_once(" earned ") else { continue };
        let words: Vec<&str> = story.split_whitespace().collect();
        let cost = words.iter().position(|word| word.starts_with("penn")).map(|i| number(words[i - 1]));
        let sold: i64 = words.windows(2).filter(|pair| pair[1] == "x").map(|pair| number(pair[0])).sum();
        let total = number(earned.split(' ').next().unwrap_or_default());
        assert_eq!(cost.map(|cost| cost * sold), Some(total), "{problem}");
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn outputs_of_programs_are_true() {
    let mut checked = 0;
    for text in documents(7, Register::Code, 400) {
        for (source, output) in text.split("# ").filter_map(|part| part.split_once("\nOutput:\n")) {
            let line = |start: &str| source.lines().find_map(|line| line.strip_prefix(start));
            if let (Some(price), Some(sold)) = (line("price = "), line("sold = ")) {
                let sold: i64 = sold.trim_matches(['[', ']']).split(", ").map(number).sum();
                assert!(output.contains(&format!(" has {} pennies\n", number(price) * sold)), "{text}");
                checked += 1;
            }
            if let Some((word, _)) = line("The word ").and_then(|line| line.split_once(" backwards.")) {
                let last = output.lines().take_while(|line| !line.is_empty()).last();
                assert_eq!(last, Some(word.chars().rev().collect::<String>().as_str()), "{text}");
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn registers_have_names() {
    for register in Register::all() {
        assert_eq!(register.name().parse::<Register>().ok(), Some(register));
    }
    let error = "poetry".parse::<Register>().map_or_else(|error| error.to_string(), |_| String::new());
    assert!(error.contains("\"poetry\"") && error.contains("stories"), "{error}");
}
