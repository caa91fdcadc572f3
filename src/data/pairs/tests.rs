use super::*;
use crate::data::contents::Contents;
use crate::data::shard::{TokenSet, Verify};
use crate::data::source::OnBroken;
use crate::data::tokenize::TokenizeOptions;
use crate::tokenizer::{ChatTemplate, Tokenizer};

fn read(record: Value) -> std::result::Result<Pair, String> {
    let Value::Object(record) = record else { unreachable!("an object is given") };
    Pair::from_record(&record, &Columns::default())
}

#[test]
fn pairs_come_in_many_forms() {
    let (user, good, bad) = (
        json!({"role": "user", "content": "Why?"}),
        json!({"role": "assistant", "content": "So."}),
        json!({"role": "assistant", "content": "No."}),
    );
    let plain = read(json!({"prompt": "Why?", "chosen": "So.", "rejected": "No."})).unwrap();
    assert_eq!(plain.prompt, [Message::new("user", "Why?")]);
    assert_eq!([&plain.chosen, &plain.rejected].map(|it| it.content.as_str()), ["So.", "No."]);
    for same in [
        json!({"prompt": [user], "chosen": [good], "rejected": [bad]}),
        json!({"prompt": "ignored", "chosen": [user, good], "rejected": [user, bad]}),
        json!({"instruction": "Why?", "input": "", "output": "So.", "chosen": "So.", "rejected": "No."}),
        json!({"messages": [user], "chosen": good, "rejected": bad}),
        json!({"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "No."}}),
    ] {
        assert_eq!(read(same.clone()).unwrap(), plain, "{same}");
    }
    let long =
        read(json!({"system": "Be kind.", "prompt": [user, good, user], "chosen": "a", "rejected": "a"}));
    let long = long.unwrap();
    assert_eq!(
        long.prompt.iter().map(|it| it.role.as_str()).collect::<Vec<_>>(),
        ["system", "user", "assistant", "user"]
    );
    assert!(long.is_equal() && !plain.is_equal());
}

#[test]
fn broken_pairs_are_told() {
    let user = json!({"role": "user", "content": "Why?"});
    for (record, words) in [
        (json!({"prompt": "Why?", "chosen": "a"}), "no \"rejected\" among: prompt, chosen"),
        (json!({"chosen": "a", "rejected": "b"}), "no prompt"),
        (json!({"prompt": " ", "chosen": "a", "rejected": "b"}), "the prompt is empty"),
        (json!({"prompt": "Why?", "chosen": " ", "rejected": "b"}), "the answer in \"chosen\" is empty"),
        (json!({"prompt": "Why?", "chosen": "a", "rejected": []}), "\"rejected\" is empty"),
        (json!({"prompt": "Why?", "chosen": 3, "rejected": "b"}), "a number"),
        (json!({"prompt": "Why?", "chosen": [user], "rejected": "b"}), "ends with a message of user"),
        (json!({"prompt": [{"role": "judge", "content": "x"}], "chosen": "a", "rejected": "b"}), "\"judge\""),
        (
            json!({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"}),
            "nobody asks",
        ),
    ] {
        let why = read(record.clone()).unwrap_err();
        assert!(why.contains(words), "{record}: {why}");
    }
}

#[test]
fn sets_hold_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let line = |prompt: &str, chosen: &str, rejected: &str| {
        format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    };
    let mut text: String = (0..60)
        .map(|i| line(&format!("Name {i}?"), &format!("\n\nIt is {i}."), "Nothing<|im_end|>."))
        .collect();
    text += &line("Same?", "yes", "yes");
    text += "{\"chosen\": \"a\", \"rejected\": \"b\"}\n";
    let file = folder.path().join("pairs.jsonl");
    std::fs::write(&file, text).unwrap();
    let corpus = std::iter::repeat_n("Name it is nothing 42".to_string(), 9);
    let (tokenizer, template) = (Tokenizer::train(corpus, 320, |_| ()).unwrap(), ChatTemplate::smollm2());
    let options = TokenizeOptions { held_out_fraction: 0.3, ..Default::default() };
    let contents =
        Contents::Pairs(Pairs { tokenizer: &tokenizer, template: &template, columns: Columns::default() });
    let source = Source::new([&file]).on_broken(OnBroken::Skip);
    let (counts, report) = contents.tokenize(&source, folder.path(), "p", options, |_| ()).unwrap();
    assert_eq!((counts.documents, counts.equal, report.broken), (180, 1, 1));
    assert!(report.first_broken[0].contains("pairs.jsonl: line 62: no prompt"), "{:?}", report.first_broken);
    let sets = ["p", "p.held-out"].map(|name| TokenSet::open(folder.path(), name, Verify::Full).unwrap());
    let held_out = counts.held_out_documents / 3;
    assert_eq!(sets.each_ref().map(pair_count), [60 - held_out, held_out]);
    assert!(
        (5..30).contains(&held_out)
            && sets[0].fingerprint() == contents.fingerprint(&source, options).unwrap()
    );
    for set in &sets {
        for index in 0..pair_count(set) {
            let PairTokens { prompt, answers } = pair(set, index);
            let prompt = tokenizer.decode(&prompt);
            assert!(prompt.ends_with("?<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
            let number: String =
                prompt.rsplit("Name ").next().unwrap().chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(tokenizer.decode(&answers[0]), format!("\n\nIt is {number}.<|im_end|>"));
            // A special token that is spelled out is text.
            assert_eq!(answers[1].iter().filter(|&&id| id == 2).count(), 1);
        }
    }
    let refused = Source::new([&file]);
    let error = contents.tokenize(&refused, folder.path(), "p", options, |_| ()).unwrap_err().to_string();
    assert!(error.contains("line 62") && error.contains("on_broken"), "{error}");
}

#[test]
fn long_pairs_keep_the_end_of_the_prompt() {
    let tokens = PairTokens { prompt: (0..9).collect(), answers: [vec![1; 3], vec![2; 20]] };
    let cut = tokens.clone().cut(Cut { prompt: 4, length: 10 });
    assert_eq!(cut, PairTokens { prompt: vec![5, 6, 7, 8], answers: [vec![1; 3], vec![2; 6]] });
    assert_eq!(tokens.clone().cut(Cut { prompt: 20, length: 40 }), tokens);
}

#[test]
fn tables_give_the_pairs_that_lines_give() {
    let read = |ending: &str| {
        let path = format!("{}/tests/fixtures/tables/preferences.{ending}", env!("CARGO_MANIFEST_DIR"));
        let source = Source::new([path]).on_broken(OnBroken::Skip);
        let mut records = pairs(&source, &Columns::default()).unwrap();
        let read: Vec<_> = records.by_ref().map(|it| it.unwrap()).map(|it| (it.number, it.value)).collect();
        (read, records.report().clone())
    };
    let ((lines, _), (rows, report)) = (read("jsonl"), read("parquet"));
    assert_eq!(rows, lines);
    assert_eq!((rows.len(), report.broken), (10, 2));
    assert_eq!(rows.iter().filter(|(_, pair)| pair.is_equal()).count(), 1);
    assert!(
        report.first_broken[0].contains("preferences.parquet: row 3: no \"rejected\" among"),
        "{report:?}"
    );
    assert!(report.first_broken[1].contains("row 8: the answer in \"chosen\" is empty"), "{report:?}");
}
