//! A report as a tree of blocks, whatever it is written as. Texts in it are plain: whoever writes them escapes them.

use super::chart::Chart;

/// A whole report.
pub struct Page {
    /// Its headline.
    pub title: String,
    /// What stands below that.
    pub lead: Vec<Block>,
    /// Its parts.
    pub sections: Vec<Section>,
}

/// A part with a heading of its own.
pub struct Section {
    /// The heading.
    pub title: String,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A piece of a report.
pub enum Block {
    /// A paragraph.
    Text(String),
    /// What is missing, or must be known to read the rest.
    Note(String),
    /// Key figures: name and value.
    Facts(Vec<(String, String)>),
    /// Rows and columns.
    Table(Table),
    /// Curves side by side, as far as there is room.
    Charts(Vec<Chart>),
    /// Text to copy, as it is.
    Code(String),
    /// What a model wrote: of whom, and the text.
    Quotes(Vec<(String, String)>),
    /// A smaller heading.
    Heading(String),
    /// What is only shown when asked for.
    Details(String, Vec<Block>),
}

/// Rows and columns with a header.
#[derive(Default)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows; a short one is filled up.
    pub rows: Vec<Vec<Cell>>,
    /// Columns that hold words, from the left; the others hold numbers.
    pub words: usize,
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it says it.
    pub tone: Tone,
}

/// The look of a cell. Nothing is told by that alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As all others.
    #[default]
    Plain,
    /// What stands out to the good.
    Good,
    /// What stands out to the bad.
    Bad,
    /// What matters less.
    Quiet,
}

impl Section {
    /// An empty one.
    pub fn new(title: &str) -> Section {
        Section { title: title.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph about what is missing.
    pub fn note(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Note(text.into()));
    }
}

impl Table {
    /// An empty one whose first column holds words.
    pub fn new<S: Into<String>>(caption: &str, header: impl IntoIterator<Item = S>) -> Table {
        let header = header.into_iter().map(Into::into).collect();
        Table { caption: caption.into(), header, rows: Vec::new(), words: 1 }
    }

    /// With so many columns of words.
    pub fn words(self, words: usize) -> Table {
        Table { words, ..self }
    }

    /// Adds a row.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl Cell {
    /// A cell of this look.
    pub fn new(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    /// Stands for what there is not.
    pub fn none() -> Cell {
        Cell::new("-", Tone::Quiet)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::new(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::new(text, Tone::Plain)
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Cell {
        text.map_or_else(Cell::none, Cell::from)
    }
}
