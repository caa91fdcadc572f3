use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::*;

const SEEDS: [u64; 3] = [0, 8, u64::MAX];

fn documents(seed: u64, register: Register, count: u64) -> Vec<String> {
    let village = Village::new(seed);
    (0..count).map(|i| village.document(register, i)).collect()
}

/// Conversations of all parts as text, a message a line.
fn conversations(village: &Village, count: u64) -> Vec<String> {
    let one = |part, i| village.conversation(part, i).into_iter().map(|message| message.content);
    Part::ALL
        .iter()
        .flat_map(|part| (0..count).map(|i| one(*part, i).collect::<Vec<_>>().join("\n")))
        .collect()
}

#[test]
fn documents_are_the_same_for_ever() {
    let texts = Register::ALL.map(|register| Village::new(7).document(register, 3)).concat();
    let talk = conversations(&Village::new(7), 2).concat();
    let pairs: String =
        (0..9).map(|i| Village::new(7).pair(i)).map(|pair| pair.chosen + &pair.rejected).collect();
    let hashes = [texts, talk, pairs].map(|text| xxh3_64(text.as_bytes()));
    assert_eq!(
        hashes,
        [1325842911699031852, 2986759323703800127, 5368421941147493144],
        "the text of the village has changed"
    );
}

#[test]
fn text_is_clean() {
    for (seed, register) in SEEDS.into_iter().flat_map(|seed| Register::ALL.map(|it| (seed, it))) {
        let texts = documents(seed, register, 60);
        let distinct: HashSet<&String> = texts.iter().collect();
        assert!(distinct.len() > 55, "{}: {}", register.name(), distinct.len());
        for text in &texts {
            let words = text.split_whitespace().count();
            let most = if register == Register::Books { 1_600 } else { 330 };
            assert!((20..=most).contains(&words), "{words} words:\n{text}");
            assert!(text.is_ascii() && text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
            for slip in ["  ", " .", " ,", "..", "|", " a a", " a an ", " a owl", "the the"] {
                let code = matches!(register, Register::Programs | Register::Tutorials);
                assert!(code || !text.contains(slip), "{slip:?} in:\n{text}");
            }
        }
    }
}

#[test]
fn a_village_holds_together() {
    for village in SEEDS.map(Village::new) {
        assert!((110..125).contains(&village.facts.len()), "{}", village.facts.len());
        for (i, fact) in village.facts.iter().enumerate() {
            assert_eq!(fact.index, i);
            assert!(fact.relation.questions.len() >= 3 && village.others(fact).len() >= 3, "{fact:?}");
            if fact.relation.name == "friend" {
                let back = village.facts.iter().find(|it| it.relation == fact.relation && it.x == fact.y);
                assert_eq!(back.map(|it| &it.y), Some(&fact.x));
            }
            if fact.relation.name == "who" {
                let trade = village.facts.iter().find(|it| it.relation.name == "trade" && it.x == fact.y);
                assert_eq!(trade.map(|it| format!("the {}", it.y)), Some(fact.x.clone()));
            }
        }
        // No two facts are stated by one sentence, and no two are asked by one question.
        let all =
            || village.facts.iter().flat_map(|it| (0..it.relation.questions.len()).map(|i| it.question(i)));
        assert_eq!(all().collect::<HashSet<String>>().len(), all().count());
    }
}

#[test]
fn text_states_every_fact_and_leaves_the_exams_questions_out() {
    let village = Village::new(8);
    let texts: Vec<String> = Register::ALL
        .into_iter()
        .flat_map(|register| documents(8, register, if register == Register::Books { 10 } else { 250 }))
        .collect();
    let counts = count_statements(&village.facts, texts.iter().map(String::as_str));
    assert!(counts.iter().all(|&count| count >= 2), "{counts:?}");
    let all = texts.concat() + &conversations(&village, 100).concat();
    let asked = |question: &str| all.contains(question);
    let unasked = village.facts.iter().filter(|fact| !asked(&fact.question(fact.unasked()))).count();
    assert_eq!(unasked, village.facts.len());
    let other = village.facts.iter().filter(|fact| asked(&fact.question((fact.unasked() + 1) % 3))).count();
    assert!(other > village.facts.len() * 9 / 10, "{other}");
    // A sentence that is not true is counted for nothing.
    let fact = &village.facts[0];
    let wrong = fact.answer_with(village.others(fact)[0]);
    assert_eq!(count_statements(&village.facts, [wrong.as_str()]).iter().sum::<usize>(), 0);
    let twice = format!("{} {}\nAnswer: {0}", fact.answer(), village.facts[1].answer());
    let counts = count_statements(&village.facts, [twice.as_str()]);
    assert_eq!((counts[0], counts[1], counts.iter().sum::<usize>()), (2, 1, 3));
}

#[test]
fn sums_are_right() {
    let mut checked = 0;
    for register in [Register::Numbers, Register::Figures, Register::Drills, Register::Problems] {
        for text in documents(8, register, 120) {
            let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_end_matches('.')).collect();
            for sum in words.windows(5).filter(|sum| sum[3] == "=") {
                let [a, b, c] = [sum[0], sum[2], sum[4]].map(|n| n.parse::<i64>().expect("a number"));
                let right = match sum[1] {
                    "+" => a + b,
                    "-" => a - b,
                    _ => a * b,
                };
                assert_eq!(c, right, "{sum:?} in:\n{text}");
                checked += 1;
            }
            for answer in text.lines().filter(|line| line.contains("####")) {
                let (steps, result) = answer.split_once(" #### ").expect("a result");
                assert!(steps.ends_with(&format!(" = {result}.")), "{answer}");
            }
        }
    }
    assert!(checked > 1_000, "{checked}");
}

/// Programs of one statement and one `print` are worked out here once more.
#[test]
fn programs_print_what_is_said() {
    let mut checked = 0;
    for text in documents(8, Register::Programs, 250) {
        for program in text.trim_end().split("\n\n") {
            let lines: Vec<&str> = program.lines().collect();
            let output = lines[lines.len() - 1].strip_prefix("# prints ").expect("the output");
            let value = |line: &str| line.split_once(" = ").and_then(|(_, n)| n.parse::<i64>().ok());
            if let [_, a, b, "print(a + b)", _] = lines[..] {
                let sum = value(a).zip(value(b)).map(|(a, b)| (a + b).to_string());
                assert_eq!(sum.as_deref(), Some(output), "{program}");
                checked += 1;
            }
            if let [_, items, "print(len(items))", _] = lines[..] {
                assert_eq!(items.matches(", ").count() + 1, output.parse().unwrap_or(0), "{program}");
                checked += 1;
            }
        }
    }
    assert!(checked > 80, "{checked}");
}

#[test]
fn stories_stay_the_same_and_slips_are_seen() {
    let village = Village::new(8);
    let mut slips: HashMap<&str, usize> = HashMap::new();
    for text in documents(8, Register::Tales, 300) {
        for part in text.trim_end().split("\n\n") {
            let answer = ["\nAnswer: ", "\nassistant\n"].iter().find_map(|form| part.split_once(form));
            let (request, story) = answer.expect("a request and a story");
            let (_, wish) = request.split_once(" story about ").expect("what about");
            let (person, thing) = wish.trim_end_matches('.').split_once(" and a ").expect("person and thing");
            assert_eq!(village.check_story(person, thing, story), Ok(()), "{part}");
            let place =
                village.places.iter().find(|it| story.contains(&format!("the {it}"))).expect("a place");
            let somebody = village.people.iter().map(|it| it.name).find(|name| !story.contains(name));
            let elsewhere = village.places.iter().find(|it| !story.contains(*it)).expect("another place");
            let newcomer = format!("F{}", person.to_lowercase());
            let last = |from: &str, to: &str| {
                let at = story.rfind(from)?;
                Some(format!("{}{to}{}", &story[..at], &story[at + from.len()..]))
            };
            let others = village.people.iter().map(|it| it.name).filter(|name| *name != person);
            let other = others.into_iter().find(|name| story.contains(name)).expect("a second person");
            for (what, slip) in [
                ("alone", Some(story.replace(other, person))),
                ("person", last(person, somebody.expect("somebody else"))),
                ("newcomer", last(person, &newcomer)),
                ("place", last(&format!("the {place}"), &format!("the {elsewhere}"))),
                ("thing", last(thing, if thing == "key" { "cup" } else { "key" })),
                (
                    "colour",
                    last(thing, &format!("red {thing}"))
                        .map(|it| it.replacen(thing, &format!("blue {thing}"), 1)),
                ),
                ("sentence", story.rfind(". ").map(|at| story[..=at].to_owned())),
                ("empty", Some(String::new())),
            ] {
                let slip = slip.unwrap_or_default();
                assert!(village.check_story(person, thing, &slip).is_err(), "{what}: {slip}");
                *slips.entry(what).or_default() += 1;
            }
            let two: Vec<&Villager> = village.people.iter().filter(|it| story.contains(it.name)).collect();
            if two.iter().all(|it| it.is_woman) {
                assert!(
                    village.check_story(person, thing, &story.replace("She ", "He ")).is_err()
                        || !story.contains("She ")
                );
                *slips.entry("pronoun").or_default() += 1;
            }
        }
    }
    assert!(slips.len() == 9 && slips.values().all(|&n| n > 30), "{slips:?}");
    let broken = |to: &str, whom: &str| {
        format!(
            "One day Hanna broke a kite by the market. She was sad and showed the kite to {to}. Hugo mended the kite \
             with care. Soon the kite was as good as new. Hanna thanked {whom}, and they went back to the market."
        )
    };
    let village = Village::new(8);
    for (to, whom, is_right) in [("Hugo", "Hugo", true), ("Hanna", "Hugo", false), ("Hugo", "Hanna", false)] {
        assert_eq!(village.check_story("Hanna", "kite", &broken(to, whom)).is_ok(), is_right, "{to} {whom}");
    }
}

#[test]
fn pairs_are_wrong_in_the_way_they_say() {
    let village = Village::new(8);
    let mut flaws: HashMap<Flaw, usize> = HashMap::new();
    for i in 0..400 {
        let Pair { prompt, chosen, rejected, flaw } = village.pair(i);
        assert_ne!(chosen, rejected, "{prompt}");
        let is_true = |answer: &str| village.facts.iter().any(|fact| fact.answer() == answer);
        match flaw {
            Flaw::FalseFact => assert!(is_true(&chosen) && !is_true(&rejected), "{prompt} {rejected}"),
            Flaw::WrongResult => {
                let result = |text: &str| text.rsplit_once("#### ").map(|(_, n)| n.to_owned());
                assert_ne!(result(&chosen), result(&rejected), "{prompt}");
            }
            Flaw::WrongForm => {}
            Flaw::Wordy => assert!(is_true(&chosen) && rejected.starts_with(&chosen), "{prompt} {rejected}"),
            Flaw::Evasive => assert!(is_true(&chosen) && !rejected.contains(&prompt), "{prompt}"),
        }
        *flaws.entry(flaw).or_default() += 1;
    }
    assert!(flaws.len() == 5 && flaws.values().all(|&n| n > 20), "{flaws:?}");
}

#[test]
fn forms_hold_and_are_missed() {
    let village = Village::new(8);
    for i in 0..300 {
        let (request, form, answer) = talk::constrained(&mut village.pen(CONVERSATIONS + 3, i));
        assert!(form.holds(&answer), "{request}\n{answer}");
        assert!(!form.holds("") && !form.holds("I do not know, you know"), "{request}");
    }
    let list = Constraint::List(2, ["cat", "dog"].map(String::from).to_vec());
    assert!(
        list.holds("dog, cat.") && !list.holds("dog, dog") && !list.holds("dog, cow") && !list.holds("dog")
    );
    assert!(
        Constraint::Sentences(2).holds("One is. Two is.") && !Constraint::Sentences(2).holds("One is. Two")
    );
    assert!(Constraint::OneWord.holds("Friday") && !Constraint::OneWord.holds("on Friday"));
}

#[test]
fn books_keep_their_secrets_to_the_end() {
    for text in documents(8, Register::Books, 5) {
        let words = text.split_whitespace().count();
        assert!(words > 600, "{words}");
        let mut far = 0;
        let questions: Vec<(usize, &str)> =
            ["\n\nQuestion: ", "\n\nuser\n"].iter().flat_map(|form| text.match_indices(form)).collect();
        assert!((8..=12).contains(&questions.len()), "{}", questions.len());
        for (at, _) in &questions {
            let answer =
                text[at + 2..].split("\n\n").next().and_then(|it| it.lines().last()).expect("an answer");
            let answer = answer.trim_start_matches("Answer: ");
            let told = text.find(answer).expect("what is asked is told");
            assert!(told < *at && text.matches(answer).count() >= 2, "{answer}");
            far += usize::from(told < text.len() / 2 && *at > text.len() * 8 / 10);
        }
        assert!(far >= 2, "{far}");
    }
    let needle = Village::new(8).exam_needle(3, 200, 0.4);
    assert_eq!(needle.text.matches(&needle.answer).count(), 1, "{needle:?}");
}

#[test]
fn records_have_the_forms_of_datasets() {
    let village = Village::new(8);
    for part in Part::ALL {
        assert_eq!(Part::named(part.name()), Some(part));
        let (record, messages) =
            (Answers::Conversations(part).record(&village, 5), village.conversation(part, 5));
        let read: Vec<Message> =
            serde_json::from_value(record["messages"].clone()).expect("messages as conversations have them");
        assert!(read == messages && messages.len() >= 2, "{record:?}");
        assert_eq!(messages.last().map(|message| message.role.as_str()), Some("assistant"));
    }
    let record = Answers::Pairs.record(&village, 5);
    assert_eq!(record["chosen"].as_str(), Some(village.pair(5).chosen.as_str()));
}
