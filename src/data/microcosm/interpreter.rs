//! Runs programs of the `code` register's language, within limits that any text keeps to.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use super::program::{Action, Expression, Statement, at, parse};
use super::value::{Outcome, Value, binary, extreme, list, load, range, store, within_limit};
use crate::error::Result;

const MAX_CALLS: usize = 30;
/// What a program prints, run for at most `max_steps` statements, calls and loop turns.
///
/// # Errors
/// [`crate::error::Error::Input`] names the line where the text stops being a program that runs within the limits.
pub fn run(source: &str, max_steps: usize) -> Result<String> {
    let program = parse(source)?;
    let mut machine = Machine { steps: max_steps, ..Machine::default() };
    match machine.block(&program) {
        Ok(_) => Ok(machine.output),
        Err(what) => Err(at(machine.line, &what)),
    }
}

#[derive(Default)]
struct Machine<'p> {
    steps: usize,
    line: usize,
    output: String,
    globals: HashMap<&'p str, Value>,
    /// The variables of the functions being called, innermost last.
    frames: Vec<HashMap<&'p str, Value>>,
    functions: HashMap<&'p str, (&'p [String], &'p [Statement])>,
}

impl<'p> Machine<'p> {
    fn step(&mut self) -> Outcome<()> {
        self.steps = self.steps.checked_sub(1).ok_or("the program runs for too long")?;
        Ok(())
    }

    fn assign(&mut self, name: &'p str, value: Value) {
        self.frames.last_mut().unwrap_or(&mut self.globals).insert(name, value);
    }

    /// Runs statements; some value means that they returned it.
    fn block(&mut self, statements: &'p [Statement]) -> Outcome<Option<Value>> {
        for statement in statements {
            self.line = statement.line;
            self.step()?;
            if let Some(value) = self.act(&statement.action)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn act(&mut self, action: &'p Action) -> Outcome<Option<Value>> {
        match action {
            Action::Assign(name, value) => {
                let value = self.evaluate(value)?;
                self.assign(name, value);
            }
            Action::Store(container, key, value) => {
                let (container, key, value) =
                    (self.evaluate(container)?, self.evaluate(key)?, self.evaluate(value)?);
                store(&container, key, value)?;
            }
            Action::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition)?.is_true() {
                        return self.block(body);
                    }
                }
                return self.block(otherwise);
            }
            Action::While(condition, body) => {
                while self.evaluate(condition)?.is_true() {
                    self.step()?;
                    if let Some(value) = self.block(body)? {
                        return Ok(Some(value));
                    }
                }
            }
            Action::For(name, items, body) => {
                for item in self.evaluate(items)?.items()? {
                    self.step()?;
                    self.assign(name, item);
                    if let Some(value) = self.block(body)? {
                        return Ok(Some(value));
                    }
                }
            }
            Action::Define(name, parameters, body) => {
                self.functions.insert(name, (parameters, body));
            }
            Action::Return(_) if self.frames.is_empty() => return Err("return outside a function".into()),
            Action::Return(None) => return Ok(Some(Value::Nothing)),
            Action::Return(Some(value)) => return Ok(Some(self.evaluate(value)?)),
            Action::Evaluate(value) => {
                self.evaluate(value)?;
            }
        }
        Ok(None)
    }

    fn evaluate(&mut self, expression: &'p Expression) -> Outcome<Value> {
        Ok(match expression {
            Expression::Int(n) => Value::Int(*n),
            Expression::Text(text) => Value::Text(text.clone()),
            Expression::Bool(truth) => Value::Bool(*truth),
            Expression::Nothing => Value::Nothing,
            Expression::Name(name) => {
                let local = self.frames.last().and_then(|frame| frame.get(name.as_str()));
                local
                    .or(self.globals.get(name.as_str()))
                    .cloned()
                    .ok_or_else(|| format!("{name} is not defined"))?
            }
            Expression::List(items) => list(self.all(items)?)?,
            Expression::Dict(items) => {
                let dict = Value::Dict(Rc::default());
                for (key, value) in items {
                    let (key, value) = (self.evaluate(key)?, self.evaluate(value)?);
                    store(&dict, key, value)?;
                }
                dict
            }
            Expression::Negative(value) => {
                Value::Int(self.evaluate(value)?.int()?.checked_neg().ok_or("a number is too large")?)
            }
            Expression::Not(value) => Value::Bool(!self.evaluate(value)?.is_true()),
            Expression::Binary(operator @ ("and" | "or"), left, right) => {
                let left = self.evaluate(left)?;
                if left.is_true() == (*operator == "and") { self.evaluate(right)? } else { left }
            }
            Expression::Binary(operator, left, right) => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                binary(operator, left, right)?
            }
            Expression::Index(container, key) => {
                let (container, key) = (self.evaluate(container)?, self.evaluate(key)?);
                load(&container, &key)?
            }
            Expression::Append(container, item) => {
                let (container, item) = (self.evaluate(container)?, self.evaluate(item)?);
                let Value::List(items) = container else { return Err("append needs a list".into()) };
                within_limit(items.borrow().len() + 1)?;
                items.borrow_mut().push(item.plain()?);
                Value::Nothing
            }
            Expression::Call(name, arguments) => {
                let arguments = self.all(arguments)?;
                self.call(name, arguments)?
            }
        })
    }

    fn all(&mut self, expressions: &'p [Expression]) -> Outcome<Vec<Value>> {
        expressions.iter().map(|expression| self.evaluate(expression)).collect()
    }

    fn call(&mut self, name: &str, arguments: Vec<Value>) -> Outcome<Value> {
        self.step()?;
        let Some(&(parameters, body)) = self.functions.get(name) else {
            return self.builtin(name, &arguments);
        };
        if parameters.len() != arguments.len() {
            return Err(format!("{name} takes {} arguments, not {}", parameters.len(), arguments.len()));
        }
        if self.frames.len() == MAX_CALLS {
            return Err("calls are nested too deeply".into());
        }
        self.frames.push(parameters.iter().map(String::as_str).zip(arguments).collect());
        let line = self.line;
        let value = self.block(body)?;
        self.line = line;
        self.frames.pop();
        Ok(value.unwrap_or(Value::Nothing))
    }

    fn builtin(&mut self, name: &str, arguments: &[Value]) -> Outcome<Value> {
        Ok(match (name, arguments) {
            ("print", values) => {
                let words: Vec<String> = values.iter().map(Value::shown).collect();
                self.output += &(words.join(" ") + "\n");
                within_limit(self.output.len())?;
                Value::Nothing
            }
            ("len", [Value::Text(text)]) => Value::Int(text.chars().count() as i64),
            ("len", [container]) => Value::Int(container.items()?.len() as i64),
            ("str", [value]) => Value::Text(value.shown()),
            ("range", [end]) => range(0, end.int()?)?,
            ("range", [start, end]) => range(start.int()?, end.int()?)?,
            ("sum", [items]) => {
                items.items()?.into_iter().try_fold(Value::Int(0), |sum, item| binary("+", sum, item))?
            }
            ("max", [items]) => extreme(items.items()?, Ordering::Greater)?,
            ("min", [items]) => extreme(items.items()?, Ordering::Less)?,
            ("max", [_, _, ..]) => extreme(arguments.to_vec(), Ordering::Greater)?,
            ("min", [_, _, ..]) => extreme(arguments.to_vec(), Ordering::Less)?,
            ("len" | "str" | "range" | "sum" | "max" | "min", _) => {
                return Err(format!("wrong number of arguments for {name}"));
            }
            _ => return Err(format!("{name} is not defined")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(source: &str) -> String {
        run(source, 10_000).unwrap_or_else(|error| format!("{error}"))
    }

    #[test]
    fn runs_as_python_does() {
        let source = "
def fib(n):
    if n < 2:
        return n
    return fib(n - 1) + fib(n - 2)

numbers = [3, -4, 5]  # a comment
numbers.append(fib(7))
total = 0
for n in numbers:
    if n % 2 == 1 and not n == 5:
        total += n
    elif n < 0:
        total = total - n // 3
    else:
        numbers[0] = n
print(total, numbers, len(numbers), max(numbers), -7 % 3, -7 // 2)
ages = {\"Mirra\": 41, 'Tam': 12}
ages[\"Tam\"] = ages[\"Tam\"] + 1
while ages[\"Tam\"] < 15:
    ages[\"Tam\"] += 1
print(ages, \"Tam\" in ages, \"ha\" * 2 + str(1 + 2 * 3), numbers[-1])
print(min(4, 2), sum(range(1, 5)), 2 < 3, fib)
";
        let expected = "18 [5, -4, 5, 13] 4 13 2 -4\n{'Mirra': 41, 'Tam': 15} True haha7 13\n";
        let shown = run(source.rsplit_once("print").map_or("", |(most, _)| most), 10_000);
        assert_eq!(shown.ok().as_deref(), Some(expected));
        assert_eq!(output(source), "program line 23: fib is not defined");
    }

    #[test]
    fn refuses_what_it_cannot_run() {
        let nested = "(".repeat(5000);
        for (source, what) in [
            ("while True:\n    x = 1", "too long"),
            ("x = 1 / 0", "end of the line"),
            ("x = 1 // 0", "division by zero"),
            ("x = 9999999999\nx = x * x", "too large"),
            ("x = \"a\" * 99999999", "more than"),
            ("def f(n):\n    return f(n)\nf(1)", "too deeply"),
            ("print(y)", "y is not defined"),
            ("if 1:\nprint(1)", "indented block"),
            ("  x = 1", "indentation"),
            ("x = \"abc", "closing quote"),
            ("x = [1, 2\n", "expected"),
            ("x = [1][4]", "no item 4"),
            ("\u{e9} = 1", "unknown character"),
            ("1 = 2", "cannot assign"),
            ("a = [1]\na.append(a)", "cannot hold"),
            (nested.as_str(), "too deeply"),
        ] {
            assert!(output(source).contains(what), "{source:.40}: {}", output(source));
        }
    }
}
