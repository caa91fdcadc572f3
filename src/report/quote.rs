//! Paths in commands that people copy into a shell.

use std::path::Path;

/// The path as one word of a shell: as it is if it is plain, else in quotes.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    // Not a flag.
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=\\".contains(c);
    let plain = |c: char| plain(c) && (cfg!(windows) || c != '\\');
    match text {
        text if !text.is_empty() && text.chars().all(plain) => text,
        text if cfg!(windows) => format!("\"{text}\""),
        text if text.chars().any(char::is_control) => format!("$'{}'", escaped(&text)),
        text => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// For `$'...'` of bash and zsh.
fn escaped(text: &str) -> String {
    let mut all = String::new();
    for c in text.chars() {
        match c {
            '\'' | '\\' => all.extend(['\\', c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().for_each(|byte| all += &format!("\\x{byte:02x}"));
            }
            c => all.push(c),
        }
    }
    all
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What a shell makes of the word.
    fn read_by(shell: &str, word: &str) -> String {
        let command = format!("printf %s {word}");
        let output = std::process::Command::new(shell).args(["-c", &command]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_shell_reads_the_path() {
        assert_eq!(quoted(Path::new("runs/microcosm-2")), "runs/microcosm-2");
        for path in ["a b", "it's", "$HOME", "a;b", "~", "a\\b", "\"", "*", "é ü", "`x`", "!", "#a"] {
            assert_eq!(read_by("sh", &quoted(Path::new(path))), path);
        }
        assert_eq!(quoted(Path::new("--help")), "./--help");
        assert_eq!(read_by("bash", &quoted(Path::new("a\nb'\u{1b}\\"))), "a\nb'\u{1b}\\");
    }
}
