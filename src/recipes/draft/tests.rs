//! Recipes for text, of every size and quality.

use super::*;
use crate::recipes::source::open_local;

#[test]
fn every_size_makes_a_sound_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my own \"text\".txt");
    std::fs::write(&path, "The cat sat on the mat, as cats do.\n".repeat(1000)).unwrap();
    let read = survey(std::slice::from_ref(&path)).unwrap();
    assert_eq!((read.bytes, read.documents, read.prompts[0].as_str()), (36_000, 18, "The cat sat"));
    let listed = [place(&path, folder.path()).unwrap()];
    for size in &SIZES {
        for bytes in [LEAST_BYTES, size.up_to.min(1 << 42)] {
            let (field, prompts) = ("te\"xt".into(), vec!["a\nb".into()]);
            let survey = Survey { bytes, documents: 1, field, prompts, left_out: None };
            let text = write(&survey, size, None, "a\nb", &name_of(std::slice::from_ref(&path)), &listed);
            let recipe = Recipe::parse("r", &text, folder.path(), &[], &open_local).unwrap().recipe;
            assert_eq!(recipe.datasets[0].paths, std::slice::from_ref(&path));
            assert_eq!(recipe.model.head_dim * size.heads, size.hidden_size);
            recipe.check_files(None).unwrap();
        }
    }
    assert!(SIZES.is_sorted_by_key(|size| size.up_to));
}

#[test]
fn names_follow_from_files() {
    for (path, name) in [
        ("my.txt", "my"),
        ("a/My Own Text.jsonl.gz", "My-Own-Text"),
        ("2024.txt", "text-2024"),
        ("é.txt", "text"),
        (".", "text"),
        ("folder/", "folder"),
    ] {
        assert_eq!(name_of(&[path.into()]), name, "{path}");
    }
}

#[test]
fn fields_are_found_and_too_little_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, line: &str, times: usize| {
        let path = folder.path().join(name);
        std::fs::write(&path, line.repeat(times)).unwrap();
        [path]
    };
    let long = "x ".repeat(50);
    let text = |line: &str| draft(&write("a.jsonl", line, 300), Path::new("")).map(|it| it.text);
    for (line, field) in [
        (format!("{{\"text\": \"{long}\"}}\n"), "text"),
        (format!("{{\"title\": \"y\", \"content\": \"{long}\"}}\n"), "content"),
        (format!("{{\"id\": \"y\", \"prose\": \"{long}\"}}\n"), "prose"),
    ] {
        let text = text(&line).unwrap();
        assert!(text.contains(&format!("fields = [\"{field}\"]")), "{text}");
    }
    let error = text("{\"id\": 3}\n").unwrap_err().to_string();
    assert!(error.contains("no field \"text\" among: id"), "{error}");
    let error = draft(&write("b.txt", "word ", 3000), Path::new("")).unwrap_err().to_string();
    assert!(error.ends_with("15.0 kB of text is too little to learn from: give at least 20.0 kB"), "{error}");
}

#[test]
fn what_cannot_be_read_is_left_out_and_counted_unless_it_is_all() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        draft(&[path], Path::new(""))
    };
    let mut text = b"The cat sat on the mat, as cats do.\n".repeat(1000);
    text[5000] = 0xe9;
    let drafted = write("a.txt", &text).unwrap();
    assert!(drafted.text.contains("on_broken = \"skip\""), "{}", drafted.text);
    let left_out = drafted.left_out.unwrap();
    assert!(left_out.starts_with("1 broken record left out, first: "), "{left_out}");
    assert!(left_out.contains("a.txt: piece 3: not UTF-8 at byte 5000"), "{left_out}");

    let line = format!("{{\"id\": 1, \"story\": \"{}\"}}\n", "x ".repeat(50));
    let drafted = write("b.jsonl", format!("{{\"story\n{}", line.repeat(300)).as_bytes()).unwrap();
    assert!(drafted.left_out.unwrap().contains("b.jsonl: line 1: bad JSON"));
    assert!(drafted.text.contains("fields = [\"story\"]"), "{}", drafted.text);

    let error = write("c.txt", &b"\xe9 ".repeat(20_000)).unwrap_err().to_string();
    assert!(error.ends_with("byte 0: nothing of it can be read; convert the file to UTF-8"), "{error}");
    let error = write("d.txt", &[&b"\xff\xfe"[..], &b"a\0".repeat(20_000)].concat()).unwrap_err();
    assert!(error.to_string().ends_with("iconv -f UTF-16 -t UTF-8"), "{error}");
}
