//! A report as one HTML file that needs nothing else: no script, no font, no other file.

use super::chart::{Chart, Line};
use super::page::{Block, Cell, Page, Table, Tone};
use std::fmt::{self, Write};

/// Colours and layout.
const STYLE: &str = include_str!("style.css");

/// What the file begins with: no other file of that name is overwritten.
pub const BEGIN: &str = "<!DOCTYPE html>\n<!-- report of smolter -->\n";

/// The report as text of an HTML file.
pub fn write(page: &Page) -> String {
    let mut html = Html(String::from(BEGIN));
    // Writing to a string fails for no reason.
    let _ = html.page(page);
    html.0
}

struct Html(String);

impl Html {
    fn page(&mut self, page: &Page) -> fmt::Result {
        let out = &mut self.0;
        let title = Escaped(&page.title);
        // Should a text ever get through as more than text, a browser still runs and fetches nothing.
        write!(
            out,
            "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        )?;
        self.blocks(&page.lead)?;
        self.0.write_str("</header>\n<nav>\n")?;
        for (index, section) in page.sections.iter().enumerate() {
            writeln!(self.0, "<a href=\"#part-{index}\">{}</a>", Escaped(&section.title))?;
        }
        self.0.write_str("</nav>\n<main>\n")?;
        for (index, section) in page.sections.iter().enumerate() {
            writeln!(self.0, "<section id=\"part-{index}\">\n<h2>{}</h2>", Escaped(&section.title))?;
            self.blocks(&section.blocks)?;
            self.0.write_str("</section>\n")?;
        }
        self.0.write_str("</main>\n</body>\n</html>\n")
    }

    fn blocks(&mut self, blocks: &[Block]) -> fmt::Result {
        blocks.iter().try_for_each(|block| self.block(block))
    }

    fn block(&mut self, block: &Block) -> fmt::Result {
        match block {
            Block::Text(text) => writeln!(self.0, "<p>{}</p>", Escaped(text)),
            Block::Note(text) => writeln!(self.0, "<p class=\"note\">{}</p>", Escaped(text)),
            Block::Heading(text) => writeln!(self.0, "<h3>{}</h3>", Escaped(text)),
            Block::Code(text) => {
                writeln!(self.0, "<pre class=\"box\" tabindex=\"0\"><code>{}</code></pre>", Escaped(text))
            }
            Block::Facts(facts) => {
                self.0.write_str("<dl class=\"facts\">\n")?;
                for (name, value) in facts {
                    writeln!(self.0, "<div><dt>{}</dt><dd>{}</dd></div>", Escaped(name), Escaped(value))?;
                }
                self.0.write_str("</dl>\n")
            }
            Block::Table(table) => self.table(table),
            Block::Charts(charts) => {
                self.0.write_str("<div class=\"charts\">\n")?;
                charts.iter().try_for_each(|chart| self.chart(chart))?;
                self.0.write_str("</div>\n")
            }
            Block::Quotes(quotes) => {
                self.0.write_str("<div class=\"quotes\">\n")?;
                for (who, text) in quotes {
                    let (who, text) = (Escaped(who), Escaped(text));
                    writeln!(
                        self.0,
                        "<figure><figcaption>{who}</figcaption><blockquote>{text}</blockquote></figure>"
                    )?;
                }
                self.0.write_str("</div>\n")
            }
            Block::Details(summary, blocks) => {
                writeln!(self.0, "<details><summary>{}</summary>", Escaped(summary))?;
                self.blocks(blocks)?;
                self.0.write_str("</details>\n")
            }
        }
    }

    fn table(&mut self, table: &Table) -> fmt::Result {
        let class = |column: usize| if column < table.words { " class=\"word\"" } else { "" };
        if !table.caption.is_empty() {
            writeln!(self.0, "<p class=\"caption\">{}</p>", Escaped(&table.caption))?;
        }
        self.0.write_str("<div class=\"box\" tabindex=\"0\"><table>\n")?;
        self.0.write_str("<thead><tr>")?;
        for (column, name) in table.header.iter().enumerate() {
            write!(self.0, "<th scope=\"col\"{}>{}</th>", class(column), Escaped(name))?;
        }
        self.0.write_str("</tr></thead>\n<tbody>\n")?;
        for row in &table.rows {
            self.0.write_str("<tr>")?;
            for column in 0..table.header.len().max(row.len()) {
                let none = Cell::default();
                let Cell { text, tone } = row.get(column).unwrap_or(&none);
                let text = Escaped(text);
                if column == 0 {
                    write!(self.0, "<th scope=\"row\" class=\"word\">{text}</th>")?;
                    continue;
                }
                let tone = match tone {
                    Tone::Plain => "",
                    Tone::Good => "good",
                    Tone::Bad => "bad",
                    Tone::Quiet => "quiet",
                };
                let word = if column < table.words { "word " } else { "" };
                match format!("{word}{tone}").trim() {
                    "" => write!(self.0, "<td>{text}</td>")?,
                    class => write!(self.0, "<td class=\"{class}\">{text}</td>")?,
                }
            }
            self.0.write_str("</tr>\n")?;
        }
        self.0.write_str("</tbody>\n</table></div>\n")
    }

    fn chart(&mut self, chart: &Chart) -> fmt::Result {
        let class = if chart.wide { " class=\"whole\"" } else { "" };
        let title = Escaped(&chart.title);
        writeln!(self.0, "<figure{class}><figcaption>{title} <small>over {}</small></figcaption>", chart.x)?;
        self.0.write_str("<ul class=\"legend\">")?;
        for line in chart.lines.iter().filter(|line| !line.name.is_empty()) {
            self.legend(line)?;
        }
        self.0.write_str("</ul>\n")?;
        for (size, svg) in chart.drawings() {
            writeln!(self.0, "<div class=\"{size}\" role=\"img\" aria-label=\"{title}\">{svg}</div>")?;
        }
        self.0.write_str("</figure>\n")
    }

    fn legend(&mut self, line: &Line) -> fmt::Result {
        let (classes, name) = (Chart::classes(line), Escaped(&line.name));
        write!(self.0, "<li><i class=\"{classes} key\"></i>{name}</li>")
    }
}

/// Text that a browser takes for nothing else, wherever it stands. What would hide or reorder letters is spelt out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if is_hidden(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, and those that change the direction of what follows.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let text = Escaped("<script>alert(\"1\" & '2')</script>\n\u{0}\u{202e}é").to_string();
        let expected =
            "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;\n\\u{0}\\u{202e}é";
        assert_eq!(text, expected);
    }
}
