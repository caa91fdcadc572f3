use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use super::super::{Microcosm, run};
use super::*;

const SEEDS: [u64; 3] = [0, 8, u64::MAX];

fn documents(seed: u64, register: Register, count: u64) -> Vec<String> {
    let village = Village::new(seed);
    (0..count).map(|i| village.document(register, i).expect("a register of the village")).collect()
}

#[test]
fn documents_are_the_same_for_ever() {
    let texts = Register::VILLAGE.map(|register| Microcosm::new(7).document(register, 3)).concat();
    assert_eq!(xxh3_64(texts.as_bytes()), 0, "the text of the village has changed");
}

#[test]
fn text_is_clean() {
    for (seed, register) in SEEDS.into_iter().flat_map(|seed| Register::VILLAGE.map(|it| (seed, it))) {
        let texts = documents(seed, register, 60);
        let distinct: HashSet<&String> = texts.iter().collect();
        assert!(distinct.len() > 55, "{}: {}", register.name(), distinct.len());
        for text in &texts {
            let words = text.split_whitespace().count();
            let most = if register == Register::Books { 1_600 } else { 330 };
            assert!((30..=most).contains(&words), "{words} words:\n{text}");
            assert!(text.is_ascii() && text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
            for slip in ["  ", " .", " ,", "..", "|", " a a", " a an ", " a owl", "the the"] {
                let code = matches!(register, Register::Programs | Register::Tutorials);
                assert!(code || !text.contains(slip), "{slip:?} in:\n{text}");
            }
        }
    }
}

#[test]
fn print_samples() {
    for register in Register::VILLAGE {
        println!("=== {}\n{}", register.name(), documents(8, register, 1)[0]);
    }
    let village = Village::new(8);
    for part in Part::ALL {
        for i in 0..3 {
            println!("=== {} {:?}", part.name(), village.conversation(part, i));
        }
    }
    for i in 0..10 {
        println!("{:?}", village.pair(i));
    }
}
