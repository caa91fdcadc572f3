//! The template engine: minijinja set up as `transformers` sets up Jinja.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde::{Deserialize, Serialize};

use super::json;
use crate::panics::caught;

/// Names and values that a template sees.
pub(super) type Variables = serde_json::Map<String, serde_json::Value>;

/// Why a template cannot be compiled or rendered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The line in the template, counted from 1.
    line: Option<usize>,
    what: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Fault { line: None, what: what.into() }
    }
}

impl From<minijinja::Error> for Fault {
    fn from(error: minijinja::Error) -> Self {
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
        let what = what.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Fault { line: error.line(), what }
    }
}

/// Goes on from the name of the template: its line, and what is wrong.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line.map_or(Ok(()), |line| write!(f, ", line {line}"))?;
        write!(f, ": {}", self.what)
    }
}

/// Characters of a template's own words (`raise_exception`) that are shown.
const LONGEST_REASON: usize = 300;

/// The one template of an environment.
const NAME: &str = "chat";

/// Instructions that rendering may take, about a second of work: a damaged template may loop for ever.
const FUEL: u64 = 10_000_000;

/// Stack that compiling takes for each byte, at most: not all recursion of the compiler is bounded.
const STACK_PER_BYTE: usize = 16 << 10;

/// Most blanks per level that `tojson` writes.
const MAX_INDENT: usize = 64;

/// Variable that is true where the extent of `{% generation %}` is to be marked.
pub(super) const MARKS: &str = "generation_marks";

/// Mark the extent of `{% generation %}` in a text. Unicode keeps them for no character at all.
pub(super) const OPENED: char = '\u{fdd1}';
pub(super) const CLOSED: char = '\u{fdd2}';

/// Longest format of `strftime_now`, in bytes.
const MAX_TIME_FORMAT: usize = 1 << 10;

/// A compiled template.
pub(super) struct Compiled(Environment<'static>);

impl Compiled {
    /// Compiles on a stack that is sized by the template's length, and surely does.
    pub(super) fn new(source: &str) -> Result<Self, Fault> {
        Self::within(source, usize::MAX)
    }

    /// Compiles on a stack of at most `most_stack` bytes. Where that does not do, the process ends.
    pub(super) fn within(source: &str, most_stack: usize) -> Result<Self, Fault> {
        let source = with_filters_for_generation(source);
        let stack = ((1 << 20) + source.len() * STACK_PER_BYTE).min(most_stack);
        let compile = move || {
            caught(|| {
                let mut environment = environment();
                environment.add_template_owned(NAME, source).map(|()| environment)
            })
        };
        let compiled = std::thread::Builder::new()
            .stack_size(stack)
            .spawn(compile)
            .map_err(|error| Fault::new(format!("no thread to compile it: {error}")))?
            .join();
        match compiled {
            Ok(Ok(environment)) => Ok(Compiled(environment?)),
            Ok(Err(_)) | Err(_) => Err(Fault::new("cannot be compiled")),
        }
    }

    pub(super) fn render(&self, variables: Variables) -> Result<String, Fault> {
        let rendered = caught(|| self.0.get_template(NAME)?.render(Serde(variables)));
        Ok(rendered.map_err(|_| Fault::new("cannot be rendered"))??)
    }
}

/// What `transformers` sets up, with minijinja's names.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_filter("generation", |text: String, marks: Option<bool>| match marks {
        Some(true) => format!("{OPENED}{text}{CLOSED}"),
        _ => text,
    });
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// Python's `json.dumps(value, ensure_ascii=False)`, with its arguments.
fn to_json(
    value: Serde<serde_json::Value>,
    arguments: Kwargs,
) -> std::result::Result<String, minijinja::Error> {
    let style = json::Style {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: arguments.get::<Option<usize>>("indent")?.map(|indent| indent.min(MAX_INDENT)),
        separators: arguments.get::<Option<Vec<String>>>("separators")?,
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    Ok(json::dumps(&value.0, &style))
}

/// The local time, written as C's `strftime` does.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    use std::fmt::Write;
    if format.len() > MAX_TIME_FORMAT {
        let why = format!("strftime_now takes no format of {} bytes", format.len());
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, why));
    }
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot write '{format}'"))
    })?;
    Ok(text)
}

/// Whether a template has `{% generation %}`.
pub(super) fn has_generation_tags(source: &str) -> bool {
    with_filters_for_generation(source) != source
}

/// Writes `{% generation %}`, which holds what the assistant says, as a filter that marks its extent: with the same
/// scope and white space.
fn with_filters_for_generation(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result += before;
        // The sign of `{%}` does not both open and close.
        let end = tag[2..].find("%}").map_or(tag.len(), |end| 2 + end);
        let (tag, after) = tag.split_at(end);
        let signs = |c: char| c == '-' || c == '+';
        result += &match tag[2..].trim_matches(signs).trim() {
            "generation" => tag.replace("generation", &format!("with %}}{{% filter generation({MARKS})")),
            "endgeneration" => tag.replace("endgeneration", "endfilter %}{% endwith"),
            _ => tag.to_string(),
        };
        rest = after;
    }
    result + rest
}
