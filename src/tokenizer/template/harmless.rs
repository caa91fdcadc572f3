//! Templates that cannot do harm: they write what messages hold, each a few times, and nothing else. Those of most
//! chat models that only speak are so.

/// Longest harmless template, in bytes.
const LONGEST: usize = 4 << 10;

/// Most occurrences of `+` and `~`: each makes a copy of the text before it.
const MOST_SUMS: usize = 64;

/// Whether rendering takes time and memory in proportion to the conversation, whatever that is: one level of loops, no
/// assignments, no multiplication, and no calls but for `trim` and `raise_exception`.
///
/// It may be wrong about harmless ones only.
pub(super) fn is_harmless(source: &str) -> bool {
    source.len() <= LONGEST && tags_of(source).is_some_and(|tags| checked(&tags))
}

/// The insides of `{{ ... }}` and `{% ... %}`, as words and signs; text in quotes is `'`. None if one is not closed.
fn tags_of(source: &str) -> Option<Vec<Tag<'_>>> {
    let (mut tags, mut rest) = (Vec::new(), source);
    while let Some(start) = rest.find('{') {
        let (opening, inside) =
            rest.get(start..start + 2).map(|it| (it, &rest[start + 2..])).unwrap_or(("", ""));
        let statement = match opening {
            "{{" => false,
            "{%" => true,
            "{#" => {
                rest = &inside[inside.find("#}")? + 2..];
                continue;
            }
            _ => {
                rest = &rest[start + 1..];
                continue;
            }
        };
        let (words, after) = words(inside, if statement { "%}" } else { "}}" })?;
        tags.push(Tag { statement, words });
        rest = after;
    }
    Some(tags)
}

struct Tag<'a> {
    statement: bool,
    words: Vec<&'a str>,
}

/// The words before `end`, and what follows it.
fn words<'a>(text: &'a str, end: &str) -> Option<(Vec<&'a str>, &'a str)> {
    let (mut words, mut rest) = (Vec::new(), text.strip_prefix(['-', '+']).unwrap_or(text));
    loop {
        rest = rest.trim_start();
        let sign = rest.chars().next()?;
        if let Some(after) = rest.strip_prefix(end) {
            return Some((words, after));
        }
        if let Some(after) = rest.strip_prefix(['-', '+']).and_then(|rest| rest.strip_prefix(end)) {
            return Some((words, after));
        }
        let length = if sign == '\'' || sign == '"' {
            let mut escaped = false;
            let close = rest[1..].find(|c| {
                let closes = c == sign && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            })?;
            words.push("'");
            rest = &rest[close + 2..];
            continue;
        } else if sign.is_alphanumeric() || sign == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else {
            sign.len_utf8()
        };
        words.push(&rest[..length]);
        rest = &rest[length..];
    }
}

fn checked(tags: &[Tag]) -> bool {
    let (mut in_loop, mut sums) = (false, 0);
    for tag in tags {
        if tag.statement {
            match tag.words.first() {
                Some(&"for") if !in_loop => in_loop = true,
                Some(&"endfor") => in_loop = false,
                Some(&"if" | &"elif" | &"else" | &"endif" | &"generation" | &"endgeneration") => {}
                _ => return false,
            }
        }
        for (i, &word) in tag.words.iter().enumerate() {
            let before = i.checked_sub(1).map_or("", |i| tag.words[i]);
            let allowed = match word {
                "*" | "/" | "%" | "{" | "}" | "recursive" => false,
                "|" => tag.words.get(i + 1) == Some(&"trim"),
                "(" => {
                    matches!(
                        before,
                        "" | "(" | "+" | "~" | "," | "=" | "if" | "elif" | "else" | "in" | "and" | "or"
                    ) || matches!(before, "not" | "raise_exception" | "<" | ">" | "-" | "[")
                }
                "+" | "~" => {
                    sums += 1;
                    sums <= MOST_SUMS
                }
                _ => true,
            };
            if !allowed {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::super::chat_template;
    use super::is_harmless;

    #[test]
    fn plain_templates_are_harmless() {
        assert!(is_harmless(&chat_template()));
        for source in [
            "",
            "{",
            "{# {% set a = 1 %} #}",
            "{%- for m in messages -%}{{ '{{' + m['content'] | trim ~ \"%}\\\"\" }}{%- endfor -%}",
            "{% if not (messages and messages[0].role != 'user') %}{{ raise_exception('a*b') }}{% endif %}",
        ] {
            assert!(is_harmless(source), "{source}");
        }
    }

    #[test]
    fn what_can_grow_loop_or_recurse_is_not() {
        for source in [
            "{{ 'a' * 9 }}",
            "{{ '%9d' % 1 }}",
            "{{ a | tojson }}",
            "{{ a.b() }}",
            "{{ (a)(b) }}",
            "{{ a[0](b) }}",
            "{% set a = 1 %}",
            "{% for a in b %}{% for c in d %}{% endfor %}{% endfor %}",
            "{% for a in b recursive %}{% endfor %}",
            "{% macro f() %}{% endmacro %}",
            "{{ {'a': 1} }}",
            "{{ 'open }}",
            "{% if a",
            "{{ 2**9 }}",
            "{%}",
        ] {
            assert!(!is_harmless(source), "{source}");
        }
        assert!(!is_harmless(&format!("{{{{ a{} }}}}", "~1".repeat(65))));
        assert!(!is_harmless(&"a".repeat(5000)));
    }
}
