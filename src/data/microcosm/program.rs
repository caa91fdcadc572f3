//! The syntax of the `code` register's language, a small subset of Python: integers, strings, booleans, lists,
//! dictionaries, `if`, `while`, `for`, `def`. Every program of it means the same in Python 3.

use crate::error::{Error, Result};

/// Nesting deeper than this is refused, so that no input exhausts the stack.
const MAX_DEPTH: usize = 40;

/// A statement and the line (from 1) that it starts on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub line: usize,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Assign(String, Expression),
    /// `list[key] = value`
    Store(Expression, Expression, Expression),
    If(Vec<(Expression, Vec<Statement>)>, Vec<Statement>),
    While(Expression, Vec<Statement>),
    For(String, Expression, Vec<Statement>),
    Define(String, Vec<String>, Vec<Statement>),
    Return(Option<Expression>),
    Evaluate(Expression),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Int(i64),
    Text(String),
    Bool(bool),
    Nothing,
    Name(String),
    List(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Negative(Box<Expression>),
    Not(Box<Expression>),
    Binary(&'static str, Box<Expression>, Box<Expression>),
    Index(Box<Expression>, Box<Expression>),
    Call(String, Vec<Expression>),
    Append(Box<Expression>, Box<Expression>),
}

/// Binary operators by precedence, loosest first. All are left-associative; comparisons do not chain.
const OPERATORS: [&[&str]; 5] =
    [&["or"], &["and"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "//", "%"]];
const COMPARISON: usize = 2;

const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "//", "+=", "-=", "*=", "<", ">", "=", "+", "-", "*", "%", "(", ")", "[", "]",
    "{", "}", ",", ":", ".", "/",
];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Int(i64),
    Text(String),
    /// A name, a keyword, or one of [`SYMBOLS`].
    Word(String),
}

struct Line {
    number: usize,
    indent: usize,
    tokens: Vec<Token>,
}

/// Parses a program.
///
/// # Errors
/// [`Error::Input`] names the first line that is not of the language.
pub(super) fn parse(source: &str) -> Result<Vec<Statement>> {
    let mut lines = Vec::new();
    for (i, text) in source.lines().enumerate() {
        let tokens = tokens(text).map_err(|what| at(i + 1, &what))?;
        if !tokens.is_empty() {
            let indent = text.len() - text.trim_start_matches(' ').len();
            lines.push(Line { number: i + 1, indent, tokens });
        }
    }
    let mut parser = Parser { lines: &lines, line: 0, token: 0, depth: 0 };
    let program = parser.block(0).map_err(|what| at(parser.number(), &what))?;
    if parser.line < lines.len() {
        return Err(at(parser.number(), "unexpected indentation"));
    }
    Ok(program)
}

/// An error that names a line of a program.
pub(super) fn at(line: usize, what: &str) -> Error {
    Error::input(format!("program line {line}: {what}"))
}

fn tokens(text: &str) -> Parsed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while let Some(first) = rest.chars().next() {
        let word =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let used = if first == '#' {
            break;
        } else if first == ' ' {
            1
        } else if first.is_ascii_digit() {
            tokens
                .push(Token::Int(rest[..word].parse().map_err(|_| format!("bad number {}", &rest[..word]))?));
            word
        } else if word > 0 {
            tokens.push(Token::Word(rest[..word].into()));
            word
        } else if first == '"' || first == '\'' {
            let end = rest[1..].find(first).ok_or("a string without its closing quote")?;
            tokens.push(Token::Text(rest[1..=end].into()));
            end + 2
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| format!("unknown character {first:?}"))?;
            tokens.push(Token::Word((*symbol).into()));
            symbol.len()
        };
        rest = &rest[used..];
    }
    Ok(tokens)
}

struct Parser<'a> {
    lines: &'a [Line],
    line: usize,
    token: usize,
    depth: usize,
}

type Parsed<T> = std::result::Result<T, String>;

impl Parser<'_> {
    fn number(&self) -> usize {
        self.lines.get(self.line).or(self.lines.last()).map_or(1, |line| line.number)
    }

    fn peek(&self) -> Option<&Token> {
        self.lines.get(self.line).and_then(|line| line.tokens.get(self.token))
    }

    fn next(&mut self) -> Parsed<Token> {
        let token = self.peek().cloned().ok_or("the line ends too early")?;
        self.token += 1;
        Ok(token)
    }

    fn sees(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w == word)
    }

    fn accept(&mut self, word: &str) -> bool {
        let seen = self.sees(word);
        self.token += usize::from(seen);
        seen
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.accept(word) { Ok(()) } else { Err(format!("expected {word:?}")) }
    }

    fn name(&mut self) -> Parsed<String> {
        match self.next()? {
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => Ok(word),
            _ => Err("expected a name".into()),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err("nested too deeply".into());
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn block(&mut self, indent: usize) -> Parsed<Vec<Statement>> {
        let mut block = Vec::new();
        while self.lines.get(self.line).is_some_and(|line| line.indent == indent) {
            block.push(self.statement(indent)?);
        }
        Ok(block)
    }

    /// The indented lines after a colon.
    fn body(&mut self, indent: usize) -> Parsed<Vec<Statement>> {
        self.expect(":")?;
        self.end_line()?;
        match self.lines.get(self.line) {
            Some(line) if line.indent > indent => {
                let inner = line.indent;
                self.nested(|parser| parser.block(inner))
            }
            _ => Err("expected an indented block".into()),
        }
    }

    fn end_line(&mut self) -> Parsed<()> {
        if self.peek().is_some() {
            return Err("expected the end of the line".into());
        }
        (self.line, self.token) = (self.line + 1, 0);
        Ok(())
    }

    fn statement(&mut self, indent: usize) -> Parsed<Statement> {
        let line = self.number();
        let action = if self.accept("if") {
            let mut branches = vec![(self.expression()?, self.body(indent)?)];
            let follows =
                |parser: &Self| parser.lines.get(parser.line).is_some_and(|line| line.indent == indent);
            while follows(self) && self.accept("elif") {
                branches.push((self.expression()?, self.body(indent)?));
            }
            let otherwise =
                if follows(self) && self.accept("else") { self.body(indent)? } else { Vec::new() };
            Action::If(branches, otherwise)
        } else if self.accept("while") {
            Action::While(self.expression()?, self.body(indent)?)
        } else if self.accept("for") {
            let name = self.name()?;
            self.expect("in")?;
            Action::For(name, self.expression()?, self.body(indent)?)
        } else if self.accept("def") {
            let name = self.name()?;
            self.expect("(")?;
            let parameters = self.items(")", Self::name)?;
            Action::Define(name, parameters, self.body(indent)?)
        } else {
            let action = self.simple()?;
            self.end_line()?;
            action
        };
        Ok(Statement { line, action })
    }

    fn simple(&mut self) -> Parsed<Action> {
        if self.accept("return") {
            let value = if self.peek().is_some() { Some(self.expression()?) } else { None };
            return Ok(Action::Return(value));
        }
        let target = self.expression()?;
        let Some((symbol, operator)) = [("=", ""), ("+=", "+"), ("-=", "-"), ("*=", "*")]
            .into_iter()
            .find(|(symbol, _)| self.sees(symbol))
        else {
            return Ok(Action::Evaluate(target));
        };
        self.expect(symbol)?;
        let mut value = self.expression()?;
        if !operator.is_empty() {
            value = Expression::Binary(operator, Box::new(target.clone()), Box::new(value));
        }
        match target {
            Expression::Name(name) => Ok(Action::Assign(name, value)),
            Expression::Index(list, key) => Ok(Action::Store(*list, *key, value)),
            _ => Err("cannot assign to this".into()),
        }
    }

    fn expression(&mut self) -> Parsed<Expression> {
        self.nested(|parser| parser.binary(0))
    }

    fn binary(&mut self, level: usize) -> Parsed<Expression> {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        if level == COMPARISON && self.accept("not") {
            return Ok(Expression::Not(Box::new(self.nested(|parser| parser.binary(level))?)));
        }
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.accept(operator)) {
            let right = self.binary(level + 1)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
            if level == COMPARISON {
                break;
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expression> {
        if self.accept("-") {
            return Ok(Expression::Negative(Box::new(self.nested(Self::unary)?)));
        }
        let mut value = match self.next()? {
            Token::Int(n) => Expression::Int(n),
            Token::Text(text) => Expression::Text(text),
            Token::Word(word) => self.word(word)?,
        };
        loop {
            if self.accept("[") {
                value = Expression::Index(Box::new(value), Box::new(self.expression()?));
                self.expect("]")?;
            } else if self.accept(".") {
                self.expect("append")?;
                self.expect("(")?;
                value = Expression::Append(Box::new(value), Box::new(self.expression()?));
                self.expect(")")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn word(&mut self, word: String) -> Parsed<Expression> {
        match word.as_str() {
            "True" | "False" => Ok(Expression::Bool(word == "True")),
            "None" => Ok(Expression::Nothing),
            "(" => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            "[" => Ok(Expression::List(self.items("]", Self::expression)?)),
            "{" => Ok(Expression::Dict(self.items("}", |parser| {
                let key = parser.expression()?;
                parser.expect(":")?;
                Ok((key, parser.expression()?))
            })?)),
            "if" | "elif" | "else" | "while" | "for" | "def" | "return" | "in" | "and" | "or" | "not" => {
                Err(format!("{word:?} cannot stand here"))
            }
            _ if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                Err(format!("{word:?} cannot stand here"))
            }
            _ if self.accept("(") => Ok(Expression::Call(word, self.items(")", Self::expression)?)),
            _ => Ok(Expression::Name(word)),
        }
    }

    /// Items between commas up to the closing bracket.
    fn items<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.accept(close) {
            items.push(item(self)?);
            if !self.sees(close) {
                self.expect(",")?;
            }
        }
        Ok(items)
    }
}
