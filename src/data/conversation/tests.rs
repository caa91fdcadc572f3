use super::super::source::{OnBroken, Report};
use super::*;

fn read_with(record: Value, columns: &Columns) -> std::result::Result<Conversation, String> {
    let Value::Object(record) = record else { panic!("not an object") };
    Conversation::from_record(&record, columns)
}

fn read(record: Value) -> std::result::Result<Conversation, String> {
    read_with(record, &Columns::default())
}

/// (role, content) of a record's messages.
fn turns(record: Value) -> Vec<(String, String)> {
    let messages = read(record).unwrap().messages;
    messages.into_iter().map(|message| (message.role, message.content)).collect()
}

fn expected(turns: &[(&str, &str)]) -> Vec<(String, String)> {
    turns.iter().map(|&(role, content)| (role.into(), content.into())).collect()
}

#[test]
fn every_form_gives_the_same_conversation() {
    let same = expected(&[("system", "Be brief."), ("user", "2+2?"), ("assistant", "4.")]);
    let pair = |[role, content]: [&str; 2], (who, what): (&str, &str)| json!({role: who, content: what});
    let openai = ["role", "content"];
    let sharegpt = ["from", "value"];
    for record in [
        json!({"messages": [pair(openai, ("system", "Be brief.")), pair(openai, ("user", "2+2?")), pair(openai, ("assistant", "4."))]}),
        json!({"system": "Be brief.", "conversations": [pair(sharegpt, ("human", "2+2?")), pair(sharegpt, ("gpt", "4."))]}),
        json!({"system": "Be brief.", "prompt": "2+2?", "response": "4.", "completion": null}),
        json!({"system": "Be brief.", "prompt": [pair(openai, ("user", "2+2?"))], "completion": [pair(openai, ("assistant", "4."))]}),
        json!({"system": "Be brief.", "instruction": "2+2?", "input": "", "output": "4."}),
        json!({"messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "value": "brief."}]},
            {"role": "user", "content": ["2+", "2?"], "loss_weight": 0.0}, pair(openai, ("assistant", "4."))]}),
    ] {
        assert_eq!(turns(record.clone()), same, "{record}");
    }
    let alpaca = json!({"instruction": "Add.", "input": "2 and 2", "output": "4."});
    assert_eq!(turns(alpaca), expected(&[("user", "Add.\n2 and 2"), ("assistant", "4.")]));
}

#[test]
fn columns_of_other_names_can_be_named() {
    let columns = |names: &[(&str, &str)]| -> Columns {
        let table: Map<String, Value> =
            names.iter().map(|&(key, name)| (key.to_string(), json!(name))).collect();
        serde_json::from_value(Value::Object(table)).unwrap()
    };
    let record = json!({"messages": 7, "q": "2+2?", "a": "4.", "s": "Be brief.", "x": "Now."});
    let named = columns(&[("prompt", "q"), ("completion", "a"), ("system", "s"), ("input", "x")]);
    let messages = read_with(record, &named).unwrap().messages;
    assert_eq!(messages[1].content, "2+2?\nNow.");
    let record = json!({"chat": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    assert_eq!(read_with(record.clone(), &columns(&[("messages", "chat")])).unwrap().messages.len(), 2);
    assert!(
        read_with(record, &columns(&[("messages", "talk")])).unwrap_err().contains("(\"talk\") among: chat")
    );
}

#[test]
fn calls_and_tools_are_kept_for_templates_or_written_into_the_text() {
    let tool = json!({"type": "function", "function": {"name": "add", "parameters": {}}});
    let record = json!({
        "tools": json!([tool]).to_string(),
        "conversations": [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 2}\"}"},
            {"from": "observation", "value": "4"},
            {"from": "gpt", "value": "4."},
        ],
    });
    let conversation = read(record).unwrap();
    assert_eq!(conversation.tools, [tool]);
    let roles: Vec<&str> = conversation.messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    let call = json!([{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]);
    assert_eq!(conversation.messages[1].extra["tool_calls"], call);
    let told = conversation.with_tools_in_text();
    assert!(told.tools.is_empty());
    assert!(told.messages[0].content.contains("<tools>[{\"name\":\"add\",\"parameters\":{}}]</tools>"));
    let said = "<tool_call>[{\"name\":\"add\",\"arguments\":{\"a\":2}}]</tool_call>";
    assert_eq!((told.messages[2].content.as_str(), told.messages[2].extra.len()), (said, 0));
    // The form of OpenAI, where a call has no text.
    let record = json!({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": null, "tool_calls": call}]});
    assert_eq!(read(record).unwrap().messages[1].extra["tool_calls"], call);
}

#[test]
fn what_cannot_be_learned_from_says_why() {
    let chat = |role: &str, content: Value| json!({"messages": [{"role": "user", "content": "a"}, {"role": role, "content": content}]});
    for (record, word) in [
        (chat("wizard", json!("b")), "the role of message 2 is \"wizard\"; known: system"),
        (chat("assistant", json!(" \n")), "message 2 (assistant) is empty"),
        (chat("assistant", json!(7)), "message 2 (assistant) holds a number, not a text"),
        (chat("assistant", json!([{"type": "image"}])), "a part of type \"image\""),
        (chat("user", json!("b")), "no message of the assistant"),
        (json!({"messages": []}), "\"messages\" is empty"),
        (json!({"messages": "a"}), "not a list of messages"),
        (json!({"messages": [7]}), "message 1 is a number"),
        (json!({"messages": [{"content": "a"}]}), "message 1 has no role"),
        (json!({"messages": [{"role": "user"}]}), "message 1 (user) has no content"),
        (json!({"prompt": "a"}), "\"prompt\" without an answer"),
        (json!({"text": "a", "id": 1}), "no conversation (messages;"),
        (json!({"prompt": "a", "response": ""}), "message 2 (assistant) is empty"),
        (json!({"conversations": [{"from": "function_call", "value": "add"}]}), "calls no function"),
        (json!({"prompt": "a", "response": "b", "tools": "{"}), "not a list of tools"),
        (json!({"messages": vec![json!({"role": "user", "content": ""}); 1025]}), "1025 messages"),
    ] {
        let why = read(record.clone()).unwrap_err();
        assert!(why.contains(word) && !why.contains('\n'), "{record}: {why}");
    }
}

#[test]
fn broken_conversations_are_named_and_counted_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.jsonl");
    let good = json!({"prompt": "a", "response": "b"});
    let huge = json!({"prompt": "a", "response": "b".repeat(3000)});
    let lines = [
        good.to_string(),
        "{".into(),
        json!({"prompt": "a"}).to_string(),
        huge.to_string(),
        good.to_string(),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let source = Source::new([&path]).max_record_bytes(2000).on_broken(OnBroken::Skip);
    let mut records = conversations(&source, &Columns::default()).unwrap();
    let numbers: Vec<u64> = records.by_ref().map(|record| record.unwrap().number).collect();
    assert_eq!(numbers, [1, 5]);
    let report = records.report();
    assert_eq!((report.documents, report.broken), (2, 3));
    for (broken, word) in
        report.first_broken.iter().zip(["line 2: bad JSON", "line 3: \"prompt\"", "line 4: longer"])
    {
        assert!(broken.contains("chat.jsonl") && broken.contains(word), "{broken}");
    }
    let refused = conversations(&source.on_broken(OnBroken::Refuse), &Columns::default()).unwrap().nth(1);
    let text = refused.unwrap().unwrap_err().to_string();
    assert!(text.contains("line 2") && text.contains("on_broken = \"skip\""), "{text}");
    // What the columns are called is the usual reason.
    std::fs::write(&path, json!({"q": "a"}).to_string()).unwrap();
    let text =
        conversations(&Source::new([&path]), &Columns::default()).unwrap().next().unwrap().unwrap_err();
    assert!(text.to_string().contains("columns = {"), "{text}");
}

#[test]
fn prompts_and_answers_of_pairs_are_read_alike() {
    let columns = Columns::default();
    let prompt = |record: Value| columns.read_prompt(record.as_object().unwrap()).unwrap();
    let turns = prompt(
        json!({"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}}),
    );
    assert_eq!(turns, [Message::new("user", "a")]);
    assert_eq!(prompt(json!({"instruction": "a", "input": "x"})), [Message::new("user", "a\nx")]);
    let answer = [Message::new("assistant", "b")];
    for value in
        [json!("b"), json!({"from": "gpt", "value": "b"}), json!([{"role": "assistant", "content": "b"}])]
    {
        assert_eq!(read_side("chosen", &value, "assistant").unwrap(), answer);
    }
}

#[test]
fn tables_give_the_conversations_that_lines_give() {
    for name in ["messages", "sharegpt", "structs", "alpaca"] {
        let read = |ending: &str| {
            let path = format!("{}/tests/fixtures/tables/{name}.{ending}", env!("CARGO_MANIFEST_DIR"));
            let source = Source::new([path]).on_broken(OnBroken::Skip);
            let mut records = conversations(&source, &Columns::default()).unwrap();
            let read: Vec<_> =
                records.by_ref().map(|it| it.unwrap()).map(|it| (it.number, it.value)).collect();
            (read, records.report().clone())
        };
        let ((lines, of_lines), (rows, of_rows)) = (read("jsonl"), read("parquet"));
        assert_eq!(rows, lines, "{name}");
        assert_eq!((of_rows.documents, of_rows.broken), (10, 2), "{name}");
        assert_eq!(of_lines.broken, 2, "{name}");
        let why = |report: &Report, i: usize| {
            report.first_broken[i].split(": ").skip(1).collect::<Vec<_>>().join(": ")
        };
        assert!(
            why(&of_rows, 0).starts_with("row 3: ") && why(&of_rows, 1).starts_with("row 8: "),
            "{of_rows:?}"
        );
        let what = |report: &Report, i: usize| {
            why(report, i).split_once(": ").unwrap().1.split(" among").next().unwrap().to_string()
        };
        for i in 0..2 {
            assert_eq!(what(&of_rows, i), what(&of_lines, i), "{name}");
        }
    }
    let columns: Columns = serde_json::from_value(json!({"messages": "source"})).unwrap();
    let table = format!("{}/tests/fixtures/tables/messages.parquet", env!("CARGO_MANIFEST_DIR"));
    let refused = conversations(&Source::new([table]), &columns).unwrap().next().unwrap().unwrap_err();
    let words = "messages.parquet: row 1: \"source\" is a text, not a list of messages";
    assert!(refused.to_string().contains(words), "{refused}");
}
