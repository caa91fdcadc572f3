//! A report as Markdown, with the main curves in Braille dots.

use super::chart::{Chart, Line, Style};
use super::html::is_hidden;
use super::page::{Block, Cell, Page, Table, Tone};
use crate::report::curve::Curve;
use std::fmt::{self, Write};

/// What the file begins with: no other file of that name is overwritten.
pub const BEGIN: &str = "<!-- report of smolter -->\n";

/// Columns and rows of a curve, and most curves of a chart.
const CURVE: (usize, usize) = (90, 14);
const CURVES: usize = 6;

/// The report as text of a Markdown file.
pub fn write(page: &Page) -> String {
    let mut out = String::from(BEGIN);
    // Writing to a string fails for no reason.
    let _ = whole(&mut out, page);
    out
}

fn whole(out: &mut String, page: &Page) -> fmt::Result {
    writeln!(out, "# {}\n", Escaped(&page.title))?;
    blocks(out, &page.lead)?;
    for section in &page.sections {
        writeln!(out, "## {}\n", Escaped(&section.title))?;
        blocks(out, &section.blocks)?;
    }
    Ok(())
}

fn blocks(out: &mut String, all: &[Block]) -> fmt::Result {
    for block in all {
        match block {
            Block::Text(text) => writeln!(out, "{}\n", Escaped(text))?,
            Block::Note(text) => writeln!(out, "> {}\n", Escaped(text))?,
            Block::Heading(text) => writeln!(out, "### {}\n", Escaped(text))?,
            Block::Code(text) => fenced(out, text)?,
            Block::Facts(facts) => {
                for (name, value) in facts {
                    writeln!(out, "- {}: {}", Escaped(name), Escaped(value))?;
                }
                out.write_char('\n')?;
            }
            Block::Table(it) => table(out, it)?,
            Block::Charts(charts) => {
                charts.iter().filter(|it| it.wide).try_for_each(|it| chart(out, it))?;
                let others: Vec<&str> =
                    charts.iter().filter(|it| !it.wide).map(|it| it.title.as_str()).collect();
                if !others.is_empty() {
                    writeln!(out, "Curves in the HTML report: {}.\n", Escaped(&others.join(", ")))?;
                }
            }
            Block::Quotes(quotes) => {
                for (who, text) in quotes {
                    writeln!(out, "**{}**\n", Escaped(who))?;
                    fenced(out, text)?;
                }
            }
            Block::Details(summary, inner) => {
                writeln!(out, "<details><summary>{}</summary>\n", Escaped(summary))?;
                blocks(out, inner)?;
                writeln!(out, "</details>\n")?;
            }
        }
    }
    Ok(())
}

fn table(out: &mut String, table: &Table) -> fmt::Result {
    if !table.caption.is_empty() {
        writeln!(out, "{}\n", Escaped(&table.caption))?;
    }
    let columns = table.header.len().max(1);
    for name in &table.header {
        write!(out, "| {} ", Escaped(name))?;
    }
    out.write_str("|\n")?;
    for column in 0..columns {
        out.write_str(if column < table.words { "| --- " } else { "| ---: " })?;
    }
    out.write_str("|\n")?;
    for row in &table.rows {
        for column in 0..columns {
            let none = Cell::default();
            let Cell { text, tone } = row.get(column).unwrap_or(&none);
            let mark = match tone {
                Tone::Good => "**",
                Tone::Bad => "*",
                Tone::Plain | Tone::Quiet => "",
            };
            write!(out, "| {mark}{}{mark} ", Escaped(text))?;
        }
        out.write_str("|\n")?;
    }
    out.write_char('\n')
}

fn chart(out: &mut String, chart: &Chart) -> fmt::Result {
    let named: Vec<&Line> =
        chart.lines.iter().filter(|line| line.style == Style::Solid && !line.name.is_empty()).collect();
    for line in named.iter().take(CURVES) {
        // Of several curves, the marks of each have its colour.
        let mine =
            |other: &&Line| other.style == Style::Dots && (named.len() == 1 || other.color == line.color);
        let marks = chart.lines.iter().filter(mine).flat_map(|marks| marks.pieces.iter().flatten());
        let mut curve = Curve::over(chart.x);
        line.pieces.iter().flatten().for_each(|&(x, y)| curve.push(x as u64, y));
        marks.for_each(|&(x, y)| curve.push_held_out(x as u64, y));
        let rows = curve.draw(CURVE.0, CURVE.1);
        if !rows.is_empty() {
            writeln!(out, "{}: {}\n", Escaped(&chart.title), Escaped(&line.name))?;
            fenced(out, &rows.join("\n"))?;
        }
    }
    Ok(())
}

/// The text as it is, whatever it holds.
fn fenced(out: &mut String, text: &str) -> fmt::Result {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    writeln!(out, "{fence}text\n{}\n{fence}\n", Verbatim(text))
}

/// Text in which nothing hides.
struct Verbatim<'a>(&'a str);

impl fmt::Display for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' | '\t' => f.write_char(c),
            c if is_hidden(c) => write!(f, "{}", c.escape_unicode()),
            c => f.write_char(c),
        })
    }
}

/// Text on one line that is no Markdown and no HTML, wherever it stands.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.char_indices() {
            match c {
                '\n' | '\t' => f.write_char(' ')?,
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => write!(f, "\\{c}")?,
                '#' | '+' | '-' | '=' | ':' if at == 0 && self.0.len() > 1 => write!(f, "\\{c}")?,
                c if is_hidden(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let escaped = |text| Escaped(text).to_string();
        assert_eq!(escaped("# a|b\n<script>&*_`[x](y)"), "\\# a\\|b &lt;script&gt;&amp;\\*\\_\\`\\[x\\](y)");
        assert_eq!(escaped("\u{202e}\r-"), "\\u{202e}\\u{d}-");
        let mut out = String::new();
        fenced(&mut out, "a\n````\nb").unwrap();
        assert_eq!(out, "`````text\na\n````\nb\n`````\n\n");
    }
}
