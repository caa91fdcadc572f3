//! Curves as SVG: drawn by `plotters` in colours that stand for classes, which the page's style sheet then colours for light
//! and dark screens.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// Lines over a common axis.
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: &'static str,
    /// The lines, the last on top.
    pub lines: Vec<Line>,
    /// Stretches of the horizontal axis: from, to and name.
    pub bands: Vec<(f64, f64, String)>,
    /// Whether it is the main one, as wide as the page.
    pub wide: bool,
    /// Whether equal distances upwards are equal factors, where values differ by large ones.
    pub logarithmic: bool,
}

/// A line of a chart.
pub struct Line {
    /// What the legend calls it; lines without a name are not in it.
    pub name: String,
    /// Number of its colour: the same for lines that belong together.
    pub color: usize,
    /// How it is drawn.
    pub style: Style,
    /// Its points in pieces, which are not joined.
    pub pieces: Vec<Vec<(f64, f64)>>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Thin and pale, in the background: it does not decide how high the chart is.
    Raw,
    /// Thick.
    Solid,
    /// Dots joined by a thin line.
    Dots,
}

/// Colours that the style sheet has; as many more are the same with gaps.
pub const COLORS: usize = 8;

/// Pixels of the drawing for one of the page: `plotters` knows whole ones only.
const FINE: u32 = 4;

/// Width and height on the page: as wide as the page, and where there is less room.
const WIDE: (u32, u32) = (1140, 380);
const NARROW: (u32, u32) = (480, 300);

/// Most points of a line for each pixel of width.
const DENSITY: f64 = 0.7;

/// Factor between values from which a logarithmic axis shows more.
const LARGE: f64 = 4.0;

/// Height of letters, and an estimate of their width.
const LETTER: f64 = 13.0;
const LETTER_WIDTH: f64 = 7.2;

impl Style {
    fn class(self) -> &'static str {
        match self {
            Style::Raw => "raw",
            Style::Solid => "solid",
            Style::Dots => "dots",
        }
    }
}

impl Chart {
    /// Whether there is nothing to draw: no line has two points.
    pub fn is_empty(&self) -> bool {
        let points = |line: &Line| line.pieces.iter().map(Vec::len).sum::<usize>();
        self.lines.iter().all(|line| points(line) < if line.style == Style::Dots { 1 } else { 2 })
    }

    /// The drawings of it, each with its class: `wide` and `narrow` where it is as wide as the page, of which the style
    /// sheet shows one.
    pub fn drawings(&self) -> Vec<(&'static str, String)> {
        match self.wide {
            true => vec![("wide", self.draw(WIDE)), ("narrow", self.draw(NARROW))],
            false => vec![("any", self.draw(NARROW))],
        }
    }

    /// Classes of the line in the legend and in the drawing.
    pub fn classes(line: &Line) -> String {
        let alternative = if line.color / COLORS % 2 == 1 { " alt" } else { "" };
        format!("c{} {}{alternative}", line.color % COLORS, line.style.class())
    }

    fn draw(&self, size: (u32, u32)) -> String {
        let mut svg = String::new();
        // Writing to a string fails for no reason; half a drawing is better than none.
        let _ = self.draw_on(SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)), size);
        self.with_classes(svg, size)
    }

    fn draw_on(&self, backend: SVGBackend, size: (u32, u32)) -> Result<(), Box<dyn std::error::Error>> {
        let root = backend.into_drawing_area();
        let (x, y) = self.ranges();
        let logarithmic = self.logarithmic && y.start > 0.0 && y.end / y.start > LARGE;
        let label =
            |color: RGBColor| ("sans-serif", LETTER * 1.24 * f64::from(FINE)).into_font().color(&color);
        let mut chart = ChartBuilder::on(&root)
            .margin(6 * FINE)
            .margin_top(if self.bands.is_empty() { 10 } else { 24 } * FINE)
            .margin_right(14 * FINE)
            .x_label_area_size(26 * FINE)
            .y_label_area_size(54 * FINE)
            .build_cartesian_2d(Axis::new(x.clone(), 8), Axis { logarithmic, ..Axis::new(y.clone(), 6) })?;
        let plot = chart.plotting_area().strip_coord_spec();
        self.draw_bands(&plot, &x)?;
        chart
            .configure_mesh()
            .axis_style(GRID)
            .bold_line_style(GRID.stroke_width(FINE))
            .light_line_style(TRANSPARENT)
            .x_labels(if size.0 > NARROW.0 { 9 } else { 5 })
            .y_labels(6)
            .set_all_tick_mark_size(4 * FINE)
            .label_style(label(TEXT))
            .draw()?;
        let columns = (f64::from(size.0) * DENSITY) as usize;
        for (index, line) in self.lines.iter().enumerate() {
            let color = color_of(index);
            for piece in &line.pieces {
                let points = thinned(piece, columns, line.style);
                let inside = points.iter().map(|&(px, py)| (px, py.clamp(y.start, y.end)));
                let width = match line.style {
                    Style::Solid => 2 * FINE,
                    Style::Raw | Style::Dots => FINE,
                };
                chart.draw_series(LineSeries::new(inside.clone(), color.stroke_width(width)))?;
                if line.style == Style::Dots {
                    chart.draw_series(inside.map(|point| Circle::new(point, 3 * FINE, color.filled())))?;
                }
            }
        }
        root.present()?;
        Ok(())
    }

    /// Stretches of the axis by turns shaded, with their names above where these fit.
    fn draw_bands(
        &self,
        plot: &DrawingArea<SVGBackend, Shift>,
        x: &Range<f64>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (width, height) = plot.dim_in_pixel();
        let place = |at: f64| ((at - x.start) / (x.end - x.start) * f64::from(width)).round() as i32;
        for (index, (from, to, name)) in self.bands.iter().enumerate() {
            let (left, right) = (place(from.clamp(x.start, x.end)), place(to.clamp(x.start, x.end)));
            if index % 2 == 0 {
                plot.draw(&Rectangle::new([(left, 0), (right, height as i32)], BAND.filled()))?;
            }
            let room = (f64::from(right - left) / f64::from(FINE) / LETTER_WIDTH) as usize;
            if room >= name.chars().count() {
                let style = ("sans-serif", LETTER * 1.24 * f64::from(FINE)).into_font().color(&TEXT);
                let style = style.pos(plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Center,
                    plotters::style::text_anchor::VPos::Bottom,
                ));
                plot.draw(&Text::new(name.clone(), ((left + right) / 2, -(4 * FINE as i32)), style))?;
            }
        }
        Ok(())
    }

    /// What is shown of both axes. Raw values decide only where there is nothing else.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = |raw: bool| {
            let lines = self.lines.iter().filter(move |line| raw || line.style != Style::Raw);
            lines.flat_map(|line| line.pieces.iter().flatten().copied())
        };
        let has_others = points(false).next().is_some();
        let x = range(points(true).map(|(x, _)| x), 0.0);
        let y = range(points(!has_others).map(|(_, y)| y), 0.06);
        let least = points(!has_others).map(|(_, y)| y).fold(f64::INFINITY, f64::min);
        // A logarithmic axis must not lose its last part to the margin.
        let low = if self.logarithmic && least > 0.0 { y.start.max(0.9 * least) } else { y.start };
        (x, low..y.end)
    }

    /// The drawing with classes in place of the colours that stand for them, and without a size of its own.
    fn with_classes(&self, svg: String, size: (u32, u32)) -> String {
        let head = format!("<svg width=\"{}\" height=\"{}\"", size.0 * FINE, size.1 * FINE);
        let mut svg = svg.replacen(&head, "<svg class=\"chart\"", 1);
        for (color, class) in [(TEXT, "ink"), (GRID, "grid"), (BAND, "band")] {
            svg = with_class(svg, color, class);
        }
        for (index, line) in self.lines.iter().enumerate() {
            svg = with_class(svg, color_of(index), &Self::classes(line));
        }
        svg
    }
}

/// Colours that stand for classes.
const TEXT: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(1, 0, 1);
const BAND: RGBColor = RGBColor(1, 0, 2);

fn color_of(line: usize) -> RGBColor {
    RGBColor(2, (line >> 8) as u8, line as u8)
}

fn with_class(svg: String, RGBColor(r, g, b): RGBColor, class: &str) -> String {
    let color = format!("#{r:02X}{g:02X}{b:02X}");
    svg.replace(&format!("stroke=\"{color}\""), &format!("class=\"{class} stroke\""))
        .replace(&format!("fill=\"{color}\""), &format!("class=\"{class} fill\""))
}

/// From the least to the largest value, with a share of that more at both ends; never empty.
fn range(values: impl Iterator<Item = f64>, more: f64) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    match high - low {
        size if size > 0.0 => low - more * size..high + more * size,
        _ if low.is_finite() => low - 0.5 * low.abs().max(1e-12)..low + 0.5 * low.abs().max(1e-12),
        _ => 0.0..1.0,
    }
}

/// At most about `columns` points. Of thin lines, what is between the extremes of each column goes.
fn thinned(points: &[(f64, f64)], columns: usize, style: Style) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(columns.max(1)).max(1);
    if group == 1 {
        return points.to_vec();
    }
    let thin = |group: &[(f64, f64)]| match style {
        Style::Raw => {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let (low, high) = (group.iter().min_by(by_value), group.iter().max_by(by_value));
            let mut ends: Vec<(f64, f64)> = low.into_iter().chain(high).copied().collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends
        }
        _ => {
            let count = group.len() as f64;
            let (x, y) = group.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
            vec![(x / count, y / count)]
        }
    };
    points.chunks(group).flat_map(thin).collect()
}

/// An axis with round numbers on it.
struct Axis {
    range: Range<f64>,
    /// About so many numbers.
    ticks: usize,
    logarithmic: bool,
}

impl Axis {
    fn new(range: Range<f64>, ticks: usize) -> Axis {
        Axis { range, ticks, logarithmic: false }
    }

    /// Distance of the numbers: 1, 2 or 5 times a power of ten.
    fn step(&self, most: usize) -> f64 {
        let least = (self.range.end - self.range.start) / most.clamp(1, self.ticks) as f64;
        let power = 10f64.powf(least.log10().floor());
        let round = [1.0, 2.0, 5.0].into_iter().find(|round| round * power >= least * 0.999);
        round.unwrap_or(10.0) * power
    }

    /// Numbers of one digit that are about equally far from each other on a logarithmic axis.
    fn round_factors(&self) -> Vec<f64> {
        let powers = self.range.start.log10().floor() as i32..=self.range.end.log10().floor() as i32;
        let inside = |digits: &[f64]| {
            let all =
                powers.clone().flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            all.filter(|x| self.range.contains(x)).collect::<Vec<f64>>()
        };
        let sets: [&[f64]; 4] = [&[1.0, 2.0, 3.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        let fits = |points: &Vec<f64>| points.len() <= 2 * self.ticks;
        sets.into_iter().map(inside).find(fits).unwrap_or_default()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let place = |x: f64| if self.logarithmic { x.ln() } else { x };
        let (start, end) = (place(self.range.start), place(self.range.end));
        let share = (place(*value) - start) / (end - start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if self.logarithmic {
            return self.round_factors();
        }
        let step = self.step(hint.max_num_points());
        let (first, last) = ((self.range.start / step).ceil(), (self.range.end / step).floor());
        let count = (last - first) as usize;
        // A range at the end of what f64 can tell apart has no round numbers.
        if !(last - first).is_finite() || count > 4 * self.ticks {
            return vec![self.range.start, self.range.end];
        }
        (0..=count).map(|i| (first + i as f64) * step).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        number(*value, if self.logarithmic { *value / 10.0 } else { self.step(self.ticks) })
    }
}

/// A multiple of `step` in few letters.
fn number(x: f64, step: f64) -> String {
    let plain = |unit: f64, name: &str| {
        let decimals = (-(step / unit).log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{:.decimals$}", x / unit);
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{}{name}", if text == "-0" { "0" } else { text })
    };
    match x.abs() {
        size if size < step / 2.0 => "0".into(),
        size if !(1e-3..1e13).contains(&size) => {
            let text = format!("{x:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        size if size >= 1e12 => plain(1e12, "T"),
        size if size >= 1e9 => plain(1e9, "B"),
        size if size >= 1e6 => plain(1e6, "M"),
        size if size >= 1e4 => plain(1e3, "K"),
        _ => plain(1.0, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let line = |style, color| Line { name: "a".into(), color, style, pieces: vec![points.clone()] };
        let lines = [Style::Raw, Style::Solid, Style::Dots].map(|style| line(style, 3));
        let bands = vec![(0.0, 10.0, "<b>&\"".into()), (10.0, 10.1, "no room".into())];
        Chart { title: "loss".into(), x: "steps", lines: lines.into(), bands, wide: true, logarithmic: true }
    }

    #[test]
    fn colours_are_left_to_the_style_sheet() {
        let chart = chart((0..=20).map(|i| (f64::from(i), 20.0 - f64::from(i))).collect());
        let drawings = chart.drawings();
        assert_eq!(drawings.len(), 2);
        for (_, svg) in drawings {
            assert!(svg.starts_with("<svg class=\"chart\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("\"#"), "{svg}");
            for class in ["c3 raw stroke", "c3 solid stroke", "c3 dots fill", "band fill", "ink fill"] {
                assert!(svg.contains(&format!("class=\"{class}\"")), "{class}: {svg}");
            }
            assert!(svg.contains("&lt;b&gt;&amp;&quot;") && !svg.contains("no room"), "{svg}");
        }
    }

    #[test]
    fn any_line_can_be_drawn() {
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(1.0, 2.0), (1.0, 2.0)],
            vec![(0.0, -1e30), (1e19, 1e30)],
            vec![(5.0, 1.0), (6.0, 1.0 + f64::EPSILON)],
            vec![(0.0, 0.0), (1e-300, 0.0)],
            (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect(),
        ] {
            let svg = chart(points).draw(NARROW);
            assert!(svg.trim_end().ends_with("</svg>") && svg.len() < 400_000, "{} {svg:.500}", svg.len());
            assert!(!svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn thin_lines_keep_their_extremes() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        (points[5_000].1, points[7_777].1) = (9.0, -3.0);
        let thin = thinned(&points, 100, Style::Raw);
        assert!(thin.len() <= 200 && thin.contains(&(5_000.0, 9.0)) && thin.contains(&(7_777.0, -3.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
        assert_eq!(thinned(&points, 100, Style::Solid).len(), 100);
    }

    #[test]
    fn logarithmic_axes_have_round_numbers() {
        let points = |range: Range<f64>| {
            let axis = Axis { logarithmic: true, ..Axis::new(range, 6) };
            axis.key_points(6).iter().map(|point| axis.format_ext(point)).collect::<Vec<_>>()
        };
        assert_eq!(points(0.27..7.3), ["0.3", "0.5", "0.7", "1", "2", "3", "5", "7"]);
        assert_eq!(points(0.9..1e7).len(), 7);
        let axis = Axis { logarithmic: true, ..Axis::new(1.0..100.0, 6) };
        assert_eq!([1.0, 10.0, 100.0].map(|value| axis.map(&value, (300, 0))), [300, 150, 0]);
    }

    #[test]
    fn axes_have_round_numbers() {
        let points = |range: Range<f64>| {
            let axis = Axis::new(range, 6);
            axis.key_points(6).iter().map(|point| axis.format_ext(point)).collect::<Vec<_>>()
        };
        assert_eq!(points(0.3..4.1), ["1", "2", "3", "4"]);
        assert_eq!(points(0.0..2_048_000.0), ["0", "500K", "1M", "1.5M", "2M"]);
        assert_eq!(points(0.0..0.002), ["0", "5e-4", "0.001", "0.0015", "0.002"]);
        assert_eq!(points(-0.01..0.071), ["0", "0.02", "0.04", "0.06"]);
        assert_eq!(points(1.0009..1.0061), ["1.001", "1.002", "1.003", "1.004", "1.005", "1.006"]);
    }
}
