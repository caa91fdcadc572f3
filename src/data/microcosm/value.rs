//! The values of the `code` register's language and what its operators do with them.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::Rc;

/// The most characters or items in one value, and the most characters of output.
const MAX_LENGTH: usize = 10_000;

/// A result, or what is wrong with the program.
pub(super) type Outcome<T> = std::result::Result<T, String>;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Nothing,
    Int(i64),
    Bool(bool),
    Text(String),
    List(Rc<RefCell<Vec<Value>>>),
    Dict(Rc<RefCell<Vec<(Value, Value)>>>),
}

impl Value {
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nothing => false,
            Value::Int(n) => *n != 0,
            Value::Bool(truth) => *truth,
            Value::Text(text) => !text.is_empty(),
            Value::List(items) => !items.borrow().is_empty(),
            Value::Dict(items) => !items.borrow().is_empty(),
        }
    }

    pub(super) fn int(&self) -> Outcome<i64> {
        match self {
            Value::Int(n) => Ok(*n),
            Value::Bool(truth) => Ok(i64::from(*truth)),
            _ => Err(format!("{} is not a number", self.shown())),
        }
    }

    /// What a loop over the value goes through: items, keys or letters.
    pub(super) fn items(&self) -> Outcome<Vec<Value>> {
        match self {
            Value::List(items) => Ok(items.borrow().clone()),
            Value::Dict(items) => Ok(items.borrow().iter().map(|(key, _)| key.clone()).collect()),
            Value::Text(text) => Ok(text.chars().map(|c| Value::Text(c.into())).collect()),
            _ => Err(format!("{} has no items", self.shown())),
        }
    }

    /// Containers hold no containers: so nothing is cyclic, and what is printed stays in proportion.
    pub(super) fn plain(self) -> Outcome<Value> {
        match self {
            Value::List(_) | Value::Dict(_) => Err("lists and dictionaries cannot hold others".into()),
            plain => Ok(plain),
        }
    }

    pub(super) fn shown(&self) -> String {
        if let Value::Text(text) = self { text.clone() } else { self.written() }
    }

    /// As Python's `repr`; strings of the language hold no character that needs escaping.
    pub(super) fn written(&self) -> String {
        match self {
            Value::Nothing => "None".into(),
            Value::Int(n) => n.to_string(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Text(text) if text.contains('\'') => format!("\"{text}\""),
            Value::Text(text) => format!("'{text}'"),
            Value::List(items) => {
                let items: Vec<String> = items.borrow().iter().map(Value::written).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Dict(items) => {
                let item = |(key, value): &(Value, Value)| format!("{}: {}", key.written(), value.written());
                let items: Vec<String> = items.borrow().iter().map(item).collect();
                format!("{{{}}}", items.join(", "))
            }
        }
    }

    pub(super) fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Nothing, Value::Nothing) => true,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                let (a, b) = (a.borrow(), b.borrow());
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Value::Dict(a), Value::Dict(b)) => {
                let (a, b) = (a.borrow(), b.borrow());
                let has =
                    |(key, value): &(Value, Value)| b.iter().any(|(k, v)| k.equals(key) && v.equals(value));
                a.len() == b.len() && a.iter().all(has)
            }
            _ => matches!((self.int(), other.int()), (Ok(a), Ok(b)) if a == b),
        }
    }
}

pub(super) fn list(items: Vec<Value>) -> Outcome<Value> {
    let items = items.into_iter().map(Value::plain).collect::<Outcome<_>>()?;
    Ok(Value::List(Rc::new(RefCell::new(items))))
}

pub(super) fn range(start: i64, end: i64) -> Outcome<Value> {
    within_limit(usize::try_from(end.saturating_sub(start)).unwrap_or(0))?;
    list((start..end).map(Value::Int).collect())
}

pub(super) fn within_limit(length: usize) -> Outcome<()> {
    if length > MAX_LENGTH { Err(format!("more than {MAX_LENGTH} characters or items")) } else { Ok(()) }
}

pub(super) fn extreme(items: Vec<Value>, wanted: Ordering) -> Outcome<Value> {
    let mut items = items.into_iter();
    let mut best = items.next().ok_or("the list is empty")?;
    for item in items {
        if compare(&item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn compare(left: &Value, right: &Value) -> Outcome<Ordering> {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        _ => Ok(left.int()?.cmp(&right.int()?)),
    }
}

pub(super) fn binary(operator: &str, left: Value, right: Value) -> Outcome<Value> {
    let too_large = "a number is too large";
    Ok(match (operator, &left, &right) {
        ("==", _, _) => Value::Bool(left.equals(&right)),
        ("!=", _, _) => Value::Bool(!left.equals(&right)),
        ("<", _, _) => Value::Bool(compare(&left, &right)? == Ordering::Less),
        (">", _, _) => Value::Bool(compare(&left, &right)? == Ordering::Greater),
        ("<=", _, _) => Value::Bool(compare(&left, &right)? != Ordering::Greater),
        (">=", _, _) => Value::Bool(compare(&left, &right)? != Ordering::Less),
        ("in", Value::Text(part), Value::Text(text)) => Value::Bool(text.contains(part.as_str())),
        ("in", _, _) => Value::Bool(right.items()?.iter().any(|item| item.equals(&left))),
        ("+", Value::Text(a), Value::Text(b)) => {
            within_limit(a.len() + b.len())?;
            Value::Text(format!("{a}{b}"))
        }
        ("+", Value::List(a), Value::List(b)) => {
            within_limit(a.borrow().len() + b.borrow().len())?;
            list([a.borrow().clone(), b.borrow().clone()].concat())?
        }
        ("*", Value::Text(text), Value::Int(n)) | ("*", Value::Int(n), Value::Text(text)) => {
            let times = usize::try_from(*n).unwrap_or(0);
            within_limit(text.len().saturating_mul(times))?;
            Value::Text(text.repeat(times))
        }
        _ => {
            let (a, b) = (left.int()?, right.int()?);
            let result = match operator {
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "//" | "%" if b == 0 => return Err("division by zero".into()),
                // Python rounds towards minus infinity, so the remainder has the sign of the divisor.
                "//" => a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }),
                "%" => a.checked_rem(b).map(|m| if m != 0 && (m < 0) != (b < 0) { m + b } else { m }),
                _ => return Err(format!("unknown operator {operator}")),
            };
            Value::Int(result.ok_or(too_large)?)
        }
    })
}

/// The place in a list that an index means; negative ones count from the end.
fn place(length: usize, key: &Value) -> Outcome<usize> {
    let index = key.int()?;
    let from_end = if index < 0 { length as i64 } else { 0 };
    let place = index.checked_add(from_end).and_then(|place| usize::try_from(place).ok());
    place.filter(|&place| place < length).ok_or_else(|| format!("there is no item {index}"))
}

pub(super) fn load(container: &Value, key: &Value) -> Outcome<Value> {
    match container {
        Value::Dict(items) => {
            let items = items.borrow();
            let found = items.iter().find(|(k, _)| k.equals(key)).map(|(_, value)| value.clone());
            found.ok_or_else(|| format!("there is no key {}", key.shown()))
        }
        _ => {
            let items = container.items()?;
            Ok(items[place(items.len(), key)?].clone())
        }
    }
}

pub(super) fn store(container: &Value, key: Value, value: Value) -> Outcome<()> {
    let value = value.plain()?;
    match container {
        Value::List(items) => {
            let place = place(items.borrow().len(), &key)?;
            items.borrow_mut()[place] = value;
        }
        Value::Dict(items) => {
            let found = items.borrow().iter().position(|(k, _)| k.equals(&key));
            match found {
                Some(place) => items.borrow_mut()[place].1 = value,
                None => {
                    within_limit(items.borrow().len() + 1)?;
                    items.borrow_mut().push((key, value));
                }
            }
        }
        _ => return Err("only lists and dictionaries have items to set".into()),
    }
    Ok(())
}
