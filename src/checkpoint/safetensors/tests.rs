use ::safetensors::SafeTensors;

use super::*;

fn names() -> Vec<(String, Vec<usize>)> {
    vec![("w".into(), vec![2, 3]), ("scale".into(), vec![]), ("none".into(), vec![0, 4])]
}

fn values(name: &str) -> Result<Vec<f32>> {
    Ok(match name {
        "w" => vec![1.0, -2.5, 0.333_333_34, 65504.0, 1e-3, 0.0],
        "scale" => vec![7.0],
        _ => vec![],
    })
}

fn written(dir: &Path, dtype: Dtype) -> PathBuf {
    let path = dir.join("model.safetensors");
    write(&path, dtype, &names(), values).unwrap();
    path
}

#[test]
fn each_float_type_comes_back_rounded_to_it() {
    let dir = tempfile::tempdir().unwrap();
    for (dtype, third) in
        [(Dtype::F32, 0.333_333_34), (Dtype::F16, 0.333_251_95), (Dtype::Bf16, 0.333_984_38)]
    {
        let file = TensorFile::open(&written(dir.path(), dtype)).unwrap();
        let w = file.read_f32("w", &[2, 3]).unwrap();
        assert_eq!((w[0], w[1], w[2], w[5]), (1.0, -2.5, third, 0.0), "{dtype:?}");
        assert_eq!(file.read_f32("scale", &[]).unwrap(), [7.0]);
        assert_eq!(file.names().collect::<Vec<_>>(), ["none", "scale", "w"]);
        file.expect(&names()).unwrap();
    }
}

#[test]
fn writing_holds_one_tensor_at_a_time_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut asked = Vec::new();
    let path = dir.path().join("a.safetensors");
    let read = |name: &str| {
        asked.push(name.to_string());
        values(name)
    };
    write(&path, Dtype::F32, &names(), read).unwrap();
    assert_eq!(asked, ["w", "scale", "none"]);
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(written(dir.path(), Dtype::F32)).unwrap());
}

#[test]
fn the_reference_reader_accepts_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(dir.path(), Dtype::F32)).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("w").unwrap().data()[4..8], (-2.5f32).to_le_bytes());
}

#[test]
fn wrong_requests_name_the_file_and_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let file = TensorFile::open(&written(dir.path(), Dtype::F32)).unwrap();
    let errors = [
        file.read_f32("w", &[3, 2]).unwrap_err(),
        file.read_f32("wx", &[3, 2]).unwrap_err(),
        file.read_i64("w").unwrap_err(),
        file.expect(&[("w".into(), vec![6])]).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains("model.safetensors: ") && text.contains("'w"), "{text}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn every_truncation_and_a_lying_offset_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), Dtype::F32);
    let whole = std::fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = TensorFile::open(&path).err().expect("opened a damaged file");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    };
    (0..whole.len()).for_each(|length| damaged(&whole[..length]));
    damaged(&[whole.as_slice(), b"!"].concat());
    let text = String::from_utf8_lossy(&whole[8..]).replacen("[0,24]", "[0,99]", 1);
    damaged(&[&whole[..8], text.as_bytes()].concat());
    let mut long = whole.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    damaged(&long);
}

#[test]
fn ids_are_read_from_both_integer_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.safetensors");
    let (short, long) =
        ([-100i32, 7].map(i32::to_le_bytes).concat(), [-100i64, 7].map(i64::to_le_bytes).concat());
    let view = |dtype, bytes| ::safetensors::tensor::TensorView::new(dtype, vec![1, 2], bytes).unwrap();
    let tensors = [("short", view(StoredDtype::I32, &short)), ("long", view(StoredDtype::I64, &long))];
    std::fs::write(&path, ::safetensors::serialize(tensors, None).unwrap()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for name in ["short", "long"] {
        assert_eq!(file.read_i64(name).unwrap(), (vec![1, 2], vec![-100, 7]));
    }
    assert!(file.read_f32("long", &[1, 2]).is_err());
}

#[test]
fn shards_are_found_through_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str, tensor: &str| {
        write(&dir.path().join(name), Dtype::F32, &[(tensor.into(), vec![1])], |_| Ok(vec![3.0])).unwrap();
    };
    shard("model-1.safetensors", "a");
    shard("model-2.safetensors", "b");
    let index = |json: &str| {
        std::fs::write(dir.path().join("model.safetensors.index.json"), json).unwrap();
        TensorFile::open(dir.path())
    };
    let file = index(r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#).unwrap();
    assert_eq!(file.read_f32("b", &[1]).unwrap(), [3.0]);
    for lie in [
        r#"{"weight_map": {"a": "model-2.safetensors", "b": "model-2.safetensors"}}"#,
        r#"{"weight_map": {"a": "../model-1.safetensors"}}"#,
        r#"{"weight_map": {"a": "model-3.safetensors"}}"#,
        r#"{"weight_map": {"a": 3}}"#,
        "{",
    ] {
        assert!(matches!(index(lie), Err(Error::Damaged { .. })), "{lie}");
    }
    assert!(matches!(TensorFile::open(&dir.path().join("nothing")), Err(Error::Io { .. })));
    assert!(matches!(TensorFile::open(tempfile::tempdir().unwrap().path()), Err(Error::Input(_))));
}
