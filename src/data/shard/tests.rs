use super::*;

const FORMAT: SetFormat =
    SetFormat { vocab_size: 300, eos: 0, tokenizer_hash: 7, shard_bytes: 1 << 20, fingerprint: 9 };

fn documents(count: u32, vocab_size: u32) -> Vec<Vec<u32>> {
    (0..count).map(|i| (0..i % 7).map(|j| (i * 31 + j * 7919) % vocab_size).collect()).collect()
}

fn write(folder: &Path, format: SetFormat, documents: &[Vec<u32>]) -> Result<()> {
    let mut writer = TokenSetWriter::create(folder, "web", format)?;
    documents.iter().try_for_each(|document| writer.push(document))?;
    writer.finish()
}

fn check(folder: &Path, expected: &[Vec<u32>]) -> TokenSet {
    let set = TokenSet::open(folder, "web", Verify::Full).unwrap();
    let stream: Vec<u32> = expected.iter().flat_map(|d| d.iter().copied().chain([0])).collect();
    assert_eq!((set.len(), set.documents()), (stream.len() as u64, expected.len() as u64));
    assert_eq!(set.tokens(0..set.len()), stream);
    for (i, document) in expected.iter().enumerate() {
        let tokens = set.tokens(set.document(i as u64));
        assert_eq!(tokens.split_last(), Some((&0, document.as_slice())));
    }
    set
}

#[test]
fn two_and_four_byte_tokens_over_many_shards() {
    for vocab_size in [300, 1 << 16, (1 << 16) + 1, 200_000] {
        let folder = tempfile::tempdir().unwrap();
        let expected = documents(100, vocab_size as u32);
        write(folder.path(), SetFormat { vocab_size, shard_bytes: 100, ..FORMAT }, &expected).unwrap();
        let set = check(folder.path(), &expected);
        assert!(folder.path().join("web-00004.tokens").exists());
        assert_eq!(set.fingerprint(), 9);
        // Windows across shard borders equal the stream.
        let stream = set.tokens(0..set.len());
        for start in 0..stream.len() - 64 {
            assert_eq!(set.tokens(start as u64..start as u64 + 64), stream[start..start + 64]);
            let window = start as u64..start as u64 + 64;
            let starts = (0..100).map(|i| set.document(i).start).filter(|start| window.contains(start));
            assert_eq!(set.starts_in(window.clone()), starts.collect::<Vec<_>>());
        }
    }
}

#[test]
fn rewriting_leaves_no_stale_shard() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SetFormat { shard_bytes: 8, ..FORMAT }, &documents(20, 300)).unwrap();
    write(folder.path(), FORMAT, &documents(3, 300)).unwrap();
    check(folder.path(), &documents(3, 300));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    write(folder.path(), FORMAT, &[]).unwrap();
    assert!(TokenSet::open(folder.path(), "web", Verify::Full).unwrap().is_empty());
}

#[test]
fn an_abandoned_set_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), FORMAT, &documents(5, 300)).unwrap();
    assert!(folder.path().join("web.json").exists());
    let mut writer = TokenSetWriter::create(folder.path(), "web", FORMAT).unwrap();
    writer.push(&[1, 2]).unwrap();
    drop(writer);
    assert!(!folder.path().join("web.json").exists());
    assert!(!folder.path().join("web-00000.tokens.tmp").exists());
}

#[test]
fn ids_outside_the_vocabulary_and_bad_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = write(folder.path(), FORMAT, &[vec![1, 300]]).unwrap_err();
    assert!(error.to_string().contains("token id 300 is outside the vocabulary of 300"), "{error}");
    let eos = write(folder.path(), SetFormat { eos: 300, ..FORMAT }, &[vec![]]).unwrap_err();
    assert!(eos.to_string().contains("300"), "{eos}");
    assert!(TokenSetWriter::create(folder.path(), "../up", FORMAT).is_err());
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), FORMAT, &documents(12, 300)).unwrap();
    let path = folder.path().join("web-00000.tokens");
    let whole = std::fs::read(&path).unwrap();
    let refused = |contents: &[u8], what: &str| {
        std::fs::write(&path, contents).unwrap();
        let error = TokenSet::open(folder.path(), "web", Verify::Full).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path: p, .. } if *p == path), "{what}: {error}");
        assert!(error.to_string().contains("remove it, and it is made again"), "{what}: {error}");
    };
    for i in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[i] ^= 1 << (i % 8);
        refused(&flipped, &format!("bit {} of byte {i}", i % 8));
    }
    for cut in 1..whole.len() {
        refused(&whole[..cut], &format!("cut to {cut} bytes"));
    }
    refused(&[&whole[..], &[0]].concat(), "a byte more");
    refused(&whole[8..], "foreign");

    // Another whole shard under this name is not this set's.
    let other = tempfile::tempdir().unwrap();
    write(other.path(), FORMAT, &documents(13, 300)).unwrap();
    refused(&std::fs::read(other.path().join("web-00000.tokens")).unwrap(), "another shard");

    std::fs::write(&path, []).unwrap();
    assert!(TokenSet::open(folder.path(), "web", Verify::Header).is_err(), "an empty file");
    std::fs::remove_file(&path).unwrap();
    let missing = TokenSet::open(folder.path(), "web", Verify::Header).unwrap_err();
    assert!(missing.to_string().contains("web-00000.tokens"), "{missing}");
}

#[test]
fn a_damaged_manifest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), FORMAT, &documents(12, 300)).unwrap();
    let path = folder.path().join("web.json");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = TokenSet::open(folder.path(), "web", Verify::Full).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path: p, .. } if *p == path), "{cut}: {error}");
    }
}

/// `/dev/full` accepts a file's opening and refuses every write, like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_shard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web-00000.tokens");
    for count in [3, 200_000] {
        std::os::unix::fs::symlink("/dev/full", folder.path().join("web-00000.tokens.tmp")).unwrap();
        let error = write(folder.path(), FORMAT, &documents(count, 300)).unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// All files of a folder, by name.
fn files(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_paused_set_goes_on_whatever_came_after() {
    let format = SetFormat { shard_bytes: 60, ..FORMAT };
    let all = documents(60, 300);
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), format, &all).unwrap();
    let expected = files(whole.path());
    assert!(expected.len() > 6, "several shards");
    for pause in 0..all.len() {
        for lost in [0, 1, 7, 30, 60] {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = TokenSetWriter::create(folder.path(), "web", format).unwrap();
            let mut paused = Paused::default();
            for (i, document) in all.iter().enumerate().take(pause + lost) {
                // Several pauses on the way, also of one and the same shard.
                if i <= pause && (i == pause || i % 3 == 0) {
                    paused = writer.pause().unwrap();
                }
                writer.push(document).unwrap();
            }
            if lost == 0 {
                paused = writer.pause().unwrap();
            }
            // As a kill leaves it, or an orderly end, which makes the set whole.
            if lost == 60 {
                writer.finish().unwrap()
            } else {
                drop(writer)
            }
            let paused = serde_json::from_slice(&serde_json::to_vec(&paused).unwrap()).unwrap();
            let mut writer = TokenSetWriter::resume(folder.path(), "web", format, &paused).unwrap();
            assert!(!folder.path().join("web.json").exists());
            all[pause..].iter().for_each(|document| writer.push(document).unwrap());
            writer.finish().unwrap();
            TokenSetWriter::forget(folder.path(), "web").unwrap();
            assert!(files(folder.path()) == expected, "paused after {pause}, {lost} lost");
        }
    }
}

#[test]
fn a_paused_set_that_was_changed_is_refused_and_can_be_discarded() {
    let format = SetFormat { shard_bytes: 60, ..FORMAT };
    let begin = || {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TokenSetWriter::create(folder.path(), "web", format).unwrap();
        documents(40, 300).iter().for_each(|document| writer.push(document).unwrap());
        let paused = writer.pause().unwrap();
        (folder, paused)
    };
    let (folder, _) = begin();
    let names: Vec<String> = files(folder.path()).into_iter().map(|(name, _)| name).collect();
    let unfinished: Vec<&String> = names.iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(unfinished.len(), 2, "{names:?}");
    for name in &names {
        for change in [0, 1, 2] {
            let (folder, paused) = begin();
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            match change {
                0 => std::fs::remove_file(&path).unwrap(),
                1 if unfinished.contains(&name) => std::fs::write(&path, &bytes[..last]).unwrap(),
                2 if unfinished.contains(&name) => {
                    bytes[last] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
                // Whole shards have checksums of their own, for when they are opened.
                _ => continue,
            }
            let error = TokenSetWriter::resume(folder.path(), "web", format, &paused).err().unwrap();
            assert!(matches!(error, Error::Damaged { .. }), "{name} {change}: {error}");
            TokenSetWriter::discard(folder.path(), "web").unwrap();
            assert_eq!(files(folder.path()), []);
        }
    }
}
